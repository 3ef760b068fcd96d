//! Which backbone server is in use, and which ones were left: rows that were published there are published again.

use async_trait::async_trait;

use super::StoreError;

/// The backbone servers that the nodes of this store use and have used.
#[async_trait]
pub trait BackboneServers: Send + Sync + 'static {
    /// Retires a backbone server: a node has left it for another.
    async fn retire_backbone(&self, server: &str) -> Result<(), StoreError>;

    /// Whether a node has left this backbone server for another. `server` may name several, with `-` between them: then
    /// whether any of them was left.
    async fn is_backbone_retired(&self, server: &str) -> Result<bool, StoreError>;

    /// Makes `server` the backbone server; `Some(previous)` if it was another one.
    async fn adopt_backbone(&self, server: &str) -> Result<Option<String>, StoreError>;
}
