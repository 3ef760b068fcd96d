//! Edits, deletions and reactions as clients see them, over the socket and over REST.

use serde_json::{Value, json};

use crate::support::client::{Client, types};
use crate::support::http::{bearer, get, post, request};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::{TwoNodes, acting};

/// The message that a client sends.
async fn say(client: &mut Client, conversation: &str, content: &str) -> Value {
    client.send("message.send", json!({ "conversationId": conversation, "content": content })).await;
    client.expect("message.sent").await["payload"]["message"].clone()
}

async fn group(node: &Node, owner: &str, members: &[&str]) {
    let body = json!({ "kind": "group", "id": "g", "members": members });
    let (status, made) = acting(node.http, "POST", "/api/v1/conversations", owner, body).await;
    assert_eq!(status, 201, "{made}");
}

fn headers<'a>(header: &'a (&'static str, String)) -> (&'a str, &'a str) {
    (header.0, &header.1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_on_every_node_is_told_of_a_change() {
    let cluster = TwoNodes::start(&[]).await;
    group(&cluster.one, "a", &["b"]).await;
    let mut a = Client::join(cluster.one.http, "a").await;
    let mut a2 = Client::join(cluster.two.http, "a").await;
    let mut b = Client::join(cluster.two.http, "b").await;
    let older = say(&mut a, "g", "older").await;
    let first = say(&mut a, "g", "frist").await;
    for client in [&mut a2, &mut b] {
        while client.expect("conversation.updated").await["payload"]["lastMessage"]["id"] != first["id"] {}
    }
    for client in [&mut a, &mut a2, &mut b] {
        client.settle().await;
    }

    a.send("message.edit", json!({ "messageId": first["id"], "content": "first" })).await;
    let edited = a.expect("message.edited").await;
    let message = &edited["payload"]["message"];
    assert_eq!((&message["content"], &message["seq"], &message["rev"]), (&json!("first"), &json!(2), &json!(3)));
    assert!(message["editedAt"].is_string() && edited["seq"].is_u64());
    for client in [&mut a2, &mut b] {
        assert_eq!(client.expect("message.edited").await["payload"], edited["payload"]);
    }
    // It was the newest: what lists of conversations show has changed.
    for client in [&mut a, &mut a2, &mut b] {
        let updated = client.expect("conversation.updated").await;
        assert_eq!(updated["payload"], json!({ "conversationId": "g", "lastMessage": message }));
        assert_eq!(updated.get("seq"), None);
    }

    b.send("reaction.add", json!({ "messageId": older["id"], "emoji": "👍" })).await;
    let reacted = json!({
        "messageId": older["id"], "conversationId": "g", "userId": "b", "emoji": "👍", "added": true,
        "reactions": { "👍": ["b"] }, "seq": 1, "rev": 4,
    });
    for client in [&mut a, &mut a2, &mut b] {
        assert_eq!(client.expect("reaction.updated").await["payload"], reacted);
    }
    a2.send("message.delete", json!({ "messageId": older["id"] })).await;
    let deleted = a.expect("message.deleted").await;
    assert!(deleted["payload"]["deletedAt"].is_string());
    assert_eq!(
        (&deleted["payload"]["messageId"], &deleted["payload"]["conversationId"], &deleted["payload"]["rev"]),
        (&older["id"], &json!("g"), &json!(5))
    );
    assert_eq!(deleted["payload"]["seq"], 1);
    for client in [&mut a2, &mut b] {
        assert_eq!(client.expect("message.deleted").await["payload"], deleted["payload"]);
    }
    // Neither was the newest message.
    for client in [&mut a, &mut a2, &mut b] {
        assert_eq!(types(&client.settle().await), Vec::<String>::new());
    }
    // Whoever was away finds all of it by `rev`.
    let path = "/api/v1/conversations/g/messages?changedSince=2";
    let (_, page) = get(cluster.two.http, path, &[headers(&bearer(&token("b")))]).await;
    let items: Vec<_> = page["items"].as_array().expect("items").iter().map(|m| (&m["id"], &m["content"])).collect();
    assert_eq!(items, [(&first["id"], &json!("first")), (&older["id"], &json!(""))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_nothing_and_what_is_refused_is_told_to_the_one_who_asks() {
    let node = Node::embedded(&[]).await;
    group(&node, "a", &["b"]).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    let message = say(&mut a, "g", "x").await;
    let id = message["id"].clone();
    b.expect("notification.unread").await;
    a.settle().await;
    b.settle().await;

    a.send_ref("message.edit", json!({ "messageId": id, "content": "x" }), json!(1)).await;
    let same = a.expect("message.edited").await;
    assert_eq!((&same["payload"]["message"], &same["ref"], same.get("seq")), (&message, &json!(1), None));
    b.send_ref("reaction.remove", json!({ "messageId": id, "emoji": "👍" }), json!(2)).await;
    let none = b.expect("reaction.updated").await;
    assert_eq!((&none["payload"]["reactions"], &none["ref"]), (&json!({}), &json!(2)));
    for (kind, payload, code) in [
        ("message.edit", json!({ "messageId": id, "content": "y" }), "FORBIDDEN"),
        ("message.delete", json!({ "messageId": id }), "FORBIDDEN"),
        ("message.delete", json!({ "messageId": "999999" }), "NOT_FOUND"),
        ("reaction.add", json!({ "messageId": id, "emoji": "a b" }), "VALIDATION_ERROR"),
        ("reaction.add", json!({ "messageId": id, "emoji": "<img src=x>" }), "VALIDATION_ERROR"),
        ("reaction.remove", json!({ "messageId": id, "emoji": "👍👍" }), "VALIDATION_ERROR"),
    ] {
        b.send_ref(kind, payload, json!("r")).await;
        let error = b.expect("error").await;
        assert_eq!((&error["payload"]["code"], &error["ref"]), (&json!(code), &json!("r")), "{kind}");
    }
    a.send("message.delete", json!({ "messageId": id })).await;
    let deleted = a.expect("message.deleted").await;
    assert_eq!(b.expect("message.deleted").await["payload"], deleted["payload"]);
    a.settle().await;
    b.settle().await;
    a.send_ref("message.delete", json!({ "messageId": id }), json!(3)).await;
    let again = a.expect("message.deleted").await;
    assert_eq!((&again["payload"], &again["ref"]), (&deleted["payload"], &json!(3)));
    a.send("message.edit", json!({ "messageId": id, "content": "back" })).await;
    assert_eq!(a.expect("error").await["payload"]["code"], "CONFLICT");
    assert!(b.settle().await.is_empty(), "nobody else is told of what changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_edited_and_deleted_over_rest() {
    let node = Node::embedded(&[]).await;
    group(&node, "a", &["b"]).await;
    let mut b = Client::join(node.http, "b").await;
    let (a_token, b_token) = (bearer(&token("a")), bearer(&token("b")));
    let (as_a, as_b, backend) = ([headers(&a_token)], [headers(&b_token)], [("x-api-key", API_KEY)]);
    let send = json!({ "conversationId": "g", "content": "x" });
    let (_, sent) = post(node.http, "/api/v1/messages", &as_a, send).await;
    let path = format!("/api/v1/messages/{}", sent["message"]["id"].as_str().expect("an id"));

    let edit = |headers: Vec<(&'static str, String)>, body: Value| {
        let path = path.clone();
        async move {
            let headers: Vec<_> = headers.iter().map(self::headers).collect();
            request(node.http, "PATCH", &path, &headers, body.to_string()).await
        }
    };
    let (status, edited) = edit(vec![a_token.clone()], json!({ "content": "y" })).await;
    assert_eq!((status, &edited["content"], &edited["rev"]), (200, &json!("y"), &json!(2)), "{edited}");
    assert_eq!(b.expect("message.edited").await["payload"]["message"], edited);
    for (headers, body, status, code) in [
        (vec![b_token.clone()], json!({ "content": "z" }), 403, "FORBIDDEN"),
        (vec![a_token.clone()], json!({ "content": "" }), 400, "VALIDATION_ERROR"),
        (vec![a_token.clone()], json!({}), 400, "VALIDATION_ERROR"),
        (vec![("x-api-key", API_KEY.to_owned())], json!({ "content": "z" }), 400, "VALIDATION_ERROR"),
    ] {
        let (got, answer) = edit(headers, body).await;
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{answer}");
    }
    assert_eq!(request(node.http, "DELETE", &path, &as_b, "").await.0, 403);
    // A backend may delete anything, and twice is the same.
    assert_eq!(request(node.http, "DELETE", &path, &backend, "").await.0, 204);
    assert_eq!(request(node.http, "DELETE", &path, &backend, "").await.0, 204);
    assert_eq!(b.expect("message.deleted").await["payload"]["messageId"], sent["message"]["id"]);
    let (status, answer) = edit(vec![a_token.clone()], json!({ "content": "z" })).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("CONFLICT")));
    let (status, _) = request(node.http, "DELETE", "/api/v1/messages/0", &as_a, "").await;
    assert_eq!(status, 400);
}
