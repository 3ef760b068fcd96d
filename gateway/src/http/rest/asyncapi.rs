//! The AsyncAPI document of the sockets (PROTOCOL §1): the frames are read off the types that the code writes them with.

use serde_json::{Map, Value, json};
use shared::Event;
use shared::chat_v1::SUBPROTOCOL;
use shared::close::CloseCode;
use shared::frames::ClientFrame;

use super::describe::Schemas;

/// The document of `chat.v1`.
pub(super) fn document(content_chars_max: usize) -> Value {
    let mut schemas = Schemas::new();
    let incoming = schemas.input::<ClientFrame>();
    let outgoing = schemas.answer::<Event>();
    let mut components = schemas.components(content_chars_max);
    let mut messages = Map::new();
    let received = take_frames(&mut components, &incoming, "client", &mut messages);
    let sent = take_frames(&mut components, &outgoing, "server", &mut messages);
    let channel = json!({
        "address": "/chat/ws",
        "title": SUBPROTOCOL,
        "description": description(),
        "messages": messages.keys().map(|name| {
            (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }))
        }).collect::<Map<_, _>>(),
        "bindings": { "ws": { "method": "GET", "query": query(), "bindingVersion": "0.1.0" } },
    });
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parley",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A chat gateway of many identical nodes. HTTP is described in /openapi.json.",
            "license": { "name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": { SUBPROTOCOL: channel },
        "operations": {
            "receiveCommand": operation("receive", "What clients send.", &received),
            "sendEvent": operation("send", "What clients get.", &sent),
        },
        "components": { "messages": messages, "schemas": components },
    })
}

fn operation(action: &str, summary: &str, names: &[String]) -> Value {
    let channel = format!("#/channels/{SUBPROTOCOL}");
    let messages = names.iter().map(|name| json!({ "$ref": format!("{channel}/messages/{name}") }));
    json!({
        "action": action, "summary": summary, "channel": { "$ref": channel }, "messages": messages.collect::<Vec<_>>(),
    })
}

/// Takes the frames of one side out of the schemas, each as a message of its own; their names.
fn take_frames(components: &mut Value, side: &Value, prefix: &str, messages: &mut Map<String, Value>) -> Vec<String> {
    let name = side.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let union = components.as_object_mut().and_then(|all| all.remove(name)).unwrap_or_default();
    let frames = union.get("oneOf").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut names = Vec::new();
    for frame in frames {
        let Some(kind) = frame.pointer("/properties/type/const").and_then(Value::as_str).map(str::to_owned) else {
            continue;
        };
        let key = format!("{prefix}.{kind}");
        messages.insert(key.clone(), json!({ "name": kind, "title": kind, "payload": envelope(frame, prefix) }));
        names.push(key);
    }
    names
}

/// The frame with what every envelope may hold besides `type` and `payload`.
fn envelope(mut frame: Value, prefix: &str) -> Value {
    let payload_may_lack =
        frame.pointer("/properties/payload/required").is_none() && frame.pointer("/properties/payload/$ref").is_none();
    if let Some(fields) = frame.get_mut("properties").and_then(Value::as_object_mut) {
        let reference =
            json!({ "type": ["string", "number"], "description": "Comes back in what answers this frame." });
        fields.insert("ref".into(), reference);
        if prefix == "server" {
            let seq =
                json!({ "type": "integer", "minimum": 1, "description": "Durable events only: counts one by one." });
            fields.insert("seq".into(), seq);
        }
    }
    if let Some(required) = frame.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| prefix != "client" || !payload_may_lack || name != "payload");
    }
    frame
}

fn query() -> Value {
    json!({
        "type": "object",
        "properties": {
            "token": { "type": "string", "description": "Where no header and no cookie can be set." },
            "resume": { "type": "string", "description": "Go on from this position: epoch:seq." },
        },
    })
}

fn description() -> String {
    let codes = CloseCode::ALL.iter().map(|code| format!("{} {}", code.code(), code.reason()));
    format!(
        "One JSON object per text frame. The first frame is `auth` unless the upgrade carried a token. Close codes: {}.",
        codes.collect::<Vec<_>>().join(", ")
    )
}
