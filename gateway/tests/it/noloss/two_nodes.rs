//! Two nodes on one Redis and one PostgreSQL: the node of a connection makes no difference.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming, types};
use crate::support::haproxy::Haproxy;
use crate::support::http::{bearer, get};
use crate::support::node::token;
use crate::support::two_nodes::{TwoNodes, logs_come_of_age, say};

/// The `seq` of each durable frame.
fn seqs(frames: &[Value]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame["seq"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_on_every_node_sees_the_same_in_order() {
    let cluster = TwoNodes::start(&[]).await;
    let mut a1 = Client::join(cluster.one.http, "a").await;
    let mut a2 = Client::join(cluster.two.http, "a").await;
    let mut b = Client::join(cluster.two.http, "b").await;

    a1.send("message.send", json!({ "to": "b", "content": "one", "tempId": "t1" })).await;
    let sent = a1.expect("message.sent").await;
    assert_eq!(a2.expect("message.sent").await, sent);
    let conversation = sent["payload"]["message"]["conversationId"].as_str().expect("an id").to_owned();
    let new = b.expect("message.new").await;
    assert_eq!(new["payload"]["message"], sent["payload"]["message"]);
    assert_eq!(b.expect("notification.unread").await["payload"]["totalUnread"], 1);

    a2.send("typing", json!({ "conversationId": conversation, "isTyping": true })).await;
    assert_eq!(
        b.expect("typing").await["payload"],
        json!({ "conversationId": conversation, "userId": "a", "isTyping": true })
    );
    a2.send("message.send", json!({ "conversationId": conversation, "content": "two" })).await;
    assert_eq!(b.expect("typing").await["payload"]["isTyping"], false);
    assert_eq!(b.expect("message.new").await["payload"]["message"]["seq"], 2);

    let up_to = new["payload"]["message"]["id"].clone();
    b.send("message.delivered", json!({ "conversationId": conversation, "upTo": up_to })).await;
    for a in [&mut a1, &mut a2] {
        let delivered = a.expect("message.delivered_update").await;
        assert_eq!((&delivered["payload"]["upTo"], &delivered["payload"]["userId"]), (&up_to, &json!("b")));
    }
    b.send("message.read", json!({ "conversationId": conversation })).await;
    assert_eq!(b.expect("message.read_ack").await["payload"]["markedCount"], 2);
    for a in [&mut a1, &mut a2] {
        let read = a.expect("message.read_update").await;
        assert_eq!(read["payload"]["messageIds"].as_array().map(Vec::len), Some(2));
    }
    b.send("presence.query", json!({ "userIds": ["a", "nobody"] })).await;
    b.expect("status.bulk").await;

    b.send("block.add", json!({ "userId": "a" })).await;
    b.expect("block.added").await;
    a1.send("message.send", json!({ "conversationId": conversation, "content": "no" })).await;
    assert_eq!(a1.expect("error").await["payload"]["code"], "BLOCKED");
    b.send("block.remove", json!({ "userId": "a" })).await;
    b.expect("block.removed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_a_hundred_messages_arrive_once_and_in_order() {
    let cluster = TwoNodes::start(&[]).await;
    let haproxy = Haproxy::before(&cluster.one, &cluster.two).await;
    let mut a = Client::join(haproxy.address, "a").await;
    let mut devices = [
        Client::join(haproxy.address, "b").await,
        Client::join(haproxy.address, "b").await,
        Client::join(haproxy.address, "b").await,
    ];
    let nodes = [&cluster.one, &cluster.two].map(|node| node.app.node().registry.socket_count());
    assert!(nodes.iter().all(|sockets| *sockets > 0), "HAProxy spreads the sockets: {nodes:?}");

    for n in 0..100 {
        a.send("message.send", json!({ "to": "b", "content": format!("m{n}") })).await;
        if n % 20 == 19 {
            // Stay within the rate of one connection.
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    for _ in 0..100 {
        a.expect("message.sent").await;
    }
    for device in &mut devices {
        let mut messages = Vec::new();
        for _ in 0..100 {
            messages.push(device.expect("message.new").await);
        }
        let contents: Vec<String> = (0..100).map(|n| format!("m{n}")).collect();
        assert_eq!(messages.iter().map(|m| m["payload"]["message"]["content"].clone()).collect::<Vec<_>>(), contents);
        let rest = device.settle().await;
        assert_eq!(types(&rest).iter().filter(|kind| *kind == "conversation.created").count(), 1);
        // conversation.created was 1.
        assert_eq!(seqs(&messages), (2..=101).collect::<Vec<u64>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_temp_id_on_two_nodes_is_one_message() {
    let cluster = TwoNodes::start(&[]).await;
    let mut a1 = Client::join(cluster.one.http, "a").await;
    let mut a2 = Client::join(cluster.two.http, "a").await;
    let mut b = Client::join(cluster.one.http, "b").await;
    a1.send("message.send", json!({ "to": "b", "content": "first" })).await;
    a1.expect("message.sent").await;
    a2.expect("message.sent").await;
    b.expect("message.new").await;
    for n in 0..20 {
        let temp_id = format!("raced-{n}");
        let body = json!({ "to": "b", "content": "raced", "tempId": temp_id });
        tokio::join!(a1.send("message.send", body.clone()), a2.send("message.send", body));
        let mut acks = Vec::new();
        for a in [&mut a1, &mut a2] {
            // The loser also has the answer that its try was a duplicate: of this message or of an earlier one.
            let ack = loop {
                let ack = a.expect("message.sent").await;
                if ack["payload"]["tempId"] == *temp_id {
                    break ack;
                }
                assert_eq!(ack["payload"]["message"]["tempId"], ack["payload"]["tempId"]);
            };
            acks.push(ack["payload"]["message"]["id"].clone());
        }
        assert_eq!(acks[0], acks[1], "one message for raced-{n}");
        let new = b.expect("message.new").await;
        assert_eq!(new["payload"]["message"]["id"], acks[0]);
    }
    let left = b.settle().await;
    assert_eq!(types(&left).iter().filter(|kind| *kind == "message.new").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_online_while_any_device_on_any_node_is() {
    let cluster = TwoNodes::start(&[]).await;
    let mut a1 = Client::join(cluster.one.http, "a").await;
    let a2 = Client::join(cluster.two.http, "a").await;
    let mut b = Client::join(cluster.two.http, "b").await;
    a1.send("message.send", json!({ "to": "b", "content": "hi" })).await;
    b.expect("message.new").await;
    b.settle().await;
    drop(a1);
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(!types(&b.settle().await).contains(&"user.offline".to_owned()));
    drop(a2);
    assert_eq!(b.expect("user.offline").await["payload"]["userId"], "a");
    let _a = Client::join(cluster.one.http, "a").await;
    assert_eq!(b.expect("user.online").await["payload"]["userId"], "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_gone_and_back_empty() {
    let mut cluster = TwoNodes::start(&[]).await;
    let mut a = Client::join(cluster.one.http, "a").await;
    let mut b = Client::join(cluster.two.http, "b").await;
    a.send("message.send", json!({ "to": "b", "content": "before" })).await;
    b.expect("message.new").await;
    a.expect("message.sent").await;
    a.settle().await;
    b.settle().await;

    cluster.redis.kill();
    let gone = Instant::now();
    cluster.one.wait_ready(false).await;
    cluster.two.wait_ready(false).await;
    assert!(gone.elapsed() < Duration::from_secs(5), "{:?}", gone.elapsed());
    cluster.redis.restart();
    let back = Instant::now();
    cluster.one.wait_ready(true).await;
    cluster.two.wait_ready(true).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());

    // The sockets are still the same ones; they are told that their log is a new one, and events come again.
    let resync = b.expect("resync").await;
    assert_eq!(resync["payload"]["reason"], "epoch");
    a.expect("resync").await;
    a.send("message.send", json!({ "to": "b", "content": "after" })).await;
    let new = b.expect("message.new").await;
    assert_eq!(new["payload"]["message"]["content"], "after");
    assert_eq!(new["seq"].as_u64(), resync["payload"]["seq"].as_u64().map(|seq| seq + 1));
    assert_eq!(a.expect("message.sent").await["payload"]["message"], new["payload"]["message"]);
}

/// A node dies, and Redis forgets who was online there: nobody tells of their going, so presence is told anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stays_online_for_ever_whom_redis_has_forgotten() {
    let clocks = [("ONLINE_TTL_SECONDS", "6"), ("HEARTBEAT_SECONDS", "4"), ("HEARTBEAT_TIMEOUT_SECONDS", "4")];
    let mut cluster = TwoNodes::start(&clocks).await;
    for partner in ["gone", "here"] {
        say(cluster.one.http, "a", partner, "hello").await;
    }
    // As a node would that is killed together with Redis.
    cluster.redis.ask("SET online:gone 1 EX 600");
    let mut here = Client::join(cluster.two.http, "here").await;
    let (name, value) = bearer(&token("a"));
    let mut a = Client::open(cluster.one.http, "/chat/ws", &[(name, &value)]).await.expect("an upgrade");
    let shown = a.expect("status.bulk").await["payload"]["users"].clone();
    assert_eq!((&shown["gone"]["online"], &shown["here"]["online"]), (&json!(true), &json!(true)), "{shown}");
    cluster.redis.restart();
    a.expect("resync").await;
    let told_anew = async {
        loop {
            match a.try_next().await {
                Some(Incoming::Frame(frame)) if frame["type"] == "status.bulk" => return frame,
                Some(Incoming::Frame(_)) | None => {}
                Some(ended) => panic!("{ended:?}"),
            }
        }
    };
    // A socket that is read answers pings.
    let lives = async { while here.try_next().await.is_none_or(|next| matches!(next, Incoming::Frame(_))) {} };
    let frame = tokio::select! {
        frame = told_anew => frame,
        () = lives => panic!("the partner's socket has ended"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("presence is not told anew"),
    };
    let told = &frame["payload"]["users"];
    assert_eq!((&told["gone"]["online"], &told["here"]["online"]), (&json!(false), &json!(true)), "{told}");
}

/// Redis is away: a send still commits; the sockets of the same node have it at once, and not again when Redis is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_frozen_messages_are_delivered_directly_and_once() {
    let cluster = TwoNodes::start(&[]).await;
    let mut a = Client::join(cluster.one.http, "a").await;
    let mut b = Client::join(cluster.one.http, "b").await;
    let mut b2 = Client::join(cluster.two.http, "b").await;
    a.send("message.send", json!({ "to": "b", "content": "before" })).await;
    let before = b.expect("message.new").await;
    b2.expect("message.new").await;
    a.expect("message.sent").await;
    a.settle().await;
    logs_come_of_age().await;

    cluster.redis.freeze();
    cluster.one.wait_ready(false).await;
    a.send("message.send", json!({ "to": "b", "content": "meanwhile", "tempId": "t" })).await;
    let sent = a.expect("message.sent").await;
    let new = b.expect("message.new").await;
    assert_eq!((sent.get("seq"), new.get("seq")), (None, None));
    assert_eq!(new["payload"]["message"], sent["payload"]["message"]);
    let refused = Client::open(cluster.one.http, "/chat/ws", &[]).await.err().expect("no new sockets meanwhile");
    assert!(refused.0.contains("503"), "{refused:?}");
    cluster.redis.thaw();
    cluster.one.wait_ready(true).await;

    // The other node's socket gets the event; those that had the message get their position in its place.
    let at_b2 = b2.expect("message.new").await;
    assert_eq!(at_b2["payload"]["message"], sent["payload"]["message"]);
    let next = before["seq"].as_u64().map(|seq| seq + 1);
    assert_eq!(at_b2["seq"].as_u64(), next);
    let position = b.expect("position").await;
    assert_eq!((position["seq"].as_u64(), position["payload"]["seq"].as_u64()), (next, next));
    a.expect("position").await;
    a.send("message.send", json!({ "to": "b", "content": "after" })).await;
    for device in [&mut b, &mut b2] {
        let after = device.expect("message.new").await;
        assert_eq!(after["payload"]["message"]["content"], "after");
        assert_eq!(after["seq"].as_u64(), next.map(|seq| seq + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poisoned_payloads_are_counted_and_dropped() {
    let cluster = TwoNodes::start(&[]).await;
    let mut a = Client::join(cluster.one.http, "a").await;
    let publish = async |channel: &str, payload: &[u8]| {
        let client = redis::Client::open(cluster.redis.url()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
        let _: i64 = redis::cmd("PUBLISH").arg(channel).arg(payload).query_async(&mut connection).await.expect("sent");
    };
    let deep = format!(r#"{{"type":"x","payload":{{"a":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let message = json!({ "id": "7", "conversationId": "1", "seq": 0, "rev": 0, "senderId": "b", "kind": "text",
        "content": "x", "createdAt": "2026-11-21T12:00:00.007Z" });
    let live = json!({ "type": "message.live",
        "payload": { "event": { "type": "message.new", "payload": { "message": message } } } })
    .to_string();
    publish("chat:all", live.as_bytes()).await;
    publish("chat:user:a", live.replacen("{\"payload", "{\"seq\":1,\"payload", 1).as_bytes()).await;
    publish("chat:user:a", format!("{}\n{live}", r#"{"type":"x","payload":{}}"#).as_bytes()).await;
    for poison in [
        &b"nonsense"[..],
        b"",
        b"\xff\xfe",
        b"{\"type\":7}",
        b"{\"seq\":1}",
        b"[[[[[[[[[[",
        b"\n\n",
        deep.as_bytes(),
        deep.replacen('{', "{\"seq\":1,", 1).as_bytes(),
    ] {
        publish("chat:user:a", poison).await;
        publish("chat:all", poison).await;
        publish("chat:control", poison).await;
    }
    publish("chat:user:a", br#"{"seq":99,"type":"x","payload":{}}"#).await;
    publish("chat:user:a", br#"{"type":"notification","payload":{"from":"redis-cli"}}"#).await;
    let got = a.expect("notification").await;
    assert_eq!((&got["payload"]["from"], got.get("seq")), (&json!("redis-cli"), None));
    assert_eq!(types(&a.settle().await), Vec::<String>::new());
    let (_, metrics) = get(cluster.one.ops, "/metrics", &[]).await;
    let metrics = metrics.as_str().expect("text");
    let poisoned = metrics.lines().find_map(|line| line.strip_prefix("parley_backbone_poisoned_total "));
    assert!(poisoned.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 21), "{poisoned:?}");
}

/// A log from which somebody deleted entries can't heal a socket: it is told so, and the node doesn't read for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_a_hole_of_its_own_is_told_as_trimmed() {
    let cluster = TwoNodes::start(&[]).await;
    let (mut b, success) = Client::join_with(cluster.one.http, &crate::support::node::token("b")).await;
    let mut a = Client::join(cluster.one.http, "a").await;
    for n in 1..=3 {
        a.send("message.send", json!({ "to": "b", "content": format!("m{n}") })).await;
        b.expect("message.new").await;
    }
    cluster.redis.ask("XDEL chat:log:{chat:user:b} 1-3");
    let epoch = success["epoch"].as_str().expect("an epoch");
    let path = format!("/chat/ws?token={}&resume={epoch}:2", crate::support::node::token("b"));
    let mut again = Client::open(cluster.two.http, &path, &[]).await.expect("upgrade");
    let success = again.expect("auth_success").await;
    assert_eq!((&success["payload"]["resumed"], &success["payload"]["seq"]), (&json!(true), &json!(2)));
    let resync = again.expect("resync").await;
    assert_eq!((&resync["payload"]["reason"], &resync["payload"]["seq"]), (&json!("trimmed"), &json!(4)));
    a.send("message.send", json!({ "to": "b", "content": "m4" })).await;
    assert_eq!(again.expect("message.new").await["seq"], 5);
}
