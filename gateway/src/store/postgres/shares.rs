//! Who may have one of the node's connections: each purpose has some of its own, and all take turns for the others.
//! Values only: it neither connects nor waits.

use std::time::{Duration, Instant};

/// The most connections of one node.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// After PostgreSQL has refused a connection, one more is tried so often.
const TRY_MORE_EVERY: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Readiness, leases, marks of what was published.
    Control,
    /// Messages and receipts, their ids, and the sweep.
    Commit,
    /// Other changes.
    Change,
    /// Questions.
    LookUp,
}

impl Purpose {
    pub(super) const ALL: [Self; 4] = [Self::Control, Self::Commit, Self::Change, Self::LookUp];

    /// How many of `allowed` connections no other purpose gets.
    fn own(self, allowed: usize) -> usize {
        let from = |steps: &[usize]| steps.iter().filter(|least| allowed >= **least).count();
        match self {
            Self::Commit => from(&[2, 8, 12, 16]),
            Self::Control => from(&[3, 10]),
            Self::Change | Self::LookUp => from(&[6, 12, 16]),
        }
    }
}

/// A value of each purpose.
#[derive(Debug, Default)]
pub(super) struct OfEach<T> {
    control: T,
    commit: T,
    change: T,
    look_up: T,
}

impl<T> OfEach<T> {
    pub(super) fn of(&self, purpose: Purpose) -> &T {
        match purpose {
            Purpose::Control => &self.control,
            Purpose::Commit => &self.commit,
            Purpose::Change => &self.change,
            Purpose::LookUp => &self.look_up,
        }
    }

    pub(super) fn of_mut(&mut self, purpose: Purpose) -> &mut T {
        match purpose {
            Purpose::Control => &mut self.control,
            Purpose::Commit => &mut self.commit,
            Purpose::Change => &mut self.change,
            Purpose::LookUp => &mut self.look_up,
        }
    }
}

/// The connections that are lent, and how many there may be.
#[derive(Debug)]
pub(super) struct Shares {
    /// How many may be lent at once: all, or as many as PostgreSQL gave before it refused one.
    allowed: usize,
    lent: OfEach<usize>,
    /// The purpose that was served last.
    last: Purpose,
    refused: Option<Refused>,
}

/// PostgreSQL has refused a connection.
#[derive(Debug, Clone, Copy)]
struct Refused {
    /// How many there may have been then.
    living: usize,
    try_more_at: Instant,
}

/// A change that an operator is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// PostgreSQL gives no more connections than these.
    Refused(usize),
    /// It gives more again: now there are so many.
    MoreAgain(usize),
}

impl Default for Shares {
    fn default() -> Self {
        Self { allowed: CONNECTIONS_MAX, lent: OfEach::default(), last: Purpose::LookUp, refused: None }
    }
}

impl Shares {
    /// Lends a connection to the purpose, if it may have one now.
    pub(super) fn take(&mut self, purpose: Purpose, now: Instant) -> bool {
        if !self.may_take(purpose) {
            let due = self.refused.as_mut().filter(|refused| refused.try_more_at <= now);
            let Some(due) = due.filter(|_| self.allowed < CONNECTIONS_MAX) else { return false };
            due.try_more_at = now + TRY_MORE_EVERY;
            self.allowed += 1;
            if !self.may_take(purpose) {
                return false;
            }
        }
        *self.lent.of_mut(purpose) += 1;
        self.last = purpose;
        true
    }

    /// A connection came back, or the call that was to have it gave up.
    pub(super) fn give_back(&mut self, purpose: Purpose) {
        let lent = self.lent.of_mut(purpose);
        *lent = lent.saturating_sub(1);
    }

    /// The purposes in the order of their turns.
    pub(super) fn turns(&self) -> impl Iterator<Item = Purpose> + use<> {
        let last = self.last;
        let all = Purpose::ALL.into_iter().cycle();
        all.skip_while(move |purpose| *purpose != last).skip(1).take(Purpose::ALL.len())
    }

