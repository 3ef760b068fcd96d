//! Which kinds of messages a node takes.

use std::collections::BTreeSet;

use shared::command::check_kind;

use super::error::{ConfigError, fault};
use super::layers::Layers;

/// The kinds that senders may name beside `text`; `None` for any.
pub(super) fn message_kinds(layers: &Layers) -> Result<Option<BTreeSet<String>>, ConfigError> {
    let kinds: BTreeSet<String> = layers.list("MESSAGE_KINDS").into_iter().collect();
    if kinds.contains("*") {
        return Ok(None);
    }
    if let Some(kind) = kinds.iter().find(|kind| check_kind(kind).is_err()) {
        let right = "give kinds of 1 to 32 of a-z 0-9 _ . -, comma-separated, or *";
        return Err(fault("MESSAGE_KINDS", format!("{kind:?} is invalid; {right}")));
    }
    Ok(Some(kinds))
}
