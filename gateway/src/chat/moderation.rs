//! Moderation: members who may not write for a time, and all messages of one user removed.

use std::time::{Duration, Instant};

use shared::{ConversationId, ErrorCode, MessageId, ProtocolError, UserId};

use super::Chat;
use super::asking::Via;
use crate::store::{AuthorPlace, Authored, Giver, MessageChange, Refusal, StoreError};

/// How long one request removes messages before it answers where it is.
const REMOVING: Duration = Duration::from_secs(1);

/// How far the removal of a user's messages has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The messages that this request deleted.
    pub deleted: u64,
    /// Where the next request goes on; `None` when it is done.
    pub next: Option<AuthorPlace>,
}

impl Chat {
    /// Keeps a member from writing for so long (`None`: lets them write again), in the name of `giver`.
    pub async fn mute(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        giver: &Giver,
        time: Option<Duration>,
    ) -> Result<(), ProtocolError> {
        let changed = self.store.mute(conversation, user, giver.user.as_ref(), time).await;
        if self.outside(conversation, giver.user.as_ref(), changed).await? {
            self.audit.muted(user, conversation, giver, time);
            if time.is_some() {
                self.end_typing(conversation, user).await;
            }
        }
        Ok(())
    }

    /// Deletes messages of one user in the name of a backend or an admin, for about a second. Every member is told of
    /// each.
    pub async fn remove_messages(
        &self,
        of: &Authored,
        mut place: Option<AuthorPlace>,
    ) -> Result<Removal, ProtocolError> {
        let begun = Instant::now();
        let mut deleted = 0;
        loop {
            let page = self.store.authored(of, place.as_ref()).await?;
            for message in page.messages {
                let at = AuthorPlace { conversation: message.conversation_id.clone(), seq: message.seq };
                deleted += u64::from(self.remove_message(message.id).await?);
                if begun.elapsed() >= REMOVING {
                    return Ok(Removal { deleted, next: Some(at) });
                }
            }
            place = page.next;
            if place.is_none() || begun.elapsed() >= REMOVING {
                return Ok(Removal { deleted, next: place });
            }
        }
    }

    /// Deletes a message in the name of a backend; whether it was there. A conversation that was deleted took it along.
    pub(super) async fn remove_message(&self, id: MessageId) -> Result<bool, ProtocolError> {
        match self.change_message(id, &Giver::backend(), MessageChange::Delete, Via::Backend).await {
            Ok(change) => Ok(change.changed),
            Err(error) if error.code == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The refusal of somebody who may not write now: with the time until they may.
    pub(super) async fn muted(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<ProtocolError, StoreError> {
        let wait_ms = self.store.muted_ms(conversation, user).await?;
        Ok(super::refused(Refusal::Muted).retry_after_ms(wait_ms))
    }
}
