//! The workload of a run: conversations, senders and due times. A pure function of the arguments and the seed. Users,
//! devices and conversations are numbers here; no server has given them ids yet.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::args::OracleArgs;
use crate::seed::{Actor, Seed};

/// The roles of users: who talks to whom, and who is cut off by a herd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// Neighbours with each other; everybody is cut off.
    Everybody,
    /// The first so many users send to all the others; those only listen, and they are cut off.
    Speakers(usize),
}

/// The workload of a run. Conversations are numbered: direct ones first, then groups.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload {
    /// The users of each direct conversation; the first one opens it.
    pub(super) pairs: Vec<[usize; 2]>,
    /// The members of each group.
    pub(super) groups: Vec<Vec<usize>>,
    cast: Cast,
    devices: usize,
    /// So many users have a stream beside these devices.
    streams: usize,
    /// Messages per second.
    rate: f64,
    total: u64,
    seed: Seed,
}

/// One message of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedSend {
    /// The message's number in the run.
    pub(super) number: u64,
    /// When it is meant to leave, counted from the first message.
    pub(super) after: Duration,
    /// The number of its conversation.
    pub(super) conversation: usize,
    /// The user who sends it.
    pub(super) sender: usize,
    /// The sender's device that sends it.
    pub(super) device: usize,
    /// The other user of a direct conversation, if the message is addressed to them and not to the conversation.
    pub(super) to_user: Option<usize>,
}

impl Workload {
    /// Draws a workload.
    pub(super) fn new(args: &OracleArgs, cast: Cast, seed: Seed) -> Self {
        let size = args.group_size.clamp(2, args.users.max(2));
        let group = |group: usize| (0..size).map(|place| (group * size + place) % args.users.max(1)).collect();
        // Groups are made by REST, as a backend.
        let groups = if args.api_key.is_some() { args.groups } else { 0 };
        Self {
            pairs: pairs(args, cast),
            groups: (0..groups).map(group).collect(),
            cast,
            devices: args.devices,
            streams: args.streams,
            rate: args.rate,
            total: (args.rate * args.seconds as f64) as u64,
            seed,
        }
    }

    /// How many messages there are.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many messages are due by this time, counted from the first one.
    pub(super) fn due(&self, after: Duration) -> u64 {
        ((after.as_secs_f64() * self.rate) as u64).min(self.total)
    }

    /// The messages, in the order in which they leave; none if there is no conversation.
    pub(super) fn sends(&self) -> impl Iterator<Item = PlannedSend> {
        let mut random = self.seed.generator(Actor::Workload);
        (0..self.total).map_while(move |number| self.draw(number, &mut random))
    }

    fn draw(&self, number: u64, random: &mut StdRng) -> Option<PlannedSend> {
        let all = self.pairs.len() + self.groups.len();
        let conversation = (all > 0).then(|| random.random_range(0..all))?;
        let device = random.random_range(0..self.devices);
        let members = self.members(conversation)?;
        let place = match self.cast {
            Cast::Everybody => random.random_range(0..members.len()),
            // The speaker opened the conversation and stands first.
            Cast::Speakers(_) => 0,
        };
        // Both forms of addressing a direct conversation.
        let sender = *members.get(place)?;
        // Drawn as without streams, so that a seed gives the same messages; every other one of a user with a stream takes it.
        let device = if sender < self.streams && number % 4 >= 2 { self.devices } else { device };
        let to_user = self.pairs.get(conversation).filter(|_| number.is_multiple_of(4)).map(|[a, b]| match place {
            0 => *b,
            _ => *a,
        });
        Some(PlannedSend {
            number,
            after: Duration::from_secs_f64(number as f64 / self.rate),
            conversation,
            sender,
            device,
            to_user,
        })
    }

    fn members(&self, conversation: usize) -> Option<&[usize]> {
        match self.pairs.get(conversation) {
            Some(pair) => Some(pair),
            None => self.groups.get(conversation - self.pairs.len()).map(Vec::as_slice),
        }
    }
}

