//! Seed 004 over its socket, `/ws`: the four message types between two nodes, their recipients, and refusals.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};
use crate::support::social::Social;
use crate::support::two_nodes::TwoNodes;

fn admin(user: &str) -> String {
    token_with(json!({ "sub": user, "role": "admin", "exp": in_seconds(3600), "iat": in_seconds(0) }))
}

async fn acting(node: &Node, user: &str, path: &str, body: Value) -> (u16, Value) {
    post(node.http, path, &[("x-api-key", API_KEY), ("x-user-id", user)], body).await
}

fn assert_now(frame: &Value) {
    let at = frame["timestamp"].as_i64().unwrap_or_default();
    assert!((in_seconds(-60)..=in_seconds(60)).contains(&at), "the server's time in Unix seconds: {frame}");
}

/// Private messages: only to the one they are for and the sender's other devices; kept, with both ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_messages_reach_the_one_they_are_for() {
    let cluster = TwoNodes::start(&[]).await;
    let mut ann = Social::join(cluster.one.http, "7").await;
    let mut tablet = Social::join(cluster.two.http, "7").await;
    let mut bob = Social::join(cluster.two.http, "123").await;
    let mut eve = Social::join(cluster.two.http, "9").await;

    // A timestamp of the client's is not believed.
    let frame = json!({ "type": "private", "to": 123, "content": "Hello there!", "timestamp": 1_640_995_200 });
    ann.say(frame).await;
    let got = bob.expect("private").await;
    assert_eq!((&got["from"], &got["to"], &got["content"]), (&json!(7), &json!(123), &json!("Hello there!")));
    assert_now(&got);
    assert!(got["id"].is_u64() && got.get("seq").is_none() && got.get("temp_id").is_none(), "{got}");
    assert_eq!(tablet.expect("private").await, got);
    bob.say(json!({ "type": "private", "to": "7", "content": "back", "temp_id": "t1" })).await;
    let back = ann.expect("private").await;
    assert_eq!((&back["from"], &back["to"], &back["temp_id"]), (&json!(123), &json!(7), &json!("t1")));
    tablet.expect("private").await;
    for idle in [&mut ann, &mut tablet, &mut bob, &mut eve] {
        assert_eq!(idle.settle().await, Vec::<Value>::new(), "no echo, and nothing for others");
    }
    // What was sent is kept, and looks the same.
    let (status, page) =
        get(cluster.one.http, "/api/messages/private?user=7", &[("authorization", &bearer(&token("123")).1)]).await;
    assert_eq!((status, &page["items"]), (200, &json!([got, back])));
    ann.refused(json!({ "type": "private", "content": "to nobody" }), "VALIDATION_ERROR").await;
    ann.refused(json!({ "type": "private", "to": 123, "content": "" }), "VALIDATION_ERROR").await;
    ann.refused(json!({ "type": "nonsense" }), "UNKNOWN_EVENT").await;
    // The same message sent twice is one.
    bob.say(json!({ "type": "private", "to": 7, "content": "back", "temp_id": "t1" })).await;
    assert_eq!(bob.expect("private").await["id"], back["id"], "the one who repeats it is told which it was");
    assert!(ann.settle().await.is_empty());
    // Another one under the same `temp_id` is refused.
    bob.refused(json!({ "type": "private", "to": 7, "content": "more", "temp_id": "t1" }), "CONFLICT").await;
    bob.refused(json!({ "type": "private", "to": 9, "content": "back", "temp_id": "t1" }), "CONFLICT").await;
}

