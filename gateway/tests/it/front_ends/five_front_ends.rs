//! The front ends of the five documents at once, on two nodes: each gets the others' messages in its own frames.
//! Refusals are in `rights`.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::http::post;
use crate::support::node::{API_KEY, Node};
use crate::support::two_nodes::{TwoNodes, bounded};

/// A front end: its socket, its user, and which document it follows.
struct FrontEnd {
    seed: &'static str,
    user: &'static str,
    socket: Socket,
}

enum Socket {
    /// Seed 002 at `/chat/ws`.
    Chat(Box<Client>),
    /// Seeds 000 and 001 at `/ws/chat`.
    Listings(Flat),
    /// Seed 004, and the generic socket of seed 002, at `/ws`.
    Social(Flat),
    /// Seed 003 at `/ws/channels`.
    Channels(Flat),
}

/// What one message looks like to a front end, without what only its own frames have.
#[derive(Debug, PartialEq)]
struct Seen {
    group: String,
    from: String,
    content: String,
}

impl FrontEnd {
    async fn open(seed: &'static str, node: &Node, user: &'static str) -> Self {
        let to = node.http;
        let socket = match seed {
            "002" => Socket::Chat(Box::new(Client::join(to, user).await)),
            "000" | "001" => Socket::Listings(Flat::join(to, "/ws/chat", user).await),
            "003" => Socket::Channels(Flat::join(to, "/ws/channels", user).await),
            _ => Socket::Social(Flat::join(to, "/ws", user).await),
        };
        Self { seed, user, socket }
    }

    /// Says something in the group, in the front end's own frame.
    async fn say(&mut self, group: &str, content: &str) {
        match &mut self.socket {
            Socket::Chat(client) => {
                client.send("message.send", json!({ "conversationId": group, "content": content })).await;
            }
            Socket::Listings(flat) => {
                flat.send(json!({ "type": "send_message", "chat_id": group, "content": content })).await;
            }
            Socket::Social(flat) => {
                flat.send(json!({ "type": "group", "group_id": group, "content": content })).await;
            }
            Socket::Channels(flat) => {
                flat.send(json!({ "type": "chat_message", "channel_id": group, "content": content })).await;
            }
        }
    }

    /// The next message of the group.
    async fn hear(&mut self, own: bool) -> Seen {
        match &mut self.socket {
            Socket::Chat(client) => {
                let frame = client.expect(if own { "message.sent" } else { "message.new" }).await;
                let message = &frame["payload"]["message"];
                seen(&message["conversationId"], &message["senderId"], &message["content"])
            }
            Socket::Listings(flat) => {
                let frame = flat.expect("new_message").await;
                seen(&frame["chat_id"], &frame["message"]["sender_id"], &frame["message"]["content"])
            }
            Socket::Social(flat) => {
                let frame = flat.expect("group").await;
                assert!(frame["group_id"].is_string() && frame["timestamp"].is_i64(), "{frame}");
                seen(&frame["group_id"], &frame["from"], &frame["content"])
            }
            Socket::Channels(flat) => {
                let frame = flat.expect("chat_message").await;
                let name = format!("name-of-{}", id(&frame["user_id"]));
                assert_eq!(frame["username"], *name, "{frame}");
                seen(&frame["channel_id"], &frame["user_id"], &frame["content"])
            }
        }
    }

    /// What is still on its way, by type.
    async fn settle(&mut self) -> Vec<String> {
        let frames = match &mut self.socket {
            Socket::Chat(client) => client.settle().await,
            Socket::Listings(flat) | Socket::Social(flat) | Socket::Channels(flat) => flat.settle().await,
        };
        frames.iter().map(|frame| frame["type"].as_str().expect("a type").to_owned()).collect()
    }
}

/// An id or word as text, whether it came as a string or as an integer.
fn id(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn seen(group: &Value, from: &Value, content: &Value) -> Seen {
    Seen { group: id(group), from: id(from), content: id(content) }
}

/// One front end of each document, two of seed 002 (both of its sockets), on two nodes in turn.
async fn front_ends(cluster: &TwoNodes) -> Vec<FrontEnd> {
    let (one, two) = (&cluster.one, &cluster.two);
    vec![
        FrontEnd::open("000", one, "10").await,
        FrontEnd::open("001", two, "11").await,
        FrontEnd::open("002", one, "12").await,
        FrontEnd::open("002 generic", two, "13").await,
        FrontEnd::open("003", one, "14").await,
        FrontEnd::open("004", two, "15").await,
    ]
}

async fn make(node: &Node, group: Value) {
    let (status, made) = post(node.http, "/api/v1/conversations", &[("x-api-key", API_KEY)], group).await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sees_what_the_others_say() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut all = front_ends(&cluster).await;
        let users: Vec<&str> = all.iter().map(|front_end| front_end.user).collect();
        make(&cluster.one, json!({ "id": "456", "kind": "group", "members": users })).await;
        for speaker in 0..all.len() {
            let content = format!("said by the front end of seed {}", all[speaker].seed);
            let from = all[speaker].user.to_owned();
            all[speaker].say("456", &content).await;
            for (place, listener) in all.iter_mut().enumerate() {
                let own = place == speaker;
                // The social network's sender gets no echo.
                if !(own && matches!(listener.socket, Socket::Social(_))) {
                    let expected = Seen { group: "456".into(), from: from.clone(), content: content.clone() };
                    assert_eq!(listener.hear(own).await, expected, "seen by seed {}", listener.seed);
                }
            }
        }
        let messages = ["message.new", "message.sent", "new_message", "group", "chat_message"];
        for front_end in &mut all {
            let rest = front_end.settle().await;
            let twice: Vec<_> = rest.iter().filter(|kind| messages.contains(&kind.as_str())).collect();
            assert!(twice.is_empty(), "seed {} got a message twice: {rest:?}", front_end.seed);
        }
    })
    .await;
}
