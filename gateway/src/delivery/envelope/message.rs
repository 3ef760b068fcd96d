//! The message that an event brings: its id, its time and its `tempId`, taken from bytes that were checked already.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{MessageId, Timestamp};

use crate::delivery::envelope::json;

/// A message that an event brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// Its id.
    pub id: MessageId,
    /// When the store accepted it, if the event tells.
    pub created_at: Option<Timestamp>,
    /// The sender's name for it, in `message.sent`.
    pub temp_id: Option<Cow<'a, str>>,
}

/// A message where the check of its envelope found it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundMessage<'a> {
    /// The message, an object.
    pub(super) object: &'a [u8],
    /// The `tempId` beside it, between its quotes.
    temp_id: Option<&'a [u8]>,
}

/// Whether events of this type bring a message.
pub(super) fn is_brought_by(kind: &str) -> bool {
    matches!(kind, "message.new" | "message.sent")
}

impl<'a> FoundMessage<'a> {
    /// The message in a plain payload, as we write it, and the bytes behind the payload.
    pub(super) fn find(payload: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut rest = payload.strip_prefix(b"{")?;
        let mut temp_id = None;
        if let Some(text) = rest.strip_prefix(br#""tempId":""#) {
            let behind = json::behind_string(text)?;
            temp_id = text.get(..text.len() - behind.len() - 1);
            rest = behind.strip_prefix(b",")?;
        }
        let message = rest.strip_prefix(br#""message":"#)?;
        rest = json::behind_object(message)?;
        let object = message.get(..message.len() - rest.len())?;
        for name in [&br#","to":""#[..], br#","senderName":""#] {
            if let Some(text) = rest.strip_prefix(name) {
                rest = json::behind_string(text)?;
            }
        }
        Some((Self { object, temp_id }, rest.strip_prefix(b"}")?))
    }
}

impl<'a> MessageRef<'a> {
    /// A message as we write it: the id first, and the time last until it is edited. `None` for any other form.
    ///
    /// Inside of a string a quote is escaped, so neither key can be content.
    pub(super) fn as_we_write_it(found: FoundMessage<'a>) -> Option<Self> {
        const KEY: &[u8] = b"\"createdAt\":\"";
        const TIME_BYTES: usize = "2026-01-01T00:00:00.000Z".len();
        let id = found.object.strip_prefix(br#"{"id":""#)?;
        let id = std::str::from_utf8(id.get(..memchr(b'"', id)?)?).ok()?.parse().ok()?;
        let created_at = found.object.strip_suffix(b"\"}")?.last_chunk::<{ TIME_BYTES + KEY.len() }>()?;
        let created_at = Some(Timestamp::parse(created_at.strip_prefix(KEY)?)?);
        let temp_id = match found.temp_id {
            // One with an escape is left to serde.
            Some(text) if memchr(b'\\', text).is_some() => return None,
            Some(text) => Some(Cow::Borrowed(std::str::from_utf8(text).ok()?)),
            None => None,
        };
        Some(Self { id, created_at, temp_id })
    }

    /// The message in the payload of an event that brings one, in any form.
    pub(super) fn in_any_form(payload: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload<'a> {
            #[serde(borrow)]
            message: Message<'a>,
            #[serde(borrow)]
            temp_id: Option<Cow<'a, str>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Message<'a> {
            id: MessageId,
            #[serde(borrow)]
            created_at: Option<&'a RawValue>,
        }
        let Payload { message, temp_id } = serde_json::from_slice(payload).ok()?;
        let created_at = message.created_at.and_then(|time| serde_json::from_str(time.get()).ok());
        Some(Self { id: message.id, created_at, temp_id })
    }
}

/// Whether a payload is that of `conversation.updated`, as we write it, with this message again, and with nothing else new
/// in it but the conversation's id.
pub(super) fn repeats(payload: &[u8], message: &[u8]) -> bool {
    let id = || {
        let head = payload.strip_suffix(b"}}")?.strip_suffix(message)?;
        head.strip_prefix(br#"{"conversationId":""#)?.strip_suffix(br#"","lastMessage":"#)
    };
    id().is_some_and(|id| memchr2(b'"', b'\\', id).is_none())
}
