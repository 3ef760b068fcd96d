//! Comings and goings of a conversation's members, gathered when there are many: whoever joins and leaves all the time costs each
//! member's log one entry a second.
//!
//! The first one is told at once. Those within a second after that are told together: the last of each user, as the lines of one
//! event, and nothing of users who came and went, or went and came. The user's own event is never held. What waits stands in outbox
//! rows of its own, so nothing is lost with the node.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shared::{ConversationId, UserId};

use super::{Chat, RowEvents};
use crate::store::{CommittedEvents, OutboxEvent};
use crate::switches;

/// How long further comings and goings of a conversation are gathered after one was told.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// Bytes of lines that are told together: an event of more bytes leaves less room for others in the members' logs.
const BODY_BYTES_MAX: usize = 2_000;
/// Users of a conversation who wait to be told of; with more, further events go out.
const WAITING_MAX: usize = 64;

/// The conversations whose members have changed within the last second.
#[derive(Default)]
pub(super) struct Turnover(Mutex<HashMap<ConversationId, Gathered>>);

/// What waits in one conversation.
struct Gathered {
    /// When something was told last.
    told: Instant,
    /// In the order in which the users first came or went, each user once.
    waiting: Vec<MemberChange>,
    /// The members who are told: those after the last change.
    audience: Vec<UserId>,
}

/// A user who came or went, perhaps several times.
struct MemberChange {
    user: UserId,
    /// The outbox rows of these changes.
    rows: Vec<u64>,
    /// The last event.
    line: String,
}

impl MemberChange {
    /// Whether members have to be told: a user who came and went is where they were.
    fn is_news(&self) -> bool {
        !self.rows.len().is_multiple_of(2)
    }
}

/// What is told together, and the rows that are done with it.
#[derive(Debug, Default, PartialEq)]
struct Told {
    events: Vec<OutboxEvent>,
    rows: Vec<u64>,
}

impl Turnover {
    /// Whether a change of the conversation's members is told at once; if so, the next ones are gathered.
    fn is_first(&self, conversation: &ConversationId, now: Instant) -> bool {
        let mut all = self.0.lock();
        match all.get_mut(conversation) {
            Some(gathered) if !gathered.waiting.is_empty() || now.duration_since(gathered.told) < GATHER_FOR => false,
            Some(gathered) => {
                gathered.told = now;
                true
            }
            None => {
                let gathered = Gathered { told: now, waiting: Vec::new(), audience: Vec::new() };
                all.insert(conversation.clone(), gathered);
                true
            }
        }
    }

    /// Gathers that `user` came or went, which stands in `row`. `others` is the event for the other members.
    fn add(
        &self,
        conversation: &ConversationId,
        (user, comes): (&UserId, bool),
        row: u64,
        others: OutboxEvent,
        now: Instant,
    ) {
        let mut all = self.0.lock();
        let none = || Gathered { told: now, waiting: Vec::new(), audience: Vec::new() };
        let gathered = all.entry(conversation.clone()).or_insert_with(none);
        gathered.audience = others.users;
        gathered.audience.extend(comes.then(|| user.clone()));
        match gathered.waiting.iter_mut().find(|change| change.user == *user) {
            Some(change) => {
                change.rows.push(row);
                change.line = others.body;
            }
            None => gathered.waiting.push(MemberChange { user: user.clone(), rows: vec![row], line: others.body }),
        }
    }

    /// Takes what is due, and forgets the conversations that have come to rest. With `all`, everything is due.
    fn take(&self, all: bool, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        self.0.lock().retain(|_, gathered| {
            if !all && now.duration_since(gathered.told) < GATHER_FOR {
                return true;
            }
            if gathered.waiting.is_empty() {
                return false;
            }
            gathered.told = now;
            told.push(gathered.tell());
            while !gathered.waiting.is_empty() && (all || gathered.waiting.len() > WAITING_MAX) {
                told.push(gathered.tell());
            }
            true
        });
        told
    }
}

impl Gathered {
    /// As many changes as fit into one event, the first ones first.
    fn tell(&mut self) -> Told {
        let (mut bytes, mut count) = (0, 0);
        for change in &self.waiting {
            bytes += if change.is_news() { change.line.len() + 1 } else { 0 };
            if count > 0 && bytes > BODY_BYTES_MAX {
                break;
            }
            count += 1;
        }
        let changes: Vec<MemberChange> = self.waiting.drain(..count).collect();
        let rows = changes.iter().flat_map(|change| change.rows.iter().copied()).collect();
        let news: Vec<&MemberChange> = changes.iter().filter(|change| change.is_news()).collect();
        Told { events: events(&news, &self.audience), rows }
    }
}

/// The events that tell the audience of these changes, each user of the others' only.
fn events(news: &[&MemberChange], audience: &[UserId]) -> Vec<OutboxEvent> {
    let lines = |but: Option<&UserId>| {
        let lines = news.iter().filter(|change| Some(&change.user) != but).map(|change| &*change.line);
        lines.collect::<Vec<_>>().join("\n")
    };
    let subjects: HashSet<&UserId> = news.iter().map(|change| &change.user).collect();
    let (concerned, others): (Vec<&UserId>, Vec<&UserId>) = audience.iter().partition(|user| subjects.contains(user));
    let to_others = OutboxEvent { users: others.into_iter().cloned().collect(), body: lines(None), topic: None };
    let to_concerned = concerned.into_iter().map(|user| OutboxEvent {
        users: vec![user.clone()],
        body: lines(Some(user)),
        topic: None,
    });
    let all = std::iter::once(to_others).chain(to_concerned);
    all.filter(|event| !event.users.is_empty() && !event.body.is_empty()).collect()
}

