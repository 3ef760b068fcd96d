//! Large conversations: crossing the limit, and what was missed of one, from the store.

use std::time::Instant;

use bytes::Bytes;
use shared::{ConversationId, ConversationKind, Event, Message, ProtocolError, UserId};

use super::{Chat, events};
use crate::backbone::TopicEvent;
use crate::store::{Crossed, Head, Members, Missed, OutboxEvent, StoreError};

/// Conversations that cross the limit in one step of the upkeep.
const CROSSINGS_PER_STEP: u32 = 16;

/// A message that was changed behind a place, with its events for who saw it before, and for who didn't.
#[derive(Debug, Clone)]
pub struct MissedMessage {
    /// As it is now.
    pub message: Message,
    /// Whether it was published once for all members: otherwise it stands in the log of each.
    pub was_large: bool,
    /// `message.new`, with its `rev`.
    pub new: Bytes,
    /// `message.edited` or `message.deleted`, with its `rev`.
    pub changed: Bytes,
}

/// What changed behind a `rev`.
#[derive(Debug, Clone)]
pub struct MissedEvents {
    /// Where the conversation was when this was read; `None` if there is none any more.
    pub head: Option<Head>,
    /// The `rev` behind which nothing is left out.
    pub floor: u64,
    /// The messages, by `rev`.
    pub messages: Vec<MissedMessage>,
}

impl Chat {
    /// Makes some conversations large, or small again, that are due to; whether there may be more.
    pub(super) async fn cross_due(&self) -> Result<bool, ProtocolError> {
        let due = self.store.due_to_cross(self.large_over, CROSSINGS_PER_STEP).await?;
        for conversation in &due {
            self.cross(conversation).await?;
        }
        Ok(due.len() >= usize::try_from(CROSSINGS_PER_STEP).unwrap_or(usize::MAX))
    }

    /// The same for a conversation whose members have changed.
    pub(super) async fn cross_if_due(&self, conversation: &ConversationId, members: &Members) {
        if members.route.is_due(self.large_over, members.kind == ConversationKind::Direct) {
            self.cross_or_leave_it(conversation).await;
        }
    }

    /// Has the store look whether a conversation is due to cross. If it can't be done now, the upkeep does it.
    pub(super) async fn cross_or_leave_it(&self, conversation: &ConversationId) {
        if let Err(error) = self.cross(conversation).await {
            tracing::debug!(error = %error.message, "a conversation could not cross the limit of large ones yet");
        }
    }

    /// Has the store look whether a conversation is due to cross, and tells its members if it did.
    async fn cross(&self, conversation: &ConversationId) -> Result<(), ProtocolError> {
        let (row, built) = self.row(crossed_events).await?;
        if self.store.cross(conversation, self.large_over, row).await? {
            self.tell_members_changed(conversation).await;
            self.publish_row(&built);
        }
        Ok(())
    }

    /// Tells all members of a large conversation something that is gone if it can't be told now, but for some users.
    pub(super) fn tell_all(&self, conversation: &ConversationId, event: &Event, except: &[UserId]) {
        let body = events::topic_notice(event, except);
        self.publisher.publish_notice(TopicEvent { conversation: conversation.clone(), body, push: None });
    }

    /// Tells all members of a large conversation that some came or went: each, or how many they are now.
    pub(super) fn tell_of(&self, conversation: &ConversationId, of: &[(UserId, Event)]) {
        if self.crowds.takes(conversation, of.len(), Instant::now()) {
            of.iter().for_each(|(user, event)| self.tell_all(conversation, event, std::slice::from_ref(user)));
        }
    }

    /// Tells how many members the conversations have where more came and went than were told of one by one.
    pub async fn tell_counts(&self) {
        for conversation in self.crowds.due(Instant::now()) {
            let Ok(members) = self.members.get(&conversation).await else { continue };
            let (conversation_id, member_count) = (conversation.clone(), members.route.count);
            self.tell_all(&conversation, &Event::MembersChanged { conversation_id, member_count }, &[]);
        }
    }

    /// The changes of a large conversation behind the `rev` `after`.
    pub async fn missed(&self, conversation: &ConversationId, after: u64) -> Result<MissedEvents, StoreError> {
        let Missed { head, floor, messages } = self.store.missed(conversation, after).await?;
        let unnamed = messages.iter().map(|(message, _)| &message.sender_id);
        let mut unnamed: Vec<UserId> = unnamed.filter(|sender| self.names.at_hand(sender).is_none()).cloned().collect();
        unnamed.sort();
        unnamed.dedup();
        if !unnamed.is_empty() {
            self.names.look_up(&unnamed).await;
        }
        let events = messages.into_iter().map(|(message, was_large)| {
            let sender_name = self.names.at_hand(&message.sender_id).flatten();
            let new = events::topic_message(&message, &events::About { to: None, sender_name });
            let changed = match message.deleted_at {
                Some(deleted_at) => Event::MessageDeleted {
                    message_id: message.id,
                    conversation_id: message.conversation_id.clone(),
                    seq: message.seq,
                    rev: message.rev,
                    deleted_at,
                },
                None => Event::MessageEdited { message: message.clone() },
            };
            let changed = events::with_rev(message.rev, &changed.to_json());
            MissedMessage { message, was_large, new: new.into(), changed: changed.into() }
        });
        Ok(MissedEvents { head, floor, messages: events.collect() })
    }
}

/// The fence: each member takes the conversation's events the other way from here on.
fn crossed_events(crossed: &Crossed) -> Vec<OutboxEvent> {
    if crossed.members.is_empty() {
        return Vec::new();
    }
    let mut conversation = crossed.conversation.clone();
    (conversation.last_message, conversation.unread) = (None, None);
    conversation.members.iter_mut().for_each(|member| member.read_seq = 0);
    let (rev, last_seq) = (Some(conversation.rev), Some(conversation.last_seq));
    let event = Event::ConversationChanged { conversation, changed_by: None, rev, last_seq };
    vec![events::outbox_event(crossed.members.to_vec(), &event)]
}