/// Group messages: to accepted members only, the sender's connection excluded; an invitation comes as `notification`, is
/// accepted by `join_room` and declined by `leave_room`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_messages_reach_accepted_members_only() {
    let cluster = TwoNodes::start(&[]).await;
    let node = &cluster.one;
    let mut ann = Social::join(node.http, "1").await;
    let mut bob = Social::join(cluster.two.http, "2").await;
    let mut eve = Social::join(cluster.two.http, "eve").await;
    let made = acting(node, "1", "/api/v1/conversations", json!({ "id": "789", "kind": "group" })).await;
    assert_eq!(made.0, 201, "{}", made.1);
    for invited in [json!(2), json!("eve")] {
        let body = json!({ "group_id": 789, "user_id": invited, "group_name": "Developers" });
        assert_eq!(acting(node, "1", "/api/groups/invite", body).await.0, 201);
    }
    let live = bob.expect("notification").await;
    assert_eq!((&live["subtype"], &live["group_id"]), (&json!("group_invite"), &json!(789)));
    assert_eq!(live["message"], "You were invited to join group 'Developers'");
    assert_now(&live);
    eve.expect("notification").await;
    let (_, list) = get(node.http, "/api/notifications", &[("authorization", &bearer(&token("2")).1)]).await;
    for (name, value) in live.as_object().expect("an object") {
        assert_eq!(list["items"][0].get(name), Some(value), "{name}: the list shows what the frame showed");
    }

    let hello = json!({ "type": "group", "group_id": "789", "content": "Hello everyone!" });
    ann.say(hello.clone()).await;
    ann.settle().await;
    assert!(bob.settle().await.is_empty() && eve.settle().await.is_empty(), "who is only invited gets nothing");
    bob.refused(hello.clone(), "NOT_MEMBER").await;
    bob.say(json!({ "type": "join_room", "room": "789" })).await;
    assert_eq!(bob.expect("joined_room").await["room"], "789");
    eve.say(json!({ "type": "leave_room", "room": 789 })).await;
    assert_eq!(eve.expect("left_room").await["room"], "789");
    eve.refused(json!({ "type": "join_room", "room": "789" }), "FORBIDDEN").await;

    ann.say(hello.clone()).await;
    let got = bob.expect("group").await;
    let shown = (&got["group_id"], &got["from"], &got["content"]);
    assert_eq!(shown, (&json!("789"), &json!(1), &json!("Hello everyone!")));
    assert_now(&got);
    assert!(got["id"].is_u64() && got.get("to").is_none(), "{got}");
    bob.say(json!({ "type": "group", "group_id": 789, "content": "re" })).await;
    assert_eq!(ann.expect("group").await["content"], "re");
    for idle in [&mut ann, &mut bob, &mut eve] {
        assert_eq!(idle.settle().await, Vec::<Value>::new());
    }
    ann.refused(json!({ "type": "group", "group_id": "none", "content": "x" }), "NOT_FOUND").await;
    ann.refused(json!({ "type": "group", "content": "x" }), "VALIDATION_ERROR").await;
}

/// Broadcasts: from admins and backends to everybody who is connected, whichever dialect; never kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_reaches_everybody_and_is_not_kept() {
    let cluster = TwoNodes::start(&[]).await;
    let mut root = Social::join_with(cluster.one.http, &admin("root")).await;
    let mut ann = Social::join(cluster.two.http, "1").await;
    let mut chat = Client::join(cluster.two.http, "2").await;
    let frame =
        json!({ "type": "broadcast", "content": "System maintenance in 10 minutes", "timestamp": 1_640_995_200 });
    ann.refused(frame.clone(), "FORBIDDEN").await;
    root.say(frame).await;
    for everybody in [&mut ann, &mut root] {
        let got = everybody.expect("broadcast").await;
        assert_eq!(got["content"], "System maintenance in 10 minutes");
        assert_now(&got);
    }
    let canonical = chat.expect("broadcast").await;
    assert_eq!(canonical["payload"]["content"], "System maintenance in 10 minutes");
    assert_eq!(canonical.get("seq"), None);
    let event = json!({ "type": "broadcast", "payload": { "content": "from a backend" } });
    let sent = post(cluster.two.http, "/api/v1/broadcast", &[("x-api-key", API_KEY)], json!({ "event": event })).await;
    assert_eq!(sent.0, 202);
    assert_eq!(root.expect("broadcast").await["content"], "from a backend");
    ann.expect("broadcast").await;
    let mut late = Social::join(cluster.one.http, "3").await;
    assert!(late.settle().await.is_empty(), "who comes later has missed it");
    let tables = cluster.database.client().await;
    let kept: i64 = tables.query_one("SELECT count(*) FROM messages", &[]).await.expect("a count").get(0);
    let rows: i64 = tables.query_one("SELECT count(*) FROM notifications", &[]).await.expect("a count").get(0);
    assert_eq!((kept, rows), (0, 0));
}

