//! Messages that were delivered live while the store was away, kept in the stream `chat:late` until it takes them
//! (DESIGN §3). In order, bounded, and taken out only once they are stored: whoever takes them may die at any point.

use async_trait::async_trait;
use bytes::Bytes;

use super::BackboneError;

/// The most that is kept; over it nothing more is taken.
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

    /// How many are there.
    async fn late_count(&self) -> Result<u64, BackboneError>;

    /// The first entries, at most `limit`, in the order in which they came. They stay.
    async fn read_late(&self, limit: u32) -> Result<Vec<(LateId, Bytes)>, BackboneError>;

    /// Takes entries out that are stored.
    async fn drop_late(&self, ids: &[LateId]) -> Result<(), BackboneError>;

    /// Takes or renews the lease of who stores late messages, for `lease_ms`; `false` while another node has it. It only
    /// saves work: two nodes that store the same entries store each once.
    async fn lease_late(&self, lease_ms: u32) -> Result<bool, BackboneError>;
}
