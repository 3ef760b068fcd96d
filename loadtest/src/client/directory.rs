//! The conversations of a run, and their members. The driver writes them, clients read them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use shared::{ConversationId, UserId};

/// The conversations of every user, each with the `seq` behind which the run begins.
#[derive(Debug, Default)]
pub struct Directory {
    by_user: Mutex<HashMap<UserId, Vec<(ConversationId, u64)>>>,
    version: AtomicU64,
}

impl Directory {
    /// Adds a conversation in which the run begins behind `base_seq`.
    pub fn add(&self, conversation: &ConversationId, members: &[UserId], base_seq: u64) {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members {
            by_user.entry(member.clone()).or_default().push((conversation.clone(), base_seq));
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// A number that changes when something is added.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The conversations of `user`.
    pub fn of(&self, user: &UserId) -> Vec<(ConversationId, u64)> {
        let by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        by_user.get(user).cloned().unwrap_or_default()
    }
}
