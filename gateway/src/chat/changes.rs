//! Edits, deletions and reactions: their commit, and their events.

use shared::{ErrorCode, Event, Message, MessageId, ProtocolError, UserId};

use super::{Chat, events};
use crate::store::{MessageChange, MessageOutcome, OutboxEvent};

/// The outcome of a change of a message.
#[derive(Debug, Clone)]
pub struct ChangeOutcome {
    /// The message afterwards.
    pub message: Message,
    /// Whether anything changed. If not, no other user is notified.
    pub changed: bool,
    /// The members' event.
    pub event: Event,
}

impl Chat {
    /// Changes a message in the name of `by` (`None`: a backend, which may only delete). Every member is notified,
    /// the caller included, through the backbone.
    pub async fn change_message(
        &self,
        id: MessageId,
        by: Option<&UserId>,
        change: MessageChange,
    ) -> Result<ChangeOutcome, ProtocolError> {
        let (what, who) = (change.clone(), by.cloned());
        let (row, built) = self.row(move |outcome| told(&what, who.as_ref(), outcome)).await?;
        let outcome = self.store.change_message(id, by, &change, row).await?;
        if outcome.changed {
            self.publish_row(&built);
            self.note(by, &change, &outcome.message);
        }
        let event = event_of(&change, by, &outcome.message)
            .ok_or_else(|| ProtocolError::new(ErrorCode::InternalError, "a change of a message has no event"))?;
        Ok(ChangeOutcome { message: outcome.message, changed: outcome.changed, event })
    }

    /// Edits and deletions stand in the audit trail, as what was sent does.
    fn note(&self, by: Option<&UserId>, change: &MessageChange, message: &Message) {
        match change {
            MessageChange::Edit { .. } => self.audit.message_edited(message),
            MessageChange::Delete => self.audit.message_deleted(message, by),
            MessageChange::React { .. } => {}
        }
    }
}

fn told(change: &MessageChange, by: Option<&UserId>, outcome: &MessageOutcome) -> Vec<OutboxEvent> {
    let Some(event) = event_of(change, by, &outcome.message) else { return Vec::new() };
    let members: Vec<UserId> = outcome.members.list.iter().map(|(member, _)| member.clone()).collect();
    if members.is_empty() {
        return Vec::new();
    }
    vec![events::message_changed(members, &event, outcome.is_last.then_some(&outcome.message))]
}

/// `None` for a deleted message without a time, and for a reaction of nobody: the store makes neither.
fn event_of(change: &MessageChange, by: Option<&UserId>, message: &Message) -> Option<Event> {
    Some(match change {
        MessageChange::Edit { .. } => Event::MessageEdited { message: message.clone() },
        MessageChange::Delete => Event::MessageDeleted {
            message_id: message.id,
            conversation_id: message.conversation_id.clone(),
            seq: message.seq,
            rev: message.rev,
            deleted_at: message.deleted_at?,
        },
        MessageChange::React { emoji, on } => Event::ReactionUpdated {
            message_id: message.id,
            conversation_id: message.conversation_id.clone(),
            seq: message.seq,
            rev: message.rev,
            user_id: by?.clone(),
            emoji: emoji.clone(),
            added: *on,
            reactions: message.reactions.clone(),
        },
    })
}
