//! The store: what must never be lost. Two implementations, PostgreSQL and embedded SQLite, under one contract suite.
//!
//! SQL stands only below this folder. Every write that others are told of puts, in the same transaction, one
//! [`OutboxRow`] that says what is to be published, so that a crash between commit and publish loses nothing.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::{Conversation, ConversationId, ConversationKind, Message, MessageId, Role, Timestamp, UserId, Visibility};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
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
    /// It contradicts what is there (an id that is taken, an owner who can't leave).
    Conflict,
}

/// One message to store. `id` is made before the first try, so that a retry after an uncertain commit can be recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The id, from [`Store::reserve_ids`].
    pub id: MessageId,
    /// The conversation; it must exist.
    pub conversation: ConversationId,
    /// Who sends it.
    pub sender: UserId,
    /// Unique per sender, if given.
    pub temp_id: Option<String>,
    /// What the content is.
    pub kind: String,
    /// The content, without U+0000.
    pub content: String,
    /// The message that it answers; must stand in the same conversation.
    pub reply_to: Option<MessageId>,
}

/// Concurrent sends, committed in one transaction with one outbox row.
#[derive(Debug, Clone)]
pub struct SendBatch {
    /// The outbox row's id, from [`Store::reserve_ids`]; made before the first try (NOLOSS B8): a repeated
    /// call with an id that is already there returns the outcomes of the first call, all `Stored`.
    pub id: u64,
    /// Which boot of which node is going to publish it.
    pub owner: Owner,
    /// The messages, in the order in which they arrived.
    pub messages: Vec<NewMessage>,
}

/// What became of one message of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum SendOutcome {
    /// Stored now. To be published.
    Stored(StoredMessage),
    /// The sender's `temp_id` was stored before (or earlier in this batch): the original. Not to be published again.
    Duplicate(Message),
    /// Not stored.
    Refused(Refusal),
}

/// A message as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    /// The message with its `seq`, `rev` and `created_at`.
    pub message: Message,
    /// The version of the conversation's members that the commit saw.
    pub members_version: u64,
}

/// `<node name>:<random boot id>`: who publishes an outbox row.
pub type Owner = Arc<str>;

/// What is to be published after a commit: the durable events whole, except messages, which a row names by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// Who gets it.
    pub users: Vec<UserId>,
    /// Newline-separated canonical envelopes without `seq`: the durable event, then its companions.
    pub body: String,
    /// The unread count that moves with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<UnreadMove>,
}

/// How an event moves a user's unread count: both ends are only ever raised (NOLOSS B5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadMove {
    /// In this conversation.
    pub conversation: ConversationId,
    /// The highest message `seq`, if the event tells it; 0 leaves it.
    pub last_seq: u64,
    /// The `seq` up to which this user has seen the messages; 0 leaves it.
    pub seen_seq: u64,
    /// Whether the event is followed by a `notification.unread` companion.
    pub announce: bool,
}

/// A user's unread counts in one conversation: unread = `last_seq` - `seen_seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadCount {
    /// The conversation.
    pub conversation: ConversationId,
    /// The `seq` of its newest message.
    pub last_seq: u64,
    /// Up to where the user has seen.
    pub seen_seq: u64,
}

/// A receipt: a user has read, or has received, a conversation's messages up to some message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Read or delivered.
    pub kind: ReceiptKind,
    /// Who.
    pub user: UserId,
    /// Where.
    pub conversation: ConversationId,
    /// The last message; the newest if absent.
    pub up_to: Option<MessageId>,
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReceiptKind {
    /// The user saw them. Moves `read_seq` and `seen_seq` (and `delivered_seq`).
    Read,
    /// They reached a device. Moves `delivered_seq` alone.
    Delivered,
}

/// What a receipt changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptChange {
    /// The user's new position; equal to the old one when nothing changed.
    pub up_to_seq: u64,
    /// The id of the message at `up_to_seq`, if there is one.
    pub up_to: Option<MessageId>,
    /// How many messages of others the receipt newly covers.
    pub marked_count: u64,
    /// The newest of them (at most 100 in all), by sender, ascending; the receipt's user is never among them.
    pub by_sender: Vec<(UserId, Vec<MessageId>)>,
    /// The conversation's newest `seq`.
    pub last_seq: u64,
    /// Whether the position moved.
    pub moved: bool,
    /// The store's time.
    pub at: Timestamp,
}

/// A conversation to make.
#[derive(Debug, Clone)]
pub struct NewConversation {
    /// The application's id, or a generated one.
    pub id: ConversationId,
    /// Group or channel; direct ones are made by [`Store::open_direct`].
    pub kind: ConversationKind,
    /// The title.
    pub title: Option<String>,
    /// Who may join.
    pub visibility: Visibility,
    /// The password's hash (PHC string), if joining takes one.
    pub password_hash: Option<String>,
    /// Becomes the owner; `None` when a backend makes it for nobody.
    pub owner: Option<UserId>,
    /// Accepted members besides the owner.
    pub members: Vec<UserId>,
}

/// Who is in a conversation, as it is cached on a node until its version changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Direct, group or channel.
    pub kind: ConversationKind,
    /// Raised by every change of membership.
    pub version: u64,
    /// Accepted members, ascending by id.
    pub list: Vec<(UserId, Role)>,
    /// In a direct conversation: whether one of the two has blocked the other.
    pub blocked: bool,
}

