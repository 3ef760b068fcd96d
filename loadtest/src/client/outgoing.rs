//! Messages on their way: each is repeated with the same `tempId` until it is acknowledged or refused for good.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shared::{ConversationId, UserId};

/// The most sends of one device without an answer; more wait behind them.
const IN_FLIGHT_MAX: usize = 32;
/// After this long without an answer a send is repeated on the same connection.
const ANSWER_PATIENCE: Duration = Duration::from_secs(6);

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendTo {
    /// Into a conversation.
    Conversation(ConversationId),
    /// To a user; opens the direct conversation.
    User(UserId),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The sender's name for it, also the frame's `ref`.
    pub temp_id: String,
    /// Where it goes.
    pub to: SendTo,
    /// What it says.
    pub content: String,
}

impl Send {
    /// The frame.
    #[must_use]
    pub fn frame(&self) -> String {
        let (field, target) = match &self.to {
            SendTo::Conversation(id) => ("conversationId", id.as_str()),
            SendTo::User(id) => ("to", id.as_str()),
        };
        let payload = serde_json::json!({ field: target, "content": self.content, "tempId": self.temp_id });
        serde_json::json!({ "type": "message.send", "ref": self.temp_id, "payload": payload }).to_string()
    }
}

#[derive(Debug)]
struct InFlight {
    send: Send,
    due: Instant,
}

/// The sends of one device, in order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<Send>,
    in_flight: VecDeque<InFlight>,
}

impl Outgoing {
    /// Adds a message.
    pub(super) fn push(&mut self, send: Send) {
        self.waiting.push_back(send);
    }

    /// How many are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// The frames to send now: repeats that are due, then new ones.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let mut frames = Vec::new();
        for flight in self.in_flight.iter_mut().filter(|flight| flight.due <= now) {
            flight.due = now + ANSWER_PATIENCE;
            frames.push(flight.send.frame());
        }
        while self.in_flight.len() < IN_FLIGHT_MAX
            && let Some(send) = self.waiting.pop_front()
        {
            frames.push(send.frame());
            self.in_flight.push_back(InFlight { send, due: now + ANSWER_PATIENCE });
        }
        frames
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

    fn send(temp_id: &str) -> Send {
        Send { temp_id: temp_id.into(), to: SendTo::User(UserId::parse("u1").expect("an id")), content: "hi".into() }
    }

    #[test]
    fn a_send_is_repeated_under_its_name_until_it_is_settled() {
        let start = Instant::now();
        let mut outgoing = Outgoing::default();
        outgoing.push(send("t1"));
        let first = outgoing.due(start);
        assert_eq!(first.len(), 1);
        assert!(outgoing.due(start + ANSWER_PATIENCE / 2).is_empty());
        assert_eq!(outgoing.due(start + ANSWER_PATIENCE), first);
        outgoing.reconnected(start);
        assert_eq!(outgoing.due(start), first);
        assert!(outgoing.settle("t1") && !outgoing.settle("t1"));
        assert_eq!(outgoing.unsettled(), 0);
    }

    #[test]
    fn no_more_than_the_bound_is_in_flight_and_the_rest_keeps_its_order() {
        let mut outgoing = Outgoing::default();
        for n in 0..IN_FLIGHT_MAX + 2 {
            outgoing.push(send(&format!("t{n}")));
        }
        assert_eq!(outgoing.due(Instant::now()).len(), IN_FLIGHT_MAX);
        assert!(outgoing.due(Instant::now()).is_empty());
        outgoing.settle("t0");
        let next = outgoing.due(Instant::now());
        assert!(next.len() == 1 && next[0].contains(&format!("\"t{IN_FLIGHT_MAX}\"")), "{next:?}");
    }
}
