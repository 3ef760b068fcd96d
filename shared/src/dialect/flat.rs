//! The common part of the flat dialects: frames without envelope, ids that may be integers, and the frames for errors
//! and for positions.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::command::{KIND_TEXT, SendMessage, TEMP_ID_BYTES_MAX, Target};
use crate::dialect::fields::Fields;
use crate::event::ResyncReason;
use crate::{Epoch, ErrorCode, Event, ProtocolError, TempId, Timestamp};

/// The frames that one event makes in a flat dialect.
#[derive(Debug)]
pub struct Texts {
    numbered: bool,
    texts: Vec<String>,
}

/// Frames that every flat dialect has.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "CommonFrame")]
#[expect(missing_docs, reason = "the fields are those of the events, under the same names")]
pub enum Common<'a> {
    Error {
        code: ErrorCode,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// Only for who asked to resume, as the next two.
    Position {
        epoch: &'a Epoch,
    },
    Resync {
        reason: ResyncReason,
        epoch: &'a Epoch,
    },
    Goaway {
        reconnect_window_ms: u64,
        reason: &'a str,
    },
}

impl Texts {
    pub(crate) fn new(numbered: bool) -> Self {
        Self { numbered, texts: Vec::new() }
    }

    /// Adds a frame.
    pub fn push(&mut self, frame: &impl Serialize) {
        // A frame has string keys only, and writing to memory can't fail.
        self.texts.extend(serde_json::to_string(frame));
    }

    /// Adds the frame of an event that looks the same in every flat dialect: errors for everybody, what concerns the
    /// position for those who asked to resume. Other events add nothing.
    pub fn push_common(&mut self, event: &Event) {
        if let Event::Error(error) = event {
            self.push(&Common::Error {
                code: error.code,
                message: &error.message,
                field: error.field.as_deref(),
                retryable: error.retryable,
                retry_after_ms: error.retry_after_ms,
            });
        } else if let Event::AuthFailed { code, message } = event {
            let retryable = code.is_retryable();
            self.push(&Common::Error { code: *code, message, field: None, retryable, retry_after_ms: None });
        } else if !self.numbered {
            // A live socket has no position.
        } else if let Event::Position { epoch, .. } = event {
            self.push(&Common::Position { epoch });
        } else if let Event::Resync { reason, epoch, .. } = event {
            self.push(&Common::Resync { reason: *reason, epoch });
        } else if let Event::Goaway { reconnect_window_ms, reason } = event {
            self.push(&Common::Goaway { reconnect_window_ms: *reconnect_window_ms, reason });
        }
    }

    /// The frames, with `seq` and what else tells a position where that was asked for.
    pub(crate) fn finish(mut self, event: &Event, seq: Option<u64>) -> Vec<String> {
        if let Some(last) = self.texts.last_mut().filter(|_| self.numbered) {
            if let Event::AuthSuccess { epoch, seq, resumed, .. } = event {
                add_members(last, &format!("\"epoch\":\"{epoch}\",\"seq\":{seq},\"resumed\":{resumed}"));
            } else if let Event::Position { seq, .. } | Event::Resync { seq, .. } = event {
                add_members(last, &format!("\"seq\":{seq}"));
            } else if let Some(seq) = seq {
                add_members(last, &format!("\"seq\":{seq}"));
            }
        }
        self.texts
    }
}

/// Puts members at the end of a JSON object that has some.
fn add_members(object: &mut String, members: &str) {
    object.truncate(object.len().saturating_sub(1));
    object.push(',');
    object.push_str(members);
    object.push('}');
}

/// The largest id that is an integer in JSON. JavaScript rounds larger ones, and then they are the ids of others.
pub const INTEGER_ID_MAX: u64 = crate::id::GENERATED_ID_MAX;

/// An id in a frame: an integer if it is one, else a string.
#[derive(Debug, Clone, Copy)]
pub struct Id<'a>(pub &'a str);

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match integer(self.0) {
            Some(number) => serializer.serialize_u64(number),
            None => serializer.serialize_str(self.0),
        }
    }
}

