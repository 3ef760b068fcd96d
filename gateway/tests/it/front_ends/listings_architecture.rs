//! Seed 001 over real sockets: where its frames are smaller than those of seed 000, the larger ones serve both.

use serde_json::json;

use crate::support::flat::{Flat, assert_shows, open_chat};
use crate::support::http::get;
use crate::support::nginx::Nginx;
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::TwoNodes;

const PATH: &str = "/ws/chat";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_frames() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let (mut six, connected) = Flat::join_with(node.http, PATH, &token("6"), "").await;
    let document = r#"{"type": "connected", "user_id": 6, "timestamp": "2025-11-21T13:00:00Z"}"#;
    assert_shows(document, &connected, &[]);
    six.0.send_text(r#"{"type": "ping"}"#).await;
    assert_shows(r#"{"type": "pong", "timestamp": "2025-11-21T13:00:00Z"}"#, &six.expect("pong").await, &[]);

    let mut five = Flat::join(node.http, PATH, "5").await;
    five.send(json!({ "type": "send_message", "chat_id": 3, "content": "Привет!" })).await;
    let document = r#"{
      "type": "new_message",
      "chat_id": 3,
      "message": {
        "id": 789,
        "chat_id": 3,
        "sender_id": 5,
        "content": "Привет!",
        "created_at": "2025-11-21T13:00:00Z"
      }
    }"#;
    let new = six.expect("new_message").await;
    assert_shows(document, &new, &["id"]);

    let mark = r#"{"type": "mark_read", "message_id": 456}"#;
    six.0.send_text(&mark.replace("456", &new["message"]["id"].to_string())).await;
    let document = r#"{"type": "message_read", "message_id": 456, "chat_id": 3, "read_by": 6}"#;
    assert_shows(document, &five.expect("message_read").await, &["message_id"]);

    five.0.send_text(&r#"{"type": "typing", "chat_id": 123, "is_typing": true}"#.replace("123", "3")).await;
    let document = r#"{"type": "typing", "chat_id": 3, "user_id": 5, "is_typing": true}"#;
    assert_shows(document, &six.expect("typing").await, &[]);
}

/// Variants 1 and 2 of the document: a reverse proxy before the service, the token in the query. Two nodes stand behind
/// it, and it makes no difference which one has whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_with_the_token_in_the_query() {
    let cluster = TwoNodes::start(&[]).await;
    open_chat(&cluster.one).await;
    let nginx = Nginx::before(&cluster.one, &cluster.two).await;
    let mut sockets = Vec::new();
    for user in ["5", "5", "6", "6"] {
        sockets.push(Flat::join(nginx.address, PATH, user).await);
    }
    let nodes = [&cluster.one, &cluster.two].map(|node| node.app.node().registry.socket_count());
    assert_eq!(nodes, [2, 2], "nginx spreads the sockets");
    for n in 0..20 {
        sockets[0].send(json!({ "type": "send_message", "chat_id": 3, "content": format!("m{n}") })).await;
    }
    for socket in &mut sockets {
        for n in 0..20 {
            assert_eq!(socket.expect("new_message").await["message"]["content"], format!("m{n}"));
        }
    }
    // Large messages pass whole, in both directions.
    let long = "x".repeat(4000);
    sockets[3].send(json!({ "type": "send_message", "receiver_id": 5, "content": long })).await;
    assert_eq!(sockets[0].expect("new_message").await["message"]["content"], *long);
    // REST goes through as well, and no token stands in the log.
    assert_eq!(get(nginx.address, "/api/v1/conversations", &[("x-api-key", API_KEY), ("x-user-id", "6")]).await.0, 200);
    drop(sockets);
    let log = nginx.stop();
    assert!(log.contains("/ws/chat") && !log.contains("token"), "{log}");
}

/// The page of the document polls every five seconds when it has no socket, and comes back after thirty: whatever was sent
/// meanwhile is in the history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_socket_the_history_is_polled() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let mut five = Flat::join(node.http, PATH, "5").await;
    let as_six = [("x-api-key", API_KEY), ("x-user-id", "6")];
    let mut after = 0;
    for content in ["first", "second"] {
        five.send(json!({ "type": "send_message", "chat_id": 3, "content": content })).await;
        five.expect("new_message").await;
        let path = format!("/api/v1/conversations/3/messages?after={after}");
        let (status, page) = get(node.http, &path, &as_six).await;
        assert_eq!((status, &page["items"][0]["content"]), (200, &json!(content)), "{page}");
        after = page["items"][0]["seq"].as_u64().expect("a seq");
    }
}
