//! The store: what must never be lost. Two implementations, PostgreSQL and embedded SQLite, under one contract suite.
//!
//! SQL stands only below this folder. Every write that others are told of puts, in the same transaction, one
//! [`OutboxRow`] that says what is to be published, so that a crash between commit and publish loses nothing.

mod activity;
mod audit;
mod bulk;
mod by_user;
mod changes;
mod connect;
mod directs;
pub mod group_commit;
mod ids;
mod lane;
mod lookups;
mod membership;
mod migrations;
mod notifications;
mod people;
mod positions;
mod postgres;
mod revocations;
mod roster;
mod sqlite;
mod types;

use async_trait::async_trait;
use shared::{Conversation, ConversationId, Message, Timestamp, UserId};

pub use activity::{Activity, ChannelActivity, ChannelCount};
pub use audit::{Audit, AuditAct, AuditEntry};
pub use bulk::{BulkMembers, MembersAdded};
pub use by_user::{Partners, UnreadCounts};
pub use changes::{Changes, EMOJIS_MAX, MessageChange, MessageOutcome, REACTIONS_MAX};
pub use connect::connect;
pub use directs::Directs;
pub use group_commit::{CommittedBatch, CommittedEvents, GroupCommit, GroupCommitSettings, NewMessageDraft};
pub use ids::IdBlock;
pub use lookups::Lookups;
pub use notifications::{KeptNotification, Notifications};
pub use revocations::Revocations;
pub use roster::Roster;
pub use types::*;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store is away or did not answer in time; whether a write was carried out is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A fault in a statement or in the data; a retry won't help.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The request was understood and refused.
    #[error("refused: {0:?}")]
    Refused(Refusal),
}

