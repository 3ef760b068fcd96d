//! Blocks: between two users of whom one has blocked the other, nothing passes.

use shared::command::UserRef;
use shared::{ErrorCode, Event, ProtocolError, UserId};

use super::{Chat, events};
use crate::backbone::Control;

impl Chat {
    /// Blocks a user or lifts the block. The answer goes to all devices when something changed; otherwise it is returned,
    /// for the asking connection alone.
    pub async fn set_block(&self, blocker: &UserId, other: UserRef, on: bool) -> Result<Option<Event>, ProtocolError> {
        let blocked = self.resolve(other).await?;
        if &blocked == blocker {
            return Err(ProtocolError::field("userId", "is yourself"));
        }
        let event = match on {
            true => Event::BlockAdded { user_id: blocked.clone() },
            false => Event::BlockRemoved { user_id: blocked.clone() },
        };
        let (told, devices) = (event.clone(), blocker.clone());
        let (row, built) = self
            .row(move |changed: &bool| match changed {
                true => vec![events::outbox_event(vec![devices.clone()], &told)],
                false => Vec::new(),
            })
            .await?;
        if !self.store.set_block(blocker, &blocked, on, row).await? {
            return Ok(Some(event));
        }
        self.forget_direct(blocker, &blocked).await;
        self.publish_row(&built);
        Ok(None)
    }

    async fn resolve(&self, user: UserRef) -> Result<UserId, ProtocolError> {
        match user {
            UserRef::Id(user) => Ok(user),
            UserRef::Username(name) => self.store.user_by_name(&name).await?.ok_or_else(|| ProtocolError {
                field: Some("username".into()),
                ..ProtocolError::new(ErrorCode::NotFound, "no user with this name has connected")
            }),
        }
    }

    /// The members of a direct conversation say whether one of the two has blocked the other: every node forgets them.
    async fn forget_direct(&self, one: &UserId, other: &UserId) {
        // Another node may know the conversation of the two while this one doesn't.
        let conversation = match self.known_direct(one, other) {
            Some(known) => Ok(Some(known)),
            None => self.store.direct((one, other)).await,
        };
        match conversation {
            Ok(Some(conversation)) => self.tell_members_changed(&conversation).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a change of a block could not be told to the other nodes"),
        }
    }

    /// Tells every node to forget a conversation's members. Best effort: a commit's version check finds what was missed.
    pub(super) async fn tell_members_changed(&self, conversation: &shared::ConversationId) {
        self.members.forget(conversation);
        let order = Control::MembersChanged { conversation_id: conversation.clone() };
        if let Err(error) = self.backbone.control(&order).await {
            tracing::debug!(%error, "a change of members could not be announced");
        }
    }
}
