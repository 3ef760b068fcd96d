//! Which owed events are posted next: pure decisions, by a clock that is passed in. No store, no socket.
//!
//! Conversations whose events failed are held, each for its own time, and tried again each by itself. So a receiver that
//! fails at one conversation gets all others. While the receiver takes nothing at all, new conversations rest as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use shared::ConversationId;

/// Events in one post.
pub(super) const EVENTS_PER_POST: usize = 100;
/// Bytes of the events in one post, unless it has a single event.
const BYTES_PER_POST: usize = 512 * 1024;
/// Posts under way at a time, each with other conversations.
pub(super) const POSTS_AT_ONCE: usize = 8;
/// Conversations that are held; with more, no new ones are begun.
const HELD_MAX: usize = 1_000;
/// The wait after the first failed try; it doubles up to the longest.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// An event that fails when it is older than this is kept as dead: a day.
const TRIED_FOR_MS: u64 = 86_400_000;
/// So often it has been tried by then, at least: it may have been old when the first post began.
const TRIES_MIN: u32 = 10;

/// An owed event, ready to be posted.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) id: u64,
    pub(super) conversation: ConversationId,
    pub(super) age_ms: u64,
    /// The event as the receiver reads it.
    pub(super) json: Box<RawValue>,
}

/// What may be tried now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// New conversations, and those of the held ones whose time has come: all but these.
    AllBut(Vec<ConversationId>),
    /// Held conversations whose time has come, up to this event.
    Only(Vec<ConversationId>, u64),
    /// Nothing until then.
    Wait(Instant),
}

/// The conversations that failed, and whether the receiver takes anything.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    held: BTreeMap<ConversationId, Held>,
    /// How often in a row new conversations failed, and until when none are begun.
    rest: Option<(u32, Instant)>,
}

/// A conversation that failed.
#[derive(Debug)]
struct Held {
    tries: u32,
    until: Instant,
    /// The last event that failed.
    up_to: u64,
}

impl Schedule {
    /// What may be tried at `now`.
    pub(super) fn next(&self, now: Instant) -> Next {
        let (due, waiting): (Vec<_>, Vec<_>) = self.held.iter().partition(|(_, held)| held.until <= now);
        let rests = self.rest.filter(|(_, until)| *until > now);
        if rests.is_none() && self.held.len() < HELD_MAX {
            return Next::AllBut(waiting.into_iter().map(|(id, _)| id.clone()).collect());
        }
        let up_to = due.iter().map(|(_, held)| held.up_to).max();
        if let Some(up_to) = up_to {
            return Next::Only(due.into_iter().map(|(id, _)| id.clone()).collect(), up_to);
        }
        let ends = waiting.into_iter().map(|(_, held)| held.until).chain(rests.map(|(_, until)| until));
        Next::Wait(ends.min().unwrap_or(now))
    }

    /// Cuts events, which come in order of id, into posts. A conversation stands in one post alone, its events in order.
    /// A held conversation has a post of its own.
    pub(super) fn cut(&self, events: Vec<Due>) -> Vec<Vec<Due>> {
        let mut posts: Vec<Post> = Vec::new();
        let mut places: BTreeMap<ConversationId, Option<usize>> = BTreeMap::new();
        // The post that takes further conversations.
        let mut open: Option<usize> = None;
        for event in events {
            let place = match places.get(&event.conversation) {
                Some(place) => *place,
                None if self.held.contains_key(&event.conversation) => Post::another(&mut posts),
                None => match open.filter(|place| posts.get(*place).is_some_and(|post| post.has_room(&event))) {
                    Some(place) => Some(place),
                    None => {
                        open = Post::another(&mut posts);
                        open
                    }
                },
            };
            // A conversation that found its post full goes on in another round: its later events must not come first.
            let place = place.filter(|place| posts.get(*place).is_some_and(|post| post.has_room(&event)));
            places.insert(event.conversation.clone(), place);
            if let Some(post) = place.and_then(|place| posts.get_mut(place)) {
                post.bytes += event.json.get().len();
                post.events.push(event);
            }
        }
        posts.into_iter().map(|post| post.events).collect()
    }

    /// The receiver has taken events of these conversations.
    pub(super) fn delivered<'a>(&mut self, events: impl IntoIterator<Item = &'a Due>) {
        for event in events {
            self.held.remove(&event.conversation);
            self.rest = None;
        }
    }

    /// The receiver did not take these events, which were tried. Returns those that have been tried long enough.
    pub(super) fn failed(&mut self, events: &[Due], now: Instant) -> Vec<u64> {
        let conversations: BTreeSet<&ConversationId> = events.iter().map(|event| &event.conversation).collect();
        if conversations.iter().any(|id| !self.held.contains_key(*id)) {
            let failures = self.rest.map_or(0, |(failures, _)| failures).saturating_add(1);
            self.rest = Some((failures, now + wait(failures)));
        }
        for id in conversations {
            let up_to = events.iter().filter(|event| event.conversation == *id).map(|event| event.id).max();
            let tries = self.held.get(id).map_or(0, |held| held.tries).saturating_add(1);
            let held = Held { tries, until: now + wait(tries), up_to: up_to.unwrap_or_default() };
            self.held.insert(id.clone(), held);
        }
        let is_over = |event: &&Due| {
            let tries = self.held.get(&event.conversation).map_or(0, |held| held.tries);
            event.age_ms >= TRIED_FOR_MS && tries >= TRIES_MIN
        };
        events.iter().filter(is_over).map(|event| event.id).collect()
    }
}

