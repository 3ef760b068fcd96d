//! What all dialects have in common: how one is chosen, and that flat sockets lose nothing either.

use std::time::Duration;

use gateway::delivery::envelope::message_of;
use gateway::delivery::frames::Frames;
use gateway::delivery::registry::{LogEvent, Registry};
use gateway::delivery::send_queue::SendQueue;
use serde_json::{Value, json};
use shared::{Dialect, Epoch, Event, UserId, Wire};

use crate::support::client::Client;
use crate::support::flat::{Flat, open_chat};
use crate::support::http::{get, post};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::{TwoNodes, acting, bounded, position, say};

const LISTINGS: &str = "/ws/chat";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_chooses_and_a_subprotocol_wins() {
    let node = Node::embedded(&[]).await;
    for path in Dialect::ALL.map(Dialect::path) {
        for dialect in Dialect::ALL {
            let offered = format!("nonsense.v9, {}, bearer.{}", dialect.subprotocol(), token("6"));
            let mut client = Client::open(node.http, path, &[("sec-websocket-protocol", &offered)]).await.expect("101");
            assert_eq!(client.protocol.as_deref(), Some(dialect.subprotocol()));
            let first = if dialect == Dialect::Chat { "auth_success" } else { "connected" };
            client.expect(first).await;
        }
        let offered = [("sec-websocket-protocol", "chat.v2")];
        let mut unknown =
            Client::open(node.http, &format!("{path}?token={}", token("6")), &offered).await.expect("101");
        // A browser takes only what it offered, and is to see the close code.
        assert_eq!(unknown.protocol.as_deref(), Some("chat.v2"));
        assert_eq!(unknown.expect_close().await, 4004);
    }
    for dialect in Dialect::ALL.into_iter().filter(|dialect| dialect.is_flat()) {
        let (mut client, connected) = Flat::join_with(node.http, dialect.path(), &token("6"), "").await;
        assert!(connected["user_id"] == 6 || connected["user_id"] == "6", "{connected}");
        assert_eq!(client.0.protocol, None);
        assert_eq!(client.refused(json!({ "type": "nonsense" })).await, "UNKNOWN_EVENT");
        assert_eq!(client.settle().await, Vec::<Value>::new());
        let (_, connected) = Flat::join_with(node.http, dialect.path(), &token("u-6"), "").await;
        assert_eq!(connected["user_id"], "u-6");
    }
}

/// Who names `resume` gets positions, resumes without loss, and is told when that can't be done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flat_socket_can_resume() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let six = token("6");
    let (mut numbered, connected) = Flat::join_with(node.http, LISTINGS, &six, "&resume=").await;
    assert_eq!(connected["resumed"], false);
    let (epoch, joined_at) = position(&connected);
    let mut plain = Flat::join(node.http, LISTINGS, "6").await;
    say(node.http, "5", "6", "one").await;
    let one = numbered.expect("new_message").await;
    // What told of the chat may have been published before the socket joined, or after.
    let seq = one["seq"].as_u64().expect("a number") - 1;
    assert!((joined_at..=joined_at + 1).contains(&seq), "{joined_at}, then {one}");
    let mut unnumbered = one.clone();
    unnumbered.as_object_mut().expect("an object").remove("seq");
    assert_eq!(plain.expect("new_message").await, unnumbered);

    // What a dialect has no frame for moves the position in silence.
    let note = json!({ "users": ["6"], "event": { "type": "unheard.of", "payload": {} } });
    assert_eq!(post(node.http, "/api/v1/publish", &[("x-api-key", API_KEY)], note).await.0, 202);
    say(node.http, "5", "6", "two").await;
    assert_eq!(numbered.expect("new_message").await["seq"], seq + 3);
    assert_eq!(node.app.node().registry.lowest("6"), Some(seq + 3));

    drop((numbered, plain));
    say(node.http, "5", "6", "three").await;
    let at = format!("&resume={epoch}:{}", seq + 1);
    let (mut resumed, connected) = Flat::join_with(node.http, LISTINGS, &six, &at).await;
    assert_eq!((&connected["resumed"], &connected["seq"]), (&json!(true), &json!(seq + 1)));
    for (content, seq) in [("two", seq + 3), ("three", seq + 4)] {
        let frame = resumed.expect("new_message").await;
        assert_eq!((&frame["message"]["content"], &frame["seq"]), (&json!(content), &json!(seq)));
    }
    let (mut lost, connected) = Flat::join_with(node.http, LISTINGS, &six, "&resume=other.1:7").await;
    assert_eq!(connected["resumed"], false);
    let resync = lost.expect("resync").await;
    assert_eq!(resync, json!({ "type": "resync", "reason": "epoch", "epoch": epoch, "seq": seq + 4 }));
}

