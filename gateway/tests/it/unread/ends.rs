//! Unread counts end with the membership that they belong to.

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming};
use crate::support::node::Node;
use crate::support::two_nodes::{TwoNodes, acting, bounded, say};

/// How a membership ends: the method, the path behind the conversation's, the user who asks, the body. After the last one the
/// reader comes back.
const ENDS: [(&str, &str, &str, &str); 4] = [
    ("POST", "/leave", "reader", "{}"),
    ("DELETE", "/members/reader", "owner", "null"),
    ("POST", "/bans", "owner", r#"{"userId":"reader"}"#),
    ("POST", "/leave", "reader", "{}"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_that_ends_takes_its_counts_along_on_redis() {
    bounded(async {
        let cluster = TwoNodes::start(&[("CONNECT_RATE_PER_USER", "0")]).await;
        counts_end(&cluster.one, &cluster.two).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_that_ends_takes_its_counts_along_on_one_node() {
    bounded(async {
        let settings =
            [("CONNECT_RATE_PER_USER", "0"), ("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")];
        let node = Node::embedded(&settings).await;
        counts_end(&node, &node).await;
    })
    .await;
}

async fn counts_end(one: &Node, two: &Node) {
    let mut reader = Client::join(two.http, "reader").await;
    say(one.http, "friend", "reader", "hello").await;
    assert_eq!(until_told(&mut reader, "message.new").await["totalUnread"], 1);
    for (number, (method, path, by, body)) in ENDS.into_iter().enumerate() {
        let group = format!("g{number}");
        let create = json!({ "id": group, "kind": "channel", "members": ["reader"] });
        let (status, made) = acting(one.http, "POST", "/api/v1/conversations", "owner", create).await;
        assert_eq!(status, 201, "{made}");
        for n in 1..=3 {
            speak(one, &group).await;
            assert_eq!(until_told(&mut reader, "message.new").await["totalUnread"], n + 1, "{group}");
        }
        let path = format!("/api/v1/conversations/{group}{path}");
        let (status, answer) = acting(one.http, method, &path, by, serde_json::from_str(body).expect("JSON")).await;
        assert!(status < 300, "{path} {answer}");
        let told = until_told(&mut reader, "conversation.left").await;
        assert_eq!(told, json!({ "conversationId": group, "unread": 0, "totalUnread": 1 }), "{path}");
        assert_eq!(total_of_rest(two).await, 1, "{path}");
        // While the reader is away the others go on; who comes back begins at the newest message.
        speak(one, &group).await;
        if number + 1 == ENDS.len() {
            let path = format!("/api/v1/conversations/{group}/members");
            let (status, answer) = acting(one.http, "POST", &path, "owner", json!({ "userId": "reader" })).await;
            assert!(status < 300, "{answer}");
            reader.expect("conversation.joined").await;
            speak(one, &group).await;
            let told = until_told(&mut reader, "message.new").await;
            assert_eq!(told, json!({ "conversationId": group, "unread": 1, "totalUnread": 2 }));
            assert_eq!(total_of_rest(two).await, 2);
        }
    }
    say(one.http, "friend", "reader", "again").await;
    assert_eq!(until_told(&mut reader, "message.new").await["totalUnread"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_without_known_counts_is_told_the_total() {
    bounded(async {
        let cluster = TwoNodes::start(&[("CONNECT_RATE_PER_USER", "0")]).await;
        say(cluster.one.http, "friend", "reader", "hello").await;
        let create = json!({ "id": "g", "kind": "channel", "members": ["reader"] });
        acting(cluster.one.http, "POST", "/api/v1/conversations", "owner", create).await;
        speak(&cluster.one, "g").await;
        let mut reader = Client::join(cluster.two.http, "reader").await;
        reader.send("conversation.leave", json!({ "conversationId": "g" })).await;
        let told = until_told(&mut reader, "conversation.left").await;
        assert_eq!(told, json!({ "conversationId": "g", "unread": 0, "totalUnread": 1 }));
    })
    .await;
}

/// The payload of the `notification.unread` that follows the next event of this type.
async fn until_told(reader: &mut Client, event: &str) -> Value {
    let mut has_come = false;
    loop {
        let Incoming::Frame(frame) = reader.next().await else { panic!("the socket stays open") };
        has_come |= frame["type"] == event;
        if has_come && frame["type"] == "notification.unread" {
            return frame["payload"].clone();
        }
    }
}

async fn speak(node: &Node, group: &str) {
    let body = json!({ "conversationId": group, "content": "hi" });
    let (status, answer) = acting(node.http, "POST", "/api/v1/messages", "owner", body).await;
    assert_eq!(status, 201, "{answer}");
}

/// The unread counts of `GET /api/v1/conversations`, summed up.
async fn total_of_rest(node: &Node) -> u64 {
    let (status, page) = acting(node.http, "GET", "/api/v1/conversations", "reader", Value::Null).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().expect("items").iter().map(|item| item["unread"].as_u64().expect("a count")).sum()
}
