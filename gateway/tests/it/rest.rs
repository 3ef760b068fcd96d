//! REST: the same checks and the same path as over the socket, one shape of error.

use gateway::store::Store;
use serde_json::{Value, json};

use crate::support::caller::Caller;
use crate::support::client::Client;
use crate::support::haproxy::Haproxy;
use crate::support::http::{bearer, get, patiently, post, request};
use crate::support::nginx::Nginx;
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};
use crate::support::two_nodes::TwoNodes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_from_its_making_to_its_history() {
    let node = Node::embedded(&[]).await;
    let (a, b) = (Caller::user("a"), Caller::user("b"));
    let mut b_socket = Client::join(node.http, "b").await;
    let new = json!({ "kind": "group", "id": "team", "title": "Team", "members": ["b"] });
    let backend = Caller::acting_for("a");
    let (status, made) = backend.post(&node, "/api/v1/conversations", new.clone()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["id"], &made["memberCount"], &made["visibility"]),
        (&json!("team"), &json!(2), &json!("private"))
    );
    assert_eq!(b_socket.expect("conversation.created").await["payload"]["conversation"]["id"], "team");
    assert_eq!(backend.post(&node, "/api/v1/conversations", new).await.0, 409);

    for n in 1..=5 {
        let body = json!({ "conversationId": "team", "content": format!("m{n}") });
        let (status, sent) = a.post(&node, "/api/v1/messages", body).await;
        assert_eq!((status, &sent["message"]["seq"]), (201, &json!(n)), "{sent}");
        assert_eq!(b_socket.expect("message.new").await["payload"]["message"], sent["message"]);
    }
    let history = |query: &'static str| {
        let b = &b;
        let node = &node;
        async move {
            let (status, page) = b.get(node, &format!("/api/v1/conversations/team/messages?{query}")).await;
            assert_eq!(status, 200, "{page}");
            let seqs: Vec<u64> =
                page["items"].as_array().expect("items").iter().filter_map(|m| m["seq"].as_u64()).collect();
            (seqs, page["next"].as_str().map(str::to_owned))
        }
    };
    assert_eq!(history("").await, (vec![1, 2, 3, 4, 5], None));
    assert_eq!(history("limit=2").await, (vec![4, 5], Some("4".into())));
    assert_eq!(history("before=4&limit=2").await, (vec![2, 3], Some("2".into())));
    assert_eq!(history("after=1&limit=2").await, (vec![2, 3], Some("3".into())));
    assert_eq!(history("changedSince=3").await.0, vec![4, 5]);

    let (_, list) = b.get(&node, "/api/v1/conversations").await;
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["unread"]), (&json!("team"), &json!(5)));
    let (status, read) = b.post(&node, "/api/v1/conversations/team/read", json!({})).await;
    assert_eq!((status, &read["markedCount"]), (200, &json!(5)));
    let (_, one) = b.get(&node, "/api/v1/conversations/team").await;
    assert_eq!((&one["unread"], &one["lastMessage"]["content"]), (&json!(0), &json!("m5")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_send_is_one_message() {
    let node = Node::embedded(&[]).await;
    let a = Caller(vec![bearer(&token("a")), ("idempotency-key", "key-1".to_owned())]);
    let body = json!({ "to": "b", "content": "once" });
    let (first, sent) = a.post(&node, "/api/v1/messages", body.clone()).await;
    let (second, again) = a.post(&node, "/api/v1/messages", body).await;
    assert_eq!((first, second), (201, 200));
    assert_eq!((sent.get("duplicate"), &again["duplicate"]), (None, &json!(true)));
    assert_eq!(sent["message"], again["message"]);
    assert_eq!(sent["message"]["tempId"], "key-1");
    // Another message under the key is refused; the same one under the field of the body is the first again.
    let first = &sent["message"]["id"];
    for other in [
        json!({ "to": "b", "content": "twice" }),
        json!({ "to": "c", "content": "once" }),
        json!({ "to": "b", "content": "once", "kind": "image" }),
        json!({ "to": "b", "content": "once", "replyTo": first }),
    ] {
        let (status, refused) = a.post(&node, "/api/v1/messages", other.clone()).await;
        let error = &refused["error"];
        assert_eq!((status, &error["code"], &error["field"]), (409, &json!("CONFLICT"), &json!("tempId")), "{other}");
        assert_eq!(error["retryable"], false);
    }
    let user = Caller::user("a");
    let body = |content: &str| json!({ "to": "b", "content": content, "tempId": "key-1" });
    assert_eq!(user.post(&node, "/api/v1/messages", body("once")).await.1["message"]["id"], *first);
    assert_eq!(user.post(&node, "/api/v1/messages", body("twice")).await.0, 409);
    let mut socket = Client::join(node.http, "a").await;
    socket.send("message.send", body("twice")).await;
    let error = &socket.expect("error").await["payload"];
    assert_eq!((&error["code"], &error["field"]), (&json!("CONFLICT"), &json!("tempId")));
    assert_eq!(error["retryable"], false);
    socket.send("message.send", body("once")).await;
    assert_eq!(socket.expect("message.sent").await["payload"]["duplicate"], true);
}

/// Titles and names: titles are refused or cleaned, names of users cleaned; both have 1 to 200 characters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn titles_and_names_hold_nothing_that_hides_what_they_are() {
    let node = Node::embedded(&[]).await;
    let a = Caller::user("a");
    let longest = "ü".repeat(200);
    for (title, kept) in [("Team ü 🦜", "Team ü 🦜"), ("\u{202e}nimda\u{2069}", "nimda"), (&longest, &longest)] {
        let (status, made) = a.post(&node, "/api/v1/conversations", json!({ "kind": "group", "title": title })).await;
        assert_eq!((status, made["title"].as_str()), (201, Some(kept)), "{made}");
    }
    for title in ["", "two\nlines", "\u{1b}[31m", "\u{7f}", "\u{85}", "\u{200f}", &format!("{longest}x")] {
        let (status, refused) =
            a.post(&node, "/api/v1/conversations", json!({ "kind": "group", "title": title })).await;
        assert_eq!((status, &refused["error"]["field"]), (400, &json!("title")), "{title:?}");
    }
    let (status, refused) = request_text(&a, &node, r#"{"kind":"group","title":"cut \ud83d"}"#).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("VALIDATION_ERROR")));
    assert_eq!(refused["error"]["field"], "title");

    let claims = json!({ "sub": "b", "username": "B\u{202e}o\nb", "exp": in_seconds(60), "iat": in_seconds(0) });
    let (mut b, _) = Client::join_with(node.http, &token_with(claims)).await;
    b.settle().await;
    let mut blocker = Client::join(node.http, "a").await;
    for name in ["Bob", "B\u{202e}ob"] {
        blocker.send("block.add", json!({ "username": name })).await;
        assert_eq!(blocker.expect("block.added").await["payload"]["userId"], "b", "{name:?}");
    }
}

async fn request_text(caller: &Caller, node: &Node, body: &'static str) -> (u16, Value) {
    request(node.http, "POST", "/api/v1/conversations", &caller.headers(), body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_kept() {
    let node = Node::embedded(&[]).await;
    let (owner, member, other) = (Caller::user("owner"), Caller::user("member"), Caller::user("other"));
    let new = json!({ "kind": "group", "id": "g", "members": ["member"] });
    assert_eq!(Caller::acting_for("owner").post(&node, "/api/v1/conversations", new).await.0, 201);
    let code = |(status, body): (u16, Value)| (status, body["error"]["code"].as_str().unwrap_or("").to_owned());
    let refused = |status: u16, code: &str| (status, code.to_owned());

    assert_eq!(code(other.get(&node, "/api/v1/conversations/g").await), refused(403, "NOT_MEMBER"));
    assert_eq!(code(other.get(&node, "/api/v1/conversations/g/messages").await), refused(403, "NOT_MEMBER"));
    let body = json!({ "conversationId": "g", "content": "x" });
    assert_eq!(code(other.post(&node, "/api/v1/messages", body.clone()).await), refused(403, "NOT_MEMBER"));
    let add = json!({ "userId": "other" });
    assert_eq!(
        code(member.post(&node, "/api/v1/conversations/g/members", add.clone()).await),
        refused(403, "FORBIDDEN")
    );
    assert_eq!(code(member.delete(&node, "/api/v1/conversations/g/members/owner").await), refused(403, "FORBIDDEN"));
    assert_eq!(owner.post(&node, "/api/v1/conversations/g/members", add).await.0, 200);
    assert_eq!(other.post(&node, "/api/v1/messages", body.clone()).await.0, 201);
    assert_eq!(owner.post(&node, "/api/v1/conversations/g/bans", json!({ "userId": "other" })).await.0, 204);
    assert_eq!(code(other.post(&node, "/api/v1/messages", body.clone()).await), refused(403, "BANNED"));
    assert_eq!(code(other.post(&node, "/api/v1/conversations/g/join", json!({})).await), refused(403, "BANNED"));

    let publish = json!({ "users": ["a"], "event": { "type": "notification", "payload": {} } });
    assert_eq!(code(member.post(&node, "/api/v1/publish", publish).await), refused(403, "FORBIDDEN"));
    assert_eq!(code(get(node.http, "/api/v1/conversations", &[]).await), refused(401, "UNAUTHENTICATED"));
    let wrong = [("x-api-key", "wrong")];
    assert_eq!(code(get(node.http, "/api/v1/conversations", &wrong).await), refused(401, "UNAUTHENTICATED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_with_a_password() {
    let node = Node::embedded(&[]).await;
    let new = json!({ "kind": "channel", "id": "lounge", "password": "s3cret" });
    let a = Caller::acting_for("a");
    let (status, made) = patiently(|| a.post(&node, "/api/v1/conversations", new.clone())).await;
    assert_eq!((status, &made["hasPassword"], &made["visibility"]), (201, &json!(true), &json!("public")));
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    for wrong in [json!({ "conversationId": "lounge" }), json!({ "conversationId": "lounge", "password": "no" })] {
        b.send("conversation.join", wrong).await;
        assert_eq!(b.expect("error").await["payload"]["code"], "PASSWORD_REQUIRED");
    }
    b.send("conversation.join", json!({ "conversationId": "lounge", "password": "s3cret" })).await;
    assert_eq!(b.expect("conversation.joined").await["payload"]["conversation"]["id"], "lounge");
    let mut event = a.expect("member.joined").await;
    let version = event["payload"]["version"].take().as_u64().expect("a version");
    let joined = json!({ "conversationId": "lounge", "userId": "b", "username": "name-of-b", "version": null });
    assert_eq!(event["payload"], joined);
    b.send("conversation.leave", json!({ "conversationId": "lounge" })).await;
    assert_eq!(b.expect("conversation.left").await["payload"], json!({ "conversationId": "lounge" }));
    let left = a.expect("member.left").await;
    assert_eq!(left["payload"]["userId"], "b");
    assert!(left["payload"]["version"].as_u64().is_some_and(|later| later > version), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_publish_broadcast_and_disconnect() {
    let node = Node::embedded(&[]).await;
    let backend = Caller::backend();
    let mut a = Client::join(node.http, "a").await;
    let event = json!({ "type": "notification", "payload": { "subtype": "order", "n": 1 } });
    let publish = json!({ "users": ["a", "a"], "event": event });
    assert_eq!(backend.post(&node, "/api/v1/publish", publish).await.0, 202);
    let got = a.expect("notification").await;
    assert_eq!((&got["payload"]["n"], &got["seq"]), (&json!(1), &json!(1)));
    let publish = json!({ "users": ["a"], "event": event, "durable": false });
    assert_eq!(backend.post(&node, "/api/v1/publish", publish).await.0, 202);
    assert_eq!(a.expect("notification").await.get("seq"), None);
    let broadcast = json!({ "event": { "type": "maintenance", "payload": { "at": "noon" } } });
    assert_eq!(backend.post(&node, "/api/v1/broadcast", broadcast).await.0, 202);
    assert_eq!(a.expect("maintenance").await["payload"]["at"], "noon");

    let (status, sent) =
        Caller::acting_for("c").post(&node, "/api/v1/messages", json!({ "to": "a", "content": "hi" })).await;
    assert_eq!((status, &sent["message"]["senderId"]), (201, &json!("c")));
    let (status, presence) = backend.get(&node, "/api/v1/presence?users=a,b").await;
    assert_eq!(
        (status, &presence["users"]["a"]["online"], &presence["users"]["b"]["online"]),
        (200, &json!(true), &json!(false))
    );
    let (status, stats) = backend.get(&node, "/api/v1/internal/chat/ws/stats").await;
    assert_eq!((status, &stats["connections"], &stats["users"]), (200, &json!(1), &json!(1)));

    assert_eq!(backend.post(&node, "/api/v1/control/disconnect", json!({ "userId": "a" })).await.0, 202);
    assert_eq!(a.expect_close().await, 4202);
    let mut a = Client::join(node.http, "a").await;
    let old = token_with(json!({ "sub": "a", "exp": in_seconds(60), "iat": in_seconds(-5) }));
    assert_eq!(backend.post(&node, "/api/v1/control/revoke", json!({ "userId": "a" })).await.0, 202);
    assert_eq!(a.expect_close().await, 4002);
    let mut refused = Client::open(node.http, &format!("/chat/ws?token={old}"), &[]).await.expect("upgrade");
    refused.expect("auth_failed").await;
    assert_eq!(refused.expect_close().await, 4002);
    assert_eq!(get(node.http, "/api/v1/conversations", &[("authorization", &format!("Bearer {old}"))]).await.0, 401);
}

/// An event that tells clients their position, or nodes what isn't stored yet, is refused; it would be dropped or do harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_publish_no_event_of_the_servers_own() {
    let node = Node::embedded(&[]).await;
    let backend = Caller::backend();
    let mut a = Client::join(node.http, "a").await;
    for kind in ["message.live", "resync", "position", "goaway", "auth_success", "auth_failed", "conversation.resync"] {
        let event = json!({ "type": kind, "payload": { "event": {} } });
        for (path, body) in [
            ("/api/v1/publish", json!({ "users": ["a"], "event": event })),
            ("/api/v1/publish", json!({ "users": ["a"], "event": event, "durable": false })),
            ("/api/v1/broadcast", json!({ "event": event })),
        ] {
            let (status, answer) = backend.post(&node, path, body).await;
            assert_eq!((status, &answer["error"]["field"]), (400, &json!("event.type")), "{kind} {path}: {answer}");
        }
    }
    let event = json!({ "type": "order.shipped", "payload": {} });
    let publish = json!({ "users": ["a"], "event": event });
    assert_eq!(backend.post(&node, "/api/v1/publish", publish).await.0, 202);
    assert_eq!(a.expect("order.shipped").await["seq"], 1, "nothing stands before it");
}

/// Who gave an order stands in the audit trail: an admin, a backend, or a backend for a user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_names_its_giver_in_the_audit_trail() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("parley.db");
    let node = Node::embedded(&[("DATABASE_URL", &format!("sqlite:{}", file.display()))]).await;
    let admin = token_with(json!({ "sub": "boss", "scope": "admin", "exp": in_seconds(60), "iat": in_seconds(0) }));
    let admin = format!("Bearer {admin}");
    let event = json!({ "type": "x.y", "payload": {} });
    let orders = [
        ("/api/v1/control/disconnect", json!({ "userId": "a", "reason": "spam" })),
        ("/api/v1/control/revoke", json!({ "userId": "a" })),
        ("/api/v1/publish", json!({ "users": ["a", "b"], "event": event, "durable": false })),
        ("/api/v1/broadcast", json!({ "event": event })),
    ];
    let callers: [Vec<(&str, &str)>; 3] = [
        vec![("authorization", &admin)],
        vec![("x-api-key", API_KEY)],
        vec![("x-api-key", API_KEY), ("x-user-id", "c")],
    ];
    for caller in &callers {
        for (path, body) in &orders {
            assert_eq!(post(node.http, path, caller, body.clone()).await.0, 202, "{path}");
        }
    }
    // Refused ones aren't orders.
    let (_, value) = bearer(&token("u"));
    assert_eq!(post(node.http, orders[1].0, &[("authorization", &value)], orders[1].1.clone()).await.0, 403);
    let lines = async || {
        let connection = rusqlite::Connection::open(&file).expect("the file is there");
        let sql = "SELECT kind, user_id, detail FROM audit WHERE kind LIKE '%_ordered' ORDER BY id";
        let mut statement = connection.prepare(sql).expect("the table is there");
        let line = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let lines: Result<Vec<(String, Option<String>, String)>, _> =
            statement.query_map([], line).expect("rows").collect();
        lines.expect("lines")
    };
    for _ in 0..100 {
        if lines().await.len() >= 12 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let lines = lines().await;
    assert_eq!(lines.len(), 12, "{lines:?}");
    let givers = [(json!("boss"), json!(false), json!(null)), (json!(null), json!(true), json!(null))];
    let givers = givers.into_iter().chain([(json!(null), json!(true), json!("c"))]);
    for (lines, (by, backend, acting_for)) in lines.chunks(4).zip(givers) {
        let kinds: Vec<&str> = lines.iter().map(|line| line.0.as_str()).collect();
        assert_eq!(kinds, ["disconnect_ordered", "revoke_ordered", "publish_ordered", "broadcast_ordered"]);
        for (_, _, detail) in lines {
            let detail: serde_json::Value = serde_json::from_str(detail).expect("JSON");
            assert_eq!((&detail["by"], &detail["backend"], &detail["actingFor"]), (&by, &backend, &acting_for));
        }
        assert_eq!(lines[0].1.as_deref(), Some("a"));
        assert_eq!((lines[2].1.as_deref(), lines[3].1.as_deref()), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_have_the_one_shape() {
    let node = Node::embedded(&[]).await;
    let a = Caller::user("a");
    for (path, body, status, code, field) in [
        ("/api/v1/conversations", "{", 400, "INVALID_MESSAGE", None),
        ("/api/v1/conversations", "{}", 400, "VALIDATION_ERROR", None),
        ("/api/v1/conversations", r#"{"kind":"club"}"#, 400, "VALIDATION_ERROR", Some("kind")),
        ("/api/v1/conversations", r#"{"kind":"group","members":["a b"]}"#, 400, "VALIDATION_ERROR", Some("members[0]")),
        ("/api/v1/conversations", r#"{"kind":"group","extra":1}"#, 400, "VALIDATION_ERROR", Some("extra")),
        ("/api/v1/messages", r#"{"to":"b"}"#, 400, "VALIDATION_ERROR", Some("content")),
        ("/api/v1/messages", r#"{"to":"b","content":"x"},"type":"ping""#, 400, "INVALID_MESSAGE", None),
        ("/api/v1/messages", "[]", 400, "INVALID_MESSAGE", None),
        ("/api/v1/messages", r#"{"conversationId":"none","content":"x"}"#, 404, "NOT_FOUND", None),
    ] {
        let (got, answer) = request(node.http, "POST", path, &a.headers(), body).await;
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{body}: {answer}");
        assert_eq!(answer["error"]["field"].as_str(), field, "{body}: {answer}");
        assert!(answer["error"]["message"].is_string() && answer["error"]["retryable"].is_boolean());
    }
    let (status, answer) = a.get(&node, "/api/v1/conversations/c/messages?after=x").await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("VALIDATION_ERROR")));
    let (status, answer) = request(node.http, "PUT", "/api/v1/messages", &a.headers(), "").await;
    assert_eq!((status, &answer["error"]["code"]), (405, &json!("NOT_FOUND")));
    let huge = "x".repeat(3 << 20);
    let (status, answer) = request(node.http, "POST", "/api/v1/messages", &a.headers(), huge).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("PAYLOAD_TOO_LARGE")));
}

/// Issuers give ids like `auth0|…` and addresses with a tag: good in keys, channels, paths and queries, and in both stores.
async fn ids_of_issuers_work(one: &Node, two: &Node) {
    let (a, b) = ("auth0|5f7c", "name+tag@host.test");
    let mut from = Client::join(one.http, a).await;
    let mut to = Client::join(two.http, b).await;
    from.send("message.send", json!({ "to": b, "content": "hello", "tempId": "t" })).await;
    let new = to.expect("message.new").await;
    assert_eq!(new["payload"]["message"]["senderId"], a);
    let conversation = new["payload"]["message"]["conversationId"].as_str().expect("an id").to_owned();
    to.send("message.read", json!({ "conversationId": conversation })).await;
    assert_eq!(from.expect("message.read_update").await["payload"]["readBy"], b);

    let backend = Caller::backend();
    let group = json!({ "kind": "group", "id": "org|1+1", "title": "Team", "members": [a, b] });
    assert_eq!(Caller::acting_for(a).post(one, "/api/v1/conversations", group).await.0, 201);
    let (status, page) = Caller::user(b).get(two, "/api/v1/conversations").await;
    assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(2)), "{page}");
    let path = "/api/v1/conversations/org%7C1%2B1";
    assert_eq!(backend.get(two, path).await.1["id"], "org|1+1");
    let (status, kicked) = Caller::acting_for(a).delete(one, &format!("{path}/members/name%2Btag@host.test")).await;
    assert!(status < 300, "{kicked}");
    let presence = backend.get(two, "/api/v1/presence?users=auth0%7C5f7c,name%2Btag@host.test").await.1;
    assert_eq!(
        (&presence["users"][a]["online"], &presence["users"][b]["online"]),
        (&json!(true), &json!(true)),
        "{presence}"
    );
    from.send("block.add", json!({ "userId": b })).await;
    assert_eq!(from.expect("block.added").await["payload"]["userId"], b);
    assert_eq!(backend.post(one, "/api/v1/control/disconnect", json!({ "userId": b })).await.0, 202);
    while !matches!(to.next().await, crate::support::client::Incoming::Closed(..)) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_issuers_work_on_two_nodes() {
    let nodes = crate::support::two_nodes::TwoNodes::start(&[]).await;
    ids_of_issuers_work(&nodes.one, &nodes.two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_issuers_work_in_memory() {
    let node = Node::embedded(&[]).await;
    ids_of_issuers_work(&node, &node).await;
}

/// Users choose no ids; generated ones are numbers that nobody chooses, and a taken one is passed over.
async fn generated_ids_are_the_servers_alone(node: &Node, store: &std::sync::Arc<dyn Store>) {
    let admin = token_with(json!({ "sub": "root", "exp": in_seconds(60), "scope": "admin" }));
    let (a, admin) = (Caller::user("a"), Caller(vec![bearer(&admin)]));
    let conversations = "/api/v1/conversations";
    for kind in ["group", "channel", "direct"] {
        let chosen = json!({ "id": format!("chosen-{kind}"), "kind": kind, "members": ["b"] });
        let (status, answer) = a.post(node, conversations, chosen.clone()).await;
        let error = &answer["error"];
        assert_eq!((status, &error["code"], &error["field"]), (403, &json!("FORBIDDEN"), &json!("id")), "{answer}");
        assert_eq!(admin.post(node, conversations, chosen).await.0, 201, "{kind} by an admin");
        for reserved in ["4503599627370496", "9007199254740991", "9007199254740992", "123456789012345678901"] {
            let body = json!({ "id": reserved, "kind": kind, "members": ["b", "c"] });
            let (status, answer) = Caller::backend().post(node, conversations, body).await;
            let error = &answer["error"];
            assert_eq!((status, &error["code"]), (400, &json!("VALIDATION_ERROR")), "{kind} {reserved} {answer}");
            assert_eq!(error["field"], "id");
        }
    }
    let number = |id: &Value| id.as_str().and_then(|id| id.parse::<u64>().ok()).expect("a number");
    let (_, made) = a.post(node, conversations, json!({ "kind": "group" })).await;
    let first = number(&made["id"]);
    assert!((1 << 52..1 << 53).contains(&first), "{made}");
    let (status, sent) = a.post(node, "/api/v1/messages", json!({ "to": "b", "content": "first" })).await;
    assert_eq!(status, 201, "{sent}");
    let opened = number(&sent["message"]["conversationId"]);
    assert!((first + 1..1 << 53).contains(&opened), "{sent}");
    // An earlier version let applications choose these.
    for taken in opened + 1..opened + 300 {
        let group = crate::store::group_of(&taken.to_string(), shared::Visibility::Private, None, &[]);
        store.create_conversation(&group, crate::store::silent()).await.expect("it is free");
    }
    let (status, made) = a.post(node, conversations, json!({ "kind": "group" })).await;
    assert_eq!(status, 201, "{made}");
    assert!(number(&made["id"]) >= opened + 300, "{made}");
    assert_eq!(a.post(node, conversations, json!({ "kind": "direct", "members": ["c"] })).await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_ids_are_the_servers_alone_on_postgres() {
    let nodes = crate::support::two_nodes::TwoNodes::start(&[]).await;
    let store = gateway::store::connect(&nodes.database.url).await.expect("a store");
    generated_ids_are_the_servers_alone(&nodes.one, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_ids_are_the_servers_alone_on_sqlite() {
    let (world, redis) = (crate::store::World::sqlite().await, crate::support::redis::Redis::start());
    let node = Node::serve(&redis.url(), &world.url, &[("USER_COMMANDS_PER_SECOND", "0")]).await;
    node.wait_ready(true).await;
    generated_ids_are_the_servers_alone(&node, &world.store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_owner_is_named_before_the_last_one_goes() {
    let node = Node::embedded(&[]).await;
    let (o, m) = (Caller::user("o"), Caller::user("m"));
    let (_, made) = o.post(&node, "/api/v1/conversations", json!({ "kind": "group", "members": ["m", "n"] })).await;
    let path = format!("/api/v1/conversations/{}", made["id"].as_str().expect("an id"));
    let patch = async |who: &Caller, member: &str, role: &str| {
        let body = json!({ "role": role }).to_string();
        request(node.http, "PATCH", &format!("{path}/members/{member}"), &who.headers(), body).await
    };
    let conflict = |(status, answer): (u16, Value)| {
        let error = &answer["error"];
        assert_eq!((status, &error["code"], &error["field"]), (409, &json!("CONFLICT"), &json!("role")), "{answer}");
        let way_out = r#"name another owner first: PATCH …/members/{userId} {"role":"owner"}"#;
        assert_eq!(error["message"], way_out);
    };
    conflict(o.post(&node, &format!("{path}/leave"), json!({})).await);
    conflict(patch(&o, "o", "admin").await);
    conflict(o.delete(&node, &format!("{path}/members/o")).await);
    conflict(o.post(&node, &format!("{path}/bans"), json!({ "userId": "o" })).await);
    assert_eq!(patch(&m, "m", "owner").await.0, 403);
    assert_eq!(patch(&o, "m", "owner").await.0, 200);
    let (status, group) = patch(&Caller::backend(), "n", "owner").await;
    let owners = group["members"].as_array().into_iter().flatten().filter(|member| member["role"] == "owner").count();
    assert_eq!((status, owners), (200, 3), "{group}");
    assert_eq!(o.post(&node, &format!("{path}/leave"), json!({})).await.0, 204);
    assert_eq!(patch(&m, "m", "member").await.0, 200);
}

/// A client that follows `next` sees every conversation, though one is left and another gets a message between two pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_over_conversations_skips_none() {
    let node = Node::embedded(&[]).await;
    let (a, b) = (Caller::user("a"), Caller::acting_for("b"));
    let ids = ["1", "2", "3", "org|4+4", "5", "6", "7"];
    for id in ids {
        let new = json!({ "id": id, "kind": "group", "visibility": "public", "members": ["a"] });
        assert_eq!(b.post(&node, "/api/v1/conversations", new).await.0, 201);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for page in 0..20 {
        let (status, list) = a.get(&node, &format!("/api/v1/conversations?limit=2{cursor}")).await;
        assert_eq!(status, 200, "{list}");
        let items = list["items"].as_array().expect("items");
        seen.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        let Some(next) = list["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
        if page == 0 {
            assert_eq!(a.post(&node, &format!("/api/v1/conversations/{}/leave", seen[0]), json!({})).await.0, 204);
            let body = json!({ "conversationId": "1", "content": "meanwhile" });
            assert_eq!(b.post(&node, "/api/v1/messages", body).await.0, 201);
        }
        assert!(page < 19, "a walk ends");
    }
    assert!(ids.iter().all(|id| seen.iter().any(|seen| seen == id)), "{seen:?}");
}

/// The configurations of the proxies let pass what REST takes, and what is larger is answered by a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_the_proxies() {
    let cluster = TwoNodes::start(&[]).await;
    let nginx = Nginx::before(&cluster.one, &cluster.two).await;
    let haproxy = Haproxy::before(&cluster.one, &cluster.two).await;
    let backend = Caller::backend();
    let members: Vec<String> = (0..9_999).map(|n| format!("{n:0>128}")).collect();
    let team = json!({ "kind": "group", "members": members }).to_string();
    assert!(team.len() > 1_200_000);
    let huge = format!(r#"{{"kind":"group","title":"{}"}}"#, "x".repeat(2 << 20));
    for proxy in [nginx.address, haproxy.address] {
        let (status, made) = request(proxy, "POST", "/api/v1/conversations", &backend.headers(), team.clone()).await;
        assert_eq!((status, &made["memberCount"]), (201, &json!(9_999)));
    }
    let (status, refused) = request(nginx.address, "POST", "/api/v1/conversations", &backend.headers(), huge).await;
    assert_eq!((status, &refused["error"]["code"]), (413, &json!("PAYLOAD_TOO_LARGE")), "nginx itself has no JSON");
}
