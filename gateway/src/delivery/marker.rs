//! A marker: a durable `resync` that stands in a log in place of messages whose publication couldn't be decided (NOLOSS.md,
//! C1). It says which messages those are; what a socket gets for them is decided in `registry/push.rs`.

use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use shared::{Epoch, Event, MessageId};

use crate::delivery::envelope::first_line;

/// The type stands at the front of an envelope, behind its `seq`.
const TYPE: &[u8] = b"\"type\":\"resync\"";
const TYPE_WITHIN: usize = 64;

/// A marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The epoch of its log. Other pushes don't tell theirs.
    pub epoch: Epoch,
    /// The messages that it stands for.
    pub messages: Vec<MessageId>,
}

/// A message that a marker stands for, as the store has it, for one user.
#[derive(Debug, Clone)]
pub struct MarkedMessage {
    /// Its id.
    pub id: MessageId,
    /// How long ago it was committed, by the store's clock.
    pub age: Duration,
    /// Its event's envelope.
    pub envelope: Bytes,
}

impl Marker {
    /// The marker that this event of a log is, if it is one.
    #[must_use]
    pub fn of(envelopes: &[u8]) -> Option<Self> {
        memmem::find(envelopes.get(..TYPE_WITHIN).unwrap_or(envelopes), TYPE)?;
        match serde_json::from_slice(first_line(envelopes).0).ok()? {
            Event::Resync { epoch, message_id, mut message_ids, .. } => {
                message_ids.extend(message_id);
                Some(Self { epoch, messages: message_ids })
            }
            _ => None,
        }
    }
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
            let ids = Marker::of(text.as_bytes()).expect("a marker").messages;
            ids.into_iter().map(MessageId::get).collect::<Vec<_>>()
        };
        assert_eq!(of(r#","conversationId":"c","messageId":"7""#), [7]);
        assert_eq!(of(r#","messageIds":["7","8"]"#), [7, 8]);
        assert_eq!(of(""), [0; 0]);
        for other in [r#"{"seq":1,"type":"message.new","payload":{"a":"\"type\":\"resync\""}}"#, ""] {
            assert_eq!(Marker::of(other.as_bytes()), None);
        }
    }
}
