//! The AsyncAPI document of the sockets: a channel for each dialect, with frames from the types that the code writes.

use serde_json::{Map, Value, json};
use shared::Dialect;
use shared::close::CloseCode;
use shared::contract::flat::unions;

use super::describe::Schemas;

/// The document of all dialects.
pub(super) fn document(content_chars_max: usize) -> Value {
    let mut schemas = Schemas::new();
    let spoken = Dialect::ALL.map(|dialect| DialectFrames::new(dialect, &mut schemas));
    let mut components = schemas.components(content_chars_max);
    let (mut messages, mut channels, mut operations) = (Map::new(), Map::new(), Map::new());
    for one in &spoken {
        one.describe(&components, &mut messages, &mut channels, &mut operations);
    }
    if let Some(components) = components.as_object_mut() {
        // Their frames are messages now.
        let unions = spoken.iter().flat_map(|one| one.incoming.iter().chain(&one.outgoing));
        unions.for_each(|union| drop(components.remove(name_of(union))));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parley",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A chat gateway of many identical nodes. HTTP is described in /openapi.json.",
            "license": { "name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": components },
    })
}

/// A dialect, and references to the unions of its frames.
struct DialectFrames {
    dialect: Dialect,
    incoming: Vec<Value>,
    outgoing: Vec<Value>,
}

impl DialectFrames {
    fn new(dialect: Dialect, schemas: &mut Schemas) -> Self {
        let unions = unions(dialect);
        let outgoing = unions.outgoing.iter().map(|union| schemas.answer_of(*union)).collect();
        Self { dialect, incoming: vec![schemas.input_of(unions.incoming)], outgoing }
    }

    fn describe(
        &self,
        components: &Value,
        messages: &mut Map<String, Value>,
        channels: &mut Map<String, Value>,
        operations: &mut Map<String, Value>,
    ) {
        let received = self.take_frames(components, Side::Client, messages);
        let sent = self.take_frames(components, Side::Server, messages);
        let all = received.iter().chain(&sent);
        let name = self.dialect.subprotocol();
        let channel = json!({
            "address": self.dialect.path(),
            "title": name,
            "description": self.description(),
            "messages": all.map(|key| (key.clone(), json!({ "$ref": format!("#/components/messages/{key}") })))
                .collect::<Map<_, _>>(),
            "bindings": { "ws": { "method": "GET", "query": query(), "bindingVersion": "0.1.0" } },
        });
        channels.insert(name.into(), channel);
        operations.insert(format!("{name}.receive"), self.operation("receive", "What clients send.", &received));
        operations.insert(format!("{name}.send"), self.operation("send", "What clients get.", &sent));
    }

    /// Makes each frame of one side a message of its own; their keys.
    fn take_frames(&self, components: &Value, side: Side, messages: &mut Map<String, Value>) -> Vec<String> {
        let (unions, word) = match side {
            Side::Client => (&self.incoming, "client"),
            Side::Server => (&self.outgoing, "server"),
        };
        let frames = unions.iter().filter_map(|union| components.get(name_of(union))?.get("oneOf")?.as_array());
        let mut keys = Vec::new();
        for frame in frames.flatten() {
            let Some(kind) = frame.pointer("/properties/type/const").and_then(Value::as_str) else { continue };
            let (key, payload) = if self.dialect.is_flat() {
                (format!("{}.{word}.{kind}", self.dialect.subprotocol()), flat(frame.clone(), kind, side))
            } else {
                (format!("{word}.{kind}"), envelope(frame.clone(), side))
            };
            messages.insert(key.clone(), json!({ "name": kind, "title": kind, "payload": payload }));
            keys.push(key);
        }
        keys
    }

    fn operation(&self, action: &str, summary: &str, keys: &[String]) -> Value {
        let channel = format!("#/channels/{}", self.dialect.subprotocol());
        let messages = keys.iter().map(|key| json!({ "$ref": format!("{channel}/messages/{key}") }));
        json!({
            "action": action, "summary": summary, "channel": { "$ref": channel },
            "messages": messages.collect::<Vec<_>>(),
        })
    }

    fn description(&self) -> String {
        let codes = CloseCode::ALL.iter().map(|code| format!("{} {}", code.code(), code.reason()));
        let first = if self.dialect.is_flat() {
            "The upgrade carries a token. Frames have no envelope, and carry `seq` only for clients that resume."
        } else {
            "The first frame is `auth` unless the upgrade carried a token."
        };
        format!("One JSON object per text frame. {first} Close codes: {}.", codes.collect::<Vec<_>>().join(", "))
    }
}

/// The dialect of the frames.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}

/// The name behind a reference to a component.
fn name_of(reference: &Value) -> &str {
    reference.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()).unwrap_or_default()
}

/// The frame with the fields that every envelope may have beside `type` and `payload`.
fn envelope(mut frame: Value, side: Side) -> Value {
    let payload_may_lack =
        frame.pointer("/properties/payload/required").is_none() && frame.pointer("/properties/payload/$ref").is_none();
    if let Some(fields) = frame.get_mut("properties").and_then(Value::as_object_mut) {
        let reference =
            json!({ "type": ["string", "number"], "description": "Comes back in the answer to this frame." });
        fields.insert("ref".into(), reference);
        if side == Side::Server {
            fields.insert("seq".into(), seq("Durable events only: counts one by one."));
            fields.insert("rev".into(), seq("Events of large conversations only, in the place of seq."));
        }
    }
    if let Some(required) = frame.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| side == Side::Server || !payload_may_lack || name != "payload");
    }
    frame
}

/// The flat frame with what it carries for who asked to resume.
fn flat(mut frame: Value, kind: &str, side: Side) -> Value {
    if let Some(fields) = frame.get_mut("properties").and_then(Value::as_object_mut).filter(|_| side == Side::Server) {
        fields.insert("seq".into(), seq("Only for clients that resume."));
        if kind == "connected" {
            fields.insert("epoch".into(), json!({ "type": "string", "description": "With seq, the position." }));
            fields.insert("resumed".into(), json!({ "type": "boolean", "description": "Whether nothing was missed." }));
        }
    }
    frame
}

fn seq(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

fn query() -> Value {
    json!({
        "type": "object",
        "properties": {
            "token": { "type": "string", "description": "For clients that can't set a header or a cookie." },
            "resume": { "type": "string", "description": "Go on from this position: epoch:seq." },
            "at": { "type": "string", "description": "And in this large conversation from there: id:rev:seq. May be repeated." },
        },
    })
}
