//! Events of large conversations: one envelope with the conversation's `rev`, the same for all members. And the events of a
//! user's log with which they come and go there.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{ConversationId, Place, Timestamp, UserId};

use crate::delivery::envelope::json;
use crate::delivery::envelope::lines::first_line;

/// The type of an envelope stands within so many bytes.
const TYPE_WITHIN: usize = 64;

/// An event of a large conversation, as it was published or read.
#[derive(Debug, PartialEq)]
pub struct TopicPayload<'a> {
    /// Its place among the conversation's changes.
    pub rev: u64,
    /// Its type.
    pub kind: Cow<'a, str>,
    /// The message that it brings, if it brings one.
    pub message: Option<TopicMessage>,
}

/// A new message of a large conversation.
#[derive(Debug, PartialEq)]
pub struct TopicMessage {
    /// Its place among the conversation's messages.
    pub seq: u64,
    /// Its sender, whose connections are shown it as their own.
    pub sender: UserId,
    /// The sender's name for it.
    pub temp_id: Option<String>,
    /// When the store accepted it.
    pub created_at: Timestamp,
}

impl<'a> TopicPayload<'a> {
    /// Checks an envelope; `None` if it is none of a large conversation.
    #[must_use]
    pub fn parse(envelope: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            rev: u64,
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct Payload {
            message: Message,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Message {
            seq: u64,
            sender_id: UserId,
            temp_id: Option<String>,
            created_at: Timestamp,
        }
        if envelope.contains(&b'\n') || !json::is_shallow(envelope) {
            return None;
        }
        let Envelope { rev, kind, payload } = serde_json::from_slice(envelope).ok()?;
        if rev == 0 || !payload.get().starts_with('{') {
            return None;
        }
        if kind != "message.new" {
            return Some(Self { rev, kind, message: None });
        }
        let Message { seq, sender_id, temp_id, created_at } =
            serde_json::from_str::<Payload>(payload.get()).ok()?.message;
        Some(Self { rev, kind, message: Some(TopicMessage { seq, sender: sender_id, temp_id, created_at }) })
    }
}

/// An event for all members of a large conversation that has no place there, but for some users. It is gone if it is lost.
#[derive(Debug, PartialEq)]
pub struct TopicNotice<'a> {
    /// Its type.
    pub kind: Cow<'a, str>,
    /// Its envelope.
    pub envelope: &'a [u8],
    /// Users who aren't shown it.
    pub except: Vec<UserId>,
}

impl<'a> TopicNotice<'a> {
    /// Checks a payload: an envelope, and behind it a line that may name users; `None` if it is none.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            payload: &'a RawValue,
            seq: Option<u64>,
            rev: Option<u64>,
        }
        #[derive(Deserialize)]
        struct Rest {
            except: Vec<UserId>,
        }
        if !json::is_shallow(payload) {
            return None;
        }
        let (envelope, rest) = first_line(payload);
        let Envelope { kind, payload, seq, rev } = serde_json::from_slice(envelope).ok()?;
        if seq.is_some() || rev.is_some() || !payload.get().starts_with('{') {
            return None;
        }
        let except = match rest {
            Some(rest) => serde_json::from_slice::<Rest>(rest).ok()?.except,
            None => Vec::new(),
        };
        Some(Self { kind, envelope, except })
    }
}

