//! Bulk requests: those that make something for very many at once. A few of them run at a time on a node, some more wait for a
//! moment, and the others are sent away, so that everybody else's requests go on.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// A request for more than so many users is a bulk request.
pub const BULK_USERS_MIN: usize = 100;
/// Bulk requests that run at once.
const RUNNING_MAX: usize = 4;
/// Bulk requests that run or wait.
const PLACES: usize = 32;
/// The longest wait.
const WAIT_WITHIN: Duration = Duration::from_secs(1);
/// When to come again after finding no place, in milliseconds; a random time of these, so that not all come at once.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 500..=3_000;

/// The bulk requests of one kind of callers on this node.
pub struct BulkRequests {
    places: Semaphore,
    running: Semaphore,
}

/// A bulk request that runs; given up when dropped.
pub struct BulkPlace<'a> {
    _running: SemaphorePermit<'a>,
    _place: SemaphorePermit<'a>,
}

/// There is no place; the request may come again after so many milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyBulkRequests {
    /// At least 1.
    pub retry_after_ms: u64,
}

impl Default for BulkRequests {
    fn default() -> Self {
        Self { places: Semaphore::new(PLACES), running: Semaphore::new(RUNNING_MAX) }
    }
}

impl BulkRequests {
    /// Waits for its turn.
    ///
    /// # Errors
    /// Too many wait already, or the turn didn't come within a second.
    pub async fn enter(&self) -> Result<BulkPlace<'_>, TooManyBulkRequests> {
        let busy = || TooManyBulkRequests { retry_after_ms: rand::random_range(RETRY_AFTER_MS) };
        let place = self.places.try_acquire().map_err(|_| busy())?;
        let running = timeout(WAIT_WITHIN, self.running.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)?;
        Ok(BulkPlace { _running: running, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn four_run_some_wait_for_a_second_and_the_others_are_sent_away() {
        let bulk = BulkRequests::default();
        let mut running = Vec::new();
        for _ in 0..RUNNING_MAX {
            running.push(bulk.enter().await.unwrap_or_else(|busy| panic!("{busy:?}")));
        }
        let started = tokio::time::Instant::now();
        assert!(bulk.enter().await.is_err_and(|busy| RETRY_AFTER_MS.contains(&busy.retry_after_ms)));
        assert!(started.elapsed() >= WAIT_WITHIN);
        let ends = async {
            tokio::time::sleep(WAIT_WITHIN / 10).await;
            running.clear();
        };
        let waits = futures_util::future::join_all((RUNNING_MAX..PLACES + 5).map(|_| bulk.enter()));
        let (waited, ()) = tokio::join!(waits, ends);
        let sent_away = waited.iter().filter(|waited| waited.is_err()).count();
        assert!(sent_away >= 5, "{sent_away}: those for whom there was no place were sent away at once");
        drop(waited);
        assert!(bulk.enter().await.is_ok(), "each place is given back");
    }
}
