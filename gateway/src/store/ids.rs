//! Ids: reserved in the store, and handed out of a block without another call. No number is handed out twice.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Store, StoreError};

/// The numbers that the store gives out.
#[async_trait]
pub trait Ids: Send + Sync + 'static {
    /// `count` ascending numbers that no other caller of this store gets: for messages, batches and conversations.
    async fn reserve_ids(&self, count: u32) -> Result<Range<u64>, StoreError>;
}

/// How many ids are reserved at once; the rest is lost when the node ends. A call that finds none left waits
/// for a commit first. At 5,000 messages a second that happens once in ten seconds.
const BLOCK_IDS: u32 = 1 << 16;

/// Ids of this node's own, for messages, outbox rows and conversations.
pub struct IdBlock {
    store: Arc<dyn Store>,
    /// Reserved and not handed out yet.
    left: Mutex<Range<u64>>,
}

impl IdBlock {
    /// An empty block; the first use reserves.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, left: Mutex::new(0..0) }
    }

    /// One id. Fails like [`Ids::reserve_ids`].
    pub async fn next(&self) -> Result<u64, StoreError> {
        self.take(1).await.map(|ids| ids.start)
    }

    /// `count` consecutive ids. Fails like [`Ids::reserve_ids`].
    pub async fn take(&self, count: u32) -> Result<Range<u64>, StoreError> {
        if let Some(ids) = split_off(&mut self.left.lock(), count) {
            return Ok(ids);
        }
        // Several callers may reserve at once; the larger rest stays.
        let mut reserved = self.store.reserve_ids(count.saturating_add(BLOCK_IDS)).await?;
        let ids = split_off(&mut reserved, count)
            .ok_or_else(|| StoreError::Failed("the store reserved fewer ids than it was asked for".into()))?;
        let mut left = self.left.lock();
        if reserved.end - reserved.start > left.end - left.start {
            *left = reserved;
        }
        Ok(ids)
    }
}

/// The first `count` of `range`, if it has that many.
fn split_off(range: &mut Range<u64>, count: u32) -> Option<Range<u64>> {
    let end = range.start.checked_add(u64::from(count))?;
    (end <= range.end).then(|| {
        let taken = range.start..end;
        range.start = end;
        taken
    })
}
