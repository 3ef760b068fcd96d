//! Seed 003: channels with rights, the audit trail, and operators' views. The frames are in `channels_frames`.

use std::time::Duration;

use gateway::audit::audit_trail;
use gateway::metrics::{Metrics, recorder};
use serde_json::{Value, json};

use crate::store::{conversation, user};
use crate::support::client::Client;
use crate::support::http::{bearer, get, request};
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};
use crate::support::postgres::Postgres;
use crate::support::two_nodes::{TwoNodes, acting};

/// One request of a user; the status and the code of the error, or the body.
async fn ask(node: &Node, who: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (name, value) = bearer(&token(who));
    let path = format!("/api/v1/conversations{path}");
    let (status, answer) = request(node.http, method, &path, &[(name, &value)], body.to_string()).await;
    let code = answer["error"]["code"].clone();
    (status, if code.is_null() { answer } else { code })
}

fn refused(status: u16, code: &str) -> (u16, Value) {
    (status, code.into())
}

/// The `code` of the next error frame.
async fn error_code(client: &mut Client) -> Value {
    client.expect("error").await["payload"]["code"].take()
}

async fn channel(node: &Node, new: Value) {
    let (status, made) = acting(node.http, "POST", "/api/v1/conversations", "o", new).await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_do_what_in_a_channel() {
    let node = Node::embedded(&[]).await;
    channel(&node, json!({ "kind": "channel", "id": "c", "members": ["a", "m"] })).await;
    assert_eq!(ask(&node, "o", "PATCH", "/c/members/a", json!({ "role": "admin" })).await.0, 200);
    let (mut o, mut m) = (Client::join(node.http, "o").await, Client::join(node.http, "m").await);

    for (who, target) in [("a", "o"), ("m", "a"), ("m", "o")] {
        let path = format!("/c/members/{target}");
        assert_eq!(ask(&node, who, "DELETE", &path, json!({})).await, refused(403, "FORBIDDEN"), "{who} {target}");
        let ban = json!({ "userId": target });
        assert_eq!(ask(&node, who, "POST", "/c/bans", ban).await, refused(403, "FORBIDDEN"), "{who} {target}");
    }
    assert_eq!(ask(&node, "a", "PATCH", "/c/members/m", json!({ "role": "admin" })).await, refused(403, "FORBIDDEN"));
    assert_eq!(ask(&node, "x", "POST", "/c/bans", json!({ "userId": "m" })).await, refused(403, "NOT_MEMBER"));
    assert_eq!(ask(&node, "o", "POST", "/c/leave", json!({})).await, refused(409, "CONFLICT"));

    // Banned: told, out at once, and kept out until the ban is lifted.
    m.send("typing", json!({ "conversationId": "c", "isTyping": true })).await;
    assert_eq!(o.expect("typing").await["payload"]["isTyping"], true);
    assert_eq!(ask(&node, "a", "POST", "/c/bans", json!({ "userId": "m" })).await.0, 204);
    assert_eq!(m.expect("conversation.left").await["payload"]["conversationId"], "c");
    assert_eq!(o.expect("member.left").await["payload"]["userId"], "m");
    assert_eq!(o.expect("typing").await["payload"]["isTyping"], false, "a ban ends typing");
    m.send("message.send", json!({ "conversationId": "c", "content": "x" })).await;
    assert_eq!(error_code(&mut m).await, "BANNED");
    m.send("conversation.join", json!({ "conversationId": "c" })).await;
    assert_eq!(error_code(&mut m).await, "BANNED");
    m.send("typing", json!({ "conversationId": "c", "isTyping": true })).await;
    assert_eq!(error_code(&mut m).await, "BANNED");
    m.send("message.read", json!({ "conversationId": "c" })).await;
    assert_eq!(error_code(&mut m).await, "BANNED");
    assert_eq!(ask(&node, "m", "GET", "/c/messages", json!({})).await, refused(403, "BANNED"));
    assert_eq!(ask(&node, "a", "POST", "/c/members", json!({ "userId": "m" })).await, refused(403, "BANNED"));
    let (status, added) = ask(&node, "a", "POST", "/c/members", json!({ "userIds": ["m", "n"] })).await;
    assert_eq!((status, &added["added"], &added["banned"]), (200, &json!(["n"]), &json!(["m"])));
    assert_eq!(o.expect("member.joined").await["payload"]["userId"], "n", "each newcomer is told of");
    assert_eq!(ask(&node, "a", "DELETE", "/c/bans/m", json!({})).await.0, 204);
    m.send("conversation.join", json!({ "conversationId": "c" })).await;
    assert_eq!(m.expect("conversation.joined").await["payload"]["conversation"]["id"], "c");
    assert_eq!(o.expect("member.joined").await["payload"]["userId"], "m");

    // Kicked: out, but not kept out.
    assert_eq!(ask(&node, "a", "DELETE", "/c/members/m", json!({})).await.0, 204);
    m.expect("conversation.left").await;
    m.send("message.send", json!({ "conversationId": "c", "content": "x" })).await;
    assert_eq!(error_code(&mut m).await, "NOT_MEMBER");
    assert_eq!(ask(&node, "m", "POST", "/c/join", json!({})).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_come_in() {
    let node = Node::embedded(&[]).await;
    channel(&node, json!({ "kind": "channel", "id": "open" })).await;
    channel(&node, json!({ "kind": "channel", "id": "closed", "visibility": "private" })).await;
    channel(&node, json!({ "kind": "channel", "id": "guarded", "password": "s3cret" })).await;
    assert_eq!(ask(&node, "m", "POST", "/open/join", json!({})).await.0, 200);
    assert_eq!(ask(&node, "m", "POST", "/closed/join", json!({})).await, refused(403, "FORBIDDEN"));
    assert_eq!(ask(&node, "m", "POST", "/guarded/join", json!({})).await, refused(403, "PASSWORD_REQUIRED"));
    let wrong = json!({ "password": "guess" });
    assert_eq!(ask(&node, "m", "POST", "/guarded/join", wrong).await, refused(403, "PASSWORD_REQUIRED"));
    assert_eq!(ask(&node, "m", "POST", "/guarded/join", json!({ "password": "s3cret" })).await.0, 200);
    assert_eq!(ask(&node, "m", "POST", "/nowhere/join", json!({})).await, refused(404, "NOT_FOUND"));
    for channel in ["closed", "guarded"] {
        let invites = format!("/{channel}/invites");
        assert_eq!(ask(&node, "o", "POST", &invites, json!({ "userId": "guest" })).await.0, 204);
        assert_eq!(ask(&node, "guest", "POST", &format!("/{channel}/join"), json!({})).await.0, 200);
    }
}

/// Guessing a channel's password has a rate for each user and channel; others, and other channels, notice nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_not_guessed() {
    let node = Node::embedded(&[("USER_COMMANDS_PER_SECOND", "0")]).await;
    for id in ["guarded", "other"] {
        channel(&node, json!({ "kind": "channel", "id": id, "password": "s3cret" })).await;
    }
    for n in 0..5 {
        let guess = json!({ "password": format!("guess-{n}") });
        assert_eq!(ask(&node, "g", "POST", "/guarded/join", guess).await, refused(403, "PASSWORD_REQUIRED"), "{n}");
    }
    let right = json!({ "password": "s3cret" });
    assert_eq!(ask(&node, "g", "POST", "/guarded/join", right).await, refused(429, "RATE_LIMITED"));
    assert_eq!(ask(&node, "g", "POST", "/other/join", json!({ "password": "s3cret" })).await.0, 200);
    assert_eq!(ask(&node, "h", "POST", "/guarded/join", json!({ "password": "s3cret" })).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_reaches_the_other_node_and_everything_is_written_down() {
    let cluster = TwoNodes::start(&[]).await;
    channel(&cluster.one, json!({ "kind": "channel", "id": "c" })).await;
    let mut o = Client::join(cluster.one.http, "o").await;
    let mut m = Client::join(cluster.two.http, "m").await;
    m.send("conversation.join", json!({ "conversationId": "c" })).await;
    o.expect("member.joined").await;
    m.expect("conversation.joined").await;
    m.send("typing", json!({ "conversationId": "c", "isTyping": true })).await;
    assert_eq!(o.expect("typing").await["payload"]["isTyping"], true);
    m.send("message.send", json!({ "conversationId": "c", "content": "a secret" })).await;
    let sent = m.expect("message.sent").await["payload"]["message"]["id"].clone();
    for content in ["another secret", "another secret"] {
        // The second time nothing changes, and nothing is written down.
        m.send("message.edit", json!({ "messageId": sent, "content": content })).await;
        m.expect("message.edited").await;
    }
    o.send("message.delete", json!({ "messageId": sent })).await;
    m.expect("message.deleted").await;
    m.send("typing", json!({ "conversationId": "c", "isTyping": true })).await;
    for is_typing in [false, true] {
        assert_eq!(o.expect("typing").await["payload"]["isTyping"], is_typing);
    }
    assert_eq!(ask(&cluster.one, "o", "DELETE", "/c/members/m", json!({})).await.0, 204);
    assert_eq!(o.expect("typing").await["payload"]["isTyping"], false, "long before the six seconds of silence");
    m.expect("conversation.left").await;
    m.send("typing", json!({ "conversationId": "c", "isTyping": true })).await;
    assert_eq!(error_code(&mut m).await, "NOT_MEMBER");
    assert_eq!(ask(&cluster.one, "o", "POST", "/c/bans", json!({ "userId": "m" })).await.0, 204);
    // A backend, in its own name and for a user, and an admin who tells everybody.
    let say = async |method: &'static str, path: &str, acts_for: Option<&str>, body: Value| {
        let mut headers = vec![("x-api-key", API_KEY), ("content-type", "application/json")];
        headers.extend(acts_for.map(|user| ("x-user-id", user)));
        let path = format!("/api/v1/conversations/c{path}");
        let (status, answer) = request(cluster.one.http, method, &path, &headers, body.to_string()).await;
        assert!((200..300).contains(&status), "{answer}");
    };
    say("POST", "/members", None, json!({ "userId": "x" })).await;
    say("PATCH", "/members/x", Some("o"), json!({ "role": "admin" })).await;
    say("POST", "/leave", Some("x"), json!({})).await;
    say("POST", "/members", Some("o"), json!({ "userIds": ["x"] })).await;
    say("DELETE", "/members/x", Some("o"), json!({})).await;
    say("POST", "/bans", None, json!({ "userId": "x" })).await;
    let root = token_with(json!({ "sub": "root", "scope": "admin", "exp": in_seconds(60), "iat": in_seconds(0) }));
    let mut everywhere = Client::open(cluster.one.http, &format!("/ws?token={root}"), &[]).await.expect("an upgrade");
    everywhere.send_text(r#"{"type":"broadcast","content":"tidings"}"#).await;
    crate::support::flat::settle(&mut everywhere).await;
    drop((o, m, everywhere));

    // Drained nodes have written everything.
    let TwoNodes { redis, database, one, two } = cluster;
    let (one, two) = tokio::join!(one.app.drain(), two.app.drain());
    one.and(two).expect("both stop, and every part of them");
    let sql = "SELECT kind, user_id, conversation_id, connection_id, detail FROM audit ORDER BY at, id";
    let rows = database.client().await.query(sql, &[]).await.expect("the table is there");
    let of = |who: &str| -> Vec<(String, Option<String>, bool)> {
        let rows = rows.iter().filter(|row| row.get::<_, Option<&str>>("user_id") == Some(who));
        rows.map(|row| (row.get(0), row.get(2), row.get::<_, Option<&str>>(3).is_some())).collect()
    };
    let in_channel = |kind: &str| (kind.to_owned(), Some("c".to_owned()), false);
    let on_connection = |kind: &str| (kind.to_owned(), None, true);
    assert_eq!(of("o"), [on_connection("connection_opened"), on_connection("connection_closed")]);
    let expected = [
        on_connection("connection_opened"),
        in_channel("joined"),
        in_channel("message"),
        in_channel("message_edited"),
        in_channel("message_deleted"),
        in_channel("kicked"),
        in_channel("banned"),
        on_connection("connection_closed"),
    ];
    assert_eq!(of("m"), expected);
    let details: String = rows.iter().filter_map(|row| row.get::<_, Option<String>>("detail")).collect();
    assert!(details.contains(r#"{"by":"o"}"#) && details.contains("messageId"), "{details}");
    assert!(details.contains(r#"{"by":"o","messageId""#), "who deleted it: {details}");
    let by = |kind: &str, who: Option<&str>| -> Vec<String> {
        let rows = rows.iter().filter(|row| row.get::<_, &str>("kind") == kind);
        let rows = rows.filter(|row| row.get::<_, Option<&str>>("user_id") == who);
        rows.filter_map(|row| row.get::<_, Option<String>>("detail")).collect()
    };
    let (backend, for_o) =
        (r#""actingFor":null,"backend":true,"by":null"#, r#""actingFor":"o","backend":true,"by":null"#);
    assert_eq!(
        by("added", Some("x")),
        [format!(r#"{{{backend},"role":"member"}}"#), format!(r#"{{{for_o},"role":"member"}}"#)]
    );
    assert_eq!(by("role_changed", Some("x")), [format!(r#"{{{for_o},"role":"admin"}}"#)]);
    assert_eq!(by("left", Some("x")), [r#"{"actingFor":"x","backend":true,"by":null}"#]);
    assert_eq!(by("kicked", Some("x")), [format!("{{{for_o}}}")]);
    assert_eq!(by("banned", Some("x")), [format!("{{{backend}}}")]);
    let broadcast = r#"{"actingFor":null,"backend":false,"by":"root","order":{"type":"broadcast"}}"#;
    assert_eq!(by("broadcast_ordered", None), [broadcast]);
    assert!(!details.contains("secret") && !details.contains("tidings"), "no content in the trail");
    drop(redis);
}

/// The drop counter of the whole process.
fn audit_dropped() -> u64 {
    let text = recorder().expect("a recorder").render();
    let line = text.lines().find_map(|line| line.strip_prefix("parley_audit_dropped_total "));
    line.map_or(0, |number| number.trim().parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trail_waits_for_the_store_within_bounds_and_holds_up_nobody() {
    const LINES: usize = 20_000;
    recorder().expect("a recorder");
    let postgres = Postgres::start_own();
    let database = postgres.new_database().await;
    let store = gateway::store::connect(&database.url).await.expect("connected");
    postgres.kill();
    let (trail, task) = audit_trail(store.clone(), std::sync::Arc::new(Metrics::new()));
    let stop = tokio_util::sync::CancellationToken::new();
    let before = audit_dropped();
    // Nothing takes lines yet: what is over the bound is dropped at once. Messages leave room for the rest.
    for n in 1..=LINES {
        trail.message(&user("u"), &conversation("c"), shared::MessageId::new(n as u64).expect("an id"));
    }
    let dropped = audit_dropped() - before;
    assert!(dropped >= (LINES - 16_384) as u64, "{dropped}");
    trail.connection_opened(&user("u"), "boot-1".into(), "channels.v1");

    let writing = tokio::spawn(task.run(stop.clone()));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    postgres.restart();
    let written = async {
        loop {
            if let Ok((client, connection)) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await {
                let connection = tokio::spawn(connection);
                let row = client.query_one("SELECT count(*) FROM audit WHERE kind = 'connection_opened'", &[]).await;
                if row.is_ok_and(|row| row.get::<_, i64>(0) > 0) {
                    return client;
                }
                connection.abort();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let client = tokio::time::timeout(Duration::from_secs(30), written).await.expect("written when the store is back");
    let row = client.query_one("SELECT count(DISTINCT detail) FROM audit WHERE kind = 'message'", &[]).await;
    let messages: i64 = row.expect("a count").get(0);
    assert_eq!(messages as u64 + dropped, LINES as u64, "written or counted, never neither");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), writing).await.expect("it ends").expect("without a fault");

    // The end of the trail, while the store is away: it gives up and counts.
    postgres.kill();
    let (trail, task) = audit_trail(store, std::sync::Arc::new(Metrics::new()));
    let before = audit_dropped();
    trail.connection_opened(&user("u"), "boot-2".into(), "channels.v1");
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), task.run(stop)).await.expect("it ends all the same");
    assert!(audit_dropped() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_connections_and_channels() {
    let node = Node::embedded(&[]).await;
    channel(&node, json!({ "kind": "channel", "id": "c", "title": "Lounge", "members": ["m", "away"] })).await;
    channel(&node, json!({ "kind": "group", "id": "g" })).await;
    let (mut o, _o2) = (Client::join(node.http, "o").await, Client::join(node.http, "o").await);
    let agent = [("user-agent", "Mozilla/5.0 (a browser)")];
    let path = format!("/chat/ws?token={}", token("m"));
    let mut m = Client::open(node.http, &path, &agent).await.expect("an upgrade");
    m.expect("status.bulk").await;
    let (name, value) = bearer(&token("stranger"));
    let mut stranger = Client::open(node.http, "/ws/channels", &[(name, &value)]).await.expect("an upgrade");
    stranger.expect("connected").await;
    o.send("message.send", json!({ "conversationId": "c", "content": "hi" })).await;
    o.expect("message.sent").await;
    let key = ("x-api-key", API_KEY.to_owned());
    let admin = token_with(json!({ "sub": "root", "scope": "admin", "exp": in_seconds(60), "iat": in_seconds(0) }));
    let read = |path: &'static str, who: (&'static str, String)| {
        let ops = node.ops;
        async move { get(ops, path, &[(who.0, &who.1)]).await }
    };

    let all = "/api/v1/admin/connections";
    let (status, info) = read(all, key.clone()).await;
    assert_eq!(status, 200, "{info}");
    assert_eq!((&info["connections"], &info["users"]), (&json!(4), &json!(3)));
    let dialects = json!({ "chat.v1": 3, "channels.v1": 1, "listings.v1": 0, "social.v1": 0 });
    assert_eq!(info["dialects"], dialects);
    let counts = json!([
        { "channelId": "c", "users": 2, "connections": 3 },
        { "channelId": "g", "users": 1, "connections": 2 },
    ]);
    assert_eq!(info["channels"], counts);
    let users: Vec<&str> =
        info["items"].as_array().expect("users").iter().filter_map(|u| u["userId"].as_str()).collect();
    assert_eq!(users, ["m", "o", "stranger"]);
    let o_shown = &info["items"][1];
    assert_eq!((&o_shown["username"], &o_shown["channels"]), (&json!("name-of-o"), &json!(["c", "g"])));
    assert_eq!(o_shown["connections"].as_array().map(Vec::len), Some(2));
    let connection = &o_shown["connections"][0];
    assert_eq!(connection["dialect"], "chat.v1");
    for field in ["connectionId", "connectedAt", "lastHeardAt", "expiresAt"] {
        assert!(connection[field].is_string(), "{field}: {connection}");
    }
    let from = |item: &Value| {
        let connection = &item["connections"][0];
        (connection["address"].clone(), connection["userAgent"].clone())
    };
    assert_eq!(from(&info["items"][0]), (json!("127.0.0.1"), json!("Mozilla/5.0 (a browser)")));
    assert_eq!(from(o_shown), (json!("127.0.0.1"), Value::Null), "without a user agent");
    let (_, page) = read("/api/v1/admin/connections?limit=1&after=m", key.clone()).await;
    assert_eq!((&page["items"][0]["userId"], &page["next"]), (&json!("o"), &json!("o")));
    assert_eq!(read(all, bearer(&admin)).await.0, 200);
    assert_eq!(read(all, bearer(&token("o"))).await.0, 403);
    assert_eq!(get(node.ops, all, &[]).await.0, 401);

    let one = "/api/v1/admin/channels/c";
    let (status, stats) = read(one, bearer(&token("o"))).await;
    assert_eq!(status, 200, "the owner may look: {stats}");
    assert_eq!((&stats["channelId"], &stats["title"]), (&json!("c"), &json!("Lounge")));
    assert_eq!((&stats["memberCount"], &stats["online"]), (&json!(3), &json!(2)));
    assert_eq!((&stats["here"]["users"], &stats["here"]["connections"]), (&json!(2), &json!(3)));
    assert_eq!(stats["activity"]["messagesLastMinute"], 1);
    assert!(stats["activity"]["lastMessageAt"].is_string());
    assert_eq!((&stats["items"][1]["userId"], &stats["items"][1]["role"]), (&json!("o"), &json!("owner")));
    assert_eq!(from(&stats["items"][0]), (Value::Null, Value::Null), "addresses are for operators");
    let (_, of_operator) = read(one, key.clone()).await;
    assert_eq!(from(&of_operator["items"][0]), (json!("127.0.0.1"), json!("Mozilla/5.0 (a browser)")));
    let code = |(status, answer): (u16, Value)| (status, answer["error"]["code"].clone());
    assert_eq!(code(read(one, bearer(&token("m"))).await), refused(403, "FORBIDDEN"));
    assert_eq!(code(read(one, bearer(&token("stranger"))).await), refused(403, "NOT_MEMBER"));
    assert_eq!(read(one, bearer(&admin)).await.0, 200);
    assert_eq!(code(read("/api/v1/admin/channels/nowhere", key.clone()).await), refused(404, "NOT_FOUND"));
    assert_eq!(get(node.http, all, &[("x-api-key", API_KEY)]).await.0, 404, "not on the public listener");

    let (_, stats) = read("/api/v1/internal/chat/ws/stats", key).await;
    assert_eq!((&stats["channels"], &stats["connections"]), (&counts, &json!(4)));
}
