//! Commands of one connection side by side: in order where they concern one conversation, and none waits for another's
//! answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Transaction;

use crate::support::client::{Client, Incoming, PONG};
use crate::support::flat::{Flat, open_chat};
use crate::support::node::{Node, token};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::two_nodes::{TwoNodes, acting, bounded, say};

/// Commands of a connection that are carried out side by side.
const UNDER_WAY: usize = 32;

/// A frozen store costs each command its own time, and nobody else's: no answer waits for another, and what doesn't need
/// the store goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_store_holds_up_neither_pings_nor_other_commands() {
    bounded(async {
        let (redis, postgres) = (Redis::start(), Postgres::start_own());
        let database = postgres.new_database().await;
        let node = Node::serve(&redis.url(), &database.url, &[]).await;
        node.wait_ready(true).await;
        let (mut a, mut b) = (Client::join(node.http, "a").await, Client::join(node.http, "b").await);
        let conversation = say(node.http, "a", "b", "first").await["conversationId"].clone();
        b.expect("message.new").await;
        let typing = |on| json!({ "conversationId": conversation, "isTyping": on });
        for on in [true, false] {
            a.send("typing", typing(on)).await;
            b.expect("typing").await;
        }

        postgres.freeze();
        let since = Instant::now();
        for n in 0..5 {
            let send = json!({ "to": "b", "content": format!("{n}"), "tempId": format!("t{n}") });
            a.send_ref("message.send", send, json!(n)).await;
        }
        a.send("typing", typing(true)).await;
        a.send("ping", json!({})).await;
        a.send_socket_ping().await;
        b.expect("typing").await;
        a.expect("pong").await;
        a.expect(PONG).await;
        assert!(a.kept().iter().all(|frame| frame["type"] != "error"), "before any send was given up: {:?}", a.kept());
        for _ in 0..5 {
            let error = a.expect("error").await;
            assert_eq!(error["payload"]["code"], "UNAVAILABLE", "{error}");
            assert_eq!(error["payload"]["retryable"], true, "{error}");
        }
        let took = since.elapsed();
        postgres.thaw();
        assert!(took < Duration::from_secs(12), "all at once, not 4.5 s each: {took:?}");
    })
    .await;
}

/// The `message.sent` of these `tempId`s come in this order, under numbers without a gap.
async fn expect_in_order(client: &mut Client, temp_ids: impl Iterator<Item = String>, mut seq: u64) {
    for temp_id in temp_ids {
        let sent = client.expect("message.sent").await;
        seq += 1;
        assert_eq!((&sent["payload"]["tempId"], &sent["payload"]["message"]["seq"]), (&json!(temp_id), &json!(seq)));
    }
}

/// Sends these messages without waiting for an answer, then takes all answers: the numbers of those that were stored, under
/// numbers without a gap from `stored` on. The rest has waited for too long, on a machine that does something else.
async fn send_all(client: &mut Client, targets: &[Value], numbers: std::ops::Range<usize>, stored: &mut Vec<usize>) {
    for n in numbers.clone() {
        let mut send = targets[n % targets.len()].clone();
        send["content"] = json!(format!("m{n}"));
        send["tempId"] = json!(format!("t{n}"));
        client.send_ref("message.send", send, json!("send")).await;
    }
    let mut answered = 0;
    while answered < numbers.len() {
        let Incoming::Frame(frame) = client.next().await else { panic!("a live socket") };
        let payload = &frame["payload"];
        if frame["type"] == "error" {
            assert_eq!((&frame["ref"], &payload["code"]), (&json!("send"), &json!("UNAVAILABLE")), "{frame}");
        } else if frame["type"] == "message.sent" {
            let n: usize = payload["tempId"].as_str().and_then(|id| id[1..].parse().ok()).expect("a number");
            assert!(stored.last().is_none_or(|last| *last < n), "{n} after {stored:?}");
            stored.push(n);
            assert_eq!(payload["message"]["seq"], stored.len(), "{frame}");
        } else {
            continue;
        }
        answered += 1;
    }
}

