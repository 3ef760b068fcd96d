//! Late messages: delivered live while the store was away, and kept in the stream `chat:late` until they are stored.
//!
//! The stream is ordered and bounded. A message is removed only once it is stored, because a node may die at any point.

use async_trait::async_trait;
use bytes::Bytes;

use super::BackboneError;

/// The most messages that are kept; more are refused.
pub const LATE_MAX: usize = 10_000;

/// The type of an envelope for nodes: it holds the event of a message that is not stored yet.
pub const MESSAGE_LIVE: &str = "message.live";

/// An entry's name, as the backbone gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateId(pub(super) String);

/// The part of the backbone that keeps late messages.
#[async_trait]
pub trait Late {
    /// Keeps an entry behind all others; `false` when there are [`LATE_MAX`] already.
    async fn keep_late(&self, entry: Bytes) -> Result<bool, BackboneError>;

    /// How many entries are kept.
    async fn late_count(&self) -> Result<u64, BackboneError>;

    /// The first entries, at most `limit`, in the order in which they came. They stay in the stream.
    async fn read_late(&self, limit: u32) -> Result<Vec<(LateId, Bytes)>, BackboneError>;

    /// Removes entries that are stored.
    async fn drop_late(&self, ids: &[LateId]) -> Result<(), BackboneError>;

    /// Takes or renews the lease of the node that stores late messages, for `lease_ms`; `false` while another node has it.
    /// The lease only saves work: if two nodes store the same entries, each entry is stored once.
    async fn lease_late(&self, lease_ms: u32) -> Result<bool, BackboneError>;
}
