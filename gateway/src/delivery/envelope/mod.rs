//! What comes over the backbone is not trusted: each line is checked here before a socket sees it.

mod json;

use std::borrow::Cow;

use memchr::{memchr, memchr2, memrchr_iter};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::ResyncReason;
use shared::{Epoch, MessageId, Timestamp};

use crate::backbone::late::MESSAGE_LIVE;

/// A checked payload: what the node has to know of it.
#[derive(Debug, PartialEq)]
pub struct Payload<'a> {
    /// The log was begun anew. The first line, for nodes only.
    pub opened: Option<Opened>,
    /// The first event's `seq`; without one it is ephemeral.
    pub seq: Option<u64>,
    /// The first event's type; empty if there is none.
    pub kind: Cow<'a, str>,
    /// The envelopes, newline-separated, as they go to canonical sockets. None if a log was begun anew and has nothing yet.
    pub envelopes: &'a [u8],
}

/// A message that an event brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// Its id.
    pub message: u64,
    /// The sender's name for it, in `message.sent`.
    pub temp_id: Option<String>,
}

/// The id of the message that an event brings, if any; mostly without parsing the event.
#[must_use]
pub fn message_id(envelopes: &[u8]) -> Option<u64> {
    match as_we_write_it(envelopes) {
        KnownStart::Brings(message) => Some(message),
        KnownStart::BringsNone => None,
        KnownStart::Otherwise => brought(envelopes).map(|brought| brought.message),
    }
}

/// What an event of ours looks like at its beginning.
enum KnownStart {
    Brings(u64),
    BringsNone,
    /// Others may write their members in another order.
    Otherwise,
}

/// Reads no further than the message's id: every event on its way to sockets is looked at.
fn as_we_write_it(envelopes: &[u8]) -> KnownStart {
    const ID: &[u8] = br#""message":{"id":""#;
    let read = || {
        let rest = envelopes.strip_prefix(br#"{"seq":"#)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kind = rest.get(digits..)?.strip_prefix(br#","type":""#)?;
        let payload = if let Some(new) = kind.strip_prefix(br#"message.new","payload":{"#) {
            new.strip_prefix(ID)?
        } else if let Some(sent) = kind.strip_prefix(br#"message.sent","payload":{"#) {
            match sent.strip_prefix(br#""tempId":""#) {
                Some(temp_id) => {
                    // One with an escape is left to those who read it in full.
                    let end = memchr2(b'"', b'\\', temp_id)?;
                    temp_id.get(end..)?.strip_prefix(b"\",")?.strip_prefix(ID)?
                }
                None => sent.strip_prefix(ID)?,
            }
        } else {
            return (!kind.starts_with(b"message.new\"") && !kind.starts_with(b"message.sent\"")).then_some(None);
        };
        let end = payload.iter().position(|byte| *byte == b'"')?;
        let id: MessageId = std::str::from_utf8(payload.get(..end)?).ok()?.parse().ok()?;
        Some(Some(id.get()))
    };
    match read() {
        Some(Some(message)) => KnownStart::Brings(message),
        Some(None) => KnownStart::BringsNone,
        None => KnownStart::Otherwise,
    }
}

/// The message that an event brings (`message.new`, `message.sent`); `None` for other events.
#[must_use]
pub fn brought(envelopes: &[u8]) -> Option<MessageRef> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        payload: Body,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        message: Option<MessageWithId>,
        temp_id: Option<String>,
    }
    #[derive(Deserialize)]
    struct MessageWithId {
        id: MessageId,
    }
    let event: Event<'_> = serde_json::from_slice(first_line(envelopes).0).ok()?;
    let brings = matches!(&*event.kind, "message.new" | "message.sent");
    let Body { message, temp_id } = event.payload;
    message.filter(|_| brings).map(|message| MessageRef { message: message.id.get(), temp_id })
}

/// The event in an envelope of the type [`MESSAGE_LIVE`](crate::backbone::late::MESSAGE_LIVE).
#[must_use]
pub fn live_event(envelope: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Live<'a> {
        #[serde(borrow)]
        payload: LivePayload<'a>,
    }
    #[derive(Deserialize)]
    struct LivePayload<'a> {
        #[serde(borrow)]
        event: &'a RawValue,
    }
    serde_json::from_slice::<Live<'_>>(envelope).ok().map(|live| live.payload.event)
}

/// When the message that an event brings was accepted by the store; `None` for other events.
///
/// Searched for by its last letter, not parsed, and from the end: this runs for every event, and the time stands behind the
/// content, as it does in the companion that repeats the message. Inside of a string a quote is escaped, so the key can't be
/// content.
#[must_use]
pub fn accepted_at(kind: &str, envelopes: &[u8]) -> Option<Timestamp> {
    const KEY: &[u8] = b"\"createdAt\":\"";
    const TIME_BYTES: usize = "2026-01-01T00:00:00.000Z".len();
    /// Letters that are looked at: behind the time stand ids and names, which may have the letter too.
    const LETTERS_MAX: usize = 512;
    if !matches!(kind, "message.new" | "message.sent") {
        return None;
    }
    let time = |letter: usize| envelopes.get(..=letter)?.last_chunk::<{ TIME_BYTES + KEY.len() }>()?.strip_prefix(KEY);
    let time = memrchr_iter(b'Z', envelopes).take(LETTERS_MAX).find_map(time)?;
    Timestamp::parse(time)
}

