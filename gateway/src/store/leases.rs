//! Leases: which boots of nodes are alive, by the store's clock.

use async_trait::async_trait;

use super::{Owner, StoreError};

/// The leases of owners of outbox rows.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Renews this owner's lease. A lease that wasn't renewed for `lease_ms` counts as ended.
    async fn beat(&self, owner: &Owner) -> Result<(), StoreError>;

    /// Whether `owner`'s lease was renewed less than `lease_ms` ago.
    async fn lease_is_live(&self, owner: &str, lease_ms: u64) -> Result<bool, StoreError>;
}
