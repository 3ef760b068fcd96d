//! Conversations: making them and reading them. The rules that both stores share, and the trait. No SQL.

use async_trait::async_trait;
use shared::message::MemberView;
use shared::{Conversation, ConversationId, ConversationKind, Role, Timestamp, UserId, Visibility};

use super::membership::{self, State, may_see};
use super::{ConversationPage, Members, NewConversation, OutboxRow, Refusal, Route, StoreError, WalkPlace};

/// Conversations.
#[async_trait]
pub trait Conversations: Send + Sync + 'static {
    /// The direct conversation of the two, if there is one.
    async fn direct(&self, pair: (&UserId, &UserId)) -> Result<Option<ConversationId>, StoreError>;

    /// The direct conversation of the two, made with `id` if there is none; `true` if it was made now. A user paired
    /// with themselves gets a conversation of one. `by` makes it (`None`: a backend). `Blocked` if one has blocked the
    /// other, there is none, and a user makes it. A backend makes it, and a block then holds in it.
    async fn open_direct(
        &self,
        by: Option<&UserId>,
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

    /// A conversation as `viewer` sees it (`None`: a backend, which sees all). `NotMember` for a private conversation
    /// of which the viewer is no member, without an invitation.
    async fn conversation(&self, id: &ConversationId, viewer: Option<&UserId>) -> Result<Conversation, StoreError>;

    /// A page of a walk over the conversations of which `user` is an accepted member, from its start if `place` is `None`.
    /// The whole walk shows at least once each that the user was in all the time.
    async fn conversations(
        &self,
        user: &UserId,
        place: Option<&WalkPlace>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError>;
}

/// Two users in order: the same for both directions of a pair.
#[must_use]
pub fn ordered_pair<'a>(one: &'a UserId, other: &'a UserId) -> (&'a UserId, &'a UserId) {
    if one <= other { (one, other) } else { (other, one) }
}

/// A direct conversation that a message opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedDirect {
    /// Its id.
    pub id: ConversationId,
    /// Its users in order; the same twice for a user's conversation with themselves.
    pub pair: (UserId, UserId),
    /// When it was opened, by the store's clock.
    pub at: Timestamp,
}

impl OpenedDirect {
    /// The direct conversation with this key.
    pub(super) fn with_key(id: ConversationId, key: &str, at: Timestamp) -> Option<Self> {
        let (first, second) = key.split_once('/')?;
        Some(Self { id, pair: (UserId::parse(first).ok()?, UserId::parse(second).ok()?), at })
    }

    /// Its users, each once.
    #[must_use]
    pub fn users(&self) -> Vec<UserId> {
        let (first, second) = self.pair.clone();
        if first == second { vec![first] } else { vec![first, second] }
    }

    /// Its members, as the message that opened it found them.
    #[must_use]
    pub fn members(&self) -> Members {
        let list: Vec<_> = self.users().into_iter().map(|user| (user, Role::Member)).collect();
        let route = Route { count: u64::try_from(list.len()).unwrap_or_default(), ..Route::default() };
        Members { kind: ConversationKind::Direct, version: 1, since_seq: 0, list, blocked: false, route }
    }

    /// The conversation as its users see it before the first message.
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        let users = self.users();
        Conversation {
            id: self.id.clone(),
            kind: ConversationKind::Direct,
            title: None,
            visibility: Visibility::Private,
            has_password: false,
            created_at: self.at,
            last_seq: 0,
            rev: 0,
            last_message: None,
            member_count: u64::try_from(users.len()).unwrap_or_default(),
            large: false,
            members: users.into_iter().map(|user_id| MemberView { user_id, role: Role::Member, read_seq: 0 }).collect(),
            unread: Some(0),
        }
    }
}

/// The key of a direct conversation: its two users in order, joined by `/`, which no id holds.
pub(super) fn pair_key((one, other): (&UserId, &UserId)) -> String {
    let (first, second) = ordered_pair(one, other);
    format!("{first}/{second}")
}

/// The direct conversation of two users, to be made.
pub(super) fn new_direct(id: &ConversationId, pair: (&UserId, &UserId)) -> NewConversation {
    NewConversation {
        id: id.clone(),
        kind: ConversationKind::Direct,
        title: None,
        visibility: Visibility::Private,
        password_hash: None,
        owner: None,
        members: vec![pair.0.clone(), pair.1.clone()],
    }
}

/// Fails for a direct conversation: those are opened, so that each pair has one.
pub(super) fn check_not_direct(new: &NewConversation) -> Result<(), StoreError> {
    match new.kind {
        ConversationKind::Direct => Err(StoreError::Failed("a direct conversation is made by opening it".into())),
        ConversationKind::Group | ConversationKind::Channel => Ok(()),
    }
}

/// A conversation as a viewer sees it.
pub(super) struct Seen {
    pub(super) conversation: Conversation,
    /// The state of the viewer's row; `None` without a row, and for a backend.
    pub(super) state: Option<State>,
}

impl Seen {
    /// The conversation, if the viewer may see it. A backend may see all.
    pub(super) fn checked(self, viewer: Option<&UserId>) -> Result<Conversation, Refusal> {
        if viewer.is_some() && !may_see(self.conversation.visibility, self.state) {
            return Err(membership::refusal(self.state).unwrap_or(Refusal::NotMember));
        }
        Ok(self.conversation)
    }
}

/// Whether a viewer sees the members and the last message: an accepted member does, and a backend.
pub(super) fn sees_inside(state: Option<State>, has_viewer: bool) -> bool {
    !has_viewer || state == Some(State::Accepted)
}
