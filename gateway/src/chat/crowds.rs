//! How many comings and goings of a large conversation this node tells all members one by one. Of the others they are told the
//! number of members.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shared::ConversationId;

/// Comings and goings that are told one by one in each such time.
const TOLD_MAX: usize = 20;
const PERIOD: Duration = Duration::from_secs(1);

/// The large conversations where somebody came or went within the last second.
#[derive(Debug, Default)]
pub(super) struct Crowds(Mutex<HashMap<ConversationId, Crowd>>);

#[derive(Debug)]
struct Crowd {
    since: Instant,
    told: usize,
    /// More came and went than were told.
    waits: bool,
}

impl Crowds {
    /// Whether so many comings and goings are told one by one. If not, the number of members is told later.
    pub(super) fn takes(&self, conversation: &ConversationId, count: usize, now: Instant) -> bool {
        let mut all = self.0.lock();
        let crowd = all.entry(conversation.clone()).or_insert(Crowd { since: now, told: 0, waits: false });
        if now.duration_since(crowd.since) >= PERIOD && !crowd.waits {
            (crowd.since, crowd.told) = (now, 0);
        }
        let takes = crowd.told + count <= TOLD_MAX;
        crowd.told += if takes { count } else { 0 };
        crowd.waits |= !takes;
        takes
    }

    /// The conversations whose number of members is to be told. Those that have come to rest are forgotten.
    pub(super) fn due(&self, now: Instant) -> Vec<ConversationId> {
        let mut due = Vec::new();
        self.0.lock().retain(|conversation, crowd| {
            let is_over = now.duration_since(crowd.since) >= PERIOD;
            if is_over && crowd.waits {
                due.push(conversation.clone());
                *crowd = Crowd { since: now, told: 0, waits: false };
                return true;
            }
            !is_over
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_a_second_are_told_one_by_one() {
        let (crowds, id, start) = (Crowds::default(), ConversationId::parse("c").expect("an id"), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!((0..22).filter(|n| crowds.takes(&id, 1, at(*n))).count(), 20);
        assert_eq!(crowds.due(at(900)), []);
        assert_eq!(crowds.due(at(1000)), std::slice::from_ref(&id));
        assert!(!crowds.takes(&id, 21, at(1001)), "many at once");
        assert!(crowds.takes(&id, 20, at(1002)));
        assert_eq!((crowds.due(at(1500)), crowds.due(at(2100))), (vec![], vec![id.clone()]));
        assert_eq!(crowds.due(at(3200)), []);
        assert!(crowds.0.lock().is_empty(), "it is forgotten at rest");
        assert!(crowds.takes(&id, 1, at(4000)) && crowds.takes(&id, 20, at(5000)), "each second anew");
    }
}
