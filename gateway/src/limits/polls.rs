//! The number of polls that wait, in all and for each user. Each holds a connection that others may need.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::UserId;

/// Polls that wait on a node: half of the connections that are no sockets.
const POLLS_MAX: usize = 1024;
/// Polls of one user that wait on a node.
const POLLS_PER_USER_MAX: usize = 4;

/// The polls that wait.
#[derive(Debug, Default)]
pub struct Polls(Arc<Mutex<PollCounts>>);

#[derive(Debug, Default)]
struct PollCounts {
    all: usize,
    by_user: HashMap<UserId, usize>,
}

/// A poll that waits; given up when dropped.
#[derive(Debug)]
pub struct PollPlace {
    waiting: Arc<Mutex<PollCounts>>,
    user: UserId,
}

impl Polls {
    /// A place for a poll, if there is one.
    #[must_use]
    pub fn take(&self, user: &UserId) -> Option<PollPlace> {
        let mut waiting = self.0.lock();
        let own = waiting.by_user.get(user).copied().unwrap_or_default();
        if waiting.all >= POLLS_MAX || own >= POLLS_PER_USER_MAX {
            return None;
        }
        waiting.all += 1;
        waiting.by_user.insert(user.clone(), own + 1);
        Some(PollPlace { waiting: Arc::clone(&self.0), user: user.clone() })
    }
}

impl Drop for PollPlace {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        waiting.all -= 1;
        if let Some(own) = waiting.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                waiting.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let polls = Polls::default();
        let user = |n: usize| UserId::parse(&format!("u{n}")).expect("an id");
        let of_one: Vec<_> = (0..POLLS_PER_USER_MAX).map(|_| polls.take(&user(0)).expect("a place")).collect();
        assert!(polls.take(&user(0)).is_none());
        let others: Vec<_> = (POLLS_PER_USER_MAX..POLLS_MAX).map(|n| polls.take(&user(n)).expect("a place")).collect();
        assert!(polls.take(&user(POLLS_MAX)).is_none());
        drop((of_one, others));
        let waiting = polls.0.lock();
        assert_eq!((waiting.all, waiting.by_user.len()), (0, 0));
    }
}
