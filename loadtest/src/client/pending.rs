//! Sends without an answer: each is retried with the same `tempId` until it is acknowledged or refused for good.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shared::{ConversationId, UserId};

/// The most sends of one device without an answer; more wait behind them.
const IN_FLIGHT_MAX: usize = 32;
/// After this long without an answer a send is repeated on the same connection.
const ANSWER_PATIENCE: Duration = Duration::from_secs(6);
/// A device keeps below the default of `COMMANDS_PER_SECOND` (50, twice that at once), as every client should: what an
/// outage has held up would otherwise be refused, and in the end close the connection.
const PACE: Duration = Duration::from_millis(25);
const AT_ONCE: Duration = Duration::from_secs(2);

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// Into a conversation.
    Conversation(ConversationId),
    /// To a user; opens the direct conversation.
    User(UserId),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// The sender's name for it, also the frame's `ref`.
    pub temp_id: String,
    /// Where it goes.
    pub to: Recipient,
    /// The content.
    pub content: String,
}

impl OutgoingMessage {
    /// The frame.
    #[must_use]
    pub fn frame(&self) -> String {
        let payload = self.payload();
        serde_json::json!({ "type": "message.send", "ref": self.temp_id, "payload": payload }).to_string()
    }

    /// The payload of the frame, which is the body of the request over REST as well.
    #[must_use]
    pub fn payload(&self) -> serde_json::Value {
        let (field, target) = match &self.to {
            Recipient::Conversation(id) => ("conversationId", id.as_str()),
            Recipient::User(id) => ("to", id.as_str()),
        };
        serde_json::json!({ field: target, "content": self.content, "tempId": self.temp_id })
    }
}

#[derive(Debug)]
struct PendingSend {
    send: OutgoingMessage,
    due: Instant,
}

/// The sends of one device, in order.
#[derive(Debug, Default)]
pub(super) struct PendingSends {
    waiting: VecDeque<OutgoingMessage>,
    in_flight: VecDeque<PendingSend>,
    /// When all that was sent is paid for, at one in [`PACE`].
    paid_at: Option<Instant>,
}

impl PendingSends {
    /// Adds a message.
    pub(super) fn push(&mut self, send: OutgoingMessage) {
        self.waiting.push_back(send);
    }

    /// How many are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// The messages to send now, as many as the pace allows: repeats that are due, then new ones.
    pub(super) fn due(&mut self, now: Instant) -> Vec<OutgoingMessage> {
        let Self { waiting, in_flight, paid_at } = self;
        let mut may_send = || {
            let paid = paid_at.map_or(now, |at| at.max(now)) + PACE;
            let is_allowed = paid <= now + AT_ONCE;
            if is_allowed {
                *paid_at = Some(paid);
            }
            is_allowed
        };
        let mut due = Vec::new();
        for flight in in_flight.iter_mut().filter(|flight| flight.due <= now) {
            if !may_send() {
                return due;
            }
            flight.due = now + ANSWER_PATIENCE;
            due.push(flight.send.clone());
        }
        while in_flight.len() < IN_FLIGHT_MAX
            && !waiting.is_empty()
            && may_send()
            && let Some(send) = waiting.pop_front()
        {
            due.push(send.clone());
            in_flight.push_back(PendingSend { send, due: now + ANSWER_PATIENCE });
        }
        due
    }

    /// Settles a send; `false` if it wasn't under way.
    pub(super) fn settle(&mut self, temp_id: &str) -> bool {
        let at = self.in_flight.iter().position(|flight| flight.send.temp_id == temp_id);
        at.and_then(|at| self.in_flight.remove(at)).is_some()
    }

    /// The server asks to repeat a send after a while.
    pub(super) fn postpone(&mut self, temp_id: &str, until: Instant) {
        for flight in self.in_flight.iter_mut().filter(|flight| flight.send.temp_id == temp_id) {
            flight.due = until;
        }
    }

    /// A new connection: nothing that was sent on the old one will be answered here.
    pub(super) fn reconnected(&mut self, now: Instant) {
        for flight in &mut self.in_flight {
            flight.due = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(temp_id: &str) -> OutgoingMessage {
        OutgoingMessage {
            temp_id: temp_id.into(),
            to: Recipient::User(UserId::parse("u1").expect("an id")),
            content: "hi".into(),
        }
    }

    #[test]
    fn a_send_is_repeated_under_its_name_until_it_is_settled() {
        let start = Instant::now();
        let mut pending = PendingSends::default();
        pending.push(send("t1"));
        let first = pending.due(start);
        assert_eq!(first.len(), 1);
        assert!(pending.due(start + ANSWER_PATIENCE / 2).is_empty());
        let later = start + ANSWER_PATIENCE;
        assert_eq!(pending.due(later), first);
        pending.reconnected(later);
        assert_eq!(pending.due(later), first);
        assert!(pending.settle("t1") && !pending.settle("t1"));
        assert_eq!(pending.unsettled(), 0);
    }

    #[test]
    fn no_more_than_the_bound_is_in_flight_and_the_rest_keeps_its_order() {
        let mut pending = PendingSends::default();
        for n in 0..IN_FLIGHT_MAX + 2 {
            pending.push(send(&format!("t{n}")));
        }
        assert_eq!(pending.due(Instant::now()).len(), IN_FLIGHT_MAX);
        assert!(pending.due(Instant::now()).is_empty());
        pending.settle("t0");
        let next = pending.due(Instant::now());
        assert_eq!(next, [send(&format!("t{IN_FLIGHT_MAX}"))]);
    }

    #[test]
    fn a_backlog_is_sent_at_the_pace_of_the_limits() {
        let start = Instant::now();
        let mut pending = PendingSends::default();
        for n in 0..300 {
            pending.push(send(&format!("t{n}")));
        }
        let mut sent_within = |from: Instant, time: Duration| {
            let mut sent = 0;
            for at in 0..=time.as_millis() {
                let due = pending.due(from + Duration::from_millis(at.try_into().expect("a short time")));
                due.iter().for_each(|message| assert!(pending.settle(&message.temp_id)));
                sent += due.len();
            }
            sent
        };
        assert_eq!(sent_within(start, Duration::ZERO), IN_FLIGHT_MAX);
        assert_eq!(sent_within(start, Duration::from_secs(1)), 80 - IN_FLIGHT_MAX + 40);
        assert_eq!(sent_within(start + Duration::from_millis(1001), Duration::from_secs(1)), 40);
    }
}
