//! Membership: joining, leaving, inviting, banning, roles. The rules that both stores share, and the trait. No SQL.

use std::sync::Arc;

use async_trait::async_trait;
use shared::{Conversation, ConversationId, ConversationKind, Role, UserId, Visibility};

use super::{MEMBERS_MAX, Members, MembershipChange, MembershipOutcome, OutboxRow, Refusal, StoreError};

/// The members of conversations, now and at the time of a message.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// The accepted members of a conversation; `NotFound` if there is none.
    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError>;

    /// The accepted members of several conversations by one query, in any order. One that doesn't exist is left out.
    async fn members_of(&self, ids: &[ConversationId]) -> Result<Vec<(ConversationId, Members)>, StoreError>;

    /// The accepted members of a conversation when its message `seq` was committed, ascending by id, however often they
    /// left and came back since. Empty if there is no such conversation.
    async fn members_at(&self, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError>;

    /// The password hash of a conversation that can be joined by `user`; `NotFound`, `Banned` or `Forbidden` (private,
    /// without an invitation) otherwise. A user with an invitation needs no password and gets `None`.
    async fn join_password(&self, id: &ConversationId, user: &UserId) -> Result<Option<String>, StoreError>;

    /// Changes the membership of one user, under the conversation's lock.
    async fn change_membership(
        &self,
        id: &ConversationId,
        user: &UserId,
        change: &MembershipChange,
        outbox: OutboxRow<MembershipOutcome>,
    ) -> Result<MembershipOutcome, StoreError>;
}

/// A user's row in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: State,
    pub(super) role: Role,
}

impl Standing {
    /// The row of a new member.
    pub(super) const MEMBER: Self = Self { state: State::Accepted, role: Role::Member };
}

/// The state of a user's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Accepted,
    Invited,
    Banned,
    Left,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Invited => "invited",
            Self::Banned => "banned",
            Self::Left => "left",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "accepted" => Some(Self::Accepted),
            "invited" => Some(Self::Invited),
            "banned" => Some(Self::Banned),
            "left" => Some(Self::Left),
            _ => None,
        }
    }
}

/// The facts that a change of membership is judged by, read under the conversation's lock.
pub(super) struct Facts<'a> {
    pub(super) visibility: Visibility,
    /// The user whose membership changes.
    pub(super) user: &'a UserId,
    /// The row of that user.
    pub(super) standing: Option<Standing>,
    /// The row of the user who makes the change.
    pub(super) actor: Option<Standing>,
    /// The accepted members.
    pub(super) members: &'a Members,
    /// Whether there is a block between that user and one who brings them in.
    pub(super) blocked: bool,
}

/// A change of one user's row that the rules allow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    before: Option<Standing>,
    /// The row to write; `None` if the change changes nothing.
    next: Option<Standing>,
}

impl Change {
    /// Judges a change by the rules.
    pub(super) fn decide(facts: &Facts<'_>, change: &MembershipChange) -> Result<Self, Refusal> {
        Ok(Self { before: facts.standing, next: next_standing(facts, change)? })
    }

    /// The row to write, if anything changes.
    pub(super) fn step(self) -> Option<Step> {
        self.next.map(|next| Step { before: self.before, next })
    }

    /// The outcome, after the row was written: `members` as they were before, and the conversation as `user` sees it
    /// now.
    pub(super) fn outcome(
        self,
        user: &UserId,
        mut members: Members,
        last_seq: u64,
        conversation: Conversation,
    ) -> MembershipOutcome {
        if let Some(step) = self.step() {
            members.set(user, is_accepted(self.next).then_some(step.next.role));
            if step.comes() || step.goes() {
                members.since_seq = last_seq;
            }
        }
        MembershipOutcome {
            changed: self.next.is_some(),
            was_member: is_accepted(self.before),
            is_member: is_accepted(self.next.or(self.before)),
            conversation,
            members: Arc::new(members),
        }
    }
}

/// A user's row before and after a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) before: Option<Standing>,
    pub(super) next: Standing,
}

impl Step {
    /// Whether the user becomes an accepted member.
    pub(super) fn comes(self) -> bool {
        !is_accepted(self.before) && is_accepted(Some(self.next))
    }

    /// Whether the user stops being an accepted member.
    pub(super) fn goes(self) -> bool {
        is_accepted(self.before) && !is_accepted(Some(self.next))
    }
}

