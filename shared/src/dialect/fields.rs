//! The fields of a frame, each read with its check, for every dialect. A field of one dialect alone is in its file.

use std::str::FromStr;

use simd_json::prelude::*;
use simd_json::tape::{Object, Value};

use crate::command::check_content;
use crate::id::InvalidId;
use crate::{ErrorCode, MessageData, ProtocolError};

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The longest `ref` or `timestamp`, in bytes of JSON.
const SCALAR_BYTES_MAX: usize = 128;

/// The fields of a JSON object; none if the object is absent.
pub(crate) struct Fields<'t, 'i>(Option<Object<'t, 'i>>);

impl<'t, 'i> Fields<'t, 'i> {
    pub(crate) fn new(object: Object<'t, 'i>) -> Self {
        Self(Some(object))
    }

    /// The fields of the object in `field`, which may be absent.
    pub(crate) fn object(&self, field: &'static str) -> Result<Self, ProtocolError> {
        let object = self
            .get(field)
            .map(|value| value.as_object().ok_or_else(|| ProtocolError::field(field, "must be an object")));
        object.transpose().map(Self)
    }

    /// A value that is there; `null` counts as absent.
    pub(crate) fn get(&self, field: &str) -> Option<Value<'t, 'i>> {
        self.0.as_ref()?.get(field).filter(|value| !value.is_null())
    }

    /// An optional string of 1 to `bytes_max` bytes without U+0000.
    pub(crate) fn text(&self, field: &'static str, bytes_max: usize) -> Result<Option<&'i str>, ProtocolError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let text = value.into_string().ok_or_else(|| ProtocolError::field(field, "must be a string"))?;
        match text.len() {
            0 => Err(ProtocolError::field(field, "is empty")),
            length if length > bytes_max => {
                Err(ProtocolError::field(field, format_args!("is longer than {bytes_max} bytes")))
            }
            _ if text.contains('\0') => Err(ProtocolError::field(field, "holds U+0000")),
            _ => Ok(Some(text)),
        }
    }

    /// An optional string or number, as JSON text of at most 128 bytes.
    pub(crate) fn scalar(&self, field: &'static str) -> Result<Option<String>, ProtocolError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        scalar_json(value)
            .filter(|text| text.len() <= SCALAR_BYTES_MAX)
            .map(Some)
            .ok_or_else(|| ProtocolError::field(field, "must be a string or a number of at most 128 bytes"))
    }

    pub(crate) fn id<T: FromStr<Err = InvalidId>>(&self, field: &'static str) -> Result<Option<T>, ProtocolError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| ProtocolError::field(field, "must be a string"))?;
        text.parse().map(Some).map_err(|fault| ProtocolError::field(field, fault))
    }

    pub(crate) fn required_id<T: FromStr<Err = InvalidId>>(&self, field: &'static str) -> Result<T, ProtocolError> {
        self.id(field)?.ok_or_else(|| ProtocolError::field(field, "is required"))
    }

    pub(crate) fn required_bool(&self, field: &'static str) -> Result<bool, ProtocolError> {
        let value = self.get(field).ok_or_else(|| ProtocolError::field(field, "is required"))?;
        value.as_bool().ok_or_else(|| ProtocolError::field(field, "must be true or false"))
    }

    pub(crate) fn token(&self) -> Result<String, ProtocolError> {
        self.text("token", TOKEN_BYTES_MAX)?
            .map(str::to_owned)
            .ok_or_else(|| ProtocolError::field("token", "is required"))
    }

    pub(crate) fn data(&self) -> Result<Option<MessageData>, ProtocolError> {
        self.get("data").map(MessageData::of).transpose().map_err(|fault| ProtocolError::field("data", fault))
    }

    pub(crate) fn content(&self, chars_max: usize) -> Result<String, ProtocolError> {
        let value = self.get("content").ok_or_else(|| ProtocolError::field("content", "is required"))?;
        let text = value.as_str().ok_or_else(|| ProtocolError::field("content", "must be a string"))?;
        check_content(text, chars_max)?;
        Ok(text.to_owned())
    }
}

/// A string or number as JSON text; `None` for everything else.
fn scalar_json(value: Value<'_, '_>) -> Option<String> {
    if let Some(text) = value.as_str() {
        return serde_json::to_string(text).ok();
    }
    if let Some(number) = value.as_u64() {
        return Some(number.to_string());
    }
    if let Some(number) = value.as_i64() {
        return Some(number.to_string());
    }
    value.as_f64().and_then(|number| serde_json::to_string(&number).ok())
}

/// There is no command of this type.
pub(crate) fn unknown_type() -> ProtocolError {
    ProtocolError {
        field: Some("type".into()),
        ..ProtocolError::new(ErrorCode::UnknownEvent, "there is no command of this type")
    }
}