/// A `message.new` as its sender's connections are shown it: `message.sent`, with their name for it.
#[must_use]
pub fn as_sent(envelope: &[u8], temp_id: Option<&str>) -> Option<Vec<u8>> {
    const NEW: &[u8] = br#""type":"message.new","payload":{"#;
    let at = memmem::find(envelope, NEW)?;
    let (head, rest) = (envelope.get(..at)?, envelope.get(at + NEW.len()..)?);
    let temp_id = temp_id.and_then(|temp_id| serde_json::to_string(temp_id).ok());
    let temp_id = temp_id.map(|temp_id| format!(r#""tempId":{temp_id},"#)).unwrap_or_default();
    Some([head, br#""type":"message.sent","payload":{"#, temp_id.as_bytes(), rest].concat())
}

/// An envelope that moves its client's place in a large conversation.
#[derive(Debug, PartialEq, Eq)]
pub struct TopicStep {
    /// The conversation.
    pub conversation: ConversationId,
    /// The place behind it. Of an event without a new message `seq` is 0.
    pub place: Place,
    /// What it is.
    pub kind: StepKind,
}

/// What moves a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// An event of the conversation.
    Event,
    /// The client is told its place.
    Position,
    /// The same, and that it missed something.
    Resync,
}

impl TopicStep {
    /// The step that an envelope for one client is; `None` if it is none.
    #[must_use]
    pub fn of(envelope: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            rev: Option<u64>,
            #[serde(rename = "type")]
            kind: String,
            payload: Payload,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload {
            conversation_id: Option<ConversationId>,
            message: Option<Message>,
            rev: Option<u64>,
            last_seq: Option<u64>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Message {
            conversation_id: ConversationId,
            seq: u64,
        }
        let is_step = envelope.starts_with(b"{\"rev\":") || envelope.starts_with(b"{\"type\":\"conversation.");
        let Envelope { rev, kind, payload } = is_step.then(|| serde_json::from_slice(envelope).ok()).flatten()?;
        if let Some(rev) = rev {
            let is_new = kind == "message.new" || kind == "message.sent";
            let seq = payload.message.as_ref().filter(|_| is_new).map_or(0, |message| message.seq);
            let conversation = payload.conversation_id.or(payload.message.map(|message| message.conversation_id))?;
            return Some(Self { conversation, place: Place { rev, seq }, kind: StepKind::Event });
        }
        let kind = match &*kind {
            "conversation.position" => StepKind::Position,
            "conversation.resync" => StepKind::Resync,
            _ => return None,
        };
        let place = Place { rev: payload.rev?, seq: payload.last_seq? };
        Some(Self { conversation: payload.conversation_id?, place, kind })
    }
}

/// An event of a user's log that changes which way a conversation's events come to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It became large, or they came in: its events come once for all members, from this place on.
    Large {
        /// The conversation.
        conversation: ConversationId,
        /// Where.
        place: Place,
        /// Whether they came in, and so don't know the place yet.
        joins: bool,
    },
    /// It became small again.
    Small(ConversationId),
    /// They are no longer in it.
    Left(ConversationId),
}

impl Turn {
    /// The turn that the first of these envelopes is, if it is one.
    #[must_use]
    pub fn of(envelopes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(rename = "type")]
            kind: String,
            payload: Payload,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload {
            conversation_id: Option<ConversationId>,
            conversation: Option<Conversation>,
            rev: Option<u64>,
            last_seq: Option<u64>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Conversation {
            id: ConversationId,
            rev: u64,
            last_seq: u64,
            #[serde(default)]
            large: bool,
        }
        memmem::find(envelopes.get(..TYPE_WITHIN).unwrap_or(envelopes), b"\"type\":\"conversation.")?;
        let Envelope { kind, payload } = serde_json::from_slice(first_line(envelopes).0).ok()?;
        match (&*kind, payload) {
            ("conversation.left" | "conversation.deleted", Payload { conversation_id: Some(id), .. }) => {
                Some(Self::Left(id))
            }
            (
                "conversation.changed",
                Payload { conversation: Some(conversation), rev: Some(rev), last_seq: Some(seq), .. },
            ) => Some(match conversation.large {
                true => Self::Large { conversation: conversation.id, place: Place { rev, seq }, joins: false },
                false => Self::Small(conversation.id),
            }),
            ("conversation.joined", Payload { conversation: Some(joined), .. }) if joined.large => {
                let place = Place { rev: joined.rev, seq: joined.last_seq };
                Some(Self::Large { conversation: joined.id, place, joins: true })
            }
            _ => None,
        }
    }

    /// The conversation.
    #[must_use]
    pub fn conversation(&self) -> &ConversationId {
        let (Self::Large { conversation, .. } | Self::Small(conversation) | Self::Left(conversation)) = self;
        conversation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"{"rev":12,"type":"message.new","payload":{"message":{"id":"7","conversationId":"c","seq":3,"rev":12,"senderId":"u","kind":"text","content":"a \"b\"","tempId":"t\"","createdAt":"2025-11-21T13:00:00.000Z"},"senderName":"n"}}"#;

    #[test]
    fn an_event_is_known_by_its_rev() {
        let parsed = TopicPayload::parse(NEW.as_bytes()).expect("an event");
        let message = parsed.message.expect("a message");
        assert_eq!((parsed.rev, message.seq, message.sender.as_str()), (12, 3, "u"));
        assert_eq!(message.temp_id.as_deref(), Some("t\""));
        let edited = TopicPayload::parse(br#"{"rev":13,"type":"message.edited","payload":{}}"#).expect("an event");
        assert_eq!((edited.rev, edited.message), (13, None));
        for other in [
            r#"{"type":"message.new","payload":{}}"#,
            r#"{"rev":0,"type":"x","payload":{}}"#,
            r#"{"rev":1,"type":"x","payload":[]}"#,
            r#"{"rev":1,"type":"message.new","payload":{}}"#,
            "{\"rev\":1,\"type\":\"x\",\"payload\":{}}\n{}",
            &format!(r#"{{"rev":1,"type":"x","payload":{{"a":{}1{}}}}}"#, "[".repeat(200), "]".repeat(200)),
            "",
        ] {
            assert_eq!(TopicPayload::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_notice_has_no_place_and_may_leave_out_users() {
        let typing = r#"{"type":"typing","payload":{"userId":"u"}}"#;
        let parse =
            |text: &str| TopicNotice::parse(text.as_bytes()).map(|notice| (notice.kind.into_owned(), notice.except));
        assert_eq!(parse(typing), Some(("typing".into(), vec![])));
        let u = UserId::parse("u").expect("an id");
        assert_eq!(parse(&format!("{typing}\n{{\"except\":[\"u\"]}}")), Some(("typing".into(), vec![u])));
        for other in [NEW, r#"{"seq":1,"type":"x","payload":{}}"#, r#"{"type":"x","payload":[]}"#, "", "{}"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(parse(&format!("{typing}\n{{\"except\":[\"a b\"]}}")), None);
    }

    #[test]
    fn its_sender_is_shown_it_as_sent() {
        let sent = as_sent(NEW.as_bytes(), Some("t\"")).expect("an event");
        let sent: serde_json::Value = serde_json::from_slice(&sent).expect("JSON");
        assert_eq!((&sent["type"], &sent["rev"]), (&"message.sent".into(), &12.into()));
        assert_eq!((&sent["payload"]["tempId"], &sent["payload"]["senderName"]), (&"t\"".into(), &"n".into()));
        assert_eq!(sent["payload"]["message"]["id"], "7");
    }

    #[test]
    fn steps_move_a_place() {
        let step = |text: &str| TopicStep::of(text.as_bytes()).map(|step| (step.place, step.kind));
        let place = |rev, seq| Place { rev, seq };
        assert_eq!(step(NEW), Some((place(12, 3), StepKind::Event)));
        let edited = r#"{"rev":13,"type":"message.edited","payload":{"message":{"conversationId":"c","seq":2}}}"#;
        assert_eq!(step(edited), Some((place(13, 0), StepKind::Event)));
        let deleted = r#"{"rev":14,"type":"message.deleted","payload":{"conversationId":"c","seq":2}}"#;
        assert_eq!(step(deleted), Some((place(14, 0), StepKind::Event)));
        let told = |kind| format!(r#"{{"type":"{kind}","payload":{{"conversationId":"c","rev":9,"lastSeq":4}}}}"#);
        assert_eq!(step(&told("conversation.position")), Some((place(9, 4), StepKind::Position)));
        assert_eq!(step(&told("conversation.resync")), Some((place(9, 4), StepKind::Resync)));
        assert_eq!(
            (step(&told("conversation.updated")), step("{}"), step(r#"{"seq":1,"type":"x"}"#)),
            (None, None, None)
        );
    }

    #[test]
    fn turns_are_found_in_a_log() {
        let conversation = |large: bool| format!(r#"{{"id":"c","rev":9,"lastSeq":4,"large":{large}}}"#);
        let place = Place { rev: 9, seq: 4 };
        let id = ConversationId::parse("c").expect("an id");
        for (text, expected) in [
            (
                format!(
                    r#"{{"seq":1,"type":"conversation.changed","payload":{{"conversation":{},"rev":9,"lastSeq":4}}}}"#,
                    conversation(true)
                ),
                Some(Turn::Large { conversation: id.clone(), place, joins: false }),
            ),
            (
                format!(
                    r#"{{"seq":1,"type":"conversation.changed","payload":{{"conversation":{},"rev":9,"lastSeq":4}}}}"#,
                    conversation(false)
                ),
                Some(Turn::Small(id.clone())),
            ),
            (
                format!(
                    r#"{{"seq":1,"type":"conversation.changed","payload":{{"conversation":{}}}}}"#,
                    conversation(true)
                ),
                None,
            ),
            (
                format!(
                    r#"{{"seq":1,"type":"conversation.joined","payload":{{"conversation":{}}}}}"#,
                    conversation(true)
                ),
                Some(Turn::Large { conversation: id.clone(), place, joins: true }),
            ),
            (
                r#"{"seq":2,"type":"conversation.left","payload":{"conversationId":"c"}}"#.to_owned(),
                Some(Turn::Left(id.clone())),
            ),
            (NEW.to_owned(), None),
        ] {
            assert_eq!(Turn::of(text.as_bytes()), expected, "{text}");
        }
    }
}