/// Pushes that Redis lost, a log that vanishes, and a Redis that is away: a flat socket gets each message once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flat_socket_loses_nothing() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        open_chat(&cluster.one).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let (mut numbered, _) = Flat::join_with(one, LISTINGS, &token("6"), "&resume=").await;
        let mut sockets = [Flat::join(one, LISTINGS, "6").await, Flat::join(one, LISTINGS, "6").await];

        // The node misses pushes and heals the hole in place.
        cluster.cut_off(&cluster.one);
        for n in 0..10 {
            say(two, "5", "6", &format!("m{n}")).await;
        }
        for socket in sockets.iter_mut().chain([&mut numbered]) {
            for n in 0..10 {
                assert_eq!(socket.expect("new_message").await["message"]["content"], format!("m{n}"));
            }
        }

        // The log vanishes: a plain socket is simply live, one with positions is told that it has to fetch.
        cluster.redis.ask("FLUSHALL");
        say(two, "5", "6", "after").await;
        assert_eq!(numbered.expect("resync").await["seq"], 0);
        assert_eq!(numbered.expect("new_message").await["seq"], 1);
        for socket in &mut sockets {
            assert_eq!(socket.expect("new_message").await["message"]["content"], "after");
            assert_eq!(socket.settle().await, Vec::<Value>::new());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_flat_sockets_of_the_node_get_messages_directly() {
    bounded(async {
        let mut cluster = TwoNodes::start(&[]).await;
        open_chat(&cluster.one).await;
        let one = cluster.one.http;
        let (mut numbered, _) = Flat::join_with(one, LISTINGS, &token("6"), "&resume=").await;
        let mut five = Flat::join(one, LISTINGS, "5").await;
        let mut plain = Flat::join(one, LISTINGS, "6").await;
        cluster.redis.kill();
        cluster.one.wait_ready(false).await;
        five.send(json!({ "type": "send_message", "chat_id": 3, "content": "directly" })).await;
        for socket in [&mut five, &mut plain] {
            assert_eq!(socket.expect("new_message").await["message"]["content"], "directly");
        }
        let direct = numbered.expect("new_message").await;
        assert_eq!(direct.get("seq"), None);
        cluster.redis.restart();
        cluster.one.wait_ready(true).await;
        say(one, "5", "6", "later").await;
        for socket in [&mut five, &mut plain, &mut numbered] {
            assert_eq!(socket.expect("new_message").await["message"]["content"], "later");
        }
        // The sweep publishes what was handed over directly; nobody gets it twice.
        let store = &cluster.one.app.node().store;
        while store.outbox_age_ms().await.expect("an age") > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for socket in [&mut five, &mut plain, &mut numbered] {
            assert!(socket.settle().await.iter().all(|frame| frame["type"] != "new_message"));
        }
    })
    .await;
}

/// In a dialect without echo the connection that sends gets no echo, the sender's other ones do; both move on.
#[tokio::test]
async fn a_muted_message_moves_the_position_in_silence() {
    let wire = Wire::plain(Dialect::Listings, false);
    let registry = Registry::new(0);
    let user = UserId::parse("5").expect("an id");
    let epoch = Epoch::parse("redis.1").expect("an epoch");
    let queues = [1, 2].map(|connection| {
        let queue = std::sync::Arc::new(SendQueue::new(1 << 20, wire));
        registry.add(&user, connection, std::sync::Arc::clone(&queue), u32::MAX).expect("room");
        registry.join(&user, connection, &epoch, 0, bytes::Bytes::new());
        queue
    });
    let sent = |seq: u64, temp_id: &str| {
        json!({ "seq": seq, "type": "message.sent", "payload": { "tempId": temp_id, "message": {
            "id": seq.to_string(), "conversationId": "3", "seq": seq, "rev": seq, "senderId": "5", "kind": "text",
            "content": "x", "tempId": temp_id, "createdAt": "2025-11-21T13:00:00.000Z" } } })
        .to_string()
    };
    let [sender, other] = &queues;
    sender.mute("mine");
    sender.mute("refused");
    sender.unmute("refused");
    let mut before = (0, 0);
    for (seq, temp_id, echoed) in [(1, "mine", false), (2, "mine", true), (3, "refused", true)] {
        registry.push_durable("5", &LogEvent::logged(seq, sent(seq, temp_id).as_bytes()));
        let now = (sender.queued_bytes(), other.queued_bytes());
        assert_eq!((now.0 > before.0, now.1 > before.1), (echoed, true), "{temp_id}");
        assert_eq!(sender.position(), Some((seq, seq)));
        before = now;
    }
    // While the backbone is away: neither directly nor, later, from the log.
    sender.mute("direct");
    let text = sent(4, "direct");
    let frames = Frames::new(text.as_bytes(), None);
    let message = message_of(text.as_bytes()).expect("a message");
    registry.push_direct("5", &message, &frames, std::time::Instant::now() + Duration::from_secs(1));
    registry.push_durable("5", &LogEvent::logged(4, text.as_bytes()));
    assert_eq!((sender.queued_bytes(), sender.position()), (before.0, Some((4, 4))));
    assert!(other.queued_bytes() > before.1);
}

/// An event is written once for all sockets of a dialect.
#[test]
fn bytes_are_shared_by_the_sockets_of_a_dialect() {
    let frames = Frames::of(&Event::Error(shared::ProtocolError::new(shared::ErrorCode::Forbidden, "no")));
    for dialect in Dialect::ALL {
        let wire = Wire::plain(dialect, false);
        assert!(!frames.on(wire).is_empty());
        assert_eq!(frames.on(wire).as_ptr(), frames.on(wire).as_ptr());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flat_socket_has_a_rate_as_well() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "2")]).await;
    let mut six = Flat::join(node.http, LISTINGS, "6").await;
    for _ in 0..6 {
        six.send(json!({ "type": "ping" })).await;
    }
    for _ in 0..4 {
        six.expect("pong").await;
    }
    let error = six.expect("error").await;
    assert_eq!(error["code"], "RATE_LIMITED");
    assert!(error["retry_after_ms"].is_u64() && error["retryable"] == true, "{error}");
}

