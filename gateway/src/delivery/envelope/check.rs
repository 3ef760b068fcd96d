//! Checks a payload, line by line, and says what the node has to know of it. An envelope in the form in which nodes write it
//! is recognised; serde reads any other.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::Epoch;

use crate::backbone::late::MESSAGE_LIVE;
use crate::delivery::envelope::count_move::CountMove;
use crate::delivery::envelope::json;
use crate::delivery::envelope::lines::{first_line, lines};
use crate::delivery::envelope::message::{FoundMessage, MessageRef, is_brought_by, repeats};

/// A checked payload: what the node has to know of it.
#[derive(Debug, PartialEq)]
pub struct Payload<'a> {
    /// The log was begun anew. The first line, for nodes only.
    pub opened: Option<Opened>,
    /// The first event's `seq`; without one it is ephemeral.
    pub seq: Option<u64>,
    /// The first event's type; empty if there is none.
    pub kind: Cow<'a, str>,
    /// The message that the first event brings (`message.new`, `message.sent`), if it does.
    pub message: Option<MessageRef<'a>>,
    /// What the first event says about the user's unread counts, if it is durable and concerns them.
    pub counts: Option<CountMove<'a>>,
    /// The envelopes, newline-separated, as they go to canonical sockets. None if a log was begun anew and has nothing yet.
    pub envelopes: &'a [u8],
}

/// A log that was begun anew.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Opened {
    /// What its events count under.
    pub epoch: Epoch,
    /// Read so that the line is known to be this one.
    seq: u64,
}

/// A payload that is no sequence of envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload is no newline-separated sequence of JSON envelopes")]
pub struct InvalidPayload;

impl<'a> Payload<'a> {
    /// Checks a payload as it came from a channel.
    pub fn parse(payload: &'a [u8]) -> Result<Self, InvalidPayload> {
        let (opened, envelopes) = match payload.starts_with(b"{\"epoch\":") {
            false => (None, payload),
            true => {
                let (line, rest) = first_line(payload);
                let opened: Opened = serde_json::from_slice(line).map_err(|_| InvalidPayload)?;
                (Some(opened), rest.ok_or(InvalidPayload)?)
            }
        };
        if opened.is_some() && envelopes.is_empty() {
            return Ok(Self { opened, seq: None, kind: Cow::Borrowed(""), message: None, counts: None, envelopes });
        }
        let mut lines = lines(envelopes);
        let first = lines.next().and_then(|line| Envelope::parse(line, &[]));
        let first = first.filter(|first| first.seq != Some(0)).ok_or(InvalidPayload)?;
        let repeated = first.found.map_or(&[][..], |found| found.object);
        let is_live = first.kind == MESSAGE_LIVE;
        let is_companion = |line| {
            let envelope = Envelope::parse(line, repeated);
            envelope.is_some_and(|envelope| envelope.seq.is_none() && envelope.kind != MESSAGE_LIVE && !is_live)
        };
        // A message that isn't stored yet stands alone, and in no log.
        if !lines.all(is_companion) || (is_live && (first.seq.is_some() || opened.is_some())) {
            return Err(InvalidPayload);
        }
        let (message, counts) = (first.message(), first.seq.and_then(|_| first.counts()));
        Ok(Self { opened, seq: first.seq, message, counts, kind: first.kind, envelopes })
    }
}

/// Whether these are the envelopes of the durable event `seq`, as an entry of a log has to be.
#[must_use]
pub fn is_logged(seq: u64, envelopes: &[u8]) -> bool {
    Payload::parse(envelopes).is_ok_and(|payload| payload.opened.is_none() && payload.seq == Some(seq))
}

/// The message that the first of these envelopes brings, if it does: for envelopes that come by another way than
/// [`Payload::parse`].
#[must_use]
pub fn message_of(envelopes: &[u8]) -> Option<MessageRef<'_>> {
    Envelope::parse(first_line(envelopes).0, &[])?.message()
}

/// The same, and what the event says about unread counts.
#[must_use]
pub fn first_event(envelopes: &[u8]) -> FirstEvent<'_> {
    let first = Envelope::parse(first_line(envelopes).0, &[]);
    first.map_or_else(FirstEvent::default, |first| FirstEvent { message: first.message(), counts: first.counts() })
}

/// What delivery needs of an event that stands in a log.
#[derive(Debug, Default)]
pub struct FirstEvent<'a> {
    /// The message that it brings, if it does.
    pub message: Option<MessageRef<'a>>,
    /// What it says about the user's unread counts.
    pub counts: Option<CountMove<'a>>,
}

