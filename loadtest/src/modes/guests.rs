//! Users that come and go, by a schedule of changes: change n brings the next guest, or takes them away, in turn.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use shared::UserId;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::link::{self, OpenError};
use crate::target::Target;

/// A change, and its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// The guest, counted from 0.
    pub(super) guest: usize,
    /// Whether they come or go.
    pub(super) comes: bool,
}

/// The guests, and which of them are here.
pub(super) struct Guests {
    target: Arc<Target>,
    first: usize,
    users: Arc<[(UserId, String)]>,
    /// Of each who is here, what keeps them.
    here: Vec<Option<oneshot::Sender<()>>>,
    tasks: JoinSet<()>,
}

impl Guests {
    /// The users with these numbers, all of them away. Signing their tokens is no part of what is measured.
    pub(super) fn new(target: &Arc<Target>, numbers: Range<usize>) -> Result<Self> {
        let first = numbers.start;
        let users = numbers.map(|number| target.user(number)).collect::<Result<Arc<[_]>>>()?;
        Ok(Self {
            target: Arc::clone(target),
            first,
            here: users.iter().map(|_| None).collect(),
            users,
            tasks: JoinSet::new(),
        })
    }

    /// The users.
    pub(super) fn users(&self) -> impl Iterator<Item = &UserId> {
        self.users.iter().map(|(user, _)| user)
    }

    /// Does a change: everybody comes in turn, then everybody goes. Who comes tells `opened` how connecting went; who goes
    /// breaks the connection off, once it is there.
    pub(super) fn act(&mut self, change: Change, opened: impl FnOnce(Result<(), OpenError>) + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        let Some(here) = self.here.get_mut(change.guest) else { return };
        *here = None;
        if change.comes {
            let (target, users, number) = (Arc::clone(&self.target), Arc::clone(&self.users), change.guest);
            let first = self.first;
            let (stay, leave) = oneshot::channel();
            *here = Some(stay);
            self.tasks.spawn(async move {
                let Some((user, token)) = users.get(number) else { return };
                match link::open(&target, first + number, (user, token), None).await {
                    Ok((reader, writer)) => {
                        opened(Ok(()));
                        tokio::select! {
                            () = link::listen(reader, &writer, |_| Ok(())) => {}
                            _ = leave => {}
                        }
                    }
                    Err(error) => opened(Err(error)),
                }
            });
        }
    }
}

/// Change number `number` among so many guests.
pub(super) fn change(number: u64, guests: usize) -> Change {
    let guests = guests.max(1) as u64;
    let guest = usize::try_from(number % guests).unwrap_or_default();
    Change { guest, comes: (number / guests).is_multiple_of(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_before_the_first_one_goes() {
        let changes: Vec<_> =
            (0..7).map(|number| change(number, 3)).map(|change| (change.guest, change.comes)).collect();
        let expected = [(0, true), (1, true), (2, true), (0, false), (1, false), (2, false), (0, true)];
        assert_eq!(changes, expected);
    }
}
