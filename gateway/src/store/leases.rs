//! Leases: which boots of nodes are alive, by the store's clock.

use async_trait::async_trait;

use super::{Owner, StoreError};
use crate::switches;

/// A stamp that lies further in the future, in milliseconds, was written before the store's clock stepped back.
const FUTURE_MS: u64 = 1_000;
/// In place of it, so that no stamp lies that far: a hundred years.
const NEVER_MS: u64 = 100 * 366 * 86_400_000;

/// How far in the future a stamp may lie. Beyond that, a row is due and a lease has ended: nobody would take them for as
/// long as the clock stepped back (NOLOSS.md, C9).
pub(super) fn future_ms() -> u64 {
    if switches::off("future-stamps") { NEVER_MS } else { FUTURE_MS }
}

/// The leases of owners of outbox rows.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Renews this owner's lease. A lease that wasn't renewed for `lease_ms` counts as ended,
    /// and so does one that lies in the future.
    async fn beat(&self, owner: &Owner) -> Result<(), StoreError>;

    /// Whether `owner`'s lease was renewed less than `lease_ms` ago.
    async fn lease_is_live(&self, owner: &str, lease_ms: u64) -> Result<bool, StoreError>;
}
