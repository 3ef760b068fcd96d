//! Another title, visibility or password of a conversation, and its end.

use shared::{Conversation, ConversationId, Event, ProtocolError, UserId};

use super::{Chat, events, owed, passwords};
use crate::store::{
    ConversationChange, ConversationChanged, ConversationDeleted, Giver, OutboxEvent, Refusal, StoreError,
};

/// What is to change; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct ChangeConversation {
    /// The title and visibility; its password hash is not looked at.
    pub values: ConversationChange,
    /// The password; `Some(None)`: joining takes none.
    pub password: Option<Option<String>>,
}

impl Chat {
    /// Changes a conversation in the name of `giver`. Every member is notified. Returns it as `giver` sees it.
    pub async fn change_conversation(
        &self,
        id: &ConversationId,
        giver: &Giver,
        change: ChangeConversation,
    ) -> Result<Conversation, ProtocolError> {
        let by = giver.user.as_ref();
        let ChangeConversation { values, password } = change;
        let password_hash = match password {
            Some(Some(password)) => Some(Some(passwords::hash(password).await?)),
            Some(None) => Some(None),
            None => None,
        };
        let values = ConversationChange { password_hash, ..values };
        let (changed_by, owed_by) = (by.cloned(), by.cloned());
        let told = move |outcome: &ConversationChanged| changed_events(changed_by.as_ref(), outcome);
        let owed = move |outcome: &ConversationChanged| owed::conversation_changed(owed_by.as_ref(), outcome);
        let (row, built) = self.row_owing(told, owed).await?;
        let outcome = self.outside(id, by, self.store.change_conversation(id, by, &values, row).await).await?;
        if outcome.changed {
            self.audit.conversation_changed(id, giver);
            self.publish_row(&built);
        }
        Ok(self.store.conversation(id, by).await?)
    }

    /// Ends a conversation in the name of `giver`. Its members and those who were invited are notified; how many these are.
    pub async fn delete_conversation(&self, id: &ConversationId, giver: &Giver) -> Result<usize, ProtocolError> {
        let by = giver.user.as_ref();
        let (conversation_id, deleted_by) = (id.clone(), by.cloned());
        let told = move |outcome: &_| deleted_events(&conversation_id, deleted_by.as_ref(), outcome);
        let (conversation_id, deleted_by) = (id.clone(), by.cloned());
        let owed = move |_: &_| owed::conversation_deleted(deleted_by.as_ref(), &conversation_id);
        let (row, built) = self.row_owing(told, owed).await?;
        let deleted = self.store.delete_conversation(id, by, row).await;
        let ConversationDeleted { members, invited, .. } = self.outside(id, by, deleted).await?;
        self.audit.conversation_deleted(id, giver);
        self.tell_members_changed(id).await;
        self.publish_row(&built);
        Ok(members.len() + invited.len())
    }

    /// The store's answer. A user who is no member of a deleted conversation is told that there is none, and a muted
    /// one how long it lasts.
    pub(super) async fn outside<T>(
        &self,
        conversation: &ConversationId,
        user: Option<&UserId>,
        answer: Result<T, StoreError>,
    ) -> Result<T, ProtocolError> {
        match answer {
            Err(StoreError::Refused(Refusal::NotMember)) => {
                Err(StoreError::Refused(self.store.outside(conversation, user).await?).into())
            }
            Err(StoreError::Refused(Refusal::Muted)) => Err(match user {
                Some(user) => self.muted(conversation, user).await?,
                None => super::refused(Refusal::Muted),
            }),
            answer => Ok(answer?),
        }
    }
}

/// Members' positions are left out: each member may see others. So is the newest message, which all of them have.
fn changed_events(by: Option<&UserId>, outcome: &ConversationChanged) -> Vec<OutboxEvent> {
    let members: Vec<UserId> = outcome.members.list.iter().map(|(member, _)| member.clone()).collect();
    if members.is_empty() {
        return Vec::new();
    }
    let mut conversation = Conversation { last_message: None, unread: None, ..outcome.conversation.clone() };
    conversation.members.iter_mut().for_each(|member| member.read_seq = 0);
    let changed = Event::ConversationChanged { conversation, changed_by: by.cloned(), rev: None, last_seq: None };
    vec![events::outbox_event(members, &changed)]
}

fn deleted_events(id: &ConversationId, by: Option<&UserId>, outcome: &ConversationDeleted) -> Vec<OutboxEvent> {
    let ConversationDeleted { at, members, invited, .. } = outcome;
    let event = Event::ConversationDeleted { conversation_id: id.clone(), deleted_by: by.cloned(), deleted_at: *at };
    let told = [members, invited].into_iter().filter(|users| !users.is_empty());
    told.map(|users| events::outbox_event(users.clone(), &event)).collect()
}
