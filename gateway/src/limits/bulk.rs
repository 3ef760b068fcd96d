//! Bulk requests: those that make something for very many at once. A few of them run at a time on a node, and they go on at a pace
//! that leaves room for everybody else's requests. Some more wait for a moment, and the others are sent away.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use super::rate::{Bucket, Rate};
use crate::clock::now_us;

/// A request for more than so many users is a bulk request.
const BULK_USERS_MIN: usize = 100;
/// The pace: so many recipients a second on a node, or half as many members.
const PACE: Rate = Rate::new(50, 0);
/// What a member costs, in recipients: a row of the store and an event.
const MEMBER_COST: u64 = 2;
/// What a broadcast costs, in recipients: one publication for each node, and a frame for each of its sockets.
const BROADCAST_COST: u64 = 1_000;
/// Bulk requests that run at once.
const RUNNING_MAX: usize = 4;
/// Bulk requests that run or wait.
const PLACES: usize = 32;
/// The longest wait.
const WAIT_WITHIN: Duration = Duration::from_secs(1);
/// When to come again after finding no place, in milliseconds; a random time of these, so that not all come at once.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 500..=3_000;

/// What a request makes for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkWork {
    /// So many members of a conversation.
    Members(usize),
    /// An event for so many users.
    Recipients(usize),
    /// An event for everybody who is connected.
    Broadcast,
}

impl BulkWork {
    /// Whether it is for so many that it has to wait for its turn.
    #[must_use]
    pub const fn is_bulk(self) -> bool {
        match self {
            Self::Members(users) | Self::Recipients(users) => users > BULK_USERS_MIN,
            Self::Broadcast => true,
        }
    }

    const fn cost(self) -> u64 {
        match self {
            Self::Members(users) => MEMBER_COST * users as u64,
            Self::Recipients(users) => users as u64,
            Self::Broadcast => BROADCAST_COST,
        }
    }
}

/// The bulk requests of one kind of callers on this node.
pub struct BulkRequests {
    places: Semaphore,
    running: Semaphore,
    /// Owes what has begun and is not made up for.
    pace: Mutex<Bucket>,
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
        Self { places: Semaphore::new(PLACES), running: Semaphore::new(RUNNING_MAX), pace: Mutex::default() }
    }
}

impl BulkRequests {
    /// Waits for the turn of a request.
    ///
    /// # Errors
    /// Too many wait already, or the turn doesn't come within a second.
    pub async fn enter(&self, work: BulkWork) -> Result<BulkPlace<'_>, TooManyBulkRequests> {
        let come_again = || rand::random_range(RETRY_AFTER_MS);
        let busy = || TooManyBulkRequests { retry_after_ms: come_again() };
        let place = self.places.try_acquire().map_err(|_| busy())?;
        let within_us = u64::try_from(WAIT_WITHIN.as_micros()).unwrap_or(u64::MAX);
        let wait = self
            .pace
            .lock()
            .queue(PACE, work.cost(), within_us, now_us())
            .map_err(|late_us| TooManyBulkRequests { retry_after_ms: late_us / 1_000 + come_again() })?;
        sleep(Duration::from_micros(wait)).await;
        let running = timeout(WAIT_WITHIN, self.running.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)?;
        Ok(BulkPlace { _running: running, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn four_run_some_wait_for_a_second_and_the_others_are_sent_away() {
        let few = BulkWork::Recipients(0);
        let bulk = BulkRequests::default();
        let mut running = Vec::new();
        for _ in 0..RUNNING_MAX {
            running.push(bulk.enter(few).await.unwrap_or_else(|busy| panic!("{busy:?}")));
        }
        let started = tokio::time::Instant::now();
        assert!(bulk.enter(few).await.is_err_and(|busy| RETRY_AFTER_MS.contains(&busy.retry_after_ms)));
        assert!(started.elapsed() >= WAIT_WITHIN);
        let ends = async {
            tokio::time::sleep(WAIT_WITHIN / 10).await;
            running.clear();
        };
        let waits = futures_util::future::join_all((RUNNING_MAX..PLACES + 5).map(|_| bulk.enter(few)));
        let (waited, ()) = tokio::join!(waits, ends);
        let sent_away = waited.iter().filter(|waited| waited.is_err()).count();
        assert!(sent_away >= 5, "{sent_away}: those for whom there was no place were sent away at once");
        drop(waited);
        assert!(bulk.enter(few).await.is_ok(), "each place is given back");
    }

    #[tokio::test]
    async fn large_groups_are_made_at_a_pace() {
        let bulk = BulkRequests::default();
        let group = BulkWork::Members(9_000);
        let started = tokio::time::Instant::now();
        let first = bulk.enter(group).await;
        assert!(first.is_ok(), "the first of them doesn't wait");
        let rest = futures_util::future::join_all((0..7).map(|_| bulk.enter(group))).await;
        let entered = rest.iter().filter(|turn| turn.is_ok()).count();
        assert_eq!(
            entered, 1,
            "the second one waits until the first one is made up for, the others would wait for longer"
        );
        assert!(started.elapsed() >= Duration::from_millis(850), "{:?}", started.elapsed());
        let late = rest.into_iter().filter_map(Result::err).map(|busy| busy.retry_after_ms).max();
        assert!(late >= Some(1_200), "{late:?}: those come again when there is room");
    }

    #[test]
    fn requests_for_few_are_no_bulk_requests() {
        let bulk = [BulkWork::Members(100), BulkWork::Members(101), BulkWork::Recipients(100), BulkWork::Broadcast];
        assert_eq!(bulk.map(BulkWork::is_bulk), [false, true, false, true]);
    }
}
