//! The bodies of durable events: the event's envelope, then its companions, one line each, without `seq`.

use std::fmt::Write;

use bytes::Bytes;
use shared::{Event, Message, UserId};

use crate::store::{OutboxEvent, UnreadMove};

/// Above this many members, companions carry no content (NOLOSS, medium).
const LARGE_CONVERSATION: usize = 500;

/// What an event says of a message beside the message itself, for dialects whose frames need it.
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
            let _ = write!(body, r#","to":"{to}""#);
        }
        if let Some(name) = self.sender_name.as_ref().and_then(|name| serde_json::to_string(name).ok()) {
            let _ = write!(body, r#","senderName":{name}"#);
        }
    }
}

/// What a message's sender gets, and everybody else.
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
    MessageBodies { sent: message_sent(message, about, member_count), new: message_new(message, about, member_count) }
}

fn message_new(message: &Message, about: &About, member_count: usize) -> Bytes {
    let json = message_json(message);
    let mut body = String::with_capacity(2 * json.len() + 160);
    // Writing to a String can't fail.
    let _ = write!(body, r#"{{"type":"message.new","payload":{{"message":{json}"#);
    about.push(&mut body);
    body.push_str("}}");
    push_conversation_updated(&mut body, message, (member_count <= LARGE_CONVERSATION).then_some(&json));
    body.into()
}

fn message_sent(message: &Message, about: &About, member_count: usize) -> Bytes {
    let json = message_json(message);
    let temp_id = message.temp_id.as_ref().and_then(|temp_id| serde_json::to_string(temp_id).ok());
    let mut body = String::with_capacity(2 * json.len() + 300);
    let _ = match temp_id {
        Some(temp_id) => {
            write!(body, r#"{{"type":"message.sent","payload":{{"tempId":{temp_id},"message":{json}"#)
        }
        None => write!(body, r#"{{"type":"message.sent","payload":{{"message":{json}"#),
    };
    about.push(&mut body);
    body.push_str("}}");
    push_conversation_updated(&mut body, message, (member_count <= LARGE_CONVERSATION).then_some(&json));
    body.into()
}

/// A change of a message, for all members; `conversation.updated` behind it if `last` is the conversation's newest.
pub(super) fn message_changed(users: Vec<UserId>, event: &Event, last: Option<&Message>) -> OutboxEvent {
    let mut body = event.to_json();
    if let Some(message) = last {
        let json = (users.len() <= LARGE_CONVERSATION).then(|| message_json(message));
        push_conversation_updated(&mut body, message, json.as_ref());
    }
    OutboxEvent { users, body, unread: None }
}

/// A durable event for `users`, without companions.
pub(super) fn outbox_event(users: Vec<UserId>, event: &Event) -> OutboxEvent {
    OutboxEvent { users, body: event.to_json(), unread: None }
}

/// A durable event that moves the unread count of `user`.
pub(super) fn outbox_event_unread(user: UserId, event: &Event, unread: UnreadMove) -> OutboxEvent {
    OutboxEvent { users: vec![user], body: event.to_json(), unread: Some(unread) }
}

fn message_json(message: &Message) -> String {
    // A message has string keys only, and writing to memory can't fail.
    serde_json::to_string(message).unwrap_or_default()
}

fn push_conversation_updated(body: &mut String, message: &Message, json: Option<&String>) {
    let conversation = &message.conversation_id;
    let _ = match json {
        Some(json) => write!(
            body,
            "\n{{\"type\":\"conversation.updated\",\"payload\":{{\"conversationId\":\"{conversation}\",\"lastMessage\":{json}}}}}"
        ),
        None => write!(
            body,
            "\n{{\"type\":\"conversation.updated\",\"payload\":{{\"conversationId\":\"{conversation}\"}}}}"
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(message_new(&message, &direct, 2), format!("{}\n{}", new.to_json(), updated.to_json()));
        let group = About { to: None, sender_name: Some("a \"name\"".into()) };
        let sent = Event::MessageSent {
            temp_id: message.temp_id.clone(),
            message: message.clone(),
            duplicate: false,
            to: None,
            sender_name: group.sender_name.clone(),
        };
        assert_eq!(message_sent(&message, &group, 2), format!("{}\n{}", sent.to_json(), updated.to_json()));
        let bare = Event::ConversationUpdated { conversation_id: message.conversation_id.clone(), last_message: None };
        assert_eq!(message_new(&message, &direct, 501), format!("{}\n{}", new.to_json(), bare.to_json()));
    }
}