impl Members {
    /// The role of `user`, if an accepted member.
    #[must_use]
    pub fn role(&self, user: &UserId) -> Option<Role> {
        let place = self.list.binary_search_by(|(member, _)| member.cmp(user)).ok()?;
        self.list.get(place).map(|(_, role)| *role)
    }
}

/// A change of membership. Roles and rights are checked inside the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipChange {
    /// `user` comes in by themselves: a public conversation whose password the caller has checked, or an invitation.
    Join,
    /// `user` goes, or declines an invitation. The last owner of a conversation with others can't.
    Leave,
    /// `by` (owner or admin, or a backend if `None`) makes `user` an accepted member.
    Add {
        /// Who adds; `None` for a backend.
        by: Option<UserId>,
        /// With which role: never owner; admin only by an owner or a backend.
        role: Role,
    },
    /// `by` (owner or admin) invites `user`.
    Invite {
        /// Who invites; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` removes `user`; an admin can't remove an owner or admin.
    Kick {
        /// Who removes; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` removes `user` and keeps them out; a non-member can be banned as well.
    Ban {
        /// Who bans; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` lets `user` come back; does not make them a member.
    Unban {
        /// Who lifts the ban; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` (an owner) gives `user` another role; a conversation keeps at least one owner.
    SetRole {
        /// Who; `None` for a backend.
        by: Option<UserId>,
        /// The new role.
        role: Role,
    },
}

/// What a change of membership did.
#[derive(Debug, Clone, PartialEq)]
pub struct MembershipOutcome {
    /// Whether anything changed.
    pub changed: bool,
    /// Whether `user` was an accepted member before.
    pub was_member: bool,
    /// Whether `user` is an accepted member now.
    pub is_member: bool,
    /// The conversation as `user` sees it afterwards.
    pub conversation: Conversation,
    /// The accepted members afterwards.
    pub members: Arc<Members>,
}

/// Builds, inside the transaction, the events that its outbox row carries.
pub type EventsOf<T> = Box<dyn Fn(&T) -> Vec<OutboxEvent> + Send + Sync>;

/// An outbox row to write with a change: its id (from [`Store::reserve_ids`]), its owner, and its events.
/// No row is written when there are no events.
pub struct OutboxRow<T> {
    /// The row's id.
    pub id: u64,
    /// Who publishes it.
    pub owner: Owner,
    /// What is to be published.
    pub events: EventsOf<T>,
}

/// Which messages of a conversation to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest ones.
    Newest,
    /// The last ones before this `seq`.
    Before(u64),
    /// The first ones after this `seq`.
    After(u64),
    /// Those changed after this `rev`, by `rev`.
    ChangedSince(u64),
}

/// An outbox row that may still have to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingRow {
    /// The row's id.
    pub id: u64,
    /// Whose it was.
    pub owner: String,
    /// When it was committed, by the store's clock.
    pub committed_at: Timestamp,
    /// Its messages, in commit order.
    pub messages: Vec<StoredMessage>,
    /// Its other events.
    pub events: Vec<OutboxEvent>,
}

/// The store. Every method ends within five seconds, with `Unavailable` if the store didn't answer.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What it is and where, for the start-up log: no password.
    fn describe(&self) -> String;

    /// `count` numbers that no other caller of this store gets, ascending: for messages, batches and conversations.
    async fn reserve_ids(&self, count: u32) -> Result<std::ops::Range<u64>, StoreError>;

    /// Stores a batch of messages in one transaction: locks the conversations by id; dedupes by
    /// `(sender, temp_id)`; checks membership, bans and blocks; numbers gapless; moves the conversation's last message,
    /// and the sender's `seen_seq`, and `read_seq` where no message of another lies between; writes the outbox row.
    /// Outcomes stand in the order of the messages. A message that can't be stored never takes others down with it.
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

    /// A conversation as `viewer` sees it (`None`: a backend, which sees all). `NotFound` for a private conversation that
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

    /// The users that share a conversation with `user`: direct ones first, then by newest activity, at most `limit`.
    async fn partners(&self, user: &UserId, limit: u32) -> Result<Vec<UserId>, StoreError>;

    /// The unread counts of `user` in every conversation of theirs, from which the backbone's cache is rebuilt.
    async fn unread(&self, user: &UserId) -> Result<Vec<UnreadCount>, StoreError>;

    /// Writes an outbox row of its own, for durable events that change nothing else (notifications).
    async fn enqueue(&self, id: u64, owner: &Owner, events: &[OutboxEvent]) -> Result<(), StoreError>;

    /// Marks rows as published under the backbone server `server`.
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

    /// Makes `server` the backbone server; `Some(previous)` if it was another one.
    async fn adopt_backbone(&self, server: &str) -> Result<Option<String>, StoreError>;

    /// Rows published under another server than `server`, in commit order, after row `after`, at most `limit`.
    async fn published_elsewhere(&self, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError>;

    /// Deletes rows that were published under the current backbone server more than `age_ms` ago; how many.
    async fn prune_outbox(&self, age_ms: u64) -> Result<u64, StoreError>;

    /// The age of the oldest unpublished row, in milliseconds by the store's clock.
    async fn outbox_age_ms(&self) -> Result<u64, StoreError>;
}
