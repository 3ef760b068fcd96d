//! Edits, deletions and reactions: their commit, and their events.

use shared::{ErrorCode, Event, Message, MessageId, ProtocolError, UserId};

use super::asking::Via;
use super::{Chat, events, owed, refused};
use crate::store::{Giver, MessageChange, MessageOutcome, OutboxEvent, Refusal, StoreError};

/// The outcome of a change of a message.
#[derive(Debug, Clone)]
pub struct ChangeOutcome {
    /// The message afterwards.
    pub message: Message,
    /// Whether anything changed. If not, no other user is notified.
    pub changed: bool,
    /// The members' event.
    pub event: Event,
    /// How many members the conversation has.
    pub member_count: usize,
}

impl Chat {
    /// Changes a message in the name of the giver's user; a backend in its own name may only delete. Every member is notified,
    /// the caller included, through the backbone.
    pub async fn change_message(
        &self,
        id: MessageId,
        giver: &Giver,
        mut change: MessageChange,
        via: Via,
    ) -> Result<ChangeOutcome, ProtocolError> {
        let _turn = match &self.asking {
            Some(_) => Box::pin(self.ask_about_change(id, giver, &mut change, via)).await?,
            None => None,
        };
        let by = giver.user.as_ref();
        let told = {
            let (what, who) = (change.clone(), by.cloned());
            move |outcome: &MessageOutcome| told(&what, who.as_ref(), outcome)
        };
        let (what, who) = (change.clone(), by.cloned());
        let owed = move |outcome: &MessageOutcome| owed::message_changed(&what, who.as_ref(), outcome);
        let (row, built) = self.row_owing(told, owed).await?;
        let outcome = match self.store.change_message(id, by, &change, row).await {
            Err(StoreError::Refused(Refusal::Muted)) => return Err(self.muted_author(id, by).await?),
            outcome => outcome?,
        };
        if outcome.changed {
            self.publish_row(&built);
            self.note(giver, &change, &outcome.message);
        }
        let event = event_of(&change, by, &outcome.message)
            .ok_or_else(|| ProtocolError::new(ErrorCode::InternalError, "a change of a message has no event"))?;
        if outcome.changed && outcome.members.route.large {
            self.count_event_of(&outcome.message.conversation_id);
        }
        let member_count = outcome.members.count();
        Ok(ChangeOutcome { message: outcome.message, changed: outcome.changed, event, member_count })
    }

    async fn muted_author(&self, id: MessageId, by: Option<&UserId>) -> Result<ProtocolError, StoreError> {
        match (self.store.conversation_of(id).await?, by) {
            (Some(conversation), Some(by)) => self.muted(&conversation, by).await,
            (None, _) | (_, None) => Ok(refused(Refusal::Muted)),
        }
    }

    /// Edits and deletions stand in the audit trail, as what was sent does.
    fn note(&self, by: &Giver, change: &MessageChange, message: &Message) {
        match change {
            MessageChange::Edit { .. } => self.audit.message_edited(message),
            MessageChange::Delete => self.audit.message_deleted(message, by),
            MessageChange::React { .. } => {}
        }
    }
}

fn told(change: &MessageChange, by: Option<&UserId>, outcome: &MessageOutcome) -> Vec<OutboxEvent> {
    let Some(event) = event_of(change, by, &outcome.message) else { return Vec::new() };
    if outcome.members.route.large {
        return vec![events::topic_event(&outcome.message.conversation_id, &event, outcome.message.rev)];
    }
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