fn is_accepted(standing: Option<Standing>) -> bool {
    standing.is_some_and(|standing| standing.state == State::Accepted)
}

/// Why a user with this row can't write or read in a conversation; `None` for an accepted member.
pub(super) fn refusal(state: Option<State>) -> Option<Refusal> {
    match state {
        Some(State::Accepted) => None,
        Some(State::Banned) => Some(Refusal::Banned),
        Some(State::Invited | State::Left) | None => Some(Refusal::NotMember),
    }
}

/// Whether a user with this row may see the conversation.
pub(super) fn may_see(visibility: Visibility, state: Option<State>) -> bool {
    match visibility {
        Visibility::Public => true,
        Visibility::Private => matches!(state, Some(State::Accepted | State::Invited)),
    }
}

/// Whether a user with this row may join on their own; `Ok(true)` if no password is needed.
pub(super) fn may_join(kind: ConversationKind, visibility: Visibility, state: Option<State>) -> Result<bool, Refusal> {
    match state {
        Some(State::Accepted | State::Invited) => Ok(true),
        Some(State::Banned) => Err(Refusal::Banned),
        Some(State::Left) | None => match (kind, visibility) {
            (ConversationKind::Direct, _) => Err(Refusal::NotFound),
            (ConversationKind::Group | ConversationKind::Channel, Visibility::Public) => Ok(false),
            (ConversationKind::Group | ConversationKind::Channel, Visibility::Private) => Err(Refusal::Forbidden),
        },
    }
}

/// The row that `change` gives to the user; `None` if it changes nothing.
pub(super) fn next_standing(facts: &Facts<'_>, change: &MembershipChange) -> Result<Option<Standing>, Refusal> {
    match change {
        MembershipChange::Join => join(facts),
        MembershipChange::Leave => leave(facts),
        MembershipChange::Add { by, role } => add(facts, by.as_ref(), *role),
        MembershipChange::Invite { by } => invite(facts, by.as_ref()),
        MembershipChange::Kick { by } => remove(facts, by.as_ref(), State::Left),
        MembershipChange::Ban { by } => remove(facts, by.as_ref(), State::Banned),
        MembershipChange::Unban { by } => unban(facts, by.as_ref()),
        MembershipChange::SetRole { by, role } => set_role(facts, by.as_ref(), *role),
    }
}

fn join(facts: &Facts<'_>) -> Result<Option<Standing>, Refusal> {
    let state = facts.standing.map(|standing| standing.state);
    may_join(facts.members.kind, facts.visibility, state)?;
    if state == Some(State::Accepted) {
        return Ok(None);
    }
    has_room(facts)?;
    Ok(Some(Standing::MEMBER))
}

fn leave(facts: &Facts<'_>) -> Result<Option<Standing>, Refusal> {
    let gone = Standing { state: State::Left, role: Role::Member };
    match facts.standing.map(|standing| standing.state) {
        Some(State::Accepted) => {
            not_direct(facts)?;
            if is_last_owner(facts) && facts.members.list.len() > 1 {
                return Err(Refusal::LastOwner);
            }
            Ok(Some(gone))
        }
        Some(State::Invited) => Ok(Some(gone)),
        Some(State::Left) => Ok(None),
        state @ (Some(State::Banned) | None) => Err(refusal(state).unwrap_or(Refusal::NotMember)),
    }
}

fn add(facts: &Facts<'_>, by: Option<&UserId>, role: Role) -> Result<Option<Standing>, Refusal> {
    let rights = moderator(facts, by)?;
    not_direct(facts)?;
    let allowed = match role {
        Role::Member => true,
        Role::Admin => rights == Role::Owner,
        Role::Owner => false,
    };
    if !allowed {
        return Err(Refusal::Forbidden);
    }
    match facts.standing.map(|standing| standing.state) {
        Some(State::Accepted) => Ok(None),
        Some(State::Banned) => Err(Refusal::Banned),
        Some(State::Invited | State::Left) | None => {
            not_blocked(facts)?;
            has_room(facts)?;
            Ok(Some(Standing { state: State::Accepted, role }))
        }
    }
}

