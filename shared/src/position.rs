//! A connection's place in its user's log of durable events, and in large conversations.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::ConversationId;

/// The longest epoch, in bytes.
const EPOCH_BYTES_MAX: usize = 64;

/// The name under which a log's `seq` counts. Another name is another log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct Epoch(#[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9._-]+$"))] Arc<str>);

impl Epoch {
    /// Takes 1 to 64 characters of `A-Z a-z 0-9 . _ -` as an epoch.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        ((1..=EPOCH_BYTES_MAX).contains(&text.len()) && text.bytes().all(valid)).then(|| Self(Arc::from(text)))
    }

    /// The epoch number `number` of a log-keeping process, in the form `<process>.<number>`.
    #[must_use]
    pub fn of_process(process: u32, number: u64) -> Self {
        Self(format!("{process:08x}.{number:x}").into())
    }

    /// The epoch as it stands in frames.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an epoch"))
    }
}

/// The last durable event that was seen: its `seq` under its `epoch`. The next one is `seq + 1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The last seen `seq`; 0 before the first.
    pub seq: u64,
}

impl FromStr for Position {
    type Err = ();

    /// Reads `epoch:seq`, the form of the `resume` and `since` queries.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, seq) = text.rsplit_once(':').ok_or(())?;
        let digits = !seq.is_empty() && seq.bytes().all(|b| b.is_ascii_digit());
        match (Epoch::parse(epoch), seq.parse()) {
            (Some(epoch), Ok(seq)) if digits => Ok(Self { epoch, seq }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// A connection's place in a large conversation: the last change that it saw, and the highest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The conversation's change counter.
    pub rev: u64,
    /// The highest `message.seq`.
    pub seq: u64,
}

/// Places by conversation; `None` for text that is none.
pub type Places = BTreeMap<ConversationId, Option<Place>>;

/// The most conversations that a client names when it resumes; more are left out.
pub const PLACES_MAX: usize = 100;

impl Place {
    /// Reads `<conversation>:<rev>:<seq>`, the form of the query `at`. An id may hold colons. `None` without a valid id.
    #[must_use]
    pub fn named(text: &str) -> Option<(ConversationId, Option<Self>)> {
        let (rest, seq) = text.rsplit_once(':')?;
        let (id, rev) = rest.rsplit_once(':')?;
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let place = number(rev).zip(number(seq)).map(|(rev, seq)| Self { rev, seq });
        Some((ConversationId::parse(id).ok()?, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_its_end() {
        let read = |text: &str| Place::named(text).map(|(id, place)| (id.as_str().to_owned(), place));
        let place = Some(Place { rev: 12, seq: 7 });
        assert_eq!(read("c:12:7"), Some(("c".to_owned(), place)));
        assert_eq!(read("a:b:12:7"), Some(("a:b".to_owned(), place)));
        for bad in ["c:x:7", "c:12:", "c:+1:7", "c:12:99999999999999999999"] {
            assert_eq!(read(bad), Some(("c".to_owned(), None)), "{bad}");
        }
        for bad in ["", "c", "c:7", ":1:2", "a b:1:2"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn written_and_read_as_epoch_colon_seq() {
        let position: Position = "abc.9:42".parse().expect("a position");
        assert_eq!((position.epoch.as_str(), position.seq), ("abc.9", 42));
        assert_eq!(position.to_string(), "abc.9:42");
        for bad in ["", ":", "abc", "abc:", ":1", "a:-1", "a:+1", "a b:1", "a:18446744073709551616"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }
}