impl JsonSchema for Id<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FlatId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"], "minimum": 0, "maximum": INTEGER_ID_MAX,
            "description": "An integer if the id is written as one and is at most 2^53 - 1.",
        })
    }
}

/// The integer that an id is, if it is written as one writes integers and JavaScript holds it exactly.
fn integer(id: &str) -> Option<u64> {
    let plain = id == "0" || (!id.starts_with('0') && id.bytes().all(|byte| byte.is_ascii_digit()));
    id.parse().ok().filter(|number| plain && *number <= INTEGER_ID_MAX)
}

/// A time in RFC 3339 with whole seconds.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub Timestamp);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = self.0.to_string();
        // `2025-11-21T13:00:00.000Z`: what stands behind the seconds goes.
        text.truncate("2025-11-21T13:00:00".len());
        text.push('Z');
        serializer.serialize_str(&text)
    }
}

impl JsonSchema for Seconds {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$",
            "description": "RFC 3339, UTC, with whole seconds.",
        })
    }
}

impl Fields<'_, '_> {
    /// An optional id: a string, or an integer that stands for the string of its digits.
    pub(crate) fn flat_id<T: std::str::FromStr<Err = crate::id::InvalidId>>(
        &self,
        field: &'static str,
    ) -> Result<Option<T>, ProtocolError> {
        use simd_json::prelude::{TypedScalarValue, ValueAsScalar};
        let Some(value) = self.get(field) else { return Ok(None) };
        let text = match (value.as_str(), value.as_u64()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(number)) if number <= INTEGER_ID_MAX => number.to_string(),
            (None, _) if value.is_number() => {
                return Err(ProtocolError::field(field, "must be a string unless it is an integer from 0 to 2^53 - 1"));
            }
            (None, _) => return Err(ProtocolError::field(field, "must be an integer or a string")),
        };
        text.parse().map(Some).map_err(|fault| ProtocolError::field(field, fault))
    }

    /// The same, where it must be there.
    pub(crate) fn required_flat_id<T: std::str::FromStr<Err = crate::id::InvalidId>>(
        &self,
        field: &'static str,
    ) -> Result<T, ProtocolError> {
        self.flat_id(field)?.ok_or_else(|| ProtocolError::field(field, "is required"))
    }

    /// A text message to `target`, with its `content` and, if they are there, its `temp_id` and `data`.
    pub(crate) fn flat_send(&self, target: Target, content_chars_max: usize) -> Result<SendMessage, ProtocolError> {
        Ok(SendMessage {
            target,
            content: self.content(content_chars_max)?,
            temp_id: self.text("temp_id", TEMP_ID_BYTES_MAX)?.map(TempId::from),
            kind: KIND_TEXT.to_owned(),
            reply_to: None,
            data: self.data()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_an_integer_is_sent_as_one() {
        let sent = |id| serde_json::to_string(&Id(id)).expect("an id serializes");
        for (id, json) in [
            ("0", "0"),
            ("6", "6"),
            ("9007199254740991", "9007199254740991"),
            ("9007199254740992", "\"9007199254740992\""),
            ("1161888007138312193", "\"1161888007138312193\""),
            ("9223372036854775807", "\"9223372036854775807\""),
            ("99999999999999999999", "\"99999999999999999999\""),
            ("06", "\"06\""),
            ("00", "\"00\""),
            ("-6", "\"-6\""),
            ("6a", "\"6a\""),
            ("u1", "\"u1\""),
        ] {
            assert_eq!(sent(id), json, "{id}");
        }
    }

    #[test]
    fn times_have_whole_seconds() {
        let at = Timestamp::from_unix_ms(1_763_730_000_999);
        assert_eq!(serde_json::to_string(&Seconds(at)).expect("a time serializes"), "\"2025-11-21T13:00:00Z\"");
    }
}
