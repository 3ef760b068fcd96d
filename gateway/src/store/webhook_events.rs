//! The events that a backend's webhook is owed, from their commit to their end: owed until they are marked. No SQL.

use async_trait::async_trait;
use shared::{Conversation, ConversationId, Message, MessageId, Timestamp};

use super::owed::{OwedDetail, OwedKind};
use super::{Owner, StoreError};

/// Events that one call of [`WebhookEvents::repeat_events`] makes owed again, at most.
pub const REPEATED_PER_CALL: u32 = 10_000;
/// Up to here owed events are counted: a count of all would read them all.
pub(super) const COUNTED_MAX: i64 = 100_000;

/// An event that is owed, with the message and the conversation as they are now.
#[derive(Debug, Clone, PartialEq)]
pub struct DueEvent {
    /// Its id: the same however often it is posted, and in a conversation ascending.
    pub id: u64,
    /// What it tells of.
    pub kind: OwedKind,
    /// When it was committed, by the store's clock.
    pub at: Timestamp,
    /// How long ago that was, in milliseconds by the store's clock.
    pub age_ms: u64,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// The conversation's `rev` behind the change.
    pub rev: Option<u64>,
    /// Its message.
    pub message_id: Option<MessageId>,
    /// The message, unless it is gone.
    pub message: Option<Message>,
    /// The conversation as a backend sees it, for events that show it, unless it is gone.
    pub conversation: Option<Conversation>,
    /// Its other fields.
    pub detail: OwedDetail,
}

/// Which owed events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Of all conversations but these.
    AllBut(Vec<ConversationId>),
    /// Of these conversations, up to this id.
    Only(Vec<ConversationId>, u64),
}

impl Wanted {
    /// The conversations, whether they are the wanted ones, and the highest id.
    pub(super) fn columns(&self) -> (Vec<&str>, bool, i64) {
        let (conversations, only, up_to) = match self {
            Self::AllBut(conversations) => (conversations, false, i64::MAX),
            Self::Only(conversations, up_to) => (conversations, true, i64::try_from(*up_to).unwrap_or(i64::MAX)),
        };
        (conversations.iter().map(ConversationId::as_str).collect(), only, up_to)
    }
}

/// From where events are posted once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepeatFrom {
    /// From this event on.
    Id(u64),
    /// From this time on, by the store's clock.
    Time(Timestamp),
}

/// How far the delivery is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventsLag {
    /// Events that are owed; at most 100,000 are counted.
    pub owed: u64,
    /// The age of the oldest of them, in milliseconds.
    pub oldest_ms: u64,
    /// Events that are kept as dead; at most 100,000 are counted.
    pub dead: u64,
}

/// The events of the webhook after their commit.
#[async_trait]
pub trait WebhookEvents: Send + Sync + 'static {
    /// Whether `owner` delivers for the next `for_ms`: the first who asks does, until they ask no more. Zero gives it back. A
    /// lease that ends much later than this one would was written before the store's clock stepped back, and has ended.
    async fn take_webhook(&self, owner: &Owner, for_ms: u64) -> Result<bool, StoreError>;

    /// The oldest owed events that are wanted, in order of id.
    async fn due_events(&self, wanted: &Wanted, limit: u32) -> Result<Vec<DueEvent>, StoreError>;

    /// Marks events as delivered.
    async fn mark_delivered(&self, events: &[u64]) -> Result<(), StoreError>;

    /// Keeps an owed event as dead, with the reason.
    async fn bury_event(&self, event: u64, why: &str) -> Result<(), StoreError>;

    /// Makes delivered and dead events owed again, the oldest first, at most 10,000: how many, and the last of them.
    async fn repeat_events(&self, from: RepeatFrom) -> Result<(u64, Option<u64>), StoreError>;

    /// How far the delivery is behind.
    async fn events_lag(&self) -> Result<EventsLag, StoreError>;

    /// Deletes some events that were delivered more than `age_ms` ago, and some that died more than `dead_age_ms` ago;
    /// whether there may be more.
    async fn prune_events(&self, age_ms: u64, dead_age_ms: u64) -> Result<bool, StoreError>;
}