/// Notifications of backends, live, in the document's own words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backends_notification_is_passed_on_word_for_word() {
    let node = Node::embedded(&[]).await;
    let mut ann = Social::join(node.http, "1").await;
    let shown = json!({
        "subtype": "group_invite", "message": "You were invited to join group 'Developers'", "group_id": 789,
        "timestamp": 1_640_995_200,
    });
    let body = json!({ "users": ["1"], "event": { "type": "notification", "payload": shown }, "durable": false });
    assert_eq!(post(node.http, "/api/v1/publish", &[("x-api-key", API_KEY)], body).await.0, 202);
    let mut expected = shown.clone();
    expected["type"] = json!("notification");
    assert_eq!(ann.expect("notification").await, expected);
}

/// The document's authentication: a session cookie, looked up in Redis; and a token in a cookie. Before the upgrade.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_let_in_and_strangers_are_refused() {
    let cluster = TwoNodes::start(&[]).await;
    let node = &cluster.one;
    cluster.redis.ask("SET session:a-session 42");
    let open = async |cookie: String| Client::open(node.http, "/ws", &[("cookie", &cookie)]).await;
    let mut ann = open("theme=dark; session_id=a-session".into()).await.expect("a session lets in");
    assert_eq!(ann.expect("connected").await["user_id"], 42);
    let mut bob = Social(open(format!("token={}", token("7"))).await.expect("a token in a cookie lets in"));
    assert_eq!(bob.expect("connected").await["user_id"], 7);
    let mut ann = Social(ann);
    ann.say(json!({ "type": "private", "to": 7, "content": "by session" })).await;
    assert_eq!(bob.expect("private").await["from"], 42);
    // The same over HTTP.
    let (status, page) = get(node.http, "/api/messages/private?user=7", &[("cookie", "session_id=a-session")]).await;
    assert_eq!((status, &page["items"][0]["content"]), (200, &json!("by session")));

    for cookie in ["", "session_id=unknown", "token=nonsense"] {
        let refused = open(cookie.into()).await.err().expect("no socket for a stranger");
        assert!(refused.0.contains("401"), "{cookie}: {refused:?}");
    }
    let refused = Client::open(node.http, "/ws?token=nonsense", &[]).await.err().expect("no socket for a bad token");
    assert!(refused.0.contains("401"), "{refused:?}");
}

/// A connection is there from its upgrade to its end: it says since when, answers pings, and makes its user online.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_there_while_it_is_open() {
    let node = Node::embedded(&[]).await;
    let is_online = async || {
        let headers = [("x-api-key", API_KEY)];
        get(node.http, "/api/v1/presence?users=5", &headers).await.1["users"]["5"]["online"] == json!(true)
    };
    assert!(!is_online().await);
    let client = Client::open(node.http, &format!("/ws?token={}", token("5")), &[]).await.expect("an upgrade");
    let mut ann = Social(client);
    let connected = ann.expect("connected").await;
    assert_eq!(connected["user_id"], 5);
    assert_now(&connected);
    ann.say(json!({ "type": "ping" })).await;
    assert_now(&ann.expect("pong").await);
    let until = async |online: bool| {
        while is_online().await != online {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let patience = std::time::Duration::from_secs(10);
    tokio::time::timeout(patience, until(true)).await.expect("online while the socket is open");
    drop(ann);
    tokio::time::timeout(patience, until(false)).await.expect("and not afterwards");
}
