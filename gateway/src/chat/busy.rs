//! How many durable events of a large conversation this node takes: each reaches all members.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::{ConversationId, ErrorCode, ProtocolError};

use super::Chat;
use crate::clock::now_us;
use crate::limits::{Bucket, Rate};

/// With more conversations those whose allowance is whole are forgotten.
const KNOWN_MAX: usize = 1024;

/// The allowances of large conversations on this node.
#[derive(Debug)]
pub(super) struct Allowances {
    rate: Rate,
    buckets: Mutex<HashMap<ConversationId, Bucket>>,
}

impl Allowances {
    pub(super) fn new(per_second: u32) -> Self {
        Self { rate: Rate::per_second(per_second), buckets: Mutex::default() }
    }

    fn with<T>(&self, conversation: &ConversationId, now_us: u64, take: impl FnOnce(&mut Bucket, Rate) -> T) -> T {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= KNOWN_MAX && !buckets.contains_key(conversation) {
            buckets.retain(|_, bucket| !bucket.is_whole(now_us));
        }
        take(buckets.entry(conversation.clone()).or_default(), self.rate)
    }
}

impl Chat {
    /// Takes one event of a conversation, if that is known to be large.
    pub(super) fn take_event_of(&self, conversation: &ConversationId) -> Result<(), ProtocolError> {
        if !self.members.remembered(conversation).is_some_and(|members| members.route.large) {
            return Ok(());
        }
        let now_us = now_us();
        self.large_events.with(conversation, now_us, |bucket, rate| bucket.take(rate, now_us)).map_err(|wait_us| {
            let error = ProtocolError::new(ErrorCode::RateLimited, "this conversation is too busy; wait a little");
            error.retry_after_ms(wait_us.div_ceil(1000))
        })
    }

    /// Counts an event of a large conversation that was taken already.
    pub(super) fn count_event_of(&self, conversation: &ConversationId) {
        let now_us = now_us();
        self.large_events.with(conversation, now_us, |bucket, rate| bucket.overdraw(rate, 1, now_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_conversation_has_its_own_allowance_and_those_at_rest_are_forgotten() {
        let allowances = Allowances::new(50);
        let id = |n: usize| ConversationId::parse(&format!("c{n}")).expect("an id");
        let take = |n, now_us| allowances.with(&id(n), now_us, |bucket, rate| bucket.take(rate, now_us));
        assert!((0..100).all(|_| take(0, 1_000_000).is_ok()));
        assert_eq!(take(0, 1_000_000), Err(20_000));
        assert!((1..KNOWN_MAX).all(|n| take(n, 1_000_000).is_ok()));
        assert!(take(KNOWN_MAX, 1_500_000).is_ok());
        assert_eq!(allowances.buckets.lock().len(), 2, "the busy one and the new one");
    }
}