    /// PostgreSQL refused a connection to a call that has one lent to it. The others have theirs, or hear the same.
    pub(super) fn refused(&mut self, now: Instant) -> Option<News> {
        let others = self.lent_to_all().saturating_sub(1);
        self.allowed = others.max(1);
        let before = self.refused.map_or(0, |refused| refused.living);
        let is_news = self.refused.is_none();
        self.refused = Some(Refused { living: others.max(before), try_more_at: now + TRY_MORE_EVERY });
        is_news.then_some(News::Refused(others))
    }

    /// There are `living` connections.
    pub(super) fn connected(&mut self, living: usize) -> Option<News> {
        let refused = self.refused?;
        self.allowed = self.allowed.max(living);
        if living <= refused.living {
            return None;
        }
        (self.allowed, self.refused) = (CONNECTIONS_MAX, None);
        Some(News::MoreAgain(living))
    }

    fn lent_to_all(&self) -> usize {
        Purpose::ALL.into_iter().map(|purpose| *self.lent.of(purpose)).sum()
    }

    fn may_take(&self, purpose: Purpose) -> bool {
        let free = self.allowed.saturating_sub(self.lent_to_all());
        let unused = |other: Purpose| other.own(self.allowed).saturating_sub(*self.lent.of(other));
        let promised: usize = Purpose::ALL.into_iter().filter(|other| *other != purpose).map(unused).sum();
        free > 0 && (unused(purpose) > 0 || free > promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &mut Shares, purpose: Purpose) -> usize {
        let now = Instant::now();
        std::iter::repeat_with(|| shares.take(purpose, now)).take_while(|took| *took).count()
    }

    #[test]
    fn look_ups_and_changes_leave_connections_for_commits_and_control() {
        let mut shares = Shares::default();
        assert_eq!((take_all(&mut shares, Purpose::LookUp), take_all(&mut shares, Purpose::Change)), (7, 3));
        assert_eq!((take_all(&mut shares, Purpose::Commit), take_all(&mut shares, Purpose::Control)), (4, 2));
        shares.give_back(Purpose::LookUp);
        assert!(shares.take(Purpose::Commit, Instant::now()), "what nobody has of their own goes to all");
        assert!(!shares.take(Purpose::Control, Instant::now()));
    }

    #[test]
    fn every_purpose_gets_on_however_few_connections_there_are() {
        for allowed in 1..=CONNECTIONS_MAX {
            let own: usize = Purpose::ALL.into_iter().map(|purpose| purpose.own(allowed)).sum();
            assert!(own <= allowed, "{allowed}");
            for purpose in Purpose::ALL {
                let mut shares = Shares { allowed, ..Shares::default() };
                assert!(take_all(&mut shares, purpose) >= 1, "{purpose:?} of {allowed}");
                let others = Purpose::ALL.into_iter().filter(|other| *other != purpose);
                let left: usize = others.map(|other| take_all(&mut shares, other)).sum();
                assert!(purpose == Purpose::Commit || allowed < 2 || left >= 1, "{purpose:?} leaves some of {allowed}");
            }
        }
    }

    #[test]
    fn a_refused_connection_is_told_once_and_tried_again() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        (0..5).for_each(|_| assert!(shares.take(Purpose::LookUp, at(0))));
        assert_eq!(shares.refused(at(0)), Some(News::Refused(4)));
        shares.give_back(Purpose::LookUp);
        assert_eq!(shares.refused(at(0)), None, "it is told once");
        (0..3).for_each(|_| shares.give_back(Purpose::LookUp));
        assert_eq!((shares.connected(3), shares.allowed), (None, 3));
        assert!(shares.take(Purpose::Commit, at(1)) && !shares.take(Purpose::LookUp, at(1)), "one is for control");
        assert!(shares.take(Purpose::Control, at(1)) && !shares.take(Purpose::Commit, at(1)));
        assert!(shares.take(Purpose::Commit, at(2)), "one more is tried");
        assert_eq!(shares.connected(4), None, "there may have been as many before");
        assert!(!shares.take(Purpose::Commit, at(3)) && shares.take(Purpose::Commit, at(4)));
        assert_eq!(shares.connected(5), Some(News::MoreAgain(5)));
        assert!(shares.take(Purpose::LookUp, at(5)), "all are allowed again");
    }
}
