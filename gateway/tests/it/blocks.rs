//! Between two of whom one has blocked the other nothing is made and nothing passes, either way. In groups that both are in,
//! messages, reactions and comings and goings pass. Over every dialect and over REST, on two nodes and in memory.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::http::{bearer, post, request};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::{TwoNodes, acting, bounded, say};

/// Runs a case on two nodes with real servers, and on one with everything embedded.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod on_two_nodes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::bounded(async {
                    let nodes = super::TwoNodes::start(&[]).await;
                    super::$case(&nodes.one, &nodes.two).await;
                })
                .await;
            })+
        }
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::bounded(async {
                    let node = super::Node::embedded(&[("USER_COMMANDS_PER_SECOND", "0")]).await;
                    super::$case(&node, &node).await;
                })
                .await;
            })+
        }
    };
}

on_both!(
    nothing_is_made_across_a_block,
    neither_sees_the_others_presence,
    typing_does_not_pass,
    receipts_do_not_pass,
    a_common_group_goes_on,
    a_block_ends_typing_in_a_conversation_that_only_the_other_node_knows,
    receipts_end_with_the_membership,
);

const CONVERSATIONS: &str = "/api/v1/conversations";

/// Over the socket, like a user.
async fn block(node: &Node, blocker: &str, blocked: &str) {
    let mut client = Client::join(node.http, blocker).await;
    client.send("block.add", json!({ "userId": blocked })).await;
    client.expect("block.added").await;
}

/// A group `g` of these, the first its owner.
async fn group(node: &Node, owner: &str, members: &[&str]) {
    let new = json!({ "id": "g", "kind": "group", "visibility": "public", "members": members });
    let (status, made) = acting(node.http, "POST", CONVERSATIONS, owner, new).await;
    assert_eq!(status, 201, "{made}");
}

/// A request with the user's own token.
async fn asking(node: &Node, user: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (name, value) = bearer(&token(user));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(node.http, method, path, &[(name, &value)], body).await
}

