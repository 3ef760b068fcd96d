//! The contract documents describe exactly the routes and the frames.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::http::{get, request};
use crate::support::node::{API_KEY, Node};

/// Every `$ref` below `value`.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn assert_references_lead_somewhere(document: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let path = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(path).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_in_the_openapi_document_and_answers() {
    let node = Node::embedded(&[("MAX_CONTENT_CHARS", "123")]).await;
    let (status, document) = get(node.http, "/openapi.json", &[]).await;
    assert_eq!((status, document["openapi"].as_str()), (200, Some("3.1.0")));
    assert_references_lead_somewhere(&document);
    assert_eq!(document["components"]["schemas"]["Content"]["maxLength"], 123);

    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id), "{id} stands twice");
            let asked = path.replace("{id}", "7").replace("{user}", "u").replace("{emoji}", "%F0%9F%91%8D");
            let (status, answer) =
                request(node.http, &method.to_uppercase(), &asked, &[("x-api-key", API_KEY)], "").await;
            assert_ne!(status, 405, "{method} {path}");
            assert_ne!(answer["error"]["message"], "there is no such endpoint", "{method} {path}");
            assert!(operation["responses"].get(status.to_string()).is_some(), "{method} {path} answers {status}");
        }
    }
    // Every public route.
    for (method, path) in [
        ("post", "/api/v1/conversations"),
        ("get", "/api/v1/conversations"),
        ("get", "/api/v1/conversations/{id}"),
        ("patch", "/api/v1/conversations/{id}"),
        ("delete", "/api/v1/conversations/{id}"),
        ("get", "/api/v1/conversations/{id}/members"),
        ("post", "/api/v1/conversations/{id}/members"),
        ("patch", "/api/v1/conversations/{id}/members/{user}"),
        ("delete", "/api/v1/conversations/{id}/members/{user}"),
        ("post", "/api/v1/conversations/{id}/bans"),
        ("delete", "/api/v1/conversations/{id}/bans/{user}"),
        ("post", "/api/v1/conversations/{id}/mutes"),
        ("delete", "/api/v1/conversations/{id}/mutes/{user}"),
        ("post", "/api/v1/conversations/{id}/invites"),
        ("post", "/api/v1/conversations/{id}/join"),
        ("post", "/api/v1/conversations/{id}/leave"),
        ("post", "/api/v1/conversations/{id}/read"),
        ("get", "/api/v1/conversations/{id}/messages"),
        ("post", "/api/v1/messages"),
        ("patch", "/api/v1/messages/{id}"),
        ("delete", "/api/v1/messages/{id}"),
        ("get", "/api/v1/messages/{id}"),
        ("post", "/api/v1/messages/{id}/reactions"),
        ("delete", "/api/v1/messages/{id}/reactions/{emoji}"),
        ("get", "/api/v1/blocks"),
        ("post", "/api/v1/blocks"),
        ("delete", "/api/v1/blocks/{user}"),
        ("get", "/api/v1/users"),
        ("delete", "/api/v1/users/{user}/messages"),
        ("delete", "/api/v1/users/{user}"),
        ("get", "/api/v1/users/{user}/export"),
        ("get", "/api/v1/invites"),
        ("get", "/api/v1/channels"),
        ("get", "/api/v1/events"),
        ("get", "/api/v1/presence"),
        ("post", "/api/v1/publish"),
        ("post", "/api/v1/broadcast"),
        ("post", "/api/v1/control/disconnect"),
        ("post", "/api/v1/control/revoke"),
        ("get", "/api/v1/internal/chat/ws/stats"),
        ("post", "/api/v2/ws-token"),
        ("get", "/api/messages/private"),
        ("get", "/api/messages/group"),
        ("post", "/api/groups/invite"),
        ("get", "/api/notifications"),
        ("post", "/api/notifications/read"),
        ("get", "/openapi.json"),
        ("get", "/asyncapi.json"),
    ] {
        assert!(document["paths"][path].get(method).is_some(), "{method} {path} is not in the document");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_and_event_is_in_the_asyncapi_document() {
    let node = Node::embedded(&[("MAX_CONTENT_CHARS", "123")]).await;
    let (status, document) = get(node.http, "/asyncapi.json", &[]).await;
    assert_eq!((status, document["asyncapi"].as_str()), (200, Some("3.0.0")));
    assert_references_lead_somewhere(&document);
    assert_eq!(document["components"]["schemas"]["Content"]["maxLength"], 123);
    let messages = document["components"]["messages"].as_object().expect("messages");
    let of = |side: &str| -> BTreeSet<&str> { messages.keys().filter_map(|name| name.strip_prefix(side)).collect() };
    let spoken = shared::Command::NAMES.into_iter().filter(|name| *name != "broadcast");
    assert_eq!(of("client."), spoken.collect());
    // Every event of `shared::Event`.
    let events = [
        "auth_failed",
        "auth_success",
        "block.added",
        "block.removed",
        "broadcast",
        "conversation.changed",
        "conversation.created",
        "conversation.deleted",
        "conversation.joined",
        "conversation.left",
        "conversation.position",
        "conversation.resync",
        "conversation.updated",
        "error",
        "goaway",
        "member.joined",
        "member.left",
        "members.changed",
        "message.deleted",
        "message.delivered_update",
        "message.edited",
        "message.new",
        "message.read_ack",
        "message.read_update",
        "message.sent",
        "notification",
        "notification.read",
        "notification.unread",
        "pong",
        "position",
        "reaction.updated",
        "resync",
        "status.bulk",
        "typing",
        "user.offline",
        "user.online",
    ];
    assert_eq!(of("server."), BTreeSet::from(events));
    for message in messages.values() {
        // AsyncAPI's readers look at nothing that stands beside a reference.
        assert_eq!(message.pointer("/payload/$ref"), None, "{message}");
        let kind = message.pointer("/payload/properties/type/const");
        assert_eq!(kind, message.get("name"), "{message}");
    }
}

/// The frames themselves are held against the codecs where the codecs are, in `shared`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialect_is_a_channel_of_the_asyncapi_document() {
    let node = Node::embedded(&[]).await;
    let (_, document) = get(node.http, "/asyncapi.json", &[]).await;
    let channels = document["channels"].as_object().expect("channels");
    let names: BTreeSet<&str> = channels.keys().map(String::as_str).collect();
    assert_eq!(names, shared::Dialect::ALL.map(shared::Dialect::subprotocol).into());
    for dialect in shared::Dialect::ALL {
        let (name, channel) = (dialect.subprotocol(), &channels[dialect.subprotocol()]);
        assert_eq!(channel["address"], dialect.path());
        let messages = channel["messages"].as_object().expect("messages");
        for (action, side) in [("receive", "client."), ("send", "server.")] {
            let operation = &document["operations"][format!("{name}.{action}")];
            assert_eq!(
                (&operation["action"], operation["channel"]["$ref"].as_str()),
                (&Value::from(action), Some(&*format!("#/channels/{name}")))
            );
            let count = operation["messages"].as_array().expect("messages").len();
            assert_eq!(count, messages.keys().filter(|key| key.contains(side)).count(), "{name} {action}");
        }
    }
    // What the seeds' front ends know.
    for (key, pointer) in [
        ("listings.v1.client.mark_read", "/properties/message_id"),
        ("listings.v1.server.new_message", "/properties/timestamp"),
        ("listings.v1.server.message_read", "/properties/read_by"),
        ("social.v1.client.private", "/properties/to"),
        ("social.v1.server.group", "/properties/group_id"),
        ("social.v1.server.notification", "/properties/timestamp"),
        ("channels.v1.client.join_room", "/properties/room"),
        ("channels.v1.server.connected", "/properties/resumed"),
        ("channels.v1.server.error", "/properties/code"),
    ] {
        let payload = &document["components"]["messages"][key]["payload"];
        assert!(payload.pointer(pointer).is_some(), "{key} {pointer}: {payload}");
    }
}

/// Routes are added by `Routes`, which describes what it adds; nobody goes around it.
#[test]
fn no_route_goes_around_the_document() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/rest");
    for entry in std::fs::read_dir(folder).expect("the routes") {
        let path = entry.expect("an entry").path();
        if path.is_file() && !path.ends_with("routes.rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            // The operators' listener has a router of its own above the public one.
            let text = text.split("pub fn router(").last().unwrap_or_default();
            assert!(!text.contains(".route(") && !text.contains("Router::new"), "{} adds a route", path.display());
        }
    }
}
