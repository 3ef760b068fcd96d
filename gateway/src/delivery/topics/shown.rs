//! An event of a large conversation on its way to sockets: framed once for each dialect, and shared by all.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::{Timestamp, UserId};

use crate::delivery::envelope::{TopicPayload, as_sent};
use crate::delivery::frames::Frames;
use crate::delivery::send_queue::{PushOutcome, SendQueue};

/// An event with its frames.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) rev: u64,
    /// The place of the message that it brings.
    pub(super) seq: Option<u64>,
    /// The sender of that message, and their name for it.
    pub(super) sender: Option<(UserId, Option<String>)>,
    envelope: Bytes,
    frames: Frames<'static>,
    /// Those for the sender's connections, made when the first of them asks.
    own: OnceCell<Frames<'static>>,
    /// When the message was accepted, if it was published just now.
    accepted_at: Option<Instant>,
}

impl Shown {
    /// An event that was published just now, after its check.
    pub(super) fn live(payload: TopicPayload<'_>, envelope: Bytes) -> Self {
        let age_ms = |time: Timestamp| Timestamp::now().unix_ms().saturating_sub(time.unix_ms());
        let age = payload.message.as_ref().map(|message| age_ms(message.created_at));
        let age = age.map(|age_ms| Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)));
        let accepted_at = age.and_then(|age| Instant::now().checked_sub(age));
        Self { accepted_at, ..Self::read(payload, envelope) }
    }

    /// One that was read from the store.
    pub(super) fn read(payload: TopicPayload<'_>, envelope: Bytes) -> Self {
        let TopicPayload { rev, kind: _, message } = payload;
        let seq = message.as_ref().map(|message| message.seq);
        let sender = message.map(|message| (message.sender, message.temp_id));
        let frames = Frames::new(envelope.to_vec(), None);
        Self { rev, seq, sender, envelope, frames, own: OnceCell::new(), accepted_at: None }
    }

    /// The bytes of its envelope.
    pub(super) fn bytes(&self) -> usize {
        self.envelope.len()
    }

    /// Whether this user sent the message that it brings.
    pub(super) fn is_by(&self, user: &UserId) -> bool {
        self.sender.as_ref().is_some_and(|(sender, _)| sender == user)
    }

    /// Hands it to a socket; `is_own`: of the user who sent it.
    pub(super) fn push(&self, queue: &SendQueue, is_own: bool) -> PushOutcome {
        let temp_id = self.sender.as_ref().and_then(|(_, temp_id)| temp_id.as_deref());
        if !is_own {
            return queue.push_shared(self.frames.on(queue.wire()), None, self.accepted_at);
        }
        let own = self.own.get_or_init(|| Frames::new(as_sent(&self.envelope, temp_id).unwrap_or_default(), None));
        queue.push_shared(own.on(queue.wire()), temp_id, self.accepted_at)
    }
}