/// What has to be known of an envelope.
struct Envelope<'a> {
    kind: Cow<'a, str>,
    seq: Option<u64>,
    payload: &'a [u8],
    /// The message in the payload, if it stands where nodes write it.
    found: Option<FoundMessage<'a>>,
}

impl<'a> Envelope<'a> {
    /// Checks a line. `message` was found in an earlier one.
    fn parse(line: &'a [u8], message: &[u8]) -> Option<Self> {
        Self::as_we_write_it(line, message).or_else(|| Self::in_any_form(line))
    }

    /// Accepts a line in the form in which nodes write it; `None` for one of any other form, valid or not.
    fn as_we_write_it(line: &'a [u8], message: &[u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{")?;
        let (seq, rest) = match rest.strip_prefix(br#""seq":"#) {
            None => (None, rest),
            Some(rest) => {
                let (digits, rest) = rest.split_at_checked(memchr(b',', rest)?)?;
                let is_written = digits.first().is_some_and(|first| matches!(first, b'1'..=b'9'));
                let seq = std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| is_written)?;
                (Some(seq), rest.strip_prefix(b",")?)
            }
        };
        let rest = rest.strip_prefix(br#""type":""#)?;
        let (kind, rest) = rest.split_at_checked(memchr2(b'"', b'\\', rest)?)?;
        let payload = rest.strip_prefix(br#"","payload":"#)?;
        let kind = Cow::Borrowed(std::str::from_utf8(kind).ok()?);
        if !message.is_empty() && repeats(payload, message) {
            // That was checked where it stood first.
            let rest = line.len() - message.len() - b"}}".len();
            return json::is_plain(line.get(..rest)?).then_some(Self { kind, seq, payload, found: None });
        }
        let (found, behind) = match FoundMessage::find(payload) {
            Some((found, behind)) => (Some(found), behind),
            None => (None, json::behind_object(payload)?),
        };
        let payload = payload.strip_suffix(b"}")?;
        (behind == b"}" && json::is_plain(line)).then_some(Self { kind, seq, payload, found })
    }

    fn in_any_form(line: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct AnyEnvelope<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            seq: Option<u64>,
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        if !json::is_shallow(line) {
            return None;
        }
        let AnyEnvelope { kind, seq, payload } = serde_json::from_slice(line).ok()?;
        let payload = payload.get();
        payload.starts_with('{').then_some(Self { kind, seq, payload: payload.as_bytes(), found: None })
    }

    /// The message that the event brings, if it does.
    fn message(&self) -> Option<MessageRef<'a>> {
        if !is_brought_by(&self.kind) {
            return None;
        }
        let written = self.found.and_then(MessageRef::as_we_write_it);
        written.or_else(|| MessageRef::in_any_form(self.payload))
    }

    /// What the event says about the user's unread counts.
    fn counts(&self) -> Option<CountMove<'a>> {
        CountMove::of(&self.kind, self.payload, self.found)
    }
}

#[cfg(test)]
mod tests {
    use shared::Timestamp;

    use super::*;

    #[test]
    fn a_durable_event_with_companions() {
        let text = b"{\"seq\":12,\"type\":\"message.new\",\"payload\":{}}\n{\"type\":\"x\",\"payload\":{\"a\":[1]}}";
        let payload = Payload::parse(text).expect("a good payload");
        assert_eq!((payload.seq, &*payload.kind, payload.opened), (Some(12), "message.new", None));
        assert_eq!(payload.envelopes, text);
    }

    #[test]
    fn an_opened_log_announces_its_epoch_first() {
        let payload = Payload::parse(b"{\"epoch\":\"a.1\",\"seq\":0}\n{\"seq\":1,\"type\":\"t\",\"payload\":{}}");
        let payload = payload.expect("a good payload");
        assert_eq!(payload.opened.as_ref().map(|opened| opened.epoch.as_str()), Some("a.1"));
        assert_eq!(payload.envelopes, b"{\"seq\":1,\"type\":\"t\",\"payload\":{}}");
        let alone = Payload::parse(b"{\"epoch\":\"a.1\",\"seq\":0}\n").expect("a good payload");
        assert!(alone.opened.is_some() && alone.envelopes.is_empty());
    }

