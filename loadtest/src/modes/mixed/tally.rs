//! The events that the users of a mixed load received, by kind, with latency from the due time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use shared::ConversationId;

use super::plan::{Kind, Plan};
use crate::client::wire;
use crate::modes::schedule::Schedule;
use crate::modes::{Quantiles, micros_histogram};
use crate::speech;

/// What is not answered after this long isn't waited for any more, in microseconds: the next answer is another's.
const PATIENCE_US: u64 = 10_000_000;

/// The counts of one kind.
struct KindTally {
    asked: u64,
    answered: Histogram<u64>,
    due: u64,
    delivered: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// One kind, as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct KindOutcome {
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// Deliveries to others; read receipts and questions have none.
    pub(super) due: u64,
    pub(super) delivered: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) answer_ms: Quantiles,
    pub(super) delivery_ms: Quantiles,
}

/// What all users of a load write to.
pub(super) type SharedTally = Arc<Mutex<Tally>>;

/// The received events.
pub(super) struct Tally {
    run: String,
    plan: Plan,
    schedule: Option<Schedule>,
    kinds: BTreeMap<Kind, KindTally>,
    /// By user: those whose answer or delivery bears no number, in the order in which they left.
    typing: Vec<VecDeque<u64>>,
    reads: Vec<VecDeque<u64>>,
    users: HashMap<String, usize>,
    /// By user: the conversation with their partner.
    pub(super) conversations: Vec<Option<ConversationId>>,
    pub(super) opened: u64,
    pub(super) lost: u64,
    /// Messages that came over streams.
    pub(super) stream_deliveries: u64,
    pub(super) errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new(run: &str, plan: &Plan, kinds: impl Iterator<Item = Kind>, users: Vec<String>) -> Result<Self> {
        let of_kind = |kind| {
            let (answered, delivered) = (micros_histogram()?, micros_histogram()?);
            anyhow::Ok((kind, KindTally { asked: 0, answered, due: 0, delivered, errors: BTreeMap::new() }))
        };
        Ok(Self {
            run: run.to_owned(),
            plan: plan.clone(),
            schedule: None,
            kinds: kinds.map(of_kind).collect::<Result<_>>()?,
            typing: vec![VecDeque::new(); users.len()],
            reads: vec![VecDeque::new(); users.len()],
            conversations: vec![None; users.len()],
            users: users.into_iter().enumerate().map(|(number, user)| (user, number)).collect(),
            opened: 0,
            lost: 0,
            stream_deliveries: 0,
            errors: BTreeMap::new(),
        })
    }

    pub(super) fn begin(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
    }

    /// Number `number` leaves now, from this user, and so many others are to hear of it.
    pub(super) fn asked(&mut self, number: u64, user: usize, due: u64) {
        let (kind, _) = self.plan.of(number);
        let waiting = match kind {
            Kind::Typing => self.typing.get_mut(user),
            Kind::Read => self.reads.get_mut(user),
            Kind::Direct | Kind::Group | Kind::Presence | Kind::Connect => None,
        };
        if let Some(waiting) = waiting {
            waiting.push_back(number);
        }
        if let Some(of) = self.kinds.get_mut(&kind) {
            of.asked += 1;
            of.due += due;
        }
    }

    /// Number `number` was answered.
    pub(super) fn answered(&mut self, number: u64) {
        self.note(number, |of| &mut of.answered);
    }

    /// Number `number` can't be done.
    pub(super) fn failed(&mut self, number: u64, why: String) {
        let (kind, _) = self.plan.of(number);
        for waiting in
            self.typing.iter_mut().chain(&mut self.reads).filter(|_| matches!(kind, Kind::Typing | Kind::Read))
        {
            waiting.retain(|other| *other != number);
        }
        if let Some(of) = self.kinds.get_mut(&kind) {
            *of.errors.entry(why).or_default() += 1;
        }
    }

    fn note(&mut self, number: u64, histogram: impl FnOnce(&mut KindTally) -> &mut Histogram<u64>) {
        let (kind, _) = self.plan.of(number);
        if let (Some(of), Some(schedule)) = (self.kinds.get_mut(&kind), self.schedule) {
            histogram(of).saturating_record(schedule.since_us(number));
        }
    }

