//! Whom a message goes to, and what its events say of it beside the message: from memory at once, or from the store for
//! many messages by one query.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::{ConversationId, ConversationKind, Message, UserId};

use crate::chat::events::About;
use crate::chat::members::{MembersCache, is_for_all_of};
use crate::chat::usernames::KnownNames;
use crate::store::{Members, StoreError, StoredMessage};

/// What is known of conversations and users.
#[derive(Clone)]
pub struct Directory {
    /// Who is in which conversation.
    pub members: Arc<MembersCache>,
    /// What users are called.
    pub names: Arc<KnownNames>,
}

/// Whom a message goes to.
#[derive(Debug, Clone)]
pub(in crate::chat) struct Audience {
    /// The members of now.
    pub(super) now: Arc<Members>,
    /// The members of then, if they differ: those who were in when the message was committed.
    pub(super) then: Option<Vec<UserId>>,
    /// What the events say beside the message.
    pub(super) about: About,
    /// Whether it is published once for all of them, whoever they are.
    pub(super) large: bool,
}

impl Audience {
    /// How many users the message goes to; 1 for all of a large conversation.
    pub(super) fn count(&self) -> usize {
        if self.large {
            return 1;
        }
        self.then.as_ref().map_or(self.now.list.len(), Vec::len)
    }
}

impl Directory {
    /// What the events of a message say of it.
    pub(in crate::chat) async fn about(&self, message: &Message, members: &Members) -> About {
        match self.about_at_hand(message, members) {
            Some(about) => about,
            None => About { to: None, sender_name: self.names.of(&message.sender_id).await },
        }
    }

    /// The same, if the store needn't be asked for the sender's name.
    fn about_at_hand(&self, message: &Message, members: &Members) -> Option<About> {
        match members.kind {
            ConversationKind::Direct => Some(about_direct(message, members)),
            ConversationKind::Group | ConversationKind::Channel => {
                Some(About { to: None, sender_name: self.names.at_hand(&message.sender_id)? })
            }
        }
    }

    /// The audience, if the store needn't be asked.
    pub(super) fn at_hand(&self, stored: &StoredMessage) -> Option<Audience> {
        let StoredMessage { message, members_version } = stored;
        let now = self.members.confirmed(&message.conversation_id, *members_version)?;
        let large = now.route.is_large_at(message.seq);
        if !large && !is_for_all_of(&now, message.seq) {
            return None;
        }
        let about = self.about_at_hand(message, &now)?;
        Some(Audience { now, then: None, about, large })
    }

    /// The audience, from the store if need be.
    pub(super) async fn audience(&self, stored: &StoredMessage) -> Result<Audience, StoreError> {
        let StoredMessage { message, members_version } = stored;
        let (now, then) = self.members.audience(&message.conversation_id, *members_version, message.seq).await?;
        let about = self.about(message, &now).await;
        let large = now.route.is_large_at(message.seq);
        Ok(Audience { now, then, about, large })
    }

    /// The audiences of messages that are not at hand, in their order. Members are loaded by one query and names by another;
    /// only a message that is published late, after somebody came or went, takes a query of its own.
    pub(super) async fn load(&self, messages: &[StoredMessage]) -> Vec<Result<Audience, StoreError>> {
        let cold = |stored: &&StoredMessage| {
            self.members.confirmed(&stored.message.conversation_id, stored.members_version).is_none()
        };
        let conversations: BTreeSet<&ConversationId> =
            messages.iter().filter(cold).map(|stored| &stored.message.conversation_id).collect();
        let conversations: Vec<ConversationId> = conversations.into_iter().cloned().collect();
        if !conversations.is_empty()
            && let Err(error) = self.members.load_many(&conversations).await
        {
            let reason = error.to_string();
            return messages.iter().map(|_| Err(StoreError::Unavailable(reason.clone()))).collect();
        }
        let unnamed = |stored: &&StoredMessage| self.names.at_hand(&stored.message.sender_id).is_none();
        let senders: BTreeSet<&UserId> =
            messages.iter().filter(unnamed).map(|stored| &stored.message.sender_id).collect();
        if !senders.is_empty() {
            self.names.look_up(&senders.into_iter().cloned().collect::<Vec<_>>()).await;
        }
        let mut audiences = Vec::with_capacity(messages.len());
        for stored in messages {
            audiences.push(match self.at_hand(stored) {
                Some(audience) => Ok(audience),
                None => self.audience(stored).await,
            });
        }
        audiences
    }
}

fn about_direct(message: &Message, members: &Members) -> About {
    About { to: members.recipient_of(&message.sender_id).cloned(), sender_name: None }
}
