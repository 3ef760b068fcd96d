//! What the events webhook is owed for each change. Members don't matter: a change of a conversation that nobody is in is
//! told to the backend too.

use shared::{Conversation, ConversationId, Role, UserId};

use crate::store::{
    ConversationChanged, MembersAdded, MembershipChange, MembershipOutcome, MessageChange, MessageOutcome, OwedDetail,
    OwedEvent, OwedKind,
};

/// An edit, a deletion or a reaction.
pub(super) fn message_changed(change: &MessageChange, by: Option<&UserId>, outcome: &MessageOutcome) -> Vec<OwedEvent> {
    let by = by.cloned();
    let (kind, detail) = match change {
        MessageChange::Edit { .. } => (OwedKind::MessageEdited, OwedDetail { by, ..OwedDetail::default() }),
        MessageChange::Delete => (OwedKind::MessageDeleted, OwedDetail { by, ..OwedDetail::default() }),
        MessageChange::React { emoji, on } => {
            let (emoji, added) = (Some(emoji.clone()), Some(*on));
            (OwedKind::ReactionUpdated, OwedDetail { user_id: by, emoji, added, ..OwedDetail::default() })
        }
    };
    let message = &outcome.message;
    let (conversation, rev) = (message.conversation_id.clone(), Some(message.rev));
    vec![OwedEvent { kind, conversation, rev, message: Some(message.id), detail }]
}

/// A conversation that was made.
pub(super) fn conversation_created(by: Option<&UserId>, conversation: &Conversation) -> Vec<OwedEvent> {
    vec![of_conversation(OwedKind::ConversationCreated, &conversation.id, None, by)]
}

/// Another title, visibility or password.
pub(super) fn conversation_changed(by: Option<&UserId>, outcome: &ConversationChanged) -> Vec<OwedEvent> {
    let Conversation { id, rev, .. } = &outcome.conversation;
    vec![of_conversation(OwedKind::ConversationChanged, id, Some(*rev), by)]
}

/// The end of a conversation.
pub(super) fn conversation_deleted(by: Option<&UserId>, conversation: &ConversationId) -> Vec<OwedEvent> {
    vec![of_conversation(OwedKind::ConversationDeleted, conversation, None, by)]
}

/// A change of one user's membership. An invitation tells nothing, and neither does the end of a ban.
pub(super) fn membership(user: &UserId, change: &MembershipChange, outcome: &MembershipOutcome) -> Vec<OwedEvent> {
    if !outcome.changed {
        return Vec::new();
    }
    let conversation = &outcome.conversation.id;
    let (was, is) = (outcome.was_member, outcome.is_member);
    let kind = match change {
        MembershipChange::Ban { .. } => OwedKind::MemberBanned,
        MembershipChange::SetRole { .. } => OwedKind::MemberRole,
        MembershipChange::Join
        | MembershipChange::Leave
        | MembershipChange::Add { .. }
        | MembershipChange::Invite { .. }
        | MembershipChange::Kick { .. }
        | MembershipChange::Unban { .. } => match (was, is) {
            (false, true) => OwedKind::MemberJoined,
            (true, false) => OwedKind::MemberLeft,
            (false, false) | (true, true) => return Vec::new(),
        },
    };
    vec![of_member(kind, conversation, user, outcome.members.role(user), change.by())]
}

/// Many members who came in at once.
pub(super) fn added(by: Option<&UserId>, outcome: &MembersAdded) -> Vec<OwedEvent> {
    let conversation = &outcome.conversation.id;
    let joined = |user| of_member(OwedKind::MemberJoined, conversation, user, Some(Role::Member), by);
    outcome.added.iter().map(joined).collect()
}

fn of_conversation(kind: OwedKind, id: &ConversationId, rev: Option<u64>, by: Option<&UserId>) -> OwedEvent {
    let detail = OwedDetail { by: by.cloned(), ..OwedDetail::default() };
    OwedEvent { kind, conversation: id.clone(), rev, message: None, detail }
}

fn of_member(
    kind: OwedKind,
    conversation: &ConversationId,
    user: &UserId,
    role: Option<Role>,
    by: Option<&UserId>,
) -> OwedEvent {
    let detail = OwedDetail { user_id: Some(user.clone()), role, by: by.cloned(), ..OwedDetail::default() };
    OwedEvent { kind, conversation: conversation.clone(), rev: None, message: None, detail }
}