/// The users of each direct conversation; the first one opens it.
fn pairs(args: &OracleArgs, cast: Cast) -> Vec<[usize; 2]> {
    let users = args.users;
    match cast {
        Cast::Speakers(speakers) => (speakers..users).map(|user| [user % speakers.max(1), user]).collect(),
        Cast::Everybody => {
            let all = if users == 2 { 1 } else { users * ((users - 1) / 2) };
            let pairs = 0..args.pairs.unwrap_or(users).min(all);
            pairs.map(|pair| [pair % users, (pair % users + 1 + pair / users) % users]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::{Args, FromArgMatches};

    use super::*;

    fn args(line: &str) -> OracleArgs {
        let command = OracleArgs::augment_args(clap::Command::new("oracle"));
        let line = format!("oracle --url ws://h:1 --http http://h:1 --api-key k {line}");
        OracleArgs::from_arg_matches(&command.get_matches_from(line.split_whitespace())).expect("arguments")
    }

    fn workload(line: &str, cast: Cast, seed: &str) -> Workload {
        Workload::new(&args(line), cast, seed.parse().expect("a seed"))
    }

    fn sends(line: &str, seed: &str) -> Vec<PlannedSend> {
        workload(line, Cast::Everybody, seed).sends().collect()
    }

    #[test]
    fn two_plans_from_one_seed_are_equal_and_from_two_seeds_differ() {
        let line = "--users 12 --devices 2 --groups 2 --group-size 4 --rate 100 --seconds 3";
        let first = sends(line, "7");
        assert_eq!(first.len(), 300);
        assert_eq!(first, sends(line, "7"));
        let second = sends(line, "8");
        let different = first.iter().zip(&second).filter(|(a, b)| a != b).count();
        assert!(different > 250, "{different} of 300 differ");
    }

    #[test]
    fn a_longer_plan_begins_like_a_shorter_one() {
        let short = sends("--users 12 --rate 100 --seconds 1", "7");
        assert_eq!(sends("--users 12 --rate 100 --seconds 3", "7")[..100], short);
    }

    #[test]
    fn all_users_devices_and_conversations_have_their_part_and_senders_are_members() {
        let workload = workload("--users 6 --devices 2 --groups 2 --group-size 3 --seconds 2", Cast::Everybody, "1");
        let sends: Vec<_> = workload.sends().collect();
        for send in &sends {
            assert!(workload.members(send.conversation).expect("a conversation").contains(&send.sender), "{send:?}");
            assert!(send.to_user.is_none_or(|user| user != send.sender && send.conversation < 6), "{send:?}");
        }
        let count = |of: fn(&PlannedSend) -> usize| sends.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!((count(|send| send.conversation), count(|send| send.sender), count(|send| send.device)), (8, 6, 2));
        assert!(sends.iter().any(|send| send.to_user.is_some()));
    }

    #[test]
    fn who_has_a_stream_sends_over_it_too_and_the_messages_stay_the_same() {
        let line = "--users 6 --devices 2 --seconds 2";
        let without = sends(line, "7");
        let with = sends(&format!("{line} --streams 2"), "7");
        let by_stream = with.iter().filter(|send| send.device == 2);
        assert!(by_stream.clone().count() > 100 && by_stream.clone().all(|send| send.sender < 2));
        assert!(with.iter().any(|send| send.sender < 2 && send.device < 2));
        let told =
            |sends: &[PlannedSend]| sends.iter().map(|send| (send.sender, send.conversation)).collect::<Vec<_>>();
        assert_eq!(told(&with), told(&without));
    }

    #[test]
    fn speakers_send_and_the_others_listen() {
        let workload = workload("--users 10 --seconds 1", Cast::Speakers(3), "1");
        assert_eq!(workload.pairs.len(), 7);
        assert!(workload.sends().all(|send| send.sender < 3));
    }

    #[test]
    fn without_conversations_nothing_is_sent() {
        assert!(sends("--users 6 --pairs 0", "1").is_empty());
    }
}