/// The lines of a payload. Many bytes are searched at once, because this runs for every event.
pub fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(payload);
    std::iter::from_fn(move || {
        let (line, after) = first_line(rest?);
        rest = after;
        Some(line)
    })
}

/// The companions of the first envelope.
#[must_use]
pub fn companions(envelopes: &[u8]) -> &[u8] {
    first_line(envelopes).1.unwrap_or_default()
}

/// The first line, and what stands behind its newline if it has one.
fn first_line(payload: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'\n', payload).and_then(|end| payload.split_at_checked(end)) {
        Some((line, rest)) => (line, rest.get(1..)),
        None => (payload, None),
    }
}

/// A payload that is no sequence of envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload is no newline-separated sequence of JSON envelopes")]
pub struct InvalidPayload;

/// What has to be known of an envelope.
struct Envelope<'a> {
    kind: Cow<'a, str>,
    seq: Option<u64>,
    /// The message that it brings, an object, if it was found; or nothing.
    message: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Checks a line. `message` was found in an earlier one.
    fn parse(line: &'a [u8], message: &[u8]) -> Option<Self> {
        Self::as_we_write_it(line, message).or_else(|| Self::in_any_form(line))
    }

    /// Says yes or that it doesn't know.
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
            return json::is_plain(line.get(..rest)?).then_some(Self { kind, seq, message: &[] });
        }
        let (message, behind) = match with_message(payload) {
            Some(found) => found,
            None => (&[][..], json::behind_object(payload)?),
        };
        (behind == b"}" && json::is_plain(line)).then_some(Self { kind, seq, message })
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
        payload.get().starts_with('{').then_some(Self { kind, seq, message: &[] })
    }
}

/// Whether what follows `"payload":` in `conversation.updated`, as we write it, is this message again, and nothing else is new
/// in it but the conversation's id.
fn repeats(payload: &[u8], message: &[u8]) -> bool {
    let id = || {
        let head = payload.strip_suffix(b"}}")?.strip_suffix(message)?;
        head.strip_prefix(br#"{"conversationId":""#)?.strip_suffix(br#"","lastMessage":"#)
    };
    id().is_some_and(|id| memchr2(b'"', b'\\', id).is_none())
}

/// The message in a plain payload, as we write it, and what stands behind the payload.
fn with_message(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = payload.strip_prefix(b"{")?;
    if let Some(temp_id) = rest.strip_prefix(br#""tempId":""#) {
        rest = json::behind_string(temp_id)?.strip_prefix(b",")?;
    }
    let message = rest.strip_prefix(br#""message":"#)?;
    rest = json::behind_object(message)?;
    let message = message.get(..message.len() - rest.len())?;
    for name in [&br#","to":""#[..], br#","senderName":""#] {
        if let Some(text) = rest.strip_prefix(name) {
            rest = json::behind_string(text)?;
        }
    }
    Some((message, rest.strip_prefix(b"}")?))
}

/// A log that was begun anew.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Opened {
    /// What its events count under.
    pub epoch: Epoch,
    /// Why, if it was not because there was no log: `trimmed` by a redo that could not prove an event's absence (NOLOSS B3).
    pub reason: Option<ResyncReason>,
    /// Read so that the line is known to be this one.
    seq: u64,
}

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
            return Ok(Self { opened, seq: None, kind: Cow::Borrowed(""), envelopes });
        }
        let mut lines = lines(envelopes);
        let first = lines.next().and_then(|line| Envelope::parse(line, &[]));
        let first = first.filter(|first| first.seq != Some(0)).ok_or(InvalidPayload)?;
        let is_live = first.kind == MESSAGE_LIVE;
        let is_companion = |line| {
            let envelope = Envelope::parse(line, first.message);
            envelope.is_some_and(|envelope| envelope.seq.is_none() && envelope.kind != MESSAGE_LIVE && !is_live)
        };
        // A message that isn't stored yet stands alone, and in no log.
        if !lines.all(is_companion) || (is_live && (first.seq.is_some() || opened.is_some())) {
            return Err(InvalidPayload);
        }
        Ok(Self { opened, seq: first.seq, kind: first.kind, envelopes })
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(envelope.message, if is_found { message.as_bytes() } else { b"" }, "{first}");
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
            let _ = brought(&bytes);
            let _ = accepted_at("message.new", &bytes);
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
            assert_eq!(message_id(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_time_of_a_message_is_its_own() {
        let said = r#"{"seq":1,"type":"message.new","payload":{"message":{"content":"\"createdAt\":\"1\"","createdAt":"2026-11-21T12:00:00.007Z"}}}"#;
        assert_eq!(accepted_at("message.new", said.as_bytes()).map(Timestamp::unix_ms), Some(1_795_262_400_007));
        assert_eq!(accepted_at("typing", said.as_bytes()), None);
        assert_eq!(accepted_at("message.new", br#"{"createdAt":"#), None);
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
