//! Finds gaps in conversations: per conversation the highest contiguous `seq`, the highest `rev`, and how long a hole has
//! been open.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use shared::ConversationId;

use crate::rest::MessageView;

/// After this long a hole in `message.seq` is fetched.
const HOLE_PATIENCE: Duration = Duration::from_secs(5);

/// The marks and holes of all conversations of one device.
#[derive(Debug, Default)]
pub struct GapTracker {
    conversations: HashMap<ConversationId, Track>,
}

#[derive(Debug, Default)]
struct Track {
    base_known: bool,
    contiguous: u64,
    ahead: BTreeSet<u64>,
    rev: u64,
    hole_since: Option<Instant>,
}

impl GapTracker {
    /// Tells that this run begins behind `base` in a conversation; nothing is known to be missing before that.
    pub fn begin(&mut self, conversation: &ConversationId, base: u64) {
        let track = self.conversations.entry(conversation.clone()).or_default();
        if !track.base_known {
            track.base_known = true;
            track.contiguous = track.contiguous.max(base);
            track.absorb();
        }
    }

    /// Takes a message, however it came.
    pub fn take(&mut self, message: &MessageView, now: Instant) {
        if !self.conversations.contains_key(&message.conversation_id) {
            self.conversations.insert(message.conversation_id.clone(), Track::default());
        }
        let Some(track) = self.conversations.get_mut(&message.conversation_id) else { return };
        track.rev = track.rev.max(message.rev);
        let before = track.contiguous;
        if message.seq > track.contiguous {
            track.ahead.insert(message.seq);
            track.absorb();
        }
        // Patience is with one hole: when the mark has moved, what is open now is another.
        let since = track.hole_since.filter(|_| track.contiguous == before).unwrap_or(now);
        track.hole_since = (!track.ahead.is_empty()).then_some(since);
    }

    /// The highest contiguous `seq` and the highest `rev` of a conversation.
    #[must_use]
    pub fn marks(&self, conversation: &ConversationId) -> (u64, u64) {
        self.conversations.get(conversation).map_or((0, 0), |track| (track.contiguous, track.rev))
    }

    /// The conversations whose hole has been open too long; their patience starts anew.
    pub fn overdue(&mut self, now: Instant) -> Vec<ConversationId> {
        let mut overdue = Vec::new();
        for (conversation, track) in &mut self.conversations {
            let open = track.base_known && !track.ahead.is_empty();
            if open && track.hole_since.is_some_and(|since| now.duration_since(since) >= HOLE_PATIENCE) {
                track.hole_since = Some(now);
                overdue.push(conversation.clone());
            }
        }
        overdue
    }
}

impl Track {
    fn absorb(&mut self) {
        while let Some(&next) = self.ahead.first() {
            if next > self.contiguous + 1 {
                break;
            }
            self.ahead.pop_first();
            self.contiguous = self.contiguous.max(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::{MessageId, UserId};

    use super::*;

    fn message(seq: u64) -> MessageView {
        MessageView {
            id: MessageId::new(seq + 100).expect("an id"),
            conversation_id: ConversationId::parse("c").expect("an id"),
            seq,
            rev: seq * 2,
            sender_id: UserId::parse("u").expect("an id"),
            temp_id: None,
        }
    }

    #[test]
    fn a_hole_keeps_the_mark_and_is_overdue_after_five_seconds() {
        let conversation = ConversationId::parse("c").expect("an id");
        let start = Instant::now();
        let mut gaps = GapTracker::default();
        gaps.begin(&conversation, 4);
        for seq in [5, 7, 8] {
            gaps.take(&message(seq), start);
        }
        assert_eq!(gaps.marks(&conversation), (5, 16));
        assert!(gaps.overdue(start + HOLE_PATIENCE / 2).is_empty());
        assert_eq!(gaps.overdue(start + HOLE_PATIENCE), std::slice::from_ref(&conversation));
        gaps.take(&message(6), start + HOLE_PATIENCE);
        assert_eq!(gaps.marks(&conversation), (8, 16));
        assert!(gaps.overdue(start + HOLE_PATIENCE * 4).is_empty());
    }

    #[test]
    fn what_was_seen_before_the_beginning_was_known_counts() {
        let conversation = ConversationId::parse("c").expect("an id");
        let mut gaps = GapTracker::default();
        gaps.take(&message(41), Instant::now());
        assert!(gaps.overdue(Instant::now() + HOLE_PATIENCE * 2).is_empty(), "no base, no hole");
        gaps.begin(&conversation, 40);
        assert_eq!(gaps.marks(&conversation).0, 41);
    }
}