    #[test]
    fn as_we_write_it_is_read_as_in_any_form() {
        let form = |envelope: Option<Envelope<'_>>| envelope.map(|envelope| (envelope.kind.into_owned(), envelope.seq));
        for text in [
            r#"{"seq":12,"type":"message.new","payload":{"message":{"id":"7","content":"a \"b\""},"to":"u"}}"#,
            r#"{"type":"typing","payload":{"isTyping":true}}"#,
            r#"{"type":"ü","payload":{}}"#,
        ] {
            let written = form(Envelope::as_we_write_it(text.as_bytes(), &[]));
            assert!(written.is_some(), "{text}");
            assert_eq!(written, form(Envelope::in_any_form(text.as_bytes())), "{text}");
        }
        for text in [
            r#"{"seq":012,"type":"x","payload":{}}"#,
            r#"{"seq":+1,"type":"x","payload":{}}"#,
            r#"{"seq":1.0,"type":"x","payload":{}}"#,
            r#"{"seq":18446744073709551616,"type":"x","payload":{}}"#,
            r#"{"type":"x","payload":{}"#,
            r#"{"type":"x","payload":{}}}"#,
            r#"{"type":"x","payload":{},"type":"y"}"#,
            r#"{"type":"x\n","payload":{}}"#,
        ] {
            assert_eq!(form(Envelope::as_we_write_it(text.as_bytes(), &[])), None, "{text}");
        }
    }

