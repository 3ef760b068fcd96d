//! What an event says about its user's unread counts, taken from bytes that were checked already.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;

use crate::delivery::envelope::message::FoundMessage;

/// An event that concerns the unread count of one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountMove<'a> {
    /// The conversation.
    pub conversation: Cow<'a, str>,
    /// What happened there.
    pub kind: MoveKind,
}

/// What an event says about a conversation's unread count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveKind {
    /// A message of another user.
    New {
        /// Its place in the conversation.
        seq: u64,
    },
    /// The user's own message: they have seen everything before it.
    Sent {
        /// Its place in the conversation.
        seq: u64,
    },
    /// The user has read.
    Read {
        /// The place of the newest message.
        last_seq: u64,
        /// The place up to which they have read.
        seen_seq: u64,
    },
    /// The user may have become a member. What they have not read can't be told from the event.
    Joined,
    /// The user may be a member no more.
    Left,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow)]
    conversation_id: Cow<'a, str>,
    seq: u64,
}

impl<'a> CountMove<'a> {
    /// What an event of this type says, by its payload; `found` is the message in it, if it stands where nodes write it.
    pub(super) fn of(kind: &str, payload: &'a [u8], found: Option<FoundMessage<'a>>) -> Option<Self> {
        match kind {
            "message.new" => Self::of_message(payload, found, |seq| MoveKind::New { seq }),
            "message.sent" => Self::of_message(payload, found, |seq| MoveKind::Sent { seq }),
            "message.read_ack" => Self::of_read(payload),
            "conversation.joined" | "conversation.created" => Self::of_joined(payload),
            "conversation.left" | "conversation.deleted" => Self::of_left(payload),
            _ => None,
        }
    }

    fn of_message(payload: &'a [u8], found: Option<FoundMessage<'a>>, kind: impl Fn(u64) -> MoveKind) -> Option<Self> {
        #[derive(Deserialize)]
        struct Payload<'a> {
            #[serde(borrow)]
            message: Message<'a>,
        }
        if let Some((conversation, seq)) = found.and_then(|found| as_we_write_it(found.object)) {
            return Some(Self { conversation: Cow::Borrowed(conversation), kind: kind(seq) });
        }
        let Message { conversation_id, seq } = serde_json::from_slice::<Payload<'_>>(payload).ok()?.message;
        Some(Self { conversation: conversation_id, kind: kind(seq) })
    }

    fn of_read(payload: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload<'a> {
            #[serde(borrow)]
            conversation_id: Cow<'a, str>,
            up_to_seq: u64,
            last_seq: u64,
        }
        let Payload { conversation_id, up_to_seq: seen_seq, last_seq } = serde_json::from_slice(payload).ok()?;
        Some(Self { conversation: conversation_id, kind: MoveKind::Read { last_seq, seen_seq } })
    }

    fn of_joined(payload: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Payload<'a> {
            #[serde(borrow)]
            conversation: Conversation<'a>,
        }
        #[derive(Deserialize)]
        struct Conversation<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
        }
        let Conversation { id } = serde_json::from_slice::<Payload<'_>>(payload).ok()?.conversation;
        Some(Self { conversation: id, kind: MoveKind::Joined })
    }

    fn of_left(payload: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload<'a> {
            #[serde(borrow)]
            conversation_id: Cow<'a, str>,
        }
        let Payload { conversation_id } = serde_json::from_slice(payload).ok()?;
        Some(Self { conversation: conversation_id, kind: MoveKind::Left })
    }
}

/// The conversation and the `seq` of a message as nodes write it: id, conversation and `seq` first. `None` for any other form.
fn as_we_write_it(message: &[u8]) -> Option<(&str, u64)> {
    let rest = message.strip_prefix(br#"{"id":""#)?;
    let rest = rest.get(memchr(b'"', rest)?..)?.strip_prefix(br#"","conversationId":""#)?;
    let (conversation, rest) = rest.split_at_checked(memchr(b'"', rest)?)?;
    let rest = rest.strip_prefix(br#"","seq":"#)?;
    let seq = std::str::from_utf8(rest.get(..memchr(b',', rest)?)?).ok()?.parse().ok()?;
    Some((std::str::from_utf8(conversation).ok().filter(|id| !id.contains('\\'))?, seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::envelope::Payload;

    #[test]
    fn events_tell_what_they_move() {
        let message = r#"{"id":"7","conversationId":"c","seq":3,"rev":4,"senderId":"u","kind":"text"}"#;
        for (text, expected) in [
            (format!(r#""type":"message.new","payload":{{"message":{message}}}"#), Some(MoveKind::New { seq: 3 })),
            (
                format!(r#""type":"message.sent","payload":{{"tempId":"t","message":{message}}}"#),
                Some(MoveKind::Sent { seq: 3 }),
            ),
            (
                r#""type":"message.new","payload":{"message":{"seq":3,"conversationId":"c","id":"7"}}"#.to_owned(),
                Some(MoveKind::New { seq: 3 }),
            ),
            (
                r#""type":"message.read_ack","payload":{"conversationId":"c","upToSeq":2,"lastSeq":5}"#.to_owned(),
                Some(MoveKind::Read { last_seq: 5, seen_seq: 2 }),
            ),
            (
                r#""type":"conversation.joined","payload":{"conversation":{"id":"c"}}"#.to_owned(),
                Some(MoveKind::Joined),
            ),
            (r#""type":"conversation.left","payload":{"conversationId":"c"}"#.to_owned(), Some(MoveKind::Left)),
            (format!(r#""type":"message.edited","payload":{{"message":{message}}}"#), None),
            (r#""type":"message.deleted","payload":{"conversationId":"c","seq":3}"#.to_owned(), None),
            (r#""type":"member.left","payload":{"conversationId":"c","userId":"u"}"#.to_owned(), None),
        ] {
            let envelope = format!("{{\"seq\":12,{text}}}");
            let counts = Payload::parse(envelope.as_bytes()).expect("a payload").counts;
            let expected = expected.map(|kind| CountMove { conversation: "c".into(), kind });
            assert_eq!(counts, expected, "{text}");
        }
    }
}