/// By `to` and by the conversation's id, which the node doesn't know to be the same at first, while the sender is typing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_s_messages_keep_the_order_of_their_sending() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut a = Client::join(cluster.one.http, "a").await;
        let mut readers = [Client::join(cluster.one.http, "b").await, Client::join(cluster.two.http, "b").await];
        let (mut stored, to) = (Vec::new(), json!({ "to": "b" }));
        send_all(&mut a, std::slice::from_ref(&to), 0..100, &mut stored).await;
        assert_eq!(stored.first(), Some(&0));
        let conversation = readers[0].expect("message.new").await["payload"]["message"]["conversationId"].clone();
        let by_id = json!({ "conversationId": conversation });
        a.send("typing", json!({ "conversationId": conversation, "isTyping": true })).await;
        send_all(&mut a, &[to.clone(), by_id.clone()], 100..600, &mut stored).await;
        // The other node knows the conversation by its id alone.
        let mut other = Client::join(cluster.two.http, "a").await;
        send_all(&mut other, &[by_id, to], 600..650, &mut stored).await;
        for (place, reader) in readers.iter_mut().enumerate() {
            for n in stored.iter().skip(usize::from(place == 0)) {
                let new = reader.expect("message.new").await;
                assert_eq!(new["payload"]["message"]["content"], format!("m{n}"));
            }
        }
    })
    .await;
}

async fn channel(node: &Node, id: &str) {
    let new = json!({ "id": id, "kind": "channel", "visibility": "public", "members": ["owner"] });
    assert_eq!(acting(node.http, "POST", "/api/v1/conversations", "owner", new).await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_depends_on_a_command_before_it_works_without_waiting_for_its_answer() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let node = &cluster.one;
        let mut a = Client::join(node.http, "a").await;
        for n in 0..20 {
            channel(node, &format!("c{n}")).await;
        }
        for n in 0..20 {
            let id = json!({ "conversationId": format!("c{n}") });
            let say = |content: &str| json!({ "conversationId": id["conversationId"], "content": content });
            a.send("conversation.join", id.clone()).await;
            a.send("message.send", say("here")).await;
            a.send("conversation.leave", id.clone()).await;
            a.send_ref("message.send", say("gone"), json!(n)).await;
            a.expect("conversation.joined").await;
            a.expect("message.sent").await;
            a.expect("conversation.left").await;
            let error = a.expect("error").await;
            assert_eq!((&error["payload"]["code"], &error["ref"]), (&json!("NOT_MEMBER"), &json!(n)), "{error}");
        }

        // Between two who don't know each other, and again when the node knows their conversation.
        for reference in ["strangers", "acquainted"] {
            a.send("block.add", json!({ "userId": "b" })).await;
            a.send_ref("message.send", json!({ "to": "b", "content": "blocked" }), json!(reference)).await;
            a.send("block.remove", json!({ "userId": "b" })).await;
            a.send("message.send", json!({ "to": "b", "content": "free" })).await;
            let error = a.expect("error").await;
            assert_eq!((&error["payload"]["code"], &error["ref"]), (&json!("BLOCKED"), &json!(reference)), "{error}");
            assert_eq!(a.expect("message.sent").await["payload"]["message"]["content"], "free");
        }

        // A command that names a message alone.
        let message = say(node.http, "a", "b", "wrong").await;
        a.send("message.edit", json!({ "messageId": message["id"], "content": "right" })).await;
        a.send("message.delete", json!({ "messageId": message["id"] })).await;
        a.send("message.send", json!({ "to": "b", "content": "last" })).await;
        let [edited, deleted] = [a.expect("message.edited").await, a.expect("message.deleted").await];
        assert!(edited["seq"].as_u64() < deleted["seq"].as_u64(), "{edited} {deleted}");
    })
    .await;
}

/// A fresh token is checked in Redis, which takes longer than a ping: what was read behind it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_auth() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut a = Client::join(cluster.one.http, "a").await;
        for n in 0..20 {
            a.send("auth", json!({ "token": token("a") })).await;
            a.send_ref("ping", json!({}), json!(n)).await;
            a.expect("auth_success").await;
            assert!(a.kept().iter().all(|frame| frame["type"] != "pong"), "{:?}", a.kept());
            assert_eq!(a.expect("pong").await["ref"], n);
        }
    })
    .await;
}

/// Errors of a flat dialect don't say whose they are: they come in the order of the frames, also the one of a frame that is
/// refused when it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flat_connection_is_answered_in_order() {
    bounded(async {
        let (redis, database) = (Redis::start(), Postgres::database().await);
        let node = Node::serve(&redis.url(), &database.url, &[("COMMANDS_PER_SECOND", "0")]).await;
        node.wait_ready(true).await;
        open_chat(&node).await;
        let mut five = Flat::join(node.http, "/ws/chat", "5").await;
        let frames = [
            (json!({ "type": "send_message", "chat_id": 404, "content": "x" }), "NOT_FOUND"),
            (json!({ "type": "send_message", "chat_id": 3 }), "VALIDATION_ERROR"),
            (json!({ "type": "mark_read", "message_id": 404 }), "NOT_FOUND"),
            (json!({ "type": "no such thing" }), "UNKNOWN_EVENT"),
            (json!({ "type": "send_message", "chat_id": 3, "content": "good", "temp_id": "t" }), ""),
            (json!({ "type": "typing", "chat_id": 404, "is_typing": true }), "NOT_FOUND"),
            (json!({ "type": "send_message", "chat_id": 3, "content": "" }), "VALIDATION_ERROR"),
        ];
        for _ in 0..5 {
            for (frame, _) in &frames {
                five.send(frame.clone()).await;
            }
        }
        let mut codes = Vec::new();
        while codes.len() < 5 * (frames.len() - 1) {
            codes.push(five.expect("error").await["code"].as_str().expect("a code").to_owned());
        }
        let expected: Vec<&str> = frames.iter().map(|(_, code)| *code).filter(|code| !code.is_empty()).collect();
        for round in codes.chunks(expected.len()) {
            assert_eq!(round, expected);
        }
    })
    .await;
}