    /// Takes a frame that came to this user.
    pub(super) fn take(&mut self, user: usize, frame: &[u8]) {
        let kind = speech::kind(frame);
        match (kind, speech::message_number(frame)) {
            ("message.sent", Some(number)) => self.answered(number),
            ("message.new", Some(number)) => self.note(number, |of| &mut of.delivered),
            ("message.sent" | "message.new", None) => self.open(user, kind == "message.new", frame),
            // The server's own `false` ends a silence; only `true` was asked for.
            ("typing", _) if speech::flag(frame, "isTyping") => {
                let typist = self.users.get(speech::user_id(frame)).copied();
                let number = self.schedule.zip(typist.and_then(|typist| self.typing.get_mut(typist)));
                if let Some(number) = number.and_then(|(schedule, waiting)| next(schedule, waiting)) {
                    self.note(number, |of| &mut of.delivered);
                }
            }
            ("message.read_ack", _) => {
                let number = self.schedule.zip(self.reads.get_mut(user));
                if let Some(number) = number.and_then(|(schedule, waiting)| next(schedule, waiting)) {
                    self.answered(number);
                }
            }
            ("status.bulk", _) => {
                // The one that comes on connecting answers nothing.
                if let Some(number) = self.number_of(speech::reference(frame)) {
                    self.answered(number);
                }
            }
            ("error" | "auth_failed", _) => self.refused(frame),
            _ => {}
        }
    }

    fn open(&mut self, user: usize, received: bool, frame: &[u8]) {
        self.opened += u64::from(received);
        if let Some(of_user) = self.conversations.get_mut(user) {
            *of_user = ConversationId::parse(speech::conversation_id(frame)).ok();
        }
    }

    fn refused(&mut self, frame: &[u8]) {
        let code = wire::error_code(frame).unwrap_or_default();
        match self.number_of(speech::reference(frame)) {
            Some(number) => self.failed(number, code),
            None => *self.errors.entry(code).or_default() += 1,
        }
    }

    /// The number behind a `ref` of this run.
    fn number_of(&self, reference: &str) -> Option<u64> {
        reference.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()
    }

    /// Whether everything has come that is still worth waiting for.
    pub(super) fn is_settled(&self) -> bool {
        self.kinds.iter().all(|(kind, of)| {
            let refused: u64 = of.errors.values().sum();
            let answered = *kind == Kind::Typing || of.answered.len() + refused >= of.asked;
            answered && (refused > 0 || of.delivered.len() >= of.due)
        })
    }

    pub(super) fn outcome(&self) -> BTreeMap<Kind, KindOutcome> {
        let shown = |(kind, of): (&Kind, &KindTally)| {
            let outcome = KindOutcome {
                asked: of.asked,
                answered: of.answered.len(),
                due: of.due,
                delivered: of.delivered.len(),
                errors: of.errors.clone(),
                answer_ms: Quantiles::from(&of.answered),
                delivery_ms: Quantiles::from(&of.delivered),
            };
            (*kind, outcome)
        };
        self.kinds.iter().map(shown).collect()
    }
}

/// The next one of those that wait for something without a number.
fn next(schedule: Schedule, waiting: &mut VecDeque<u64>) -> Option<u64> {
    while let Some(number) = waiting.pop_front() {
        if schedule.since_us(number) < PATIENCE_US {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(kind: Kind) -> Tally {
        let mut shares = [Kind::Direct, Kind::Group, Kind::Typing, Kind::Read, Kind::Presence, Kind::Connect]
            .map(|each| (each, u32::from(each == kind)));
        shares.sort();
        let plan = Plan::new(shares).expect("a plan");
        let mut tally = Tally::new("run", &plan, [kind].into_iter(), vec!["u0".into(), "u1".into()]).expect("a tally");
        tally.begin(Schedule::soon(1000.0));
        tally
    }

    #[test]
    fn typing_is_told_apart_by_who_types_and_its_end_is_not_counted() {
        let mut tally = tally(Kind::Typing);
        tally.asked(0, 0, 1);
        let typing = |user: &str, on: bool| {
            let payload = format!(r#"{{"conversationId":"c","userId":"{user}","isTyping":{on}}}"#);
            format!(r#"{{"type":"typing","payload":{payload}}}"#).into_bytes()
        };
        tally.take(1, &typing("u0", false));
        tally.take(0, &typing("u1", true));
        assert!(!tally.is_settled());
        tally.take(1, &typing("u0", true));
        tally.take(1, &typing("u0", true));
        let outcome = &tally.outcome()[&Kind::Typing];
        assert_eq!((outcome.asked, outcome.due, outcome.delivered), (1, 1, 1));
        assert!(tally.is_settled());
    }

    #[test]
    fn an_error_settles_what_it_refers_to_and_nothing_else() {
        let mut tally = tally(Kind::Read);
        tally.asked(0, 1, 0);
        tally.asked(1, 1, 0);
        tally.take(1, br#"{"type":"error","payload":{"code":"RATE_LIMITED","message":"m"},"ref":"run-0"}"#);
        tally.take(1, br#"{"type":"error","payload":{"code":"UNAVAILABLE","message":"m"}}"#);
        assert!(!tally.is_settled());
        tally.take(1, br#"{"seq":1,"type":"message.read_ack","payload":{"conversationId":"c","markedCount":1}}"#);
        let outcome = &tally.outcome()[&Kind::Read];
        assert_eq!((outcome.answered, outcome.errors["RATE_LIMITED"], tally.errors["UNAVAILABLE"]), (1, 1, 1));
        assert!(tally.is_settled());
    }
}
