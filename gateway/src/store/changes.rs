//! Changes of stored messages: edits, deletions, reactions. The rules that both stores share, and the trait.

use std::sync::Arc;

use async_trait::async_trait;
use shared::{Message, MessageId, Role, Timestamp, UserId};

use super::membership::{self, Standing};
use super::{Members, OutboxRow, Refusal, StoreError};

/// The most reactions of a message, over all emojis: their list goes to every member with each change.
pub const REACTIONS_MAX: usize = 500;

/// The most different emojis on a message.
pub const EMOJIS_MAX: usize = 20;

/// The most earlier contents that are kept of a message; older ones are deleted.
pub(super) const EARLIER_CONTENTS_MAX: u64 = 100;

/// A change of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageChange {
    /// Its sender gives it another content. The earlier content is kept until the message is deleted.
    Edit {
        /// The new content, checked.
        content: String,
    },
    /// Its sender, an admin or owner of the conversation, or a backend removes its content, its earlier contents and
    /// its reactions. The message keeps its place.
    Delete,
    /// A member reacts, or takes the reaction back.
    React {
        /// The emoji, checked.
        emoji: String,
        /// Whether the reaction is set or taken back.
        on: bool,
    },
}

/// The outcome of a change of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageOutcome {
    /// Whether anything changed. If not, nothing is published.
    pub changed: bool,
    /// The message afterwards.
    pub message: Message,
    /// Whether it is the conversation's newest.
    pub is_last: bool,
    /// The accepted members.
    pub members: Arc<Members>,
}

/// Changes of stored messages.
#[async_trait]
pub trait Changes: Send + Sync + 'static {
    /// Changes a message in the name of `by` (`None`: a backend, which may only delete). Under the conversation's lock,
    /// as a send: the conversation's `rev` counts one up and is the message's, so that `changedSince` leaves nothing
    /// out.
    ///
    /// `NotFound`: there is no such message. `NotMember`, `Banned`, `Blocked`, `Forbidden`: no right. `Conflict`: a
    /// deleted message can't be edited or reacted to. `Limit`: the most reactions are reached.
    async fn change_message(
        &self,
        id: MessageId,
        by: Option<&UserId>,
        change: &MessageChange,
        outbox: OutboxRow<MessageOutcome>,
    ) -> Result<MessageOutcome, StoreError>;
}

/// The facts that a change is judged by, read under the conversation's lock.
pub(super) struct Facts<'a> {
    pub(super) by: Option<&'a UserId>,
    /// The row of the user who makes the change.
    pub(super) standing: Option<Standing>,
    /// One of the two of a direct conversation has blocked the other.
    pub(super) blocked: bool,
    pub(super) now: Timestamp,
}

/// Carries out `change` on `message`, except for its `rev`; whether that changed anything.
pub(super) fn apply(message: &mut Message, facts: &Facts<'_>, change: &MessageChange) -> Result<bool, Refusal> {
    let own = facts.by == Some(&message.sender_id);
    if facts.by.is_some() {
        if let Some(refusal) = membership::refusal(facts.standing.map(|standing| standing.state)) {
            return Err(refusal);
        }
        if facts.blocked {
            return Err(Refusal::Blocked);
        }
    }
    match change {
        MessageChange::Edit { content } => {
            if !own {
                return Err(Refusal::Forbidden);
            }
            edit(message, content, facts.now)
        }
        MessageChange::Delete => {
            if !own && !may_moderate(facts) {
                return Err(Refusal::Forbidden);
            }
            Ok(delete(message, facts.now))
        }
        MessageChange::React { emoji, on } => react(message, facts.by.ok_or(Refusal::Forbidden)?, emoji, *on),
    }
}

fn may_moderate(facts: &Facts<'_>) -> bool {
    match (facts.by, facts.standing.map(|standing| standing.role)) {
        (None, _) | (Some(_), Some(Role::Admin | Role::Owner)) => true,
        (Some(_), Some(Role::Member) | None) => false,
    }
}

fn edit(message: &mut Message, content: &str, now: Timestamp) -> Result<bool, Refusal> {
    not_deleted(message)?;
    if message.content == content {
        return Ok(false);
    }
    content.clone_into(&mut message.content);
    message.edited_at = Some(now);
    Ok(true)
}

fn delete(message: &mut Message, now: Timestamp) -> bool {
    if message.deleted_at.is_some() {
        return false;
    }
    message.content.clear();
    message.data = None;
    message.reactions.clear();
    message.deleted_at = Some(now);
    true
}

fn react(message: &mut Message, user: &UserId, emoji: &str, on: bool) -> Result<bool, Refusal> {
    not_deleted(message)?;
    let there = message.reactions.get(emoji).is_some_and(|users| users.contains(user));
    if there == on {
        return Ok(false);
    }
    if on {
        let is_new = !message.reactions.contains_key(emoji);
        let count: usize = message.reactions.values().map(Vec::len).sum();
        if count >= REACTIONS_MAX || (is_new && message.reactions.len() >= EMOJIS_MAX) {
            return Err(Refusal::Limit);
        }
        message.reactions.entry(emoji.to_owned()).or_default().push(user.clone());
    } else {
        if let Some(users) = message.reactions.get_mut(emoji) {
            users.retain(|other| other != user);
        }
        message.reactions.retain(|_, users| !users.is_empty());
    }
    Ok(true)
}

fn not_deleted(message: &Message) -> Result<(), Refusal> {
    if message.deleted_at.is_some() { Err(Refusal::Conflict) } else { Ok(()) }
}

/// The column `reactions` of a message: null without any.
pub(super) fn reactions_column(message: &Message) -> Result<Option<String>, StoreError> {
    if message.reactions.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(&message.reactions).map(Some).map_err(|fault| StoreError::Failed(fault.to_string()))
}
