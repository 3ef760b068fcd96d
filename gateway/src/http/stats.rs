//! What this node holds, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::node::Node;

/// The answer of the stats endpoint; of this node alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Open sockets of authenticated users.
    connections: usize,
    /// Users with at least one.
    users: usize,
    /// Sockets by dialect.
    dialects: BTreeMap<&'static str, usize>,
    /// This boot's name.
    boot: String,
}

impl Stats {
    /// The numbers now.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let connections = node.registry.socket_count();
        Self {
            connections,
            users: node.registry.user_count(),
            dialects: BTreeMap::from([(shared::chat_v1::SUBPROTOCOL, connections)]),
            boot: node.boot.to_string(),
        }
    }
}
