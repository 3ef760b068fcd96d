//! The front ends of the five documents at once, on two nodes: each sees what the others say in its own frames, and what is
//! forbidden is refused over each of them, and over REST, by the same code.

use serde_json::{Value, json};

use crate::noloss_rig::{Cluster, acting, bounded};
use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::http::post;
use crate::support::node::{API_KEY, Node};

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

    /// Joins; `None` where the protocol has no frame for it.
    async fn try_to_join(&mut self, group: &str, password: Option<&str>) -> Option<String> {
        match &mut self.socket {
            Socket::Chat(client) => {
                client.send("conversation.join", json!({ "conversationId": group, "password": password })).await;
                Some(id(&client.expect("error").await["payload"]["code"]))
            }
            Socket::Listings(_) => None,
            Socket::Social(flat) => Some(flat.refused(json!({ "type": "join_room", "room": group })).await),
            Socket::Channels(flat) => {
                let frame = json!({ "type": "join_channel", "channel_id": group, "password": password });
                Some(flat.refused(frame).await)
            }
        }
    }

    /// Says something that is refused; the code.
    async fn try_to_say(&mut self, group: &str) -> String {
        self.say(group, "forbidden").await;
        match &mut self.socket {
            Socket::Chat(client) => id(&client.expect("error").await["payload"]["code"]),
            Socket::Listings(flat) | Socket::Social(flat) | Socket::Channels(flat) => {
                id(&flat.expect("error").await["code"])
            }
        }
    }

    /// Writes to a user; the code. Channels have no such frame.
    async fn try_to_write(&mut self, to: &str) -> Option<String> {
        match &mut self.socket {
            Socket::Chat(client) => {
                client.send("message.send", json!({ "to": to, "content": "x" })).await;
                Some(id(&client.expect("error").await["payload"]["code"]))
            }
            Socket::Listings(flat) => {
                Some(flat.refused(json!({ "type": "send_message", "receiver_id": to, "content": "x" })).await)
            }
            Socket::Social(flat) => Some(flat.refused(json!({ "type": "private", "to": to, "content": "x" })).await),
            Socket::Channels(_) => None,
        }
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
async fn front_ends(cluster: &Cluster) -> Vec<FrontEnd> {
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
        let cluster = Cluster::start(&[]).await;
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

/// The store, not a dialect, knows who may do what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forbidden_is_refused_alike() {
    bounded(async {
        let cluster = Cluster::start(&[]).await;
        let mut all = front_ends(&cluster).await;
        let node = &cluster.one;
        make(node, json!({ "id": "closed", "kind": "group", "members": ["1", "2"] })).await;
        let (status, _) = acting(
            node.http,
            "POST",
            "/api/v1/conversations",
            "1",
            json!({ "id": "locked", "kind": "channel", "password": "s3cret" }),
        )
        .await;
        assert_eq!(status, 201);
        let (status, _) =
            acting(node.http, "POST", "/api/v1/conversations", "1", json!({ "id": "open", "kind": "channel" })).await;
        assert_eq!(status, 201);
        let said =
            acting(node.http, "POST", "/api/v1/messages", "1", json!({ "conversationId": "open", "content": "mine" }))
                .await;
        assert_eq!(said.0, 201, "{}", said.1);
        let foreign = said.1["message"]["id"].clone();

        for front_end in &mut all {
            let (seed, user) = (front_end.seed, front_end.user);
            let rest = async |method: &str, path: &str, body: Value| {
                id(&acting(node.http, method, path, user, body).await.1["error"]["code"])
            };
            // Not a member.
            let send = json!({ "conversationId": "closed", "content": "x" });
            assert_eq!(rest("POST", "/api/v1/messages", send).await, "NOT_MEMBER");
            assert_eq!(front_end.try_to_say("closed").await, "NOT_MEMBER", "seed {seed}");
            // A wrong password, or none.
            let join = json!({ "password": "wrong" });
            assert_eq!(rest("POST", "/api/v1/conversations/locked/join", join).await, "PASSWORD_REQUIRED");
            if let Some(code) = front_end.try_to_join("locked", Some("wrong")).await {
                assert_eq!(code, "PASSWORD_REQUIRED", "seed {seed}");
            }
            // Someone else's message can be read up to by members only.
            if let Socket::Listings(flat) = &mut front_end.socket {
                let mark = json!({ "type": "mark_read", "message_id": id(&foreign) });
                assert_eq!(flat.refused(mark).await, "NOT_MEMBER", "seed {seed}");
            }
            // Not an admin.
            let event = json!({ "event": { "type": "broadcast", "payload": { "content": "x" } } });
            let bearer = crate::support::http::bearer(&crate::support::node::token(user));
            let (_, refused) = post(node.http, "/api/v1/broadcast", &[(bearer.0, &bearer.1)], event).await;
            assert_eq!(refused["error"]["code"], "FORBIDDEN");
            if let Socket::Social(flat) = &mut front_end.socket {
                let frame = json!({ "type": "broadcast", "content": "x" });
                assert_eq!(flat.refused(frame).await, "FORBIDDEN", "seed {seed}");
            }
            // Banned.
            let (status, answer) =
                acting(node.http, "POST", "/api/v1/conversations/open/bans", "1", json!({ "userId": user })).await;
            assert!((200..300).contains(&status), "{answer}");
            assert_eq!(rest("POST", "/api/v1/conversations/open/join", json!({})).await, "BANNED");
            let send = json!({ "conversationId": "open", "content": "x" });
            let said = rest("POST", "/api/v1/messages", send).await;
            assert_eq!(front_end.try_to_say("open").await, said, "seed {seed}");
            if let Some(code) = front_end.try_to_join("open", None).await {
                assert_eq!(code, "BANNED", "seed {seed}");
            }
        }

        // Blocked: nobody who was blocked writes to the one who did it.
        let mut blocker = Client::join(cluster.two.http, "9").await;
        for front_end in &mut all {
            let (seed, user) = (front_end.seed, front_end.user);
            blocker.send("block.add", json!({ "userId": user })).await;
            blocker.expect("block.added").await;
            let send = json!({ "to": "9", "content": "x" });
            let (_, refused) = acting(node.http, "POST", "/api/v1/messages", user, send).await;
            assert_eq!(refused["error"]["code"], "BLOCKED");
            if let Some(code) = front_end.try_to_write("9").await {
                assert_eq!(code, "BLOCKED", "seed {seed}");
            }
        }
        assert!(blocker.settle().await.iter().all(|frame| frame["type"] != "message.new"));
    })
    .await;
}
