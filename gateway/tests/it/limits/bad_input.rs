//! Bad frames: each has its answer, and the connection stays open.

use std::time::Duration;

use serde_json::json;

use crate::support::client::Client;
use crate::support::node::Node;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_frame_has_its_error_and_the_connection_stays() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "0")]).await;
    let mut client = Client::join(node.http, "a").await;
    let long = "x".repeat(4001);
    for (frame, code, field) in [
        ("", "INVALID_MESSAGE", None),
        ("{", "INVALID_MESSAGE", None),
        ("[]", "INVALID_MESSAGE", None),
        ("\"text\"", "INVALID_MESSAGE", None),
        (r#"{"ref":1}"#, "INVALID_MESSAGE", Some("type")),
        (r#"{"type":"no.such","ref":1}"#, "UNKNOWN_EVENT", Some("type")),
        (r#"{"type":"message.send","ref":1}"#, "VALIDATION_ERROR", Some("conversationId")),
        (r#"{"type":"message.send","ref":1,"payload":{"to":7,"content":"x"}}"#, "VALIDATION_ERROR", Some("to")),
        (r#"{"type":"message.send","ref":1,"payload":{"to":"b c","content":"x"}}"#, "VALIDATION_ERROR", Some("to")),
        (r#"{"type":"message.send","ref":1,"payload":{"to":"b","content":""}}"#, "VALIDATION_ERROR", Some("content")),
        (
            &format!(r#"{{"type":"message.send","ref":1,"payload":{{"to":"b","content":"{long}"}}}}"#),
            "VALIDATION_ERROR",
            Some("content"),
        ),
        (
            r#"{"type":"message.read","ref":1,"payload":{"conversationId":"c","upTo":"x"}}"#,
            "VALIDATION_ERROR",
            Some("upTo"),
        ),
        (
            r#"{"type":"message.send","ref":1,"payload":{"to":"b","content":"cut \ud83d"}}"#,
            "VALIDATION_ERROR",
            Some("content"),
        ),
        (
            r#"{"type":"message.send","ref":1,"payload":{"to":"b","content":"x","kind":"Image"}}"#,
            "VALIDATION_ERROR",
            Some("kind"),
        ),
        (
            r#"{"type":"reaction.add","ref":1,"payload":{"messageId":"7","emoji":"<b>"}}"#,
            "VALIDATION_ERROR",
            Some("emoji"),
        ),
        (r#"{"type":"typing","ref":1,"payload":{"conversationId":"c"}}"#, "VALIDATION_ERROR", Some("isTyping")),
        (r#"{"type":"typing","ref":1,"payload":{"conversationId":"c","isTyping":true}}"#, "NOT_FOUND", None),
        (r#"{"type":"message.read","ref":1,"payload":{"conversationId":"c"}}"#, "NOT_FOUND", None),
        (r#"{"type":"message.send","ref":1,"payload":{"conversationId":"c","content":"x"}}"#, "NOT_FOUND", None),
        (r#"{"type":"block.add","ref":1,"payload":{"username":"nobody"}}"#, "NOT_FOUND", Some("username")),
        (r#"{"type":"conversation.join","ref":1,"payload":{"conversationId":"c"}}"#, "NOT_FOUND", None),
    ] {
        client.send_text(frame).await;
        let error = client.expect("error").await;
        assert_eq!(error["payload"]["code"], code, "{frame}");
        assert_eq!(error["payload"]["field"].as_str(), field, "{frame}");
        assert!(error["payload"]["message"].is_string() && error["payload"]["retryable"].is_boolean());
        let has_ref = frame.contains("\"ref\"");
        assert_eq!(error["ref"] == 1, has_ref, "{frame}");
    }
    client.send("ping", json!({})).await;
    client.expect("pong").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hundredth_bad_frame_in_a_row_closes() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "0")]).await;
    let mut client = Client::join(node.http, "a").await;
    for _ in 0..99 {
        client.send_text("nonsense").await;
    }
    client.send("ping", json!({})).await;
    client.expect("pong").await;
    for _ in 0..100 {
        client.send_text("nonsense").await;
    }
    assert_eq!(client.expect_close().await, 4007);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_commands_are_refused_then_closed() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "10")]).await;
    let mut client = Client::join(node.http, "a").await;
    for _ in 0..30 {
        client.send("ping", json!({})).await;
    }
    let error = client.expect("error").await;
    assert_eq!(error["payload"]["code"], "RATE_LIMITED");
    assert!(error["payload"]["retryAfterMs"].as_u64().is_some_and(|wait_ms| wait_ms > 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.send_ref("ping", json!({}), json!("later")).await;
    while client.expect("pong").await["ref"] != "later" {}
    for _ in 0..200 {
        client.send_text(r#"{"type":"ping"}"#).await;
    }
    assert_eq!(client.expect_close().await, 4101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_over_the_limit_closes_with_1009() {
    let node = Node::embedded(&[("MAX_FRAME_BYTES", "1024")]).await;
    let mut client = Client::join(node.http, "a").await;
    client.send_text(&"x".repeat(2000)).await;
    assert_eq!(client.expect_close().await, 1009);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_only_so_many_connections() {
    let node = Node::embedded(&[("MAX_CONNECTIONS_PER_USER", "2")]).await;
    let _one = Client::join(node.http, "a").await;
    let two = Client::join(node.http, "a").await;
    let path = format!("/chat/ws?token={}", crate::support::node::token("a"));
    let mut three = Client::open(node.http, &path, &[]).await.expect("upgrade");
    assert_eq!(three.expect_close().await, 4006);
    drop(two);
    // The place is free again once the server has seen the end of the second.
    let free = async {
        loop {
            let mut again = Client::open(node.http, &path, &[]).await.expect("upgrade");
            if let crate::support::client::Incoming::Frame(frame) = again.next().await {
                break frame;
            }
        }
    };
    let frame = tokio::time::timeout(Duration::from_secs(5), free).await.expect("a free place");
    assert_eq!(frame["type"], "auth_success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_refuses_before_the_upgrade() {
    let node = Node::embedded(&[("MAX_CONNECTIONS", "1")]).await;
    let _one = Client::join(node.http, "a").await;
    let refused = Client::open(node.http, "/chat/ws", &[]).await.err().expect("no room");
    assert!(refused.0.contains("503"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_instead_of_auth_ends_the_connection() {
    let node = Node::embedded(&[("AUTH_DEADLINE_SECONDS", "1")]).await;
    let mut client = Client::open(node.http, "/chat/ws", &[]).await.expect("upgrade");
    assert_eq!(client.expect_close().await, 4102);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_origins_versions_and_plain_requests_are_refused() {
    let node = Node::embedded(&[]).await;
    let refused = Client::open(node.http, "/chat/ws", &[("origin", "https://evil.example")]).await.err();
    assert!(refused.expect("another origin").0.contains("403"));
    let same = format!("http://{}", node.http);
    Client::open(node.http, "/chat/ws", &[("origin", &same)]).await.expect("the same host");
    let (status, _) = crate::support::http::get(node.http, "/chat/ws", &[]).await;
    assert_eq!(status, 400);
    let mut future =
        Client::open(node.http, "/chat/ws", &[("sec-websocket-protocol", "chat.v9")]).await.expect("upgrade");
    assert_eq!(future.expect_close().await, 4004);
    let (status, body) = crate::support::http::get(node.http, "/no/such/path", &[]).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("NOT_FOUND")));
}

/// Kinds: of one shape, those that the setting names, and `system` for backends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_are_those_that_the_setting_names_and_system_is_for_backends() {
    let any = Node::embedded(&[]).await;
    let some = Node::embedded(&[("MESSAGE_KINDS", "image, poll")]).await;
    for (node, kind, of_user, of_backend) in [
        (&any, "text", 201, 201),
        (&any, "x-card_2.0", 201, 201),
        (&any, "system", 403, 201),
        (&any, "Image", 400, 400),
        (&any, "a b", 400, 400),
        (&some, "text", 201, 201),
        (&some, "image", 201, 201),
        (&some, "poll", 201, 201),
        (&some, "video", 400, 400),
        (&some, "system", 403, 201),
    ] {
        let body = json!({ "to": "b", "content": "x", "kind": kind });
        let (name, bearer) = crate::support::http::bearer(&crate::support::node::token("a"));
        let key = ("x-api-key", crate::support::node::API_KEY);
        for (headers, expected) in
            [(vec![(name, bearer.as_str())], of_user), (vec![key, ("x-user-id", "a")], of_backend)]
        {
            let (status, answer) =
                crate::support::http::post(node.http, "/api/v1/messages", &headers, body.clone()).await;
            assert_eq!(status, expected, "{kind}: {answer}");
            assert!(status == 201 || answer["error"]["field"] == "kind", "{answer}");
        }
        let mut client = Client::join(node.http, "a").await;
        client.send("message.send", body).await;
        if of_user == 201 {
            assert_eq!(client.expect("message.sent").await["payload"]["message"]["kind"], kind);
            continue;
        }
        let error = &client.expect("error").await["payload"];
        let code = if of_user == 403 { "FORBIDDEN" } else { "VALIDATION_ERROR" };
        assert_eq!((&error["code"], &error["field"]), (&json!(code), &json!("kind")), "{kind}");
    }
}