/// A conversation of `a` and `b` in which no message can be stored until the transaction ends.
async fn lock<'a>(client: &'a mut tokio_postgres::Client, conversation: &Value) -> Transaction<'a> {
    let lock = client.transaction().await.expect("a transaction");
    let id = conversation.as_str().expect("an id");
    lock.execute("SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE", &[&id]).await.expect("locked");
    lock
}

/// Sends messages into it; the `tempId` of each is the first letter of its content, and its number.
async fn send_held(client: &mut Client, conversation: &Value, numbers: std::ops::Range<usize>, content: &str) {
    for n in numbers {
        let temp_id = format!("{}{n}", &content[..1]);
        let send = json!({ "conversationId": conversation, "content": content, "tempId": temp_id });
        client.send("message.send", send).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_as_many_as_there_may_be_a_command_waits_for_a_second() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let node = &cluster.one;
        channel(node, "c1").await;
        channel(node, "c2").await;
        let mut a = Client::join(node.http, "a").await;
        let conversation = say(node.http, "a", "b", "first").await["conversationId"].clone();
        a.expect("message.sent").await;
        let mut database = cluster.database.client().await;
        let held = lock(&mut database, &conversation).await;
        send_held(&mut a, &conversation, 1..UNDER_WAY, "t").await;
        a.send("conversation.join", json!({ "conversationId": "c1" })).await;
        a.expect("conversation.joined").await;
        send_held(&mut a, &conversation, UNDER_WAY..UNDER_WAY + 1, "t").await;
        let since = Instant::now();
        a.send_ref("conversation.join", json!({ "conversationId": "c2" }), json!("waits")).await;
        a.send("presence.query", json!({ "userIds": ["b"] })).await;
        a.send("ping", json!({})).await;
        a.expect("status.bulk").await;
        a.expect("pong").await;
        let error = a.expect("error").await;
        assert!(since.elapsed() >= Duration::from_millis(900), "{error}");
        assert_eq!((&error["payload"]["code"], &error["ref"]), (&json!("UNAVAILABLE"), &json!("waits")), "{error}");
        assert!(error["payload"]["retryAfterMs"].as_u64().is_some_and(|wait| wait > 0), "{error}");
        held.rollback().await.expect("unlocked");
        expect_in_order(&mut a, (1..=UNDER_WAY).map(|n| format!("t{n}")), 1).await;
        a.send("conversation.join", json!({ "conversationId": "c2" })).await;
        a.expect("conversation.joined").await;
    })
    .await;
}

/// The pong tells whether the ping was read: before the first command was given up, or only when that had made room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_too_many_bytes_waiting_is_not_read() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let node = &cluster.one;
        let mut a = Client::join(node.http, "a").await;
        let conversation = say(node.http, "a", "b", "first").await["conversationId"].clone();
        a.expect("message.sent").await;
        for (letter, waiting, is_read) in [("x", 15, true), ("y", 40, false)] {
            let mut database = cluster.database.client().await;
            let held = lock(&mut database, &conversation).await;
            send_held(&mut a, &conversation, 0..UNDER_WAY + waiting, &letter.repeat(3_000)).await;
            a.send("ping", json!({})).await;
            a.expect("pong").await;
            let given_up = a.kept().iter().filter(|frame| frame["type"] == "error").count();
            assert_eq!(given_up == 0, is_read, "{waiting} wait, {given_up} were given up");
            held.rollback().await.expect("unlocked");
            let mut answers: Vec<Value> = a.settle().await;
            while answers.iter().filter(|frame| is_answer(frame)).count() < UNDER_WAY + waiting {
                answers.extend(a.settle().await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            a.send("message.send", json!({ "to": "b", "content": "it goes on" })).await;
            a.expect("message.sent").await;
            a.settle().await;
        }
    })
    .await;
}

fn is_answer(frame: &Value) -> bool {
    frame["type"] == "message.sent" || frame["payload"]["code"] == "UNAVAILABLE"
}
