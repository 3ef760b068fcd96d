//! A marker: a durable `resync` that stands in a log in place of messages or kept notifications whose publication couldn't be
//! decided (NOLOSS.md, C1). It says which those are; what a socket gets for them is decided in `registry/push.rs`.

use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use shared::{Epoch, Event, MessageId, NotificationId};

use crate::delivery::envelope::first_line;

/// The type of an envelope stands within so many bytes.
const TYPE_WITHIN: usize = 64;

/// A marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The epoch of its log. Other pushes don't tell theirs.
    pub epoch: Epoch,
    /// What it stands for.
    pub named: Vec<Named>,
}

/// Something that a marker stands for, by its id: ids are unique among both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A message.
    Message(MessageId),
    /// A kept notification.
    Notification(NotificationId),
}

/// What a marker stands for, as the store has it, for one user.
#[derive(Debug, Clone)]
pub struct MarkedEvent {
    /// Its id.
    pub named: Named,
    /// How long ago it was committed, by the store's clock.
    pub age: Duration,
    /// Its event's envelope.
    pub envelope: Bytes,
}

impl Named {
    /// The id.
    #[must_use]
    pub fn get(self) -> u64 {
        match self {
            Self::Message(id) => id.get(),
            Self::Notification(id) => id.get(),
        }
    }
}

impl Marker {
    /// The marker that this event of a log is, if it is one.
    #[must_use]
    pub fn of(envelopes: &[u8]) -> Option<Self> {
        is_of(envelopes, b"\"type\":\"resync\"")?;
        match serde_json::from_slice(first_line(envelopes).0).ok()? {
            Event::Resync { epoch, message_id, message_ids, notification_ids, .. } => {
                let messages = message_id.into_iter().chain(message_ids).map(Named::Message);
                let named = messages.chain(notification_ids.into_iter().map(Named::Notification)).collect();
                Some(Self { epoch, named })
            }
            _ => None,
        }
    }
}

/// The kept notification that this event is, if it is one.
#[must_use]
pub fn notification_of(envelopes: &[u8]) -> Option<NotificationId> {
    #[derive(Deserialize)]
    struct Envelope {
        payload: Payload,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        notification_id: NotificationId,
    }
    is_of(envelopes, b"\"type\":\"notification\"")?;
    let envelope: Envelope = serde_json::from_slice(first_line(envelopes).0).ok()?;
    Some(envelope.payload.notification_id)
}

/// Whether the first envelope may be of this type, which stands at its front, behind its `seq`.
fn is_of(envelopes: &[u8], kind: &[u8]) -> Option<usize> {
    memmem::find(envelopes.get(..TYPE_WITHIN).unwrap_or(envelopes), kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_names_its_messages() {
        let of = |ids: &str| {
            let text = format!(
                r#"{{"seq":12,"type":"resync","payload":{{"reason":"trimmed","epoch":"e.1","seq":12{ids}}}}}
{{"type":"x","payload":{{}}}}"#
            );
            let named = Marker::of(text.as_bytes()).expect("a marker").named;
            named.into_iter().map(Named::get).collect::<Vec<_>>()
        };
        assert_eq!(of(r#","conversationId":"c","messageId":"7""#), [7]);
        assert_eq!(of(r#","messageIds":["7","8"]"#), [7, 8]);
        assert_eq!(of(r#","messageId":"7","notificationIds":["9"]"#), [7, 9]);
        assert_eq!(of(""), [0; 0]);
        for other in [r#"{"seq":1,"type":"message.new","payload":{"a":"\"type\":\"resync\""}}"#, ""] {
            assert_eq!(Marker::of(other.as_bytes()), None);
        }
        let kept = r#"{"seq":4,"type":"notification","payload":{"a":1,"notificationId":"9"}}"#;
        assert_eq!(notification_of(kept.as_bytes()).map(NotificationId::get), Some(9));
        assert_eq!(notification_of(kept.replace("notificationId", "x").as_bytes()), None);
    }
}
