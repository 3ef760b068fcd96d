//! The bodies of durable events: the event's envelope, then its companions, one line each, without `seq`.

use std::io::{self, Write as _};

use bytes::Bytes;
use shared::{ConversationId, Event, Message, UserId};

use crate::store::OutboxEvent;

/// Above this many members, companions carry no content (NOLOSS.md, Medium).
const LARGE_CONVERSATION: usize = 500;

/// The size of an event with its companion without the message, in bytes; a longer id or name makes it grow.
const REST_BYTES: usize = 300;

/// The same for a message beside its content.
const MESSAGE_REST_BYTES: usize = 320;

/// An event's fields beside the message itself, for dialects whose frames need them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// In a direct conversation: whom the message is to.
    pub to: Option<UserId>,
    /// In others: the sender's name, if one is known.
    pub sender_name: Option<String>,
}

impl About {
    fn push(&self, body: &mut String) {
        if let Some(to) = &self.to {
            body.push_str(r#","to":""#);
            body.push_str(to.as_str());
            body.push('"');
        }
        if let Some(name) = self.sender_name.as_ref().and_then(|name| serde_json::to_string(name).ok()) {
            body.push_str(r#","senderName":"#);
            body.push_str(&name);
        }
    }
}

/// The events of a message: the sender's, and the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageBodies {
    /// `message.sent` with `conversation.updated`, for the sender's devices.
    pub sent: Bytes,
    /// `message.new` with `conversation.updated`, for everybody but the sender.
    pub new: Bytes,
}

/// The events of a new message in a conversation of so many members.
#[must_use]
pub fn message_bodies(message: &Message, about: &About, member_count: usize) -> MessageBodies {
    let json = message_json(message);
    let mut new = String::with_capacity(2 * json.len() + REST_BYTES);
    new.push_str(r#"{"type":"message.new","payload":{"#);
    let shared_from = new.len();
    new.push_str(r#""message":"#);
    new.push_str(&json);
    about.push(&mut new);
    new.push_str("}}");
    push_conversation_updated(&mut new, message, (member_count <= LARGE_CONVERSATION).then_some(&json));
    let shared = new.get(shared_from..).unwrap_or_default();
    let mut sent = String::with_capacity(shared.len() + REST_BYTES);
    sent.push_str(r#"{"type":"message.sent","payload":{"#);
    if let Some(temp_id) = message.temp_id.as_ref().and_then(|temp_id| serde_json::to_string(temp_id).ok()) {
        sent.push_str(r#""tempId":"#);
        sent.push_str(&temp_id);
        sent.push(',');
    }
    sent.push_str(shared);
    MessageBodies { sent: sent.into(), new: new.into() }
}

/// A change of a message, for all members; `conversation.updated` behind it if `last` is the conversation's newest.
pub(super) fn message_changed(users: Vec<UserId>, event: &Event, last: Option<&Message>) -> OutboxEvent {
    let mut body = event.to_json();
    if let Some(message) = last {
        let json = (users.len() <= LARGE_CONVERSATION).then(|| message_json(message));
        push_conversation_updated(&mut body, message, json.as_ref());
    }
    OutboxEvent { users, body, topic: None }
}

/// A durable event for all members of a large conversation, with the conversation's `rev`.
pub(super) fn topic_event(conversation: &ConversationId, event: &Event, rev: u64) -> OutboxEvent {
    let body = with_rev(rev, &event.to_json());
    OutboxEvent { users: Vec::new(), body, topic: Some(conversation.clone()) }
}

/// An envelope with the `rev` under which it stands in a large conversation.
pub(super) fn with_rev(rev: u64, envelope: &str) -> String {
    format!(r#"{{"rev":{rev},{}"#, envelope.strip_prefix('{').unwrap_or(envelope))
}

/// The event of a new message for all members of a large conversation. The sender's connections are shown it as
/// `message.sent`, which is made of it where they are.
pub(super) fn topic_message(message: &Message, about: &About) -> String {
    let json = message_json(message);
    let mut body = String::with_capacity(json.len() + REST_BYTES);
    body.push_str(r#"{"type":"message.new","payload":{"message":"#);
    body.push_str(&json);
    about.push(&mut body);
    body.push_str("}}");
    with_rev(message.rev, &body)
}

/// An event for all members of a large conversation that is gone if it is lost, but for some users.
pub(super) fn topic_notice(event: &Event, except: &[UserId]) -> Bytes {
    let mut body = event.to_json();
    if !except.is_empty() {
        let names = serde_json::to_string(except).unwrap_or_default();
        body.push_str("\n{\"except\":");
        body.push_str(&names);
        body.push('}');
    }
    body.into()
}

/// A durable event for `users`, without companions.
pub(super) fn outbox_event(users: Vec<UserId>, event: &Event) -> OutboxEvent {
    OutboxEvent { users, body: event.to_json(), topic: None }
}

/// A message as serde writes it, which takes the bytes of strings one by one: what is new is written here.
fn message_json(message: &Message) -> String {
    let mut json = Vec::with_capacity(message.content.len() + MESSAGE_REST_BYTES);
    let Message { edited_at, deleted_at, reactions, .. } = message;
    // A message has string keys only, and writing to memory can't fail.
    let _ = if edited_at.is_none() && deleted_at.is_none() && reactions.is_empty() {
        write_new(&mut json, message)
    } else {
        serde_json::to_writer(&mut json, message).map_err(io::Error::from)
    };
    String::from_utf8(json).unwrap_or_default()
}

/// Writes a message to which nothing has happened yet. Ids need no escapes.
fn write_new(json: &mut Vec<u8>, message: &Message) -> io::Result<()> {
    let Message {
        id, conversation_id, seq, rev, sender_id, kind, content, temp_id, reply_to, data, created_at, ..
    } = message;
    write!(json, r#"{{"id":"{id}","conversationId":"{conversation_id}","seq":{seq},"rev":{rev},"#)?;
    write!(json, r#""senderId":"{sender_id}","kind":"#)?;
    write_text(json, kind)?;
    json.extend_from_slice(br#","content":"#);
    write_text(json, content)?;
    if let Some(temp_id) = temp_id {
        json.extend_from_slice(br#","tempId":"#);
        write_text(json, temp_id)?;
    }
    if let Some(reply_to) = reply_to {
        write!(json, r#","replyTo":"{reply_to}""#)?;
    }
    if let Some(data) = data {
        write!(json, r#","data":{}"#, data.as_str())?;
    }
    write!(json, r#","createdAt":"{created_at}"}}"#)
}

fn write_text(json: &mut Vec<u8>, text: &str) -> io::Result<()> {
    // Without an early end, which would keep it from looking at many bytes at once.
    let is_special = |byte: u8| byte < 0x20 || matches!(byte, b'"' | b'\\');
    if text.bytes().fold(false, |any, byte| any | is_special(byte)) {
        return Ok(serde_json::to_writer(json, text)?);
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
    Ok(())
}

fn push_conversation_updated(body: &mut String, message: &Message, json: Option<&String>) {
    body.push_str("\n{\"type\":\"conversation.updated\",\"payload\":{\"conversationId\":\"");
    body.push_str(message.conversation_id.as_str());
    body.push('"');
    if let Some(json) = json {
        body.push_str(r#","lastMessage":"#);
        body.push_str(json);
    }
    body.push_str("}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_serde_writes_it() {
        let plain = serde_json::json!({
            "id": "7", "conversationId": "c", "seq": 1, "rev": 2, "senderId": "u", "kind": "text", "content": "ü 🦜 \u{7f}",
            "createdAt": "2025-11-21T13:00:00.007Z",
        });
        for (name, value) in [
            ("content", serde_json::json!("a \"quote\", a \\ and a\n\u{0}")),
            ("kind", serde_json::json!("\t")),
            ("tempId", serde_json::json!("t\"1")),
            ("replyTo", serde_json::json!("6")),
            ("data", serde_json::json!({ "a": ["\n"], "mentions": [] })),
            ("editedAt", serde_json::json!("2025-11-21T13:00:01.000Z")),
            ("deletedAt", serde_json::json!("2025-11-21T13:00:01.000Z")),
            ("reactions", serde_json::json!({ "🦜": ["v"] })),
        ] {
            for value in [plain.get(name).cloned(), Some(value)].into_iter().flatten() {
                let mut object = plain.clone();
                object[name] = value;
                let message: Message = serde_json::from_value(object).expect("a message");
                assert_eq!(message_json(&message), serde_json::to_string(&message).expect("it is written"));
            }
        }
    }

    #[test]
    fn bodies_are_the_events_as_serde_writes_them() {
        let message: Message = serde_json::from_value(serde_json::json!({
            "id": "7", "conversationId": "c", "seq": 1, "rev": 1, "senderId": "u", "kind": "text",
            "content": "a \"quote\"\n", "tempId": "t\\1", "createdAt": "2025-11-21T13:00:00.000Z",
        }))
        .expect("a message");
        let updated = Event::ConversationUpdated {
            conversation_id: message.conversation_id.clone(),
            last_message: Some(message.clone()),
        };
        let direct = About { to: "v".parse().ok(), sender_name: None };
        let new = Event::MessageNew { message: message.clone(), to: direct.to.clone(), sender_name: None };
        let bodies = message_bodies(&message, &direct, 2);
        assert_eq!(bodies.new, format!("{}\n{}", new.to_json(), updated.to_json()));
        let group = About { to: None, sender_name: Some("a \"name\"".into()) };
        let sent = Event::MessageSent {
            temp_id: message.temp_id.clone(),
            message: message.clone(),
            duplicate: false,
            to: None,
            sender_name: group.sender_name.clone(),
        };
        let bodies = message_bodies(&message, &group, 2);
        assert_eq!(bodies.sent, format!("{}\n{}", sent.to_json(), updated.to_json()));
        let bare = Event::ConversationUpdated { conversation_id: message.conversation_id.clone(), last_message: None };
        let bodies = message_bodies(&message, &direct, 501);
        assert_eq!(bodies.new, format!("{}\n{}", new.to_json(), bare.to_json()));
    }
}
