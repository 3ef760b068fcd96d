//! What operators see of the sockets of this node. Nothing here holds a lock for longer than a look.

use std::collections::BinaryHeap;

use shared::{Dialect, UserId};

use super::Registry;
use crate::clock::coarse_s;

/// A socket as operators see it. Ages are in seconds before now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSocket {
    /// The connection's number on this node.
    pub connection: u64,
    /// How it speaks.
    pub dialect: Dialect,
    /// How long ago it became its user's.
    pub opened_age_s: u32,
    /// How long ago something came from it.
    pub heard_age_s: u32,
    /// In how many seconds its token expires.
    pub expires_in_s: u32,
    /// What waits to be written to it, in bytes.
    pub queued_bytes: u32,
}

impl Registry {
    /// The first `limit` users by id, after `after`.
    #[must_use]
    pub fn users_after(&self, after: Option<&str>, limit: usize) -> Vec<UserId> {
        let mut first = BinaryHeap::with_capacity(limit.min(1024) + 1);
        for shard in &self.shards {
            for user in shard.lock().keys().filter(|user| after.is_none_or(|after| user.as_str() > after)) {
                if first.len() < limit {
                    first.push(user.clone());
                } else if first.peek().is_some_and(|last| user < last) {
                    first.pop();
                    first.push(user.clone());
                }
            }
        }
        first.into_sorted_vec()
    }

    /// At most `limit` users, in no order, each with the number of their sockets.
    #[must_use]
    pub fn users_with_sockets(&self, limit: usize) -> Vec<(UserId, u32)> {
        let mut users = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let room = limit.saturating_sub(users.len());
            let count = |sockets: usize| u32::try_from(sockets).unwrap_or(u32::MAX);
            users.extend(shard.iter().take(room).map(|(user, local)| (user.clone(), count(local.sockets.len()))));
        }
        users
    }

    /// The user's sockets.
    #[must_use]
    pub fn sockets_of(&self, user: &UserId) -> Vec<ListedSocket> {
        let now_s = coarse_s();
        let listed = |socket: &super::LocalSocket| ListedSocket {
            connection: socket.connection,
            dialect: socket.queue.wire().dialect,
            opened_age_s: now_s.saturating_sub(socket.opened_s),
            heard_age_s: now_s.saturating_sub(socket.queue.liveness().heard_s()),
            expires_in_s: socket.expires_s.saturating_sub(now_s),
            queued_bytes: socket.queue.queued_bytes(),
        };
        self.with_user(user, |local| local.sockets.iter().map(listed).collect()).unwrap_or_default()
    }
}
