//! Conversations get other titles, and end: over REST, told to every member on every node.

use serde_json::{Value, json};

use crate::support::caller::{Caller, code, refused};
use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::node::Node;
use crate::support::two_nodes::{TwoNodes, bounded};

async fn make(node: &Node, owner: &str, new: Value) {
    let (status, made) = Caller::acting_for(owner).post(node, "/api/v1/conversations", new).await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_renamed_opened_and_locked() {
    let node = Node::embedded(&[]).await;
    let (o, a, m, x) = (Caller::user("o"), Caller::user("a"), Caller::user("m"), Caller::user("x"));
    make(&node, "o", json!({ "kind": "channel", "id": "c", "title": "Old", "members": ["a", "m"] })).await;
    let path = "/api/v1/conversations/c";
    assert_eq!(o.patch(&node, &format!("{path}/members/a"), json!({ "role": "admin" })).await.0, 200);
    let mut m_socket = Client::join(node.http, "m").await;

    let (status, changed) = a.patch(&node, path, json!({ "title": "New\u{202e}" })).await;
    assert_eq!((status, &changed["title"], &changed["unread"]), (200, &json!("New"), &json!(0)), "{changed}");
    let event = m_socket.expect("conversation.changed").await;
    assert!(event["seq"].is_u64(), "{event}");
    let payload = &event["payload"];
    assert_eq!((&payload["conversation"]["title"], &payload["changedBy"]), (&json!("New"), &json!("a")));
    assert_eq!(payload["conversation"]["rev"], 1);
    assert_eq!(payload["conversation"].get("unread"), None, "it is each member's own");

    // What is as it was already is told to nobody; null clears, and what is absent stays.
    assert_eq!(a.patch(&node, path, json!({ "title": "New" })).await.0, 200);
    assert_eq!(a.patch(&node, path, json!({})).await.0, 200);
    let (_, locked) = o.patch(&node, path, json!({ "password": "s3cret", "title": null })).await;
    assert_eq!((&locked["hasPassword"], locked.get("title")), (&json!(true), None));
    assert_eq!(m_socket.expect("conversation.changed").await["payload"]["conversation"]["hasPassword"], true);
    assert_eq!(code(x.post(&node, &format!("{path}/join"), json!({})).await), refused(403, "PASSWORD_REQUIRED"));
    let (_, opened) = Caller::backend().patch(&node, path, json!({ "password": null })).await;
    assert_eq!((&opened["hasPassword"], &opened["visibility"]), (&json!(false), &json!("public")));
    let told = m_socket.expect("conversation.changed").await;
    assert_eq!(told["payload"].get("changedBy"), None, "a backend has no name");
    assert_eq!(x.post(&node, &format!("{path}/join"), json!({})).await.0, 200);
    let (_, closed) = o.patch(&node, path, json!({ "visibility": "private" })).await;
    assert_eq!(closed["visibility"], "private");
    let y = Caller::user("y");
    assert_eq!(code(y.post(&node, &format!("{path}/join"), json!({})).await), refused(403, "FORBIDDEN"));

    assert_eq!(code(m.patch(&node, path, json!({ "title": "x" })).await), refused(403, "FORBIDDEN"));
    assert_eq!(code(y.patch(&node, path, json!({ "title": "x" })).await), refused(403, "NOT_MEMBER"));
    let nowhere = "/api/v1/conversations/nowhere";
    assert_eq!(code(o.patch(&node, nowhere, json!({ "title": "x" })).await), refused(404, "NOT_FOUND"));
    for (body, field) in [
        (json!({ "title": "" }), "title"),
        (json!({ "title": "two\nlines" }), "title"),
        (json!({ "password": "" }), "password"),
        (json!({ "visibility": "secret" }), "visibility"),
        (json!({ "kind": "group" }), "kind"),
    ] {
        let (status, answer) = o.patch(&node, path, body.clone()).await;
        assert_eq!((status, &answer["error"]["field"]), (400, &json!(field)), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_conversation_is_gone_on_every_node() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (&cluster.one, &cluster.two);
        let (o, m, i) = (Caller::user("o"), Caller::user("m"), Caller::user("i"));
        make(one, "o", json!({ "kind": "channel", "id": "c", "title": "Doomed", "members": ["m"] })).await;
        let path = "/api/v1/conversations/c";
        assert_eq!(o.post(one, &format!("{path}/invites"), json!({ "userId": "i" })).await.0, 204);
        let body = json!({ "conversationId": "c", "content": "a secret" });
        let (status, sent) = m.post(two, "/api/v1/messages", body.clone()).await;
        assert_eq!(status, 201, "{sent}");
        let message = format!("/api/v1/messages/{}", sent["message"]["id"].as_str().expect("an id"));
        let mut canonical = Client::join(two.http, "m").await;
        let mut channels = Flat::join(two.http, "/ws/channels", "m").await;
        let mut invited = Client::join(one.http, "i").await;

        assert_eq!(code(m.delete(one, path).await), refused(403, "FORBIDDEN"));
        assert_eq!(code(Caller::user("x").delete(one, path).await), refused(403, "NOT_MEMBER"));
        assert_eq!(o.delete(one, path).await.0, 204);
        for client in [&mut canonical, &mut invited] {
            let deleted = client.expect("conversation.deleted").await;
            let payload = &deleted["payload"];
            assert_eq!((&payload["conversationId"], &payload["deletedBy"]), (&json!("c"), &json!("o")));
            assert!(deleted["seq"].is_u64() && payload["deletedAt"].is_string(), "{deleted}");
        }
        assert_eq!(channels.expect("left_channel").await["channel_id"], "c");

        // For everybody, and a backend: there is no such thing, and its name stays taken.
        let gone = refused(404, "NOT_FOUND");
        for caller in [&o, &m, &i, &Caller::backend()] {
            for node in [one, two] {
                assert_eq!(code(caller.get(node, path).await), gone);
                assert_eq!(code(caller.get(node, &format!("{path}/messages")).await), gone);
                assert_eq!(code(caller.get(node, &format!("{path}/members")).await), gone);
                assert_eq!(code(caller.get(node, &message).await), gone);
                assert_eq!(code(caller.delete(node, path).await), gone);
                assert_eq!(code(caller.patch(node, path, json!({ "title": "x" })).await), gone);
                assert_eq!(code(caller.delete(node, &message).await), gone);
            }
        }
        for caller in [&o, &m, &i] {
            assert_eq!(code(caller.post(two, "/api/v1/messages", body.clone()).await), gone);
            assert_eq!(code(caller.post(two, &format!("{path}/join"), json!({})).await), gone);
            assert_eq!(code(caller.post(two, &format!("{path}/leave"), json!({})).await), gone);
            assert_eq!(code(caller.post(two, &format!("{path}/read"), json!({})).await), gone);
            assert_eq!(caller.get(two, "/api/v1/conversations").await.1["items"], json!([]));
            assert_eq!(caller.get(two, "/api/v1/invites").await.1["items"], json!([]));
        }
        canonical.send("typing", json!({ "conversationId": "c", "isTyping": true })).await;
        assert_eq!(canonical.expect("error").await["payload"]["code"], "NOT_FOUND");
        let again = json!({ "kind": "channel", "id": "c" });
        assert_eq!(Caller::acting_for("o").post(one, "/api/v1/conversations", again).await.0, 409);

        let client = cluster.database.client().await;
        let rows = client.query("SELECT content, deleted_at IS NOT NULL FROM messages", &[]).await.expect("rows");
        let rows: Vec<(String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows, [(String::new(), true)], "the row stays, its content doesn't");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_backend_deletes_a_direct_conversation_and_the_two_open_another() {
    let node = Node::embedded(&[]).await;
    let (a, b) = (Caller::user("a"), Caller::user("b"));
    let say = json!({ "to": "b", "content": "hi" });
    let (_, sent) = a.post(&node, "/api/v1/messages", say.clone()).await;
    let first = sent["message"]["conversationId"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/conversations/{first}");
    assert_eq!(code(a.delete(&node, &path).await), refused(403, "FORBIDDEN"));
    assert_eq!(code(b.delete(&node, &path).await), refused(403, "FORBIDDEN"));
    let mut socket = Client::join(node.http, "b").await;
    assert_eq!(Caller::backend().delete(&node, &path).await.0, 204);
    let deleted = socket.expect("conversation.deleted").await;
    assert_eq!((&deleted["payload"]["conversationId"], deleted["payload"].get("deletedBy")), (&json!(first), None));
    // This node remembered the conversation: it says so, and the next try opens another.
    let (status, answer) = a.post(&node, "/api/v1/messages", say.clone()).await;
    assert_eq!((status, &answer["error"]["retryable"]), (503, &json!(true)), "{answer}");
    let (status, sent) = a.post(&node, "/api/v1/messages", say).await;
    assert_eq!(status, 201, "{sent}");
    assert_ne!(sent["message"]["conversationId"], json!(first));
    assert_eq!(sent["message"]["seq"], 1);
}

/// Ownership is passed on: another owner is named, then the first may go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ownership_is_passed_on_before_the_last_owner_goes() {
    let node = Node::embedded(&[]).await;
    let (o, m) = (Caller::user("o"), Caller::user("m"));
    make(&node, "o", json!({ "kind": "group", "id": "g", "members": ["m", "n"] })).await;
    let leave = "/api/v1/conversations/g/leave";
    let (status, answer) = o.post(&node, leave, json!({})).await;
    assert_eq!((status, &answer["error"]["field"]), (409, &json!("role")));
    let way_out = r#"name another owner first: PATCH …/members/{userId} {"role":"owner"}"#;
    assert_eq!(answer["error"]["message"], way_out);
    let member = "/api/v1/conversations/g/members/m";
    assert_eq!(code(m.patch(&node, member, json!({ "role": "owner" })).await), refused(403, "FORBIDDEN"));
    assert_eq!(o.patch(&node, member, json!({ "role": "owner" })).await.0, 200);
    let (_, members) = m.get(&node, "/api/v1/conversations/g/members").await;
    let owners = members["items"].as_array().expect("items").iter().filter(|member| member["role"] == "owner");
    assert_eq!(owners.count(), 2, "several may be: {members}");
    assert_eq!(o.post(&node, leave, json!({})).await.0, 204);
    assert_eq!(code(m.post(&node, leave, json!({})).await), refused(409, "CONFLICT"));
    let backend = Caller::backend().patch(&node, "/api/v1/conversations/g/members/n", json!({ "role": "owner" })).await;
    assert_eq!(backend.0, 200);
    assert_eq!(m.post(&node, leave, json!({})).await.0, 204);
}
