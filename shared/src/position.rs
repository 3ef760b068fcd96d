//! A connection's place in its user's log of durable events.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

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
