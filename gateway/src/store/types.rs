//! What goes into the store and comes out of it: plain data, no SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::{Conversation, ConversationId, ConversationKind, Message, MessageId, Role, Timestamp, UserId, Visibility};

use super::Refusal;

/// The most accepted members of a conversation.
pub const MEMBERS_MAX: usize = 10_000;

/// The members that a [`Conversation`] lists.
pub(super) const MEMBERS_SHOWN_MAX: u32 = 100;

/// The message ids that a [`ReceiptChange`] lists.
pub(super) const MARKED_IDS_MAX: u32 = 100;

/// One message to store. `id` is made before the first try, so that a retry after an uncertain commit can be recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// The id, from [`Ids::reserve_ids`](super::Ids::reserve_ids).
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

impl NewMessage {
    /// It, as it was stored just now.
    #[must_use]
    pub fn stored(&self, seq: u64, rev: u64, created_at: Timestamp) -> Message {
        Message {
            id: self.id,
            conversation_id: self.conversation.clone(),
            seq,
            rev,
            sender_id: self.sender.clone(),
            kind: self.kind.clone(),
            content: self.content.clone(),
            temp_id: self.temp_id.clone(),
            reply_to: self.reply_to,
            created_at,
            edited_at: None,
            deleted_at: None,
            reactions: BTreeMap::new(),
        }
    }
}

/// Concurrent sends, committed in one transaction with one outbox row.
#[derive(Debug, Clone)]
pub struct SendBatch {
    /// The outbox row's id, from [`Ids::reserve_ids`](super::Ids::reserve_ids); made before the first try (NOLOSS B8): a repeated
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
    /// Group or channel; direct ones are made by [`Conversations::open_direct`](super::Conversations::open_direct).
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

impl NewConversation {
    /// The accepted members with their roles, each once.
    pub(super) fn roles(&self) -> BTreeMap<&UserId, Role> {
        let members = self.members.iter().map(|user| (user, Role::Member));
        members.chain(self.owner.iter().map(|owner| (owner, Role::Owner))).collect()
    }
}

/// Who is in a conversation, as it is cached on a node until its version changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Direct, group or channel.
    pub kind: ConversationKind,
    /// Raised by every change of membership.
    pub version: u64,
    /// The newest message when somebody last came or went: these are the members that every later message was for.
    pub since_seq: u64,
    /// Accepted members, ascending by id.
    pub list: Vec<(UserId, Role)>,
    /// In a direct conversation: whether one of the two has blocked the other.
    pub blocked: bool,
}

impl Members {
    /// Puts `user` into the list with a role, or takes them out, and raises the version.
    pub(super) fn set(&mut self, user: &UserId, role: Option<Role>) {
        self.version += 1;
        match (self.list.binary_search_by(|(member, _)| member.cmp(user)), role) {
            (Ok(place), Some(role)) => {
                if let Some((_, old)) = self.list.get_mut(place) {
                    *old = role;
                }
            }
            (Ok(place), None) => drop(self.list.remove(place)),
            (Err(place), Some(role)) => self.list.insert(place, (user.clone(), role)),
            (Err(_), None) => {}
        }
    }

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

impl MembershipChange {
    /// Who does it; `None` for a backend, and where users do it themselves.
    #[must_use]
    pub fn by(&self) -> Option<&UserId> {
        match self {
            Self::Join | Self::Leave => None,
            Self::Add { by, role: _ }
            | Self::Invite { by }
            | Self::Kick { by }
            | Self::Ban { by }
            | Self::Unban { by }
            | Self::SetRole { by, role: _ } => by.as_ref(),
        }
    }
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

/// An outbox row to write with a change: its id (from [`Ids::reserve_ids`](super::Ids::reserve_ids)), its owner, and its events.
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
