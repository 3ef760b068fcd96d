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
        let dialects = node.registry.sockets_by_dialect().into_iter();
        Self {
            connections: node.registry.socket_count(),
            users: node.registry.user_count(),
            dialects: dialects.map(|(dialect, sockets)| (dialect.subprotocol(), sockets)).collect(),
            boot: node.boot.to_string(),
        }
    }
}