async fn nothing_is_made_across_a_block(one: &Node, two: &Node) {
    block(one, "a", "b").await;
    let mut seen = [Client::join(one.http, "a").await, Client::join(two.http, "b").await];
    for (by, other) in [("a", "b"), ("b", "a")] {
        let own = format!("own-of-{by}");
        let new = json!({ "id": own, "kind": "group" });
        assert_eq!(acting(one.http, "POST", CONVERSATIONS, by, new).await.0, 201);
        let path = |rest: &str| format!("{CONVERSATIONS}/{own}/{rest}");
        let requests = [
            (CONVERSATIONS.to_owned(), json!({ "kind": "group", "members": [other] })),
            (CONVERSATIONS.to_owned(), json!({ "kind": "channel", "members": [by, other] })),
            (CONVERSATIONS.to_owned(), json!({ "kind": "direct", "members": [other] })),
            (path("members"), json!({ "userId": other })),
            (path("members"), json!({ "userId": other, "role": "admin" })),
            (path("invites"), json!({ "userId": other })),
            ("/api/groups/invite".to_owned(), json!({ "group_id": own, "user_id": other })),
            ("/api/v1/messages".to_owned(), json!({ "to": other, "content": "x" })),
        ];
        for (path, body) in requests {
            for node in [one, two] {
                let (status, answer) = asking(node, by, "POST", &path, &body).await;
                assert_eq!((status, &answer["error"]["code"]), (403, &json!("BLOCKED")), "{by} {path} {body}");
                let (status, answer) = acting(node.http, "POST", &path, by, body.clone()).await;
                assert_eq!((status, &answer["error"]["code"]), (403, &json!("BLOCKED")), "{by} {path} by a backend");
            }
        }
        // Of many at once the blocked are left out.
        let many = json!({ "kind": "group", "members": ["c", other, "d"] });
        let (status, made) = asking(two, by, "POST", CONVERSATIONS, &many).await;
        assert_eq!((status, &made["blocked"], &made["memberCount"]), (201, &json!([other]), &json!(3)), "{made}");
        let many = json!({ "userIds": ["c", other, "d"] });
        let (status, answer) = asking(one, by, "POST", &path("members"), &many).await;
        let expected = json!({ "added": ["c", "d"], "banned": [], "blocked": [other], "memberCount": 3 });
        assert_eq!((status, &answer), (200, &expected));
        let (_, made) = asking(one, by, "POST", CONVERSATIONS, &json!({ "kind": "group", "members": ["c"] })).await;
        assert_eq!(made.get("blocked"), None, "{made}");
    }
    for (client, other) in seen.iter_mut().zip(["b", "a"]) {
        for frame in client.settle().await {
            let text = frame.to_string();
            assert!(!text.contains(&format!(r#""userId":"{other}""#)) && frame["type"] != "notification", "{text}");
        }
    }
    // A backend in its own name isn't held by blocks.
    let backend = [("x-api-key", API_KEY)];
    for kind in ["group", "channel", "direct"] {
        let (status, made) =
            post(one.http, CONVERSATIONS, &backend, json!({ "kind": kind, "members": ["a", "b"] })).await;
        assert_eq!((status, &made["memberCount"], made.get("blocked")), (201, &json!(2), None), "{made}");
    }
    let path = format!("{CONVERSATIONS}/own-of-a/members");
    assert_eq!(post(one.http, &path, &backend, json!({ "userId": "b" })).await.0, 200);
    let path = format!("{CONVERSATIONS}/own-of-b/invites");
    assert_eq!(post(one.http, &path, &backend, json!({ "userId": "a" })).await.0, 204);
    seen[1].expect("conversation.joined").await;
    seen[0].expect("notification").await;
    // In what the backend opened the block holds.
    let (_, answer) = asking(two, "b", "POST", "/api/v1/messages", &json!({ "to": "a", "content": "x" })).await;
    assert_eq!(answer["error"]["code"], "BLOCKED");
}

/// The users of a `status.bulk`, and what it says of them.
fn status(frame: &Value) -> Value {
    frame["payload"]["users"].clone()
}

async fn neither_sees_the_others_presence(one: &Node, two: &Node) {
    group(one, "c", &["a", "b"]).await;
    say(one.http, "a", "b", "a direct conversation").await;
    block(one, "a", "b").await;
    let mut c = Client::join(two.http, "c").await;
    // `a` was there for the block, and goes for good.
    while c.expect("user.offline").await["payload"]["userId"] != "a" {}
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut here = Client::join(one.http, first).await;
        while c.expect("user.online").await["payload"]["userId"] != first {}
        let (name, value) = bearer(&token(second));
        let mut there = Client::open(two.http, "/chat/ws", &[(name, &value)]).await.expect("an upgrade");
        let known = status(&there.expect("status.bulk").await);
        assert_eq!((&known[first], &known["c"]["online"]), (&json!({ "online": false }), &json!(true)), "on connect");
        while c.expect("user.online").await["payload"]["userId"] != second {}
        for (client, other) in [(&mut here, second), (&mut there, first)] {
            client.send("presence.query", json!({ "userIds": [other, "c"] })).await;
            let known = status(&client.expect("status.bulk").await);
            assert_eq!((&known[other], &known["c"]["online"]), (&json!({ "online": false }), &json!(true)), "asked");
        }
        for (user, other) in [(first, second), (second, first)] {
            let path = format!("/api/v1/presence?users={other},c");
            for (_, answer) in [
                asking(two, user, "GET", &path, &Value::Null).await,
                acting(one.http, "GET", &path, user, Value::Null).await,
            ] {
                let users = &answer["users"];
                assert_eq!((&users[other], &users["c"]["online"]), (&json!({ "online": false }), &json!(true)), "REST");
            }
        }
        drop(there);
        while c.expect("user.offline").await["payload"]["userId"] != second {}
        // What comes after shows that nothing of it came.
        c.send("message.send", json!({ "conversationId": "g", "content": "after" })).await;
        here.expect("message.new").await;
        let about = here.kept().iter().filter(|frame| frame["payload"]["userId"] == second).collect::<Vec<_>>();
        assert!(about.is_empty(), "{about:?}");
        let path = format!("/api/v1/presence?users={first}");
        let (_, answer) = request(one.http, "GET", &path, &[("x-api-key", API_KEY)], "").await;
        assert_eq!(answer["users"][first]["online"], true, "a backend sees all");
        drop(here);
        while c.expect("user.offline").await["payload"]["userId"] != first {}
    }
    // Who moderates a channel learns of its members no more than that.
    let _here = Client::join(one.http, "a").await;
    let path = format!("{CONVERSATIONS}/g/members/b");
    assert_eq!(acting(one.http, "PATCH", &path, "c", json!({ "role": "admin" })).await.0, 200);
    let (name, value) = bearer(&token("b"));
    let (status, stats) = request(one.ops, "GET", "/api/v1/admin/channels/g", &[(name, &value)], "").await;
    let online: Vec<_> = stats["items"].as_array().expect("items").iter().map(|user| &user["userId"]).collect();
    assert_eq!((status, online), (200, vec![&json!("c")]), "{stats}");
}

async fn typing_does_not_pass(one: &Node, two: &Node) {
    group(one, "c", &["a", "b"]).await;
    block(one, "a", "b").await;
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut hears = Client::join(two.http, "c").await;
        let mut deaf = Client::join(two.http, to).await;
        let mut deaf_in_listings = Flat::join(one.http, "/ws/chat", to).await;
        let mut deaf_in_channels = Flat::join(one.http, "/ws/channels", to).await;
        let mut chat = Client::join(one.http, from).await;
        let mut listings = Flat::join(two.http, "/ws/chat", from).await;
        let mut channels = Flat::join(two.http, "/ws/channels", from).await;
        for on in [true, true, false] {
            chat.send("typing", json!({ "conversationId": "g", "isTyping": on })).await;
            assert_eq!(hears.expect("typing").await["payload"]["isTyping"], on);
        }
        for on in [true, false] {
            listings.send(json!({ "type": "typing", "chat_id": "g", "is_typing": on })).await;
            assert_eq!(hears.expect("typing").await["payload"]["isTyping"], on);
        }
        for on in [true, false] {
            channels.send(json!({ "type": "typing", "channel_id": "g", "is_typing": on })).await;
            assert_eq!(hears.expect("typing").await["payload"]["isTyping"], on);
        }
        // Its end by silence, too.
        chat.send("typing", json!({ "conversationId": "g", "isTyping": true })).await;
        hears.expect("typing").await;
        assert_eq!(hears.expect("typing").await["payload"]["isTyping"], false, "it ends by itself");
        hears.send("message.send", json!({ "conversationId": "g", "content": "after" })).await;
        deaf.expect("message.new").await;
        deaf_in_listings.expect("new_message").await;
        deaf_in_channels.expect("chat_message").await;
        for client in [&deaf, &deaf_in_listings.0, &deaf_in_channels.0] {
            assert!(client.kept().iter().all(|frame| frame["type"] != "typing"), "{:?}", client.kept());
        }
    }
}

async fn receipts_do_not_pass(one: &Node, two: &Node) {
    group(one, "c", &["a", "b"]).await;
    say(one.http, "a", "b", "a direct conversation").await;
    for user in ["a", "b", "c"] {
        let body = json!({ "conversationId": "g", "content": user });
        assert_eq!(acting(one.http, "POST", "/api/v1/messages", user, body).await.0, 201);
    }
    block(one, "a", "b").await;
    let mut c = Client::join(two.http, "c").await;
    for (reader, other) in [("a", "b"), ("b", "a")] {
        let mut sender = Client::join(two.http, other).await;
        let mut in_listings = Flat::join(one.http, "/ws/chat", other).await;
        let mut client = Client::join(one.http, reader).await;
        let (_, list) = asking(one, reader, "GET", CONVERSATIONS, &Value::Null).await;
        for conversation in list["items"].as_array().expect("items") {
            let last = conversation["lastMessage"]["id"].clone();
            client.send("message.delivered", json!({ "conversationId": conversation["id"], "upTo": last })).await;
            client.send("message.read", json!({ "conversationId": conversation["id"] })).await;
            client.expect("message.read_ack").await;
        }
        // The third of the group learns of both.
        assert_eq!(c.expect("message.delivered_update").await["payload"]["userId"], reader);
        assert_eq!(c.expect("message.read_update").await["payload"]["readBy"], reader);
        c.send("message.send", json!({ "conversationId": "g", "content": "after" })).await;
        sender.expect("message.new").await;
        in_listings.expect("new_message").await;
        for frame in sender.kept().iter().chain(in_listings.0.kept()) {
            let kind = frame["type"].as_str().expect("a type");
            assert!(!kind.ends_with("_update") && kind != "message_read", "{frame}");
        }
    }
}

async fn a_common_group_goes_on(one: &Node, two: &Node) {
    group(one, "c", &["a", "b"]).await;
    block(one, "a", "b").await;
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut speaks = Client::join(one.http, from).await;
        let mut hears = Client::join(two.http, to).await;
        speaks.send("message.send", json!({ "conversationId": "g", "content": "hello" })).await;
        let message = hears.expect("message.new").await["payload"]["message"].clone();
        assert_eq!(message["senderId"], from);
        hears.send("reaction.add", json!({ "messageId": message["id"], "emoji": "👍" })).await;
        assert_eq!(speaks.expect("reaction.updated").await["payload"]["userId"], to);
        speaks.send("message.edit", json!({ "messageId": message["id"], "content": "hello again" })).await;
        hears.expect("message.edited").await;
        speaks.send("conversation.leave", json!({ "conversationId": "g" })).await;
        assert_eq!(hears.expect("member.left").await["payload"]["userId"], from);
        speaks.send("conversation.join", json!({ "conversationId": "g" })).await;
        assert_eq!(hears.expect("member.joined").await["payload"]["userId"], from);
    }
}

