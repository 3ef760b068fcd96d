//! A companion that repeats its event's message is sent to Redis and back as a reference to that message. This saves
//! half of the bytes in each recipient's log and channel, and so time in Lua, which hashes every byte, and memory.
//!
//! In place of `{"type":"conversation.updated","payload":{"conversationId":C,"lastMessage":M}}` the reference is
//! `{"repeats":N}`: M are the N bytes of the message in the line before.

use std::borrow::Cow;

use memchr::memmem;

const HEAD: &[u8] = br#"{"type":"conversation.updated","payload":{"conversationId":""#;
const MIDDLE: &[u8] = br#"","lastMessage":"#;
const TAIL: &[u8] = b"}}";
const REFERENCE: &[u8] = b"\n{\"repeats\":";
/// Quotes inside of a string are escaped, so this is no content.
const MESSAGE: &[u8] = br#""message":{"#;

/// `body` with the reference, if its second line repeats the first one's message; otherwise `body`.
pub(in crate::backbone::redis) fn shorten(body: &[u8]) -> Cow<'_, [u8]> {
    shortened(body).map_or(Cow::Borrowed(body), Cow::Owned)
}

fn shortened(body: &[u8]) -> Option<Vec<u8>> {
    let (event, rest) = body.split_at_checked(memchr::memchr(b'\n', body)?)?;
    let rest = rest.get(1..)?;
    let (companion, rest) = rest.split_at_checked(memchr::memchr(b'\n', rest).unwrap_or(rest.len()))?;
    let message_and_behind = event.get(message_at(event)?..)?;
    let conversation = conversation_of(message_and_behind)?;
    let repeated =
        companion.strip_prefix(HEAD)?.strip_prefix(conversation)?.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
    if !message_and_behind.starts_with(repeated) || conversation_of(repeated) != Some(conversation) {
        return None;
    }
    Some([event, REFERENCE, repeated.len().to_string().as_bytes(), b"}", rest].concat())
}

/// A payload as it was before it was shortened. A reference to nothing stays, and is no envelope.
pub(in crate::backbone::redis) fn whole(payload: &[u8]) -> Cow<'_, [u8]> {
    expanded(payload).map_or(Cow::Borrowed(payload), Cow::Owned)
}

fn expanded(payload: &[u8]) -> Option<Vec<u8>> {
    let refers = |end: &usize| payload.get(*end..).is_some_and(|rest| rest.starts_with(REFERENCE));
    let end = memchr::memchr_iter(b'\n', payload).find(refers)?;
    let (event, reference) = payload.split_at_checked(end)?;
    let reference = reference.strip_prefix(REFERENCE)?;
    let (length, rest) = reference.split_at_checked(memchr::memchr(b'}', reference)?)?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let at = message_at(event)?;
    let message = event.get(at..at.checked_add(length)?)?;
    let conversation = conversation_of(message)?;
    Some([event, b"\n", HEAD, conversation, MIDDLE, message, TAIL, rest.get(1..)?].concat())
}

fn message_at(event: &[u8]) -> Option<usize> {
    // Its brace belongs to the message.
    Some(memmem::find(event, MESSAGE)? + MESSAGE.len() - 1)
}

/// The conversation of a message as we write it.
fn conversation_of(message: &[u8]) -> Option<&[u8]> {
    let rest = message.strip_prefix(br#"{"id":""#)?;
    let rest = rest.get(memchr::memchr(b'"', rest)?..)?.strip_prefix(br#"","conversationId":""#)?;
    rest.get(..memchr::memchr2(b'"', b'\\', rest)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE_NEW: &str = concat!(
        r#"{"type":"message.new","payload":{"message":{"id":"7","conversationId":"c","content":"\"message\":{"},"to":"u"}}"#,
        "\n",
        r#"{"type":"conversation.updated","payload":{"conversationId":"c","lastMessage":{"id":"7","conversationId":"c","content":"\"message\":{"}}}"#,
    );
    const SHORT: &str = concat!(
        r#"{"type":"message.new","payload":{"message":{"id":"7","conversationId":"c","content":"\"message\":{"},"to":"u"}}"#,
        "\n",
        r#"{"repeats":57}"#,
    );

    #[test]
    fn a_repeated_message_is_a_reference_and_comes_back() {
        for (long, short) in [
            (MESSAGE_NEW.to_owned(), SHORT.to_owned()),
            (format!("{MESSAGE_NEW}\n{{\"type\":\"x\"}}"), format!("{SHORT}\n{{\"type\":\"x\"}}")),
            (
                MESSAGE_NEW.replace("payload\":{\"m", "payload\":{\"tempId\":\"message\",\"m"),
                SHORT.replace("payload\":{\"m", "payload\":{\"tempId\":\"message\",\"m"),
            ),
        ] {
            assert_eq!(shorten(long.as_bytes()), short.as_bytes());
            assert_eq!(whole(short.as_bytes()), long.as_bytes());
            // As it stands on a channel: with a `seq`, and behind the line of a log that was begun anew.
            let sent = |payload: &str| format!("{{\"epoch\":\"a.1\",\"seq\":0}}\n{{\"seq\":5,{}", &payload[1..]);
            assert_eq!(whole(sent(&short).as_bytes()), sent(&long).as_bytes());
        }
    }

    #[test]
    fn what_repeats_nothing_stays_as_it_is() {
        let other = MESSAGE_NEW.replace("\"lastMessage\":{\"id\":\"7\"", "\"lastMessage\":{\"id\":\"8\"");
        let longer = MESSAGE_NEW.replace("{\"}}}", "{\"}}}}");
        let bare = "{\"type\":\"message.new\",\"payload\":{}}\n{\"type\":\"conversation.updated\",\"payload\":{\"conversationId\":\"c\"}}";
        for body in ["", "\n", "{}", bare, &other, &longer, r#"{"type":"typing","payload":{}}"#] {
            assert_eq!(shorten(body.as_bytes()), body.as_bytes());
            assert_eq!(whole(body.as_bytes()), body.as_bytes());
        }
    }

    #[test]
    fn a_reference_to_nothing_stays() {
        for length in ["62000", "18446744073709551615", "-1", "", "5"] {
            let payload = SHORT.replace("57", length);
            assert_eq!(whole(payload.as_bytes()), payload.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), at in 0..SHORT.len()) {
            let _ = whole(&bytes);
            let _ = shorten(&bytes);
            let mut torn = SHORT.as_bytes().to_vec();
            torn.splice(at.., bytes);
            let _ = whole(&torn);
        }

        #[test]
        fn every_body_comes_back(content in ".{0,60}", temp_id in ".{0,20}") {
            let (content, temp_id) = (serde_json::json!(content), serde_json::json!(temp_id));
            let message = format!(r#"{{"id":"7","conversationId":"c","content":{content}}}"#);
            let body = format!(
                "{{\"type\":\"message.sent\",\"payload\":{{\"tempId\":{temp_id},\"message\":{message}}}}}\n\
                 {{\"type\":\"conversation.updated\",\"payload\":{{\"conversationId\":\"c\",\"lastMessage\":{message}}}}}"
            );
            let short = shorten(body.as_bytes()).into_owned();
            proptest::prop_assert!(short.len() < body.len() - 60);
            proptest::prop_assert_eq!(whole(&short), body.as_bytes());
        }
    }
}
