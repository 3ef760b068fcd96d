//! The values that go into the store and come out of it: plain data, no SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::{Conversation, ConversationId, ConversationKind, MessageId, Role, Timestamp, UserId, Visibility};

use super::owed::OwedEvent;

/// The most accepted members of a conversation.
pub const MEMBERS_MAX: usize = 10_000;

/// The members that a [`Conversation`] lists.
pub(super) const MEMBERS_SHOWN_MAX: u32 = 100;

/// The message ids that a [`ReceiptChange`] lists.
pub(super) const MARKED_IDS_MAX: u32 = 100;

/// The publisher of an outbox row: `<node name>:<random boot id>`.
pub type Owner = Arc<str>;

/// A durable event, to be published after its commit. Messages are no such events: an outbox row names them by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// Its recipients.
    pub users: Vec<UserId>,
    /// Newline-separated canonical envelopes without `seq`: the durable event, then its companions.
    pub body: String,
    /// A large conversation, all of whose members it is for; then `users` is empty, and the envelope has its `rev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<ConversationId>,
}

/// A user's unread counts in one conversation: unread = `last_seq` - `seen_seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadCount {
    /// The conversation.
    pub conversation: ConversationId,
    /// The `seq` of its newest message.
    pub last_seq: u64,
    /// The `seq` up to which the user has seen the messages.
    pub seen_seq: u64,
}

/// A receipt: a user has read, or has received, a conversation's messages up to some message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Read or delivered.
    pub kind: ReceiptKind,
    /// The user who has read or received them.
    pub user: UserId,
    /// Their conversation.
    pub conversation: ConversationId,
    /// The last message; the newest if absent.
    pub up_to: Option<MessageId>,
}

/// The kind of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReceiptKind {
    /// The user saw them. Moves `read_seq` and `seen_seq` (and `delivered_seq`).
    Read,
    /// They reached a device. Moves `delivered_seq` alone.
    Delivered,
}

/// The change that a receipt made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptChange {
    /// The user's new position; equal to the old one when nothing changed.
    pub up_to_seq: u64,
    /// The id of the message at `up_to_seq`, if there is one.
    pub up_to: Option<MessageId>,
    /// How many messages of others the receipt newly covers.
    pub marked_count: u64,
    /// The newest of them (at most 100 in all), by sender, ascending. Only senders who learn of the receipt: members of
    /// now, between whom and the receipt's user there is no block. The receipt's user is never among them.
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
    /// Whether everybody may join, or only invited users.
    pub visibility: Visibility,
    /// The password's hash (PHC string), if joining takes one.
    pub password_hash: Option<String>,
    /// The owner to be; `None` if a backend makes it without an owner.
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

/// Which way the events of a conversation go: once for all members, or into the log of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// Whether the conversation is large now.
    pub large: bool,
    /// How many accepted members it has.
    pub count: u64,
    /// When it became large or small again, oldest first.
    pub crossings: Vec<Crossing>,
}

/// A conversation became large, or small again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// The newest message then. Later ones go the new way, however late they are published.
    pub last_seq: u64,
    /// Whether it became large.
    pub large: bool,
}

impl Route {
    /// Whether the message `seq` goes out once for all members: as its commit found the conversation.
    #[must_use]
    pub fn is_large_at(&self, seq: u64) -> bool {
        let before = self.crossings.iter().rev().find(|crossing| crossing.last_seq < seq);
        before.is_some_and(|crossing| crossing.large)
    }
}

/// The members of a conversation. A node caches them until their version changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Direct, group or channel.
    pub kind: ConversationKind,
    /// Raised by every change of membership.
    pub version: u64,
    /// The newest message when somebody last came or went. Every later message was for the members of now.
    pub since_seq: u64,
    /// Accepted members, ascending by id. Of a large conversation none, where its events are concerned.
    pub list: Vec<(UserId, Role)>,
    /// In a direct conversation: whether one of the two has blocked the other.
    pub blocked: bool,
    /// Which way its events go.
    pub route: Route,
}

