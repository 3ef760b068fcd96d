//! The sender's own name for a message, by which a retry is recognised.

use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// The first character of a generated name. Clients may use it too; then their names are hidden in the same frames.
const GENERATED: char = '~';

/// A `tempId`. The commands that bring one check its length; one that was published or stored before is taken as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TempId(String);

impl TempId {
    /// The name of a message to which its sender gave none, from 128 random bits.
    #[must_use]
    pub fn generated(random: u128) -> Self {
        Self(format!("{GENERATED}{random:032x}"))
    }

    /// Whether the server made the name, so that no client waits for it.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.0.starts_with(GENERATED)
    }

    /// The name as it stands in frames and tables.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for TempId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for TempId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for TempId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for TempId {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TempId".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_is_told_from_a_clients() {
        let generated = TempId::generated(7);
        assert_eq!((generated.as_str(), generated.is_generated()), ("~00000000000000000000000000000007", true));
        assert_eq!(serde_json::to_string(&generated).expect("a name serializes"), format!("\"{}\"", &*generated));
        assert!(!TempId::from("temp-1").is_generated());
    }
}
