//! What an application keeps beside a message's content: attachments by reference, mentions, whatever it needs. A JSON
//! object, bounded in bytes and in depth, and passed on as it came.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use simd_json::prelude::*;
use simd_json::tape::Value;

use crate::UserId;

/// The largest data of a message, in bytes of JSON without white space.
pub const DATA_BYTES_MAX: usize = 4096;

/// How deep its objects and arrays may stand inside of each other, itself included.
pub const DATA_DEPTH_MAX: usize = 16;

/// The most users that its `mentions` may name.
pub const MENTIONS_MAX: usize = 100;

/// Data of a message: the text of a JSON object, in one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageData(Arc<str>);

/// Why a value can't be the data of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidData {
    /// It is something else.
    #[error("must be an object")]
    NoObject,
    /// It has more than [`DATA_BYTES_MAX`] bytes.
    #[error("is larger than 4096 bytes")]
    TooLarge,
    /// It is deeper than [`DATA_DEPTH_MAX`].
    #[error("is deeper than 16 levels")]
    TooDeep,
    /// Its `mentions` are no list of ids.
    #[error("has mentions that are no list of at most 100 user ids")]
    Mentions,
}

impl MessageData {
    /// Takes JSON in any form.
    pub fn parse(json: &str) -> Result<Self, InvalidData> {
        let mut bytes = json.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut bytes).map_err(|_| InvalidData::NoObject)?;
        Self::of(tape.as_value())
    }

    /// Takes a value that was read.
    pub(crate) fn of(value: Value<'_, '_>) -> Result<Self, InvalidData> {
        let object = value.as_object().ok_or(InvalidData::NoObject)?;
        if let Some(mentions) = object.get("mentions") {
            let list = mentions.as_array().filter(|list| list.len() <= MENTIONS_MAX).ok_or(InvalidData::Mentions)?;
            let is_id = |value: Value<'_, '_>| value.as_str().is_some_and(|text| UserId::parse(text).is_ok());
            if !list.iter().all(is_id) {
                return Err(InvalidData::Mentions);
            }
        }
        let mut text = String::new();
        write(value, DATA_DEPTH_MAX, &mut text)?;
        Ok(Self(text.into()))
    }

    /// The data that a store kept.
    #[must_use]
    pub fn kept(text: &str) -> Self {
        Self(text.into())
    }

    /// The object as JSON, in one line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The users in its `mentions`.
    #[must_use]
    pub fn mentions(&self) -> Vec<UserId> {
        #[derive(Deserialize)]
        struct Mentions {
            #[serde(default)]
            mentions: Vec<UserId>,
        }
        serde_json::from_str::<Mentions>(&self.0).map(|found| found.mentions).unwrap_or_default()
    }
}

/// Writes a value without white space. It ends as soon as the text or its depth is over its limit.
fn write(value: Value<'_, '_>, levels: usize, text: &mut String) -> Result<(), InvalidData> {
    if let Some(object) = value.as_object() {
        let levels = levels.checked_sub(1).ok_or(InvalidData::TooDeep)?;
        text.push('{');
        for (place, (key, value)) in object.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            push(text, &serde_json::to_string(key).unwrap_or_default())?;
            text.push(':');
            write(value, levels, text)?;
        }
        return push(text, "}");
    }
    if let Some(array) = value.as_array() {
        let levels = levels.checked_sub(1).ok_or(InvalidData::TooDeep)?;
        text.push('[');
        for (place, value) in array.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            write(value, levels, text)?;
        }
        return push(text, "]");
    }
    let scalar = if let Some(string) = value.as_str() {
        serde_json::to_string(string)
    } else if let Some(number) = value.as_u64() {
        serde_json::to_string(&number)
    } else if let Some(number) = value.as_i64() {
        serde_json::to_string(&number)
    } else if let Some(number) = value.as_f64() {
        serde_json::to_string(&number)
    } else {
        serde_json::to_string(&value.as_bool())
    };
    push(text, &scalar.unwrap_or_default())
}

fn push(text: &mut String, more: &str) -> Result<(), InvalidData> {
    if text.len() + more.len() > DATA_BYTES_MAX {
        return Err(InvalidData::TooLarge);
    }
    text.push_str(more);
    Ok(())
}

impl Serialize for MessageData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MessageData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for MessageData {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MessageData".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "The application's own, at most 4096 bytes of JSON and 16 levels deep. `mentions` names users.",
            "properties": {
                "mentions": {
                    "type": "array", "maxItems": MENTIONS_MAX,
                    "items": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9_.:@|+-]+$" },
                },
            },
            "additionalProperties": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(json: &str) -> Result<String, InvalidData> {
        MessageData::parse(json).map(|data| data.as_str().to_owned())
    }

    #[test]
    fn an_object_is_kept_in_one_line() {
        for (json, line) in [
            ("{ }", "{}"),
            (
                "{\n \"b\" : [ 1, -2, 1.5, true, null, \"a\\nb\\u0000\" ], \"a\": {} }",
                r#"{"b":[1,-2,1.5,true,null,"a\nb\u0000"],"a":{}}"#,
            ),
            (r#"{"ü":"🦜\/","n":18446744073709551615}"#, r#"{"ü":"🦜/","n":18446744073709551615}"#),
        ] {
            assert_eq!(kept(json), Ok(line.to_owned()), "{json}");
            assert_eq!(kept(line), Ok(line.to_owned()), "it stays as it is");
        }
        let data = MessageData::parse(r#"{"a":{"b":1}}"#).expect("an object");
        assert_eq!(serde_json::to_string(&Some(&data)).expect("JSON"), r#"{"a":{"b":1}}"#);
        assert_eq!(serde_json::from_str::<MessageData>(r#"{"a": {"b": 1}}"#).expect("an object"), data);
        assert_eq!(serde_json::from_value::<MessageData>(serde_json::json!({ "a": { "b": 1 } })).expect("one"), data);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let deep = |levels: usize| format!("{}1{}", r#"{"x":"#.repeat(levels), "}".repeat(levels));
        let long = |bytes: usize| format!(r#"{{"x":"{}"}}"#, "y".repeat(bytes - 8));
        assert!(kept(&deep(DATA_DEPTH_MAX)).is_ok());
        assert_eq!(kept(&deep(DATA_DEPTH_MAX + 1)), Err(InvalidData::TooDeep));
        assert!(kept(&long(DATA_BYTES_MAX)).is_ok());
        assert_eq!(kept(&long(DATA_BYTES_MAX + 1)), Err(InvalidData::TooLarge));
        for json in ["", "[]", "7", "null", "\"{}\"", "{", "{}{}"] {
            assert_eq!(kept(json), Err(InvalidData::NoObject), "{json}");
        }
    }

    #[test]
    fn mentions_are_ids_of_users() {
        let data = MessageData::parse(r#"{"mentions":["b","auth0|7"],"x":1}"#).expect("an object");
        assert_eq!(data.mentions().iter().map(UserId::as_str).collect::<Vec<_>>(), ["b", "auth0|7"]);
        assert!(MessageData::parse("{}").expect("an object").mentions().is_empty());
        let many = format!(r#"{{"mentions":[{}]}}"#, vec!["\"u\""; MENTIONS_MAX + 1].join(","));
        for json in
            [r#"{"mentions":"b"}"#, r#"{"mentions":[7]}"#, r#"{"mentions":["a b"]}"#, r#"{"mentions":null}"#, &many]
        {
            assert_eq!(kept(json), Err(InvalidData::Mentions), "{json}");
        }
    }
}