fn invite(facts: &Facts<'_>, by: Option<&UserId>) -> Result<Option<Standing>, Refusal> {
    moderator(facts, by)?;
    not_direct(facts)?;
    match facts.standing.map(|standing| standing.state) {
        Some(State::Accepted | State::Invited) => Ok(None),
        Some(State::Banned) => Err(Refusal::Banned),
        Some(State::Left) | None => {
            not_blocked(facts)?;
            Ok(Some(Standing { state: State::Invited, role: Role::Member }))
        }
    }
}

/// A kick leaves `State::Left`, a ban `State::Banned`. A backend may remove even the last owner.
fn remove(facts: &Facts<'_>, by: Option<&UserId>, after: State) -> Result<Option<Standing>, Refusal> {
    let rights = moderator(facts, by)?;
    not_direct(facts)?;
    if let Some(Standing { state: State::Accepted, role: Role::Admin | Role::Owner }) = facts.standing {
        if rights != Role::Owner {
            return Err(Refusal::Forbidden);
        }
        // The rule for leaving holds for a user who removes themselves.
        if by == Some(facts.user) && is_last_owner(facts) && facts.members.list.len() > 1 {
            return Err(Refusal::LastOwner);
        }
    }
    let next = Some(Standing { state: after, role: Role::Member });
    match (facts.standing.map(|standing| standing.state), after) {
        (Some(State::Accepted | State::Invited), _) | (Some(State::Left) | None, State::Banned) => Ok(next),
        (Some(State::Banned), State::Banned) | (Some(State::Left), _) => Ok(None),
        (Some(State::Banned) | None, _) => Err(Refusal::NotFound),
    }
}

fn unban(facts: &Facts<'_>, by: Option<&UserId>) -> Result<Option<Standing>, Refusal> {
    moderator(facts, by)?;
    let banned = facts.standing.is_some_and(|standing| standing.state == State::Banned);
    Ok(banned.then_some(Standing { state: State::Left, role: Role::Member }))
}

fn set_role(facts: &Facts<'_>, by: Option<&UserId>, role: Role) -> Result<Option<Standing>, Refusal> {
    if moderator(facts, by)? != Role::Owner {
        return Err(Refusal::Forbidden);
    }
    not_direct(facts)?;
    match facts.standing {
        Some(Standing { state: State::Accepted, role: before }) if before == role => Ok(None),
        Some(Standing { state: State::Accepted, role: _ }) => {
            if is_last_owner(facts) {
                return Err(Refusal::LastOwner);
            }
            Ok(Some(Standing { state: State::Accepted, role }))
        }
        Some(_) | None => Err(Refusal::NotFound),
    }
}

/// The rights of the moderating user: owner or admin; a backend counts as an owner.
fn moderator(facts: &Facts<'_>, by: Option<&UserId>) -> Result<Role, Refusal> {
    may_moderate(facts.actor, by)
}

/// The rights of the moderating user, from that user's row.
pub(super) fn may_moderate(actor: Option<Standing>, by: Option<&UserId>) -> Result<Role, Refusal> {
    if by.is_none() {
        return Ok(Role::Owner);
    }
    if let Some(refusal) = refusal(actor.map(|actor| actor.state)) {
        return Err(refusal);
    }
    match actor.map(|actor| actor.role) {
        Some(role @ (Role::Owner | Role::Admin)) => Ok(role),
        Some(Role::Member) | None => Err(Refusal::Forbidden),
    }
}

/// The two of a direct conversation stay its members.
fn not_direct(facts: &Facts<'_>) -> Result<(), Refusal> {
    match facts.members.kind {
        ConversationKind::Direct => Err(Refusal::Forbidden),
        ConversationKind::Group | ConversationKind::Channel => Ok(()),
    }
}

/// Nobody brings in a user with whom there is a block.
fn not_blocked(facts: &Facts<'_>) -> Result<(), Refusal> {
    if facts.blocked { Err(Refusal::Blocked) } else { Ok(()) }
}

fn has_room(facts: &Facts<'_>) -> Result<(), Refusal> {
    if facts.members.list.len() < MEMBERS_MAX { Ok(()) } else { Err(Refusal::Full) }
}

fn is_last_owner(facts: &Facts<'_>) -> bool {
    let owners = facts.members.list.iter().filter(|(_, role)| *role == Role::Owner);
    facts.members.role(facts.user) == Some(Role::Owner) && owners.count() == 1
}