/// In the operators' metrics: sockets, commands, events, errors, and how sockets ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_flat_sockets_do_is_counted() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let mut six = Flat::join(node.http, LISTINGS, "6").await;
    six.send(json!({ "type": "send_message", "chat_id": 3, "content": "x" })).await;
    six.expect("new_message").await;
    assert_eq!(six.refused(json!({ "type": "nonsense" })).await, "UNKNOWN_EVENT");
    drop(six);
    let counted = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.is_some_and(|value| value >= 1.0)
    };
    let told = async {
        loop {
            let (status, text) = get(node.ops, "/metrics", &[]).await;
            assert_eq!(status, 200);
            let text = text.as_str().expect("text").to_owned();
            let ended = text.lines().any(|line| line.starts_with("parley_closes_total{"));
            let rest = [
                "parley_commands_total{type=\"message.send\"}",
                "parley_errors_total{code=\"UNKNOWN_EVENT\"}",
                "parley_handshakes_total{result=\"accepted\"}",
                "parley_events_queued_total",
            ];
            if ended && rest.iter().all(|name| counted(&text, name)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("all is counted");
}

/// The typist's node is gone, or Redis is away when the end is due: it ends by itself where it is shown, in every dialect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typing_ends_where_it_is_shown() {
    bounded(async {
        let mut cluster = TwoNodes::start(&[]).await;
        let group = json!({ "id": "5", "kind": "channel", "members": ["7"] });
        acting(cluster.one.http, "POST", "/api/v1/conversations", "8", group).await;
        let two = cluster.two.http;
        let mut chat = Client::join(two, "7").await;
        let mut listings = Flat::join(two, "/ws/chat", "7").await;
        let mut channels = Flat::join(two, "/ws/channels", "7").await;
        let mut typist = Client::join(cluster.one.http, "8").await;

        // As a node would that dies after that.
        let shown =
            r#"{"type":"typing","payload":{"conversationId":"5","userId":"9","isTyping":true,"username":"Nine"}}"#;
        assert_eq!(cluster.redis.number(&format!("PUBLISH chat:user:7 {shown}")), 1);
        for on in [true, false] {
            let told = chat.expect("typing").await;
            assert_eq!((&told["payload"]["userId"], &told["payload"]["isTyping"]), (&json!("9"), &json!(on)));
            let told = listings.expect("typing").await;
            assert_eq!((&told["user_id"], &told["is_typing"]), (&json!(9), &json!(on)), "{told}");
            let told = channels.expect("typing").await;
            assert_eq!((&told["username"], &told["is_typing"]), (&json!("Nine"), &json!(on)), "{told}");
        }

        typist.send("typing", json!({ "conversationId": "5", "isTyping": true })).await;
        assert_eq!(chat.expect("typing").await["payload"]["isTyping"], true);
        cluster.redis.kill();
        assert_eq!(chat.expect("typing").await["payload"]["isTyping"], false);
        for client in [&mut listings, &mut channels] {
            for on in [true, false] {
                assert_eq!(client.expect("typing").await["is_typing"], on);
            }
        }
    })
    .await;
}