    #[test]
    fn a_message_that_is_repeated_is_not_read_again() {
        let message = r#"{"id":"7","content":"a \"b\" ü"}"#;
        for (first, is_found) in [
            (format!(r#"{{"seq":1,"type":"message.new","payload":{{"message":{message},"to":"u"}}}}"#), true),
            (format!(r#"{{"seq":1,"type":"message.sent","payload":{{"tempId":"\"","message":{message}}}}}"#), true),
            (format!(r#"{{"seq":1,"type":"x","payload":{{"message":{message},"senderName":"ü"}}}}"#), true),
            (format!(r#"{{"seq":1,"type":"x","payload":{{"message":{message},"other":1}}}}"#), false),
            (format!(r#"{{"seq":1,"type":"x","payload":{{"a":"\"message\":{}"}}}}"#, r#"{}"#), false),
        ] {
            let envelope = Envelope::as_we_write_it(first.as_bytes(), &[]).expect("an envelope");
            let found = envelope.found.map(|found| found.object);
            assert_eq!(found, is_found.then_some(message.as_bytes()), "{first}");
        }
        let updated = |id: &str, message: &str, end: &str| {
            format!(
                r#"{{"type":"conversation.updated","payload":{{"conversationId":"{id}","lastMessage":{message}{end}"#
            )
        };
        let known = |line: &str| Envelope::as_we_write_it(line.as_bytes(), message.as_bytes()).is_some();
        assert!(known(&updated("c", message, "}}")) && known(&updated("c", r#"{"id":"8"}"#, "}}")));
        for line in [
            updated("c", message, "}"),
            updated("c", message, "}}}"),
            updated("c\"", message, "}}"),
            updated("c\\", message, "}}"),
            updated("c\n", message, "}}"),
            updated("c", &message.replace("}", ""), "}}"),
            updated("c", &format!("1{message}"), "}}"),
            updated("c", &format!("{message},"), "}}"),
        ] {
            assert!(!known(&line), "{line}");
            assert!(Envelope::in_any_form(line.as_bytes()).is_none(), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = Payload::parse(&bytes);
            let _ = message_of(&bytes);
        }
    }

    #[test]
    fn a_message_is_known_by_its_id_however_it_is_written() {
        let sent =
            r#"{"seq":1,"type":"message.sent","payload":{"tempId":"\"message\":{\"id\":\"8\"","message":{"id":"7"}}}"#;
        for (text, expected) in [
            (r#"{"seq":12,"type":"message.new","payload":{"message":{"id":"7","content":"x"}}}"#, Some(7)),
            (sent, Some(7)),
            (r#"{"type":"message.new","seq":12,"payload":{"message":{"content":"x","id":"7"}}}"#, Some(7)),
            (r#"{"seq":12,"type":"message.new","payload":{"other":1,"message":{"id":"7"}}}"#, Some(7)),
            (r#"{"seq":12,"type":"message.edited","payload":{"message":{"id":"7"}}}"#, None),
            (r#"{"seq":12,"type":"message.new","payload":{"message":{"id":"x"}}}"#, None),
        ] {
            let message = Payload::parse(text.as_bytes()).expect("a payload").message;
            assert_eq!(message.map(|message| message.id.get()), expected, "{text}");
            assert_eq!(message_of(text.as_bytes()).map(|message| message.id.get()), expected, "{text}");
        }
    }

    #[test]
    fn a_message_as_we_write_it_is_read_as_in_any_form() {
        let event = |temp_id: &str, message: &str| {
            format!(r#"{{"seq":1,"type":"message.sent","payload":{{"tempId":"{temp_id}","message":{message}}}}}"#)
        };
        let at = r#""createdAt":"2026-11-21T12:00:00.007Z""#;
        for (temp_id, message, is_written) in [
            ("t", format!(r#"{{"id":"7","content":"x",{at}}}"#), true),
            ("t", format!(r#"{{"id":"7","content":"x",{at},"editedAt":"2026-11-21T12:00:01.007Z"}}"#), false),
            (r#"\"t\u00fc"#, format!(r#"{{"id":"7",{at}}}"#), false),
            ("t", format!(r#"{{{at},"id":"7"}}"#), false),
            ("t", format!(r#"{{"id":"7","nested":{{{at}}}}}"#), false),
        ] {
            let text = event(temp_id, &message);
            let envelope = Envelope::as_we_write_it(text.as_bytes(), &[]).expect("an envelope");
            let found = envelope.found.expect("a message");
            let any = MessageRef::in_any_form(envelope.payload).expect("a message");
            let written = MessageRef::as_we_write_it(found);
            assert_eq!(written.is_some(), is_written, "{text}");
            assert!(written.is_none_or(|written| written == any), "{text}");
            assert_eq!(any.created_at.is_some(), !message.contains("nested"), "{text}");
            assert_eq!(envelope.message(), Some(any), "{text}");
        }
    }

    #[test]
    fn the_time_of_a_message_is_its_own() {
        let said = r#"{"seq":1,"type":"message.new","payload":{"message":{"id":"7","content":"\"createdAt\":\"1\"","createdAt":"2026-11-21T12:00:00.007Z"}}}"#;
        let time = |text: &str| message_of(text.as_bytes()).and_then(|message| message.created_at);
        assert_eq!(time(said).map(Timestamp::unix_ms), Some(1_795_262_400_007));
        assert_eq!(time(&said.replace("message.new", "typing")), None);
        assert_eq!(time(r#"{"createdAt":"#), None);
    }

    #[test]
    fn a_live_message_stands_alone() {
        let live = r#"{"type":"message.live","payload":{"event":{}}}"#;
        assert!(Payload::parse(live.as_bytes()).is_ok());
        for poison in [
            live.replace("{\"type", "{\"seq\":1,\"type"),
            format!("{live}\n{live}"),
            format!("{live}\n{{\"type\":\"x\",\"payload\":{{}}}}"),
            format!("{{\"type\":\"x\",\"payload\":{{}}}}\n{live}"),
            format!("{{\"epoch\":\"e\",\"seq\":0}}\n{live}"),
        ] {
            assert_eq!(Payload::parse(poison.as_bytes()), Err(InvalidPayload), "{poison}");
        }
    }

    #[test]
    fn poison_is_recognised() {
        for text in [
            "",
            "\n",
            "null",
            "[]",
            "{}",
            "{\"type\":1,\"payload\":{}}",
            "{\"type\":\"x\"}",
            "{\"type\":\"x\",\"payload\":[]}",
            "{\"seq\":-1,\"type\":\"x\",\"payload\":{}}",
            "{\"seq\":0,\"type\":\"x\",\"payload\":{}}",
            "{\"seq\":\"1\",\"type\":\"x\",\"payload\":{}}",
            "{\"type\":\"x\",\"payload\":{}}\n",
            "{\"type\":\"x\",\"payload\":{}}\n{\"seq\":2,\"type\":\"x\",\"payload\":{}}",
            "{\"type\":\"x\",\"payload\":{\"a\":\"\u{1}\"}}",
            "{\"epoch\":\"a\",\"seq\":0}",
            &format!("{{\"type\":\"x\",\"payload\":{{\"a\":{}1{}}}}}", "[".repeat(100_000), "]".repeat(100_000)),
            &format!("{{\"type\":\"x\",\"payload\":{{}},\"a\":{}1{}}}", "[".repeat(128), "]".repeat(128)),
            "{\"epoch\":7,\"seq\":0}\n{\"type\":\"x\",\"payload\":{}}",
        ] {
            assert_eq!(Payload::parse(text.as_bytes()), Err(InvalidPayload), "{text:?}");
        }
        assert_eq!(Payload::parse(b"{\"type\":\"x\",\"payload\":{\"a\":\"\xff\"}}"), Err(InvalidPayload));
    }
}