/// A post that is being filled.
#[derive(Default)]
struct Post {
    events: Vec<Due>,
    bytes: usize,
}

impl Post {
    /// The place of one more post, if there may be one.
    fn another(posts: &mut Vec<Self>) -> Option<usize> {
        (posts.len() < POSTS_AT_ONCE).then(|| {
            posts.push(Self::default());
            posts.len() - 1
        })
    }

    fn has_room(&self, event: &Due) -> bool {
        let fits = self.bytes.saturating_add(event.json.get().len()) <= BYTES_PER_POST;
        self.events.is_empty() || (fits && self.events.len() < EVENTS_PER_POST)
    }
}

/// The wait after so many failed tries.
fn wait(tries: u32) -> Duration {
    WAIT_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Box<RawValue> {
        RawValue::from_string(format!("\"{text}\"")).expect("a text")
    }

    fn conversation(name: &str) -> ConversationId {
        ConversationId::parse(name).expect("an id")
    }

    fn due(id: u64, name: &str) -> Due {
        Due { id, conversation: conversation(name), age_ms: 0, json: json("") }
    }

    fn ids(posts: &[Vec<Due>]) -> Vec<Vec<u64>> {
        posts.iter().map(|post| post.iter().map(|event| event.id).collect()).collect()
    }

    #[test]
    fn a_conversation_stands_in_one_post_in_order() {
        let mut events: Vec<Due> = (1..=150).map(|id| due(id, if id % 2 == 0 { "even" } else { "odd" })).collect();
        events.extend((151..=160).map(|id| due(id, &format!("c{id}"))));
        let posts = Schedule::default().cut(events);
        assert_eq!(posts.len(), 2);
        assert_eq!(ids(&posts)[0], (1..=100).collect::<Vec<u64>>(), "the rest of both waits for the next round");
        assert_eq!(ids(&posts)[1], (151..=160).collect::<Vec<u64>>());
    }

    #[test]
    fn posts_are_bounded_in_number_and_bytes() {
        let large = |id| Due { json: json(&"x".repeat(BYTES_PER_POST / 2 + 1)), ..due(id, &format!("c{id}")) };
        let posts = Schedule::default().cut((1..=20).map(large).collect());
        assert_eq!(ids(&posts), (1..=8).map(|id| vec![id]).collect::<Vec<_>>());
        let one = Due { json: json(&"x".repeat(BYTES_PER_POST * 2)), ..due(1, "c") };
        assert_eq!(ids(&Schedule::default().cut(vec![one])), [[1]], "a single event is posted whatever its size");
    }

    #[test]
    fn a_conversation_that_fails_holds_up_itself_alone() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        let first = [due(1, "bad"), due(2, "good")];
        assert!(schedule.failed(&first, begun).is_empty());
        assert_eq!(schedule.next(begun), Next::Wait(begun + WAIT_FIRST), "new ones rest after a failure");
        let now = begun + WAIT_FIRST;
        assert_eq!(schedule.next(now), Next::AllBut(Vec::new()));
        let posts = schedule.cut(vec![due(1, "bad"), due(2, "good"), due(3, "new"), due(4, "bad")]);
        assert_eq!(ids(&posts), [vec![1, 4], vec![2], vec![3]], "each that failed has a post of its own");
        schedule.delivered(&posts[1]);
        schedule.delivered(&posts[2]);
        schedule.failed(&posts[0], now);
        assert_eq!(schedule.next(now), Next::AllBut(vec![conversation("bad")]), "nobody rests for one that was held");
        assert_eq!(schedule.next(now + 2 * WAIT_FIRST), Next::AllBut(Vec::new()), "it is tried again");
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits: Vec<u64> = [1, 2, 3, 8, 9, 10, 99].map(|tries| wait(tries).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 128, 256, 300, 300]);
    }

    #[test]
    fn while_nothing_is_taken_few_are_tried_and_one_success_lets_all_go_on() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        for id in 1..=20 {
            schedule.failed(&[due(id, &format!("c{id}"))], now);
            let Some((_, until)) = schedule.rest else { panic!("new ones rest") };
            assert!(until > now && until <= now + WAIT_MAX);
            now = until;
        }
        schedule.failed(&[due(21, "c21")], now);
        match schedule.next(now) {
            Next::Only(due, up_to) => assert!(!due.is_empty() && up_to <= 20, "those that were held are tried"),
            other => panic!("{other:?}"),
        }
        schedule.delivered(&[due(1, "c1")]);
        assert!(matches!(schedule.next(now), Next::AllBut(_)));
    }

    #[test]
    fn while_a_thousand_are_held_no_new_ones_are_begun() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        let all: Vec<Due> = (1..=HELD_MAX as u64).map(|id| due(id, &format!("c{id}"))).collect();
        schedule.failed(&all, begun);
        let now = begun + WAIT_FIRST;
        assert!(matches!(schedule.next(now), Next::Only(due, 1_000) if due.len() == HELD_MAX));
        schedule.delivered(&all[..1]);
        assert_eq!(schedule.next(now), Next::AllBut(Vec::new()));
    }

    #[test]
    fn after_a_day_of_tries_an_event_is_over() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let events = [Due { age_ms: TRIED_FOR_MS, ..due(1, "c") }, due(2, "c")];
        for _ in 1..TRIES_MIN {
            assert!(schedule.failed(&events, now).is_empty());
        }
        assert_eq!(schedule.failed(&events, now), [1], "the younger one goes on");
    }
}