/// The node that carries the block out has never seen the direct conversation; the other one remembers its members.
async fn a_block_ends_typing_in_a_conversation_that_only_the_other_node_knows(one: &Node, two: &Node) {
    let sent = say(two.http, "a", "b", "hello").await;
    let typing = json!({ "conversationId": sent["conversationId"], "isTyping": true });
    let mut b = Client::join(two.http, "b").await;
    let mut a = Client::join(two.http, "a").await;
    b.send("typing", typing.clone()).await;
    a.expect("typing").await;
    let mut here = Client::join(one.http, "a").await;
    here.send("block.add", json!({ "userId": "b" })).await;
    here.expect("block.added").await;
    a.expect("block.added").await;
    b.send("typing", typing).await;
    assert_eq!(b.expect("error").await["payload"]["code"], "BLOCKED");
}

async fn receipts_end_with_the_membership(one: &Node, two: &Node) {
    group(one, "o", &["a", "b", "stays"]).await;
    let mut b = Client::join(two.http, "b").await;
    let mut stays = Client::join(two.http, "stays").await;
    for client in [&mut b, &mut stays] {
        client.send("message.send", json!({ "conversationId": "g", "content": "x" })).await;
        client.expect("message.sent").await;
    }
    let path = format!("{CONVERSATIONS}/g/members/b");
    assert_eq!(asking(one, "o", "DELETE", &path, &Value::Null).await.0, 204);
    b.expect("conversation.left").await;
    let mut a = Client::join(one.http, "a").await;
    let (_, page) = asking(one, "a", "GET", &format!("{CONVERSATIONS}/g/messages"), &Value::Null).await;
    let last = page["items"][1]["id"].clone();
    a.send("message.delivered", json!({ "conversationId": "g", "upTo": last })).await;
    a.send("message.read", json!({ "conversationId": "g" })).await;
    assert_eq!(a.expect("message.read_ack").await["payload"]["markedCount"], 2);
    stays.expect("message.delivered_update").await;
    stays.expect("message.read_update").await;
    say(one.http, "a", "b", "after").await;
    while b.expect("message.new").await["payload"]["message"]["content"] != "after" {}
    let told: Vec<_> =
        b.kept().iter().filter(|frame| frame["type"].as_str().is_some_and(|t| t.ends_with("_update"))).collect();
    assert!(told.is_empty(), "{told:?}");
}