impl Chat {
    /// Publishes the events of a user who has joined or left by themselves: their own at once, the members' at once or together
    /// with others.
    pub(super) async fn publish_turnover(
        &self,
        conversation: &ConversationId,
        (user, comes): (&UserId, bool),
        built: &RowEvents,
    ) {
        if switches::off("turnover") || self.turnover.is_first(conversation, Instant::now()) {
            return self.publish_row(built);
        }
        let mut events = std::mem::take(&mut *built.events.lock());
        if events.len() == 2
            && let Some(others) = events.pop()
        {
            match self.keep_for_later(&others).await {
                Some(row) => self.turnover.add(conversation, (user, comes), row, others, Instant::now()),
                None => events.push(others),
            }
        }
        if !events.is_empty() {
            self.publisher.publish_events(CommittedEvents { row: built.row, events, begun: built.begun });
        }
    }

    /// Tells what was gathered and is due; with `all`, everything.
    pub async fn tell_turnover(&self, all: bool) {
        for Told { events, rows } in self.turnover.take(all, Instant::now()) {
            if !self.tell_together(events, &rows).await {
                tracing::debug!(?rows, "comings and goings could not be told together; the sweep tells of each");
            }
            let in_flight = self.publisher.in_flight();
            let mut in_flight = in_flight.lock();
            for row in &rows {
                in_flight.remove(row);
            }
        }
    }

    /// Stores an event that waits in a row of its own, which the sweep leaves alone meanwhile: its id.
    async fn keep_for_later(&self, event: &OutboxEvent) -> Option<u64> {
        let row = self.ids.next().await.ok()?;
        self.publisher.in_flight().lock().insert(row);
        match self.store.enqueue(row, &self.owner, std::slice::from_ref(event)).await {
            Ok(()) => Some(row),
            Err(error) => {
                // The commit may have gone through: then the sweep tells of it once more.
                tracing::debug!(%error, "a coming or going could not be kept for later");
                self.publisher.in_flight().lock().remove(&row);
                None
            }
        }
    }

    /// Puts one row in the place of `rows`. If the node ends in between, members are told twice, not never.
    async fn tell_together(&self, events: Vec<OutboxEvent>, rows: &[u64]) -> bool {
        if !events.is_empty() && self.enqueue_events(events).await.is_err() {
            return false;
        }
        let Some(server) = self.backbone.health().server else { return false };
        self.store.mark_published(rows, &server).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).expect("an id")
    }

    fn users(names: &[&str]) -> Vec<UserId> {
        names.iter().map(|name| user(name)).collect()
    }

    /// Gathers that `who` came, or went if the row is even; `members` are told.
    fn gather(turnover: &Turnover, who: &str, row: u64, members: &[&str], now: Instant) {
        let others = OutboxEvent { users: users(members), body: format!("{who} {row}"), topic: None };
        let comes = !row.is_multiple_of(2);
        turnover.add(&"c".parse().expect("an id"), (&user(who), comes), row, others, now);
    }

    fn event(to: &[&str], body: &str) -> OutboxEvent {
        OutboxEvent { users: users(to), body: body.to_owned(), topic: None }
    }

    #[test]
    fn the_first_goes_at_once_and_what_follows_within_a_second_together() {
        let (turnover, start) = (Turnover::default(), Instant::now());
        let (c, d) = ("c".parse().expect("an id"), "d".parse().expect("an id"));
        assert!(turnover.is_first(&c, start) && !turnover.is_first(&c, start) && turnover.is_first(&d, start));
        gather(&turnover, "x", 1, &["a", "b"], start);
        gather(&turnover, "z", 3, &["a", "b", "x"], start);
        gather(&turnover, "z", 4, &["a", "b", "x"], start);
        gather(&turnover, "y", 5, &["a", "b", "x"], start);
        assert_eq!(turnover.take(false, start), []);
        let due = start + GATHER_FOR;
        assert!(!turnover.is_first(&c, due), "nothing overtakes what waits");
        let told = turnover.take(false, due);
        let events = vec![event(&["a", "b"], "x 1\ny 5"), event(&["x"], "y 5"), event(&["y"], "x 1")];
        assert_eq!(told, [Told { events, rows: vec![1, 3, 4, 5] }], "z came and went");
        assert!(!turnover.is_first(&c, due), "a second between events");
        assert!(turnover.is_first(&c, due + GATHER_FOR));
        assert_eq!(turnover.take(false, due + 2 * GATHER_FOR), []);
        assert!(turnover.0.lock().is_empty(), "what rests is forgotten");
    }

    #[test]
    fn many_are_told_one_event_a_second_and_the_table_is_bounded() {
        let (turnover, start) = (Turnover::default(), Instant::now());
        let name = |n: u64| format!("{n:0>100}");
        for n in 0..50 {
            gather(&turnover, &name(n), n, &["a"], start);
        }
        let told = turnover.take(false, start + GATHER_FOR);
        let [Told { events, rows }] = &told[..] else { panic!("{told:?}") };
        assert!(events[0].body.len() <= BODY_BYTES_MAX, "{}", events[0].body.len());
        assert_eq!(rows.len(), events[0].body.lines().count());
        for n in 50..1_000 {
            gather(&turnover, &name(n), n, &["a"], start);
        }
        let told = turnover.take(false, start + 2 * GATHER_FOR);
        assert!(told.len() > 1 && turnover.0.lock().values().all(|gathered| gathered.waiting.len() <= WAITING_MAX));
        let rest: usize = turnover.take(true, start).iter().map(|told| told.rows.len()).sum();
        let before: usize = told.iter().map(|told| told.rows.len()).sum::<usize>() + rows.len();
        assert_eq!(before + rest, 1_000, "each once");
    }
}
