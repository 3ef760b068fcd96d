//! The parts of a mixed load: the kind of each number. A pure function of the shares.

use clap::Args;
use serde::Serialize;

/// The action of one number of a mixed load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A message from user to user.
    Direct,
    /// A message into a group.
    Group,
    /// A user types in a direct conversation.
    Typing,
    /// A user has read a direct conversation.
    Read,
    /// A user asks for the presence of others.
    Presence,
    /// A visitor comes or goes.
    Connect,
}

/// How often each kind happens, in parts of the sum.
#[derive(Debug, Clone, Args)]
pub struct Shares {
    /// Share of direct messages.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(0..=1000))]
    direct_share: u32,
    /// Share of group messages; they need --http and --api-key.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(0..=1000))]
    group_share: u32,
    /// Share of typing.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
    typing_share: u32,
    /// Share of read receipts.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(0..=1000))]
    read_share: u32,
    /// Share of questions for presence.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    presence_share: u32,
    /// Share of visitors who connect, or disconnect.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    connect_share: u32,
}

impl Shares {
    /// Whether this kind happens at all.
    pub(super) fn has(&self, kind: Kind) -> bool {
        !self.all().contains(&(kind, 0))
    }

    /// Every kind and its share.
    pub(super) fn all(&self) -> [(Kind, u32); 6] {
        [
            (Kind::Direct, self.direct_share),
            (Kind::Group, self.group_share),
            (Kind::Typing, self.typing_share),
            (Kind::Read, self.read_share),
            (Kind::Presence, self.presence_share),
            (Kind::Connect, self.connect_share),
        ]
    }
}

/// The kinds in the order in which they take turns, spread as evenly as their shares allow.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Each with its place among those of its kind.
    round: Vec<(Kind, u64)>,
    shares: [(Kind, u32); 6],
}

impl Plan {
    /// `None` when nothing has a share.
    pub(super) fn new(shares: [(Kind, u32); 6]) -> Option<Self> {
        let sum: i64 = shares.iter().map(|(_, share)| i64::from(*share)).sum();
        let mut credits = shares.map(|(kind, share)| (kind, i64::from(share), 0_i64, 0_u64));
        let mut round = Vec::new();
        for _ in 0..sum {
            for (_, share, credit, _) in &mut credits {
                *credit += *share;
            }
            let (kind, _, credit, done) = credits.iter_mut().max_by_key(|(_, _, credit, _)| *credit)?;
            *credit -= sum;
            round.push((*kind, *done));
            *done += 1;
        }
        (!round.is_empty()).then_some(Self { round, shares })
    }

    /// The kind of this number, and how many of its kind come before it.
    pub(super) fn of(&self, number: u64) -> (Kind, u64) {
        let length = self.round.len().max(1) as u64;
        let place = usize::try_from(number % length).unwrap_or_default();
        let (kind, done) = self.round.get(place).copied().unwrap_or((Kind::Direct, 0));
        let share = self.shares.iter().find(|(of, _)| *of == kind).map_or(0, |(_, share)| u64::from(*share));
        (kind, number / length * share + done)
    }
}

/// Whether this user has a stream in place of a socket, when so many in a hundred do. Of each pair only the second one may, and
/// those who do are spread over all pairs.
pub(super) fn has_stream(user: usize, share_percent: u32) -> bool {
    let of_pairs = |pairs: usize| pairs * 2 * share_percent as usize / 100;
    !user.is_multiple_of(2) && of_pairs(user / 2 + 1) > of_pairs(user / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_their_share_and_only_one_of_a_pair() {
        for (share, streams) in [(0, 0), (10, 20), (33, 66), (50, 100)] {
            let users: Vec<usize> = (0..200).filter(|user| has_stream(*user, share)).collect();
            assert_eq!(users.len(), streams, "{share} %");
            assert!(users.iter().all(|user| user % 2 == 1), "{users:?}");
        }
        assert!((0..20).any(|user| has_stream(user, 10)), "spread");
    }

    #[test]
    fn every_kind_has_its_share_in_turn_and_counts_its_own() {
        let shares = [
            (Kind::Direct, 5),
            (Kind::Group, 2),
            (Kind::Typing, 2),
            (Kind::Read, 1),
            (Kind::Presence, 0),
            (Kind::Connect, 0),
        ];
        let plan = Plan::new(shares).expect("a plan");
        let all: Vec<_> = (0..30).map(|number| plan.of(number)).collect();
        for (kind, share) in shares {
            let own: Vec<u64> = all.iter().filter(|(of, _)| *of == kind).map(|(_, place)| *place).collect();
            assert_eq!(own, (0..u64::from(share) * 3).collect::<Vec<_>>(), "{kind:?}");
        }
        assert!(all.windows(3).all(|three| three.iter().any(|(kind, _)| *kind == Kind::Direct)), "spread: {all:?}");
        assert!(Plan::new(shares.map(|(kind, _)| (kind, 0))).is_none());
    }
}
