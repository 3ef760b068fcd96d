//! Conversations of ten thousand members, on two nodes: every connected member gets a message, and no other user waits
//! for that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::TwoNodes;

/// Members who are connected, on each node.
const ONLINE: usize = 20;

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("u{n}")).collect()
}

async fn online(at: std::net::SocketAddr, users: &[String]) -> Vec<Client> {
    let mut clients = Vec::with_capacity(users.len());
    for user in users {
        clients.push(Client::join(at, user).await);
    }
    clients
}

/// Sixty messages at once into the logs of 300 members make 18,000 deliveries: the batch goes out in parts, and nothing is lost or
/// doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_at_once_to_many_members_go_out_in_parts() {
    const MESSAGES: usize = 60;
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "0"), ("LARGE_CONVERSATION_MEMBERS", "0")]).await;
    let backend = [("x-api-key", API_KEY)];
    let body = json!({ "kind": "channel", "id": "square", "members": ids(0..300) });
    assert_eq!(post(node.http, "/api/v1/conversations", &backend, body).await.0, 201);
    let mut listeners = online(node.http, &ids(0..3)).await;
    let mut senders = online(node.http, &ids(100..100 + MESSAGES)).await;
    for sender in &mut senders {
        sender.send("message.send", json!({ "conversationId": "square", "content": "x" })).await;
    }
    for listener in &mut listeners {
        let mut seen = Vec::with_capacity(MESSAGES);
        let mut before = None;
        for _ in 0..MESSAGES {
            let new = listener.expect("message.new").await;
            let position = new["seq"].as_u64().expect("a number");
            assert!(before.is_none_or(|before| position == before + 1), "{new} after {before:?}");
            before = Some(position);
            seen.push(new["payload"]["message"]["seq"].as_u64().expect("a number"));
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=MESSAGES as u64).collect::<Vec<_>>(), "each once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_ten_thousand_reaches_all_who_are_there_and_stalls_nobody() {
    let cluster = TwoNodes::start(&[]).await;
    let backend = [("x-api-key", API_KEY)];
    let create = |id: &str, members: usize| {
        let body = json!({ "kind": "channel", "id": id, "members": ids(0..members) });
        post(cluster.one.http, "/api/v1/conversations", &backend, body)
    };
    let (status, refused) = create("too-large", 10_001).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("LIMIT_EXCEEDED")), "{refused}");
    let (status, made) = create("square", 9_990).await;
    assert_eq!((status, &made["memberCount"]), (201, &json!(9_990)), "{made}");
    assert_eq!(made["members"].as_array().map(Vec::len), Some(100), "the first hundred are shown");

    // The last ten places, in one call, and not one more.
    let members = "/api/v1/conversations/square/members";
    let bulk = |users: Vec<String>| post(cluster.one.http, members, &backend, json!({ "userIds": users }));
    let (status, refused) = bulk(ids(9_990..10_001)).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("LIMIT_EXCEEDED")), "{refused}");
    let (status, added) = bulk(ids(9_980..10_000)).await;
    assert_eq!((status, &added["memberCount"]), (200, &json!(10_000)), "{added}");
    assert_eq!(added["added"].as_array().map(Vec::len), Some(10), "the others are members already");
    let (_, refused) = post(cluster.one.http, "/api/v1/conversations/square/join", &[], json!({})).await;
    assert_eq!(refused["error"]["code"], "UNAUTHENTICATED");
    let late = bearer(&token("late"));
    let (_, refused) =
        post(cluster.two.http, "/api/v1/conversations/square/join", &[(late.0, &late.1)], json!({})).await;
    assert_eq!(refused["error"]["code"], "LIMIT_EXCEEDED");

    let mut clients = online(cluster.one.http, &ids(0..ONLINE)).await;
    clients.extend(online(cluster.two.http, &ids(5_000..5_000 + ONLINE)).await);
    let mut bystander = Client::join(cluster.one.http, "bystander").await;
    let mut sender = Client::join(cluster.one.http, "u9999").await;
    let started = Instant::now();
    sender.send("message.send", json!({ "conversationId": "square", "content": "to all", "tempId": "t" })).await;
    let everybody = tokio::spawn(async move {
        let mut got: Vec<Value> = Vec::with_capacity(clients.len());
        for client in &mut clients {
            got.push(client.expect("message.new").await);
        }
        (clients, got)
    });
    let mut slowest = Duration::ZERO;
    while !everybody.is_finished() || slowest.is_zero() {
        let asked = Instant::now();
        bystander.send("ping", json!({})).await;
        bystander.expect("pong").await;
        slowest = slowest.max(asked.elapsed());
    }
    let (mut clients, got) = everybody.await.expect("everybody got it");
    let sent = sender.expect("message.sent").await;
    assert!(got.iter().all(|frame| frame["payload"]["message"] == sent["payload"]["message"]));
    assert!(slowest < Duration::from_secs(2), "a ping took {slowest:?} beside the fan-out");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());

    // Typing and presence go to no more than PRESENCE_AUDIENCE users; operators see who is there all the same.
    sender.send("typing", json!({ "conversationId": "square", "isTyping": true })).await;
    sender.settle().await;
    let (first, last) = (clients.first_mut().expect("a client"), ONLINE * 2);
    assert!(!first.settle().await.iter().any(|frame| frame["type"] == "typing"));
    let (status, stats) = get(cluster.two.ops, "/api/v1/admin/channels/square?limit=5", &backend).await;
    assert_eq!(status, 200, "{stats}");
    assert_eq!((&stats["memberCount"], &stats["online"]), (&json!(10_000), &json!(last + 1)), "{stats}");
    assert_eq!((&stats["here"]["users"], stats["items"].as_array().map(Vec::len)), (&json!(ONLINE), Some(5)));
}