/// Why a write was refused; the caller turns it into an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such conversation, user or message, or none that this user may know of.
    NotFound,
    /// The user is no accepted member.
    NotMember,
    /// The user is banned.
    Banned,
    /// One of the two has blocked the other.
    Blocked,
    /// The member's role doesn't allow it.
    Forbidden,
    /// The conversation has [`MEMBERS_MAX`] members.
    Full,
    /// It contradicts what is there (an id that is taken, an owner who can't leave).
    Conflict,
    /// There is as much of it as there may be.
    Limit,
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The store. Every method ends within five seconds, with `Unavailable` if the store didn't answer.
#[async_trait]
pub trait Store:
    Activity
    + Audit
    + BulkMembers
    + Changes
    + Directs
    + Lookups
    + Notifications
    + Revocations
    + Roster
    + Send
    + Sync
    + 'static
{
    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What it is and where, for the start-up log: no password.
    fn describe(&self) -> String;

    /// `count` numbers that no other caller of this store gets, ascending: for messages, batches and conversations.
    async fn reserve_ids(&self, count: u32) -> Result<std::ops::Range<u64>, StoreError>;

    /// Stores a batch of messages in one transaction: locks the conversations by id; dedupes by
    /// `(sender, temp_id)`; checks membership, bans and blocks; numbers gapless; moves the conversation's last message,
    /// and the sender's `seen_seq`, and `read_seq` where no message of another lies between; writes the outbox row.
    /// Outcomes stand in the order of the messages. `Failed` means that nothing of the batch was stored;
    /// [`GroupCommit`] then goes on message by message.
    async fn send(&self, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError>;

    /// Applies receipts in one transaction with one outbox row of all their events; outcomes in order.
    /// `Refused(NotMember)`, `Refused(NotFound)` stand for one receipt each.
    async fn receipts(
        &self,
        receipts: &[Receipt],
        outbox: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError>;

    /// The direct conversation of the two, made with `id` if there is none; `true` if it was made now.
    /// Two users that are the same make a conversation with oneself. Refused if one has blocked the other and there is none.
    async fn open_direct(
        &self,
        pair: (&UserId, &UserId),
        id: &ConversationId,
        outbox: OutboxRow<Conversation>,
    ) -> Result<(Conversation, bool), StoreError>;

    /// Makes a group or channel; `Conflict` if the id is taken.
    async fn create_conversation(
        &self,
        new: &NewConversation,
        outbox: OutboxRow<Conversation>,
    ) -> Result<Conversation, StoreError>;

    /// A conversation as `viewer` sees it (`None`: a backend, which sees all). `NotMember` for a private conversation that
    /// the viewer is neither a member of nor invited to.
    async fn conversation(&self, id: &ConversationId, viewer: Option<&UserId>) -> Result<Conversation, StoreError>;

    /// The conversations of which `user` is an accepted member, newest activity first, after the first `offset`.
    async fn conversations(&self, user: &UserId, offset: u64, limit: u32) -> Result<Vec<Conversation>, StoreError>;

    /// The password hash of a conversation that can be joined by `user`; `NotFound`, `Banned` or `Forbidden` (private, not
    /// invited) otherwise. An invited user needs no password and gets `None`.
    async fn join_password(&self, id: &ConversationId, user: &UserId) -> Result<Option<String>, StoreError>;

    /// Changes who is in a conversation.
    async fn change_membership(
        &self,
        id: &ConversationId,
        user: &UserId,
        change: &MembershipChange,
        outbox: OutboxRow<MembershipOutcome>,
    ) -> Result<MembershipOutcome, StoreError>;

    /// The accepted members of a conversation; `NotFound` if there is none.
    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError>;

    /// Messages of a conversation, ascending by `seq` (by `rev` for `ChangedSince`). The caller has checked membership.
    async fn messages(&self, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError>;

    /// Blocks or unblocks; `true` if that changed something.
    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
        outbox: OutboxRow<bool>,
    ) -> Result<bool, StoreError>;

    /// Keeps the names that tokens gave for users; a name that another user had goes to the newest.
    async fn remember_usernames(&self, users: &[(UserId, String)]) -> Result<(), StoreError>;

    /// Who last came with this user name.
    async fn user_by_name(&self, username: &str) -> Result<Option<UserId>, StoreError>;

    /// When users' last connections closed.
    async fn set_last_seen(&self, users: &[(UserId, Timestamp)]) -> Result<(), StoreError>;

    /// For each of `users`, in their order, the users that share a conversation with them: direct ones first, then by newest
    /// activity, at most `limit` of each. Conversations of more than `limit` others don't count.
    async fn partners(&self, users: &[UserId], limit: u32) -> Result<Vec<Vec<UserId>>, StoreError>;

    /// For each of `users`, in their order, the unread counts in every conversation of theirs, from which the backbone's cache
    /// is rebuilt.
    async fn unread(&self, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError>;

    /// Writes an outbox row of its own, for durable events that change nothing else (notifications).
    async fn enqueue(&self, id: u64, owner: &Owner, events: &[OutboxEvent]) -> Result<(), StoreError>;

    /// Marks rows as published under the backbone server `server`, unless that is retired: then they stay unpublished. Of
    /// several servers, named with `-` between them, none may be retired.
    async fn mark_published(&self, rows: &[u64], server: &str) -> Result<(), StoreError>;

    /// Beats this owner's lease (the store's clock); other owners' leases that are older than `lease_ms` count as ended.
    async fn beat(&self, owner: &Owner) -> Result<(), StoreError>;

    /// Whether `owner`'s lease was beaten less than `lease_ms` ago.
    async fn lease_is_live(&self, owner: &str, lease_ms: u64) -> Result<bool, StoreError>;

    /// Takes over, for `owner`, up to `limit` unpublished rows, oldest first, that were committed more than `min_age_ms` ago
    /// and whose owner is `owner` itself, an older boot of the same node, or without a live lease.
    async fn take_unpublished(
        &self,
        owner: &Owner,
        lease_ms: u64,
        min_age_ms: u64,
        limit: u32,
    ) -> Result<Vec<PendingRow>, StoreError>;

    /// Retires a backbone server: a node has left it for another.
    async fn retire_backbone(&self, server: &str) -> Result<(), StoreError>;

    /// Whether a node has left this backbone server for another; of several, named with `-` between them, any.
    async fn is_backbone_retired(&self, server: &str) -> Result<bool, StoreError>;

    /// Makes `server` the backbone server; `Some(previous)` if it was another one.
    async fn adopt_backbone(&self, server: &str) -> Result<Option<String>, StoreError>;

    /// Rows published under another server than `server`, in commit order, after row `after`, at most `limit`.
    async fn published_elsewhere(&self, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError>;

    /// Deletes rows that were published under the current backbone server more than `age_ms` ago; how many.
    async fn prune_outbox(&self, age_ms: u64) -> Result<u64, StoreError>;

    /// The age of the oldest unpublished row, in milliseconds by the store's clock.
    async fn outbox_age_ms(&self) -> Result<u64, StoreError>;
}
