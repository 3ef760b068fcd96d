//! Ids: valid by construction, so that one can stand in a Redis key, a channel name or a log line as it is.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// The largest generated id: the largest integer that a JavaScript number holds exactly.
pub const GENERATED_ID_MAX: u64 = (1 << 53) - 1;

/// The smallest generated id of a conversation. Applications choose no number from here on.
pub const GENERATED_CONVERSATION_ID_MIN: u64 = 1 << 52;

/// Why a string is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The string has no characters.
    #[error("is empty")]
    Empty,
    /// The string has more than [`ID_BYTES_MAX`] bytes.
    #[error("is longer than 128 bytes")]
    TooLong,
    /// The string holds a character that ids don't have.
    #[error("may hold only A-Z a-z 0-9 _ . : @ - | +")]
    Character,
    /// The string is no generated id: those are decimal integers from 1 to 2^53 - 1.
    #[error("is not a generated id (a decimal integer)")]
    NotGenerated,
}

/// Checks that `text` is 1 to 128 bytes of `A-Z a-z 0-9 _ . : @ - | +`. Issuers give ids like `auth0|5f7c` and addresses like
/// `name+tag@host`; whatever means something in a Redis key or pattern, a list or a path is left out.
pub fn check_id(text: &str) -> Result<(), InvalidId> {
    check(text, |b| is_name_byte(b) || matches!(b, b'|' | b'+'))
}

/// Checks that `text` is 1 to 128 bytes of `A-Z a-z 0-9 _ . : @ -`: names of nodes, ids of requests.
pub fn check_name(text: &str) -> Result<(), InvalidId> {
    check(text, is_name_byte)
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'@' | b'-')
}

fn check(text: &str, is_valid: impl Fn(u8) -> bool) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(InvalidId::TooLong);
    }
    if text.bytes().all(is_valid) { Ok(()) } else { Err(InvalidId::Character) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as an id, or says why it is none.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check_id(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The id as it stands in frames and keys.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": ID_BYTES_MAX, "pattern": "^[A-Za-z0-9_.:@|+-]+$" })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// A user, as the application names them.
    UserId
}
text_id! {
    /// A conversation: the application's name for it, or a generated decimal string.
    ConversationId
}

impl ConversationId {
    /// The generated id with this number, counted from [`GENERATED_CONVERSATION_ID_MIN`]; `None` above
    /// [`GENERATED_ID_MAX`].
    #[must_use]
    pub fn generated(number: u64) -> Option<Self> {
        let id = number.checked_add(GENERATED_CONVERSATION_ID_MIN).filter(|id| *id <= GENERATED_ID_MAX)?;
        Some(Self(Arc::from(id.to_string())))
    }

    /// Whether this is a number from [`GENERATED_CONVERSATION_ID_MIN`] on, with leading zeros or without. Applications can't
    /// choose those.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let is_number = self.0.bytes().all(|byte| byte.is_ascii_digit());
        // A number that overflows is larger still.
        is_number && self.0.parse::<u64>().map_or(true, |number| number >= GENERATED_CONVERSATION_ID_MIN)
    }
}

macro_rules! generated_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// The id with this number; `None` for 0 and above [`GENERATED_ID_MAX`].
            #[must_use]
            pub fn new(number: u64) -> Option<Self> {
                (1..=GENERATED_ID_MAX).contains(&number).then_some(Self(number))
            }

            /// Takes decimal text without sign or leading zero as an id.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check_id(text)?;
                if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(InvalidId::NotGenerated);
                }
                text.parse().ok().and_then(Self::new).ok_or(InvalidId::NotGenerated)
            }

            /// The number.
            #[must_use]
            pub fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": "A decimal number of at most 2^53 - 1.",
                    "pattern": "^([1-9][0-9]{0,14}|[1-8][0-9]{15}|900[0-6][0-9]{12})$",
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

generated_id! {
    /// A message: always generated, a decimal string of at most 2^53 - 1 in frames.
    MessageId
}
generated_id! {
    /// A notification that is kept: generated like a message's id.
    NotificationId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_only_what_may_stand_in_a_key() {
        for good in ["a", "42", "u_1.x:y@z-9", "auth0|5f7c", "name+tag@host.test", &"x".repeat(128)] {
            assert_eq!(UserId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(UserId::parse(""), Err(InvalidId::Empty));
        assert_eq!(UserId::parse(&"x".repeat(129)), Err(InvalidId::TooLong));
        for bad in ["a b", "a*", "{a}", "a\n", "ü", "a\0", "\"", "[a]", "?", "a,b", "a;b", "a=b", "a/b", "a\\b"] {
            assert_eq!(UserId::parse(bad), Err(InvalidId::Character), "{bad:?}");
        }
    }

    #[test]
    fn message_ids_are_generated_numbers() {
        assert_eq!(MessageId::parse("9007199254740991").map(MessageId::get), Ok(GENERATED_ID_MAX));
        for bad in ["0", "01", "-1", "9007199254740992", "99999999999999999999", "abc", "1.0"] {
            assert!(MessageId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_conversation_ids_are_numbers_that_applications_cannot_choose() {
        let generated = |number| ConversationId::generated(number).map(|id| id.as_str().to_owned());
        assert_eq!(generated(0).as_deref(), Some("4503599627370496"));
        assert_eq!(generated((1 << 52) - 1).as_deref(), Some("9007199254740991"));
        assert_eq!((generated(1 << 52), generated(u64::MAX)), (None, None));
        let is_reserved = |text| ConversationId::parse(text).map(|id| id.is_reserved());
        for text in ["4503599627370496", "9007199254740992", "0004503599627370496", "99999999999999999999999"] {
            assert_eq!(is_reserved(text), Ok(true), "{text}");
        }
        for text in ["0", "3", "4503599627370495", "a4503599627370496", "4503599627370496.", "-4503599627370496"] {
            assert_eq!(is_reserved(text), Ok(false), "{text}");
        }
    }
}
