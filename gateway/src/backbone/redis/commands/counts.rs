//! Users' unread counts, loaded from the store if Redis has lost them.

use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::Cmd;
use shared::UserId;
use tokio::time::Instant;

use crate::backbone::BackboneHost;
use crate::backbone::redis::link::Link;
use crate::backbone::redis::scripts;
use crate::store::UnreadCount;

/// Unread counts that are put into Redis in one pipeline, and the most that one user may have on top.
const SEEDS_MAX: usize = 4096;

/// A user's counts; none if the store doesn't return them in time.
pub(super) struct LoadedCounts {
    pub(super) user: UserId,
    counts: Option<Vec<UnreadCount>>,
}

impl LoadedCounts {
    /// The command that puts them into the cache, or just takes back the user's `mark`.
    pub(super) fn seed(self, link: &Link, mark: &str) -> Cmd {
        let key = link.keys().unread(&self.user);
        let Some(counts) = self.counts else {
            let mut forget = redis::cmd("HDEL");
            forget.arg(key).arg(mark);
            return forget;
        };
        let mut call = scripts::call(&link.scripts.seed, &[&key]);
        call.arg(link.settings.resume_seconds).arg(mark);
        for count in counts {
            call.arg(count.conversation.as_str()).arg(count.last_seq).arg(count.seen_seq);
        }
        call
    }

    fn count(&self) -> usize {
        self.counts.as_ref().map_or(0, Vec::len)
    }
}

/// Loads a user's counts, until `deadline` at the most.
pub(super) async fn load(source: Arc<dyn BackboneHost>, user: UserId, deadline: Instant) -> LoadedCounts {
    let counts = match tokio::time::timeout_at(deadline, source.unread(&user)).await {
        Ok(Ok(counts)) => Some(counts),
        Ok(Err(error)) => {
            tracing::debug!(%error, "unread counts could not be loaded");
            None
        }
        Err(_) => None,
    };
    LoadedCounts { user, counts }
}

/// `first`, and the others that are loaded now.
pub(super) fn gathered<L: Future<Output = LoadedCounts>>(
    first: LoadedCounts,
    loads: &mut FuturesUnordered<L>,
) -> Vec<LoadedCounts> {
    let (mut seeds, mut loaded) = (first.count(), vec![first]);
    while seeds < SEEDS_MAX
        && let Some(Some(next)) = loads.next().now_or_never()
    {
        seeds += next.count();
        loaded.push(next);
    }
    loaded
}
