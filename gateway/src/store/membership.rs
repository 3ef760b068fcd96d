//! Who may change who is in a conversation: the rules, shared by both stores. No SQL, no I/O.

use shared::{ConversationKind, Role, UserId, Visibility};

use super::{MEMBERS_MAX, Members, MembershipChange, Refusal};

/// A user's row in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: State,
    pub(super) role: Role,
}

/// Whether somebody is in.
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

/// What a change of membership is judged by, read under the conversation's lock.
pub(super) struct Facts<'a> {
    pub(super) visibility: Visibility,
    /// Whose membership changes.
    pub(super) user: &'a UserId,
    /// Their row.
    pub(super) standing: Option<Standing>,
    /// The row of the one who does it.
    pub(super) actor: Option<Standing>,
    /// The accepted members.
    pub(super) members: &'a Members,
}

/// Why somebody with this row can't write or read in a conversation; `None` for an accepted member.
pub(super) fn refusal(state: Option<State>) -> Option<Refusal> {
    match state {
        Some(State::Accepted) => None,
        Some(State::Banned) => Some(Refusal::Banned),
        Some(State::Invited | State::Left) | None => Some(Refusal::NotMember),
    }
}

/// Whether a user with this row may know the conversation.
pub(super) fn may_see(visibility: Visibility, state: Option<State>) -> bool {
    match visibility {
        Visibility::Public => true,
        Visibility::Private => matches!(state, Some(State::Accepted | State::Invited)),
    }
}

/// Whether a user with this row may come in by themselves; `Ok(true)` if it takes no password.
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
pub(super) fn decide(facts: &Facts<'_>, change: &MembershipChange) -> Result<Option<Standing>, Refusal> {
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
    Ok(Some(Standing { state: State::Accepted, role: Role::Member }))
}

fn leave(facts: &Facts<'_>) -> Result<Option<Standing>, Refusal> {
    let gone = Standing { state: State::Left, role: Role::Member };
    match facts.standing.map(|standing| standing.state) {
        Some(State::Accepted) => {
            not_direct(facts)?;
            if is_last_owner(facts) && facts.members.list.len() > 1 {
                return Err(Refusal::Conflict);
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
        Some(State::Left) | None => Ok(Some(Standing { state: State::Invited, role: Role::Member })),
    }
}

/// A kick leaves `State::Left`, a ban `State::Banned`. A backend may take out even the last owner.
fn remove(facts: &Facts<'_>, by: Option<&UserId>, after: State) -> Result<Option<Standing>, Refusal> {
    let rights = moderator(facts, by)?;
    not_direct(facts)?;
    if let Some(Standing { state: State::Accepted, role: Role::Admin | Role::Owner }) = facts.standing {
        if rights != Role::Owner {
            return Err(Refusal::Forbidden);
        }
        // Whoever removes themselves is held to the rule for leaving.
        if by == Some(facts.user) && is_last_owner(facts) && facts.members.list.len() > 1 {
            return Err(Refusal::Conflict);
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
                return Err(Refusal::Conflict);
            }
            Ok(Some(Standing { state: State::Accepted, role }))
        }
        Some(_) | None => Err(Refusal::NotFound),
    }
}

/// The rights of the one who moderates: owner or admin; a backend counts as an owner.
fn moderator(facts: &Facts<'_>, by: Option<&UserId>) -> Result<Role, Refusal> {
    may_moderate(facts.actor, by)
}

/// The same, from the row of the one who moderates.
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

fn has_room(facts: &Facts<'_>) -> Result<(), Refusal> {
    if facts.members.list.len() < MEMBERS_MAX { Ok(()) } else { Err(Refusal::Full) }
}

fn is_last_owner(facts: &Facts<'_>) -> bool {
    let owners = facts.members.list.iter().filter(|(_, role)| *role == Role::Owner);
    facts.members.role(facts.user) == Some(Role::Owner) && owners.count() == 1
}