impl Members {
    /// Puts `user` into the list with a role, or removes them, and raises the version.
    pub(super) fn set(&mut self, user: &UserId, role: Option<Role>) {
        self.version += 1;
        match (self.list.binary_search_by(|(member, _)| member.cmp(user)), role) {
            (Ok(place), Some(role)) => {
                if let Some((_, old)) = self.list.get_mut(place) {
                    *old = role;
                }
            }
            (Ok(place), None) => {
                self.list.remove(place);
                self.route.count = self.route.count.saturating_sub(1);
            }
            (Err(place), Some(role)) => {
                self.list.insert(place, (user.clone(), role));
                self.route.count += 1;
            }
            (Err(_), None) => {}
        }
    }

    /// How many there are, whether they are listed or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len().max(usize::try_from(self.route.count).unwrap_or(usize::MAX))
    }

    /// In a direct conversation: whom a message of `sender` is to. That is themselves where they talk to themselves.
    #[must_use]
    pub fn recipient_of<'a>(&'a self, sender: &'a UserId) -> Option<&'a UserId> {
        let other = || self.list.iter().map(|(user, _)| user).find(|user| *user != sender);
        (self.kind == ConversationKind::Direct).then(|| other().unwrap_or(sender))
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
    /// `user` joins a public conversation whose password the caller has checked, or accepts an invitation.
    Join,
    /// `user` leaves, or declines an invitation. The last owner of a conversation with others can't leave.
    Leave,
    /// `by` (owner or admin, or a backend if `None`) makes `user` an accepted member.
    Add {
        /// The user who adds; `None` for a backend.
        by: Option<UserId>,
        /// The new member's role: never owner; admin only by an owner or a backend.
        role: Role,
    },
    /// `by` (owner or admin) invites `user`.
    Invite {
        /// The user who invites; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` removes `user`; an admin can't remove an owner or admin.
    Kick {
        /// The user who removes; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` removes `user`, who can't join again; a non-member can be banned as well.
    Ban {
        /// The user who bans; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` lets `user` join again; does not make them a member.
    Unban {
        /// The user who lifts the ban; `None` for a backend.
        by: Option<UserId>,
    },
    /// `by` (an owner) gives `user` another role; a conversation keeps at least one owner.
    SetRole {
        /// The user who sets the role; `None` for a backend.
        by: Option<UserId>,
        /// The new role.
        role: Role,
    },
}

impl MembershipChange {
    /// The user who makes the change for another; `None` for a backend, and where users make it themselves.
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

    /// The user who brings another in, if this does so. A block between the two forbids it.
    pub(super) fn brought_in_by(&self) -> Option<&UserId> {
        match self {
            Self::Add { by, role: _ } | Self::Invite { by } => by.as_ref(),
            Self::Join
            | Self::Leave
            | Self::Kick { by: _ }
            | Self::Ban { by: _ }
            | Self::Unban { by: _ }
            | Self::SetRole { by: _, role: _ } => None,
        }
    }
}

/// The outcome of a change of membership.
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

/// Builds, inside the transaction, the events that the webhook is owed.
pub type OwedOf<T> = Box<dyn Fn(&T) -> Vec<OwedEvent> + Send + Sync>;

/// An outbox row to write with a change: its id (from [`Ids::reserve_ids`](super::Ids::reserve_ids)), its owner, and
/// its events. No row is written when there are no events.
pub struct OutboxRow<T> {
    /// The row's id.
    pub id: u64,
    /// Its publisher.
    pub owner: Owner,
    /// Builds the events that are to be published.
    pub events: EventsOf<T>,
    /// Builds the events that the webhook is owed; `None` without a webhook, and for changes that it hears nothing of.
    pub owed: Option<OwedOf<T>>,
}

impl<T> OutboxRow<T> {
    /// What the webhook is owed for this change.
    pub(super) fn owed(&self, change: &T) -> Vec<OwedEvent> {
        self.owed.as_ref().map_or_else(Vec::new, |owed| owed(change))
    }
}

/// A part of a conversation's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest messages.
    Newest,
    /// The last messages before this `seq`.
    Before(u64),
    /// The first messages after this `seq`.
    After(u64),
    /// The messages that were changed after this `rev`, by `rev`.
    ChangedSince(u64),
}
