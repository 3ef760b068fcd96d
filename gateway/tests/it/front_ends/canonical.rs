//! The flows of seed 002 (§2.2 and §6.2), on a node with an embedded store and backbone and on one with real servers.

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming, types};
use crate::support::http::get;
use crate::support::node::{Node, in_seconds, token, token_with};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::two_nodes::TwoNodes;

/// Opens a direct conversation by a first message; its id.
async fn introduce(from: &mut Client, to: &mut Client, to_id: &str) -> String {
    from.send("message.send", json!({ "to": to_id, "content": "hi", "tempId": "temp-0" })).await;
    let sent = from.expect("message.sent").await;
    to.expect("message.new").await;
    to.expect("notification.unread").await;
    from.settle().await;
    to.settle().await;
    sent["payload"]["message"]["conversationId"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_success_has_the_documents_fields() {
    let node = Node::embedded(&[]).await;
    let mut client = Client::open(node.http, &format!("/chat/ws?token={}", token("u1")), &[]).await.expect("upgrade");
    let success = client.expect("auth_success").await;
    assert_eq!(success["payload"]["userId"], "u1");
    assert!(success["payload"]["connectedAt"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 24));
    assert_eq!(success["payload"]["seq"], 0);
    assert_eq!(success["payload"]["resumed"], false);
    assert_eq!(success["payload"]["heartbeatSeconds"], 25);
    assert!(success["payload"]["epoch"].is_string() && success["payload"]["connectionId"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_token_is_told_before_the_close() {
    let node = Node::embedded(&[]).await;
    let mut client = Client::open(node.http, "/chat/ws?token=nonsense", &[]).await.expect("the upgrade is done");
    let failed = client.expect("auth_failed").await;
    assert_eq!(failed["payload"]["code"], "UNAUTHENTICATED");
    assert!(failed["payload"]["message"].is_string());
    assert_eq!(client.expect_close().await, 4001);
}

/// Example 1 of §2.2, and §6.2: what the sender and the receiver see of a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_sent_and_received() {
    let node = Node::embedded(&[]).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    let conversation = introduce(&mut a, &mut b, "b").await;

    a.send("message.send", json!({ "conversationId": conversation, "content": "Hello!", "tempId": "temp-123" })).await;
    let (at_a, at_b) = (a.expect("notification.unread"), b.expect("notification.unread"));
    let unread = tokio::select! {
        frame = at_b => frame,
        frame = at_a => panic!("the sender was told of an unread message: {frame}"),
    };
    let at_a = a.settle().await;
    let at_b = b.settle().await;
    assert_eq!(types(&at_a), ["message.sent", "conversation.updated"]);
    assert_eq!(types(&at_b), ["message.new", "conversation.updated"]);

    let message = &at_a[0]["payload"]["message"];
    assert_eq!(at_a[0]["payload"]["tempId"], "temp-123");
    assert_eq!(at_a[0]["payload"].get("duplicate"), None);
    assert_eq!(message["content"], "Hello!");
    assert_eq!(message["senderId"], "a");
    assert_eq!(message["seq"], 2);
    assert_eq!(message["kind"], "text");
    assert_eq!(&at_b[0]["payload"]["message"], message);
    for updated in [&at_a[1], &at_b[1]] {
        assert_eq!(updated["payload"], json!({ "conversationId": conversation, "lastMessage": message }));
        assert_eq!(updated.get("seq"), None);
    }
    assert_eq!(unread["payload"], json!({ "conversationId": conversation, "unread": 2, "totalUnread": 2 }));
}

/// Example 2 of §2.2: the reader's acknowledgement and the sender's update.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_read() {
    let node = Node::embedded(&[]).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    let mut b2 = Client::join(node.http, "b").await;
    let conversation = introduce(&mut a, &mut b, "b").await;
    b2.settle().await;

    b.send("message.read", json!({ "conversationId": conversation })).await;
    let ack = b.expect("message.read_ack").await;
    assert_eq!(ack["payload"]["markedCount"], 1);
    assert_eq!(ack["payload"]["conversationId"], *conversation);
    assert_eq!((&ack["payload"]["upToSeq"], &ack["payload"]["lastSeq"]), (&json!(1), &json!(1)));
    assert_eq!(b2.expect("message.read_ack").await, ack);
    let unread = b.expect("notification.unread").await;
    assert_eq!(unread["payload"], json!({ "conversationId": conversation, "unread": 0, "totalUnread": 0 }));
    let update = a.expect("message.read_update").await;
    assert_eq!(update["payload"]["conversationId"], *conversation);
    assert_eq!(update["payload"]["readBy"], "b");
    assert_eq!(update["payload"]["messageIds"].as_array().map(Vec::len), Some(1));
    assert_eq!(update["payload"]["readAt"], ack["payload"]["readAt"]);

    assert_eq!(types(&b2.settle().await), ["notification.unread"]);

    // Reading again changes nothing: only this connection is answered, and nobody else is told.
    b.send("message.read", json!({ "conversationId": conversation })).await;
    let again = b.expect("message.read_ack").await;
    assert_eq!((&again["payload"]["markedCount"], again.get("seq")), (&json!(0), None));
    assert!(b2.settle().await.is_empty() && a.settle().await.is_empty());
}

/// A reply does not hide what was not read: the ticks still turn, the count of unread messages is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_without_reading_keeps_the_receipts() {
    let node = Node::embedded(&[]).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    let conversation = introduce(&mut a, &mut b, "b").await;
    b.send("message.send", json!({ "conversationId": conversation, "content": "re" })).await;
    b.expect("message.sent").await;
    let unread = b.expect("notification.unread").await;
    assert_eq!(unread["payload"]["unread"], 0);
    a.expect("message.new").await;
    a.send("message.send", json!({ "conversationId": conversation, "content": "again" })).await;
    let unread = b.expect("notification.unread").await;
    assert_eq!(unread["payload"]["unread"], 1);
    b.send("message.read", json!({ "conversationId": conversation })).await;
    assert_eq!(b.expect("message.read_ack").await["payload"]["markedCount"], 2);
    assert_eq!(a.expect("message.read_update").await["payload"]["messageIds"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_is_answered_with_both_times() {
    let node = Node::embedded(&[]).await;
    let mut client = Client::join(node.http, "a").await;
    client.send_ref("ping", json!({ "timestamp": "2025-01-07T10:00:00Z" }), json!(5)).await;
    let pong = client.expect("pong").await;
    assert_eq!(pong["payload"]["timestamp"], "2025-01-07T10:00:00Z");
    assert!(pong["payload"]["serverTime"].is_string());
    assert_eq!(pong["ref"], 5);
    client.send_text(r#"{"type":"ping"}"#).await;
    assert!(client.expect("pong").await["payload"]["timestamp"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_by_id_and_by_username() {
    let node = Node::embedded(&[]).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    let conversation = introduce(&mut a, &mut b, "b").await;
    b.send("block.add", json!({ "username": "name-of-a" })).await;
    assert_eq!(b.expect("block.added").await["payload"], json!({ "userId": "a" }));
    for sender in [&mut a, &mut b] {
        sender.send_ref("message.send", json!({ "conversationId": conversation, "content": "x" }), json!("r")).await;
        let error = sender.expect("error").await;
        assert_eq!((&error["payload"]["code"], &error["ref"]), (&json!("BLOCKED"), &json!("r")));
    }
    b.send("block.remove", json!({ "userId": "a" })).await;
    b.expect("block.removed").await;
    a.send("message.send", json!({ "conversationId": conversation, "content": "x" })).await;
    b.expect("message.new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn online_offline_and_the_bulk_status() {
    let node = Node::embedded(&[]).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    introduce(&mut a, &mut b, "b").await;
    drop(b);
    let offline = a.expect("user.offline").await;
    assert_eq!(offline["payload"]["userId"], "b");
    assert!(offline["payload"]["lastSeen"].is_string());

    let mut b = Client::open(node.http, &format!("/chat/ws?token={}", token("b")), &[]).await.expect("upgrade");
    let bulk = b.expect("status.bulk").await;
    assert_eq!(bulk["payload"]["users"]["a"]["online"], true);
    let online = a.expect("user.online").await;
    assert_eq!(online["payload"]["userId"], "b");
    assert!(online["payload"]["onlineAt"].is_string());

    // A reconnect within the grace is not told.
    drop(b);
    let _b = Client::join(node.http, "b").await;
    tokio::time::sleep(std::time::Duration::from_millis(3500)).await;
    assert_eq!(types(&a.settle().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_may_come_with_the_first_frame() {
    let node = Node::embedded(&[]).await;
    let mut client = Client::open(node.http, "/chat/ws", &[]).await.expect("upgrade");
    client.send("message.send", json!({ "to": "b", "content": "x" })).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "UNAUTHENTICATED");
    client.send("auth", json!({ "token": token("a") })).await;
    assert_eq!(client.expect("auth_success").await["payload"]["userId"], "a");
    // And again, to refresh it.
    client.send_ref("auth", json!({ "token": token("a") }), json!(1)).await;
    let refreshed = client.expect("auth_success").await;
    assert_eq!((&refreshed["ref"], &refreshed["payload"]["resumed"]), (&json!(1), &json!(true)));
    client.send("auth", json!({ "token": token("b") })).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "FORBIDDEN");
}

/// §3.2 and §3.3: what the document's handlers refuse, by the document's codes. The connection stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_documents_codes() {
    let node = Node::embedded(&[]).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    let conversation = introduce(&mut a, &mut b, "b").await;
    let frame = |kind: &str, payload: Value| json!({ "type": kind, "payload": payload }).to_string();
    for (text, code) in [
        ("not JSON".to_owned(), "INVALID_MESSAGE"),
        (frame("no.such.event", json!({})), "UNKNOWN_EVENT"),
        (frame("message.send", json!({ "content": "x" })), "VALIDATION_ERROR"),
        (frame("message.send", json!({ "conversationId": "not an id", "content": "x" })), "VALIDATION_ERROR"),
        (frame("message.send", json!({ "conversationId": conversation, "content": "" })), "VALIDATION_ERROR"),
        (frame("message.send", json!({ "conversationId": conversation })), "VALIDATION_ERROR"),
        (frame("message.read", json!({})), "VALIDATION_ERROR"),
        (frame("message.read", json!({ "conversationId": "not an id" })), "VALIDATION_ERROR"),
    ] {
        a.send_text(&text).await;
        let error = a.expect("error").await;
        assert_eq!(error["payload"]["code"], code, "{text}");
        assert!(error["payload"]["message"].is_string());
    }
    a.send("message.send", json!({ "conversationId": conversation, "content": "still here" })).await;
    b.expect("message.new").await;
}

/// §3.4 and §4.1: `online:<id>` holds unix seconds, lives 60 s at most, and a ping makes it live on; §2.1: what stands on
/// `chat:user:<id>` reaches the user, whoever published it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_holds_who_is_online_and_carries_what_is_published() {
    let (redis, database) = (Redis::start(), Postgres::database().await);
    let node =
        Node::serve(&redis.url(), &database.url, &[("ONLINE_TTL_SECONDS", "6"), ("HEARTBEAT_SECONDS", "4")]).await;
    node.wait_ready(true).await;
    let mut a = Client::join(node.http, "a").await;
    let fresh = async |a: &mut Client, at_least_ms: i64| {
        let refreshed = async {
            while redis.number("PTTL online:a") < at_least_ms {
                a.send("ping", json!({})).await;
                a.expect("pong").await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), refreshed).await.expect("the key is refreshed");
    };
    fresh(&mut a, 1).await;
    let since: String = redis::from_redis_value(redis.ask("GET online:a")).expect("text");
    let age_s = shared::Timestamp::now().unix_seconds() - since.parse::<i64>().expect("unix seconds");
    assert!((0..60).contains(&age_s), "{age_s}");
    // Without a refresh it would be gone after six seconds; by pings it lives on.
    redis.ask("PEXPIRE online:a 2500");
    fresh(&mut a, 3000).await;
    assert!(redis.number("PTTL online:a") <= 6000);

    let event = r#"{"type":"notification","payload":{"by":"hand"}}"#;
    assert_eq!(redis.number(&format!("PUBLISH chat:user:a {event}")), 1);
    let got = a.expect("notification").await;
    assert_eq!((&got["payload"], got.get("seq")), (&json!({ "by": "hand" }), None));
}

/// §3.2: the server pings, and a connection without a sign of life ends. (The document's deadline is 90 s.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_pinged_and_ends() {
    let settings = [("HEARTBEAT_SECONDS", "1"), ("HEARTBEAT_TIMEOUT_SECONDS", "1")];
    let node = Node::embedded(&settings).await;
    let open = async |user: &str| {
        let path = format!("/chat/ws?token={}", token(user));
        Client::open(node.http, &path, &[]).await.expect("upgrade")
    };
    // One reads, and so answers pings; the other doesn't.
    let (mut alive, mut silent) = (open("alive").await, open("silent").await);
    assert_eq!(alive.expect("auth_success").await["payload"]["heartbeatSeconds"], 1);
    let users = || node.app.node().registry.user_count();
    let only_one_left = async {
        // Nobody reads for the silent one, so that it is in shows here alone.
        while users() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        while users() > 1 {
            alive.settle().await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), only_one_left).await.expect("the silent one ends");
    // Its own pong may cross the close, so what it reads last need not be the close frame; the node says why it ended.
    while matches!(silent.next().await, Incoming::Frame(_)) {}
    let (_, metrics) = get(node.ops, "/metrics", &[]).await;
    assert!(metrics.as_str().is_some_and(|text| text.contains("reason=\"heartbeat_timeout\"")), "{metrics}");
    alive.settle().await;
}

/// A token whose shown name is somebody's username must not be blocked in their place, nor one that comes later with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_username_belongs_to_the_first_who_came_with_that_claim() {
    for (setting, claim) in
        [(None, "username"), (Some("login"), "login"), (Some("preferred_username"), "preferred_username")]
    {
        let settings: Vec<_> = setting.iter().map(|claim| ("JWT_USERNAME_CLAIM", *claim)).collect();
        let node = Node::embedded(&settings).await;
        let cluster = TwoNodes::start(&settings).await;
        for (first, second) in [(&node, &node), (&cluster.one, &cluster.two)] {
            let come = async |who: &str, node: &Node, names: Value| {
                let mut claims = json!({ "sub": who, "exp": in_seconds(600), "iat": in_seconds(0) });
                claims.as_object_mut().expect("claims").extend(names.as_object().expect("names").clone());
                let mut client = Client::join_with(node.http, &token_with(claims)).await.0;
                client.settle().await;
                client
            };
            let _shown = come("impostor", second, json!({ "name": "Ann", "nickname": "Ann" })).await;
            let _ann = come("a", first, json!({ claim: "Ann" })).await;
            let _later = come("second", second, json!({ claim: "Ann" })).await;
            let mut blocker = come("blocker", second, json!({ claim: "Bob" })).await;
            blocker.send("block.add", json!({ "username": "Ann" })).await;
            assert_eq!(blocker.expect("block.added").await["payload"]["userId"], "a", "{claim}");
            // Until they come with another: then it is free.
            let _renamed = come("a", second, json!({ claim: "Anna" })).await;
            for (name, who) in [("Anna", Some("a")), ("Ann", None)] {
                blocker.send("block.remove", json!({ "username": name })).await;
                match who {
                    Some(who) => assert_eq!(blocker.expect("block.removed").await["payload"]["userId"], who),
                    None => assert_eq!(blocker.expect("error").await["payload"]["code"], "NOT_FOUND"),
                }
            }
            let _next = come("third", first, json!({ claim: "Ann" })).await;
            blocker.send("block.add", json!({ "username": "Ann" })).await;
            assert_eq!(blocker.expect("block.added").await["payload"]["userId"], "third");
        }
    }
}
