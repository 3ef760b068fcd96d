//! What a client asks for after a reload: members, single messages, blocks, invitations, channels.

use std::collections::HashMap;

use shared::message::{ListedMember, MemberState};
use shared::{Conversation, ConversationId, Message, MessageId, ProtocolError, Role, UserId};

use super::{Chat, refused};
use crate::backbone::Presence;
use crate::store::{ChannelPage, Names, Page, Refusal, StoreError};

impl Chat {
    /// Members in order of id, for `viewer`, who is one of them (`None`: a backend). Invited and banned users are
    /// listed for owners, admins and backends.
    pub async fn list_members(
        &self,
        conversation: &ConversationId,
        viewer: Option<&UserId>,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<ListedMember>, ProtocolError> {
        let outsiders = match viewer {
            None => true,
            Some(viewer) => {
                let members = self.members.of_member(conversation, viewer).await?;
                let role = self.members.role_of(conversation, &members, viewer).await?;
                matches!(role, Some(Role::Admin | Role::Owner))
            }
        };
        Ok(self.store.listed_members(conversation, viewer, outsiders, after, limit).await?)
    }

    /// Those of `members` who are connected now.
    pub async fn online_of(&self, members: Vec<ListedMember>) -> Result<Vec<ListedMember>, ProtocolError> {
        let users: Vec<UserId> = members.iter().map(|member| member.user_id.clone()).collect();
        let presence = self.backbone.presence(&users).await?;
        let is_online =
            |(member, presence): &(ListedMember, Presence)| member.state == MemberState::Accepted && presence.online;
        Ok(members.into_iter().zip(presence).filter(is_online).map(|(member, _)| member).collect())
    }

    /// One message of a conversation that `reader` is a member of (`None`: a backend).
    pub async fn message(&self, id: MessageId, reader: Option<&UserId>) -> Result<Message, ProtocolError> {
        let message = self.store.message(id).await?.ok_or_else(|| refused(Refusal::NotFound))?;
        if let Some(reader) = reader {
            self.members.of_member(&message.conversation_id, reader).await?;
        }
        Ok(message)
    }

    /// A page of history with this message in its middle, or nearer to an end of the history.
    pub async fn history_around(
        &self,
        conversation: &ConversationId,
        reader: Option<&UserId>,
        middle: MessageId,
        limit: u32,
    ) -> Result<Vec<Message>, ProtocolError> {
        self.may_read(conversation, reader).await?;
        let found = self.store.message(middle).await?.filter(|message| message.conversation_id == *conversation);
        let seq = found.ok_or_else(|| refused(Refusal::NotFound))?.seq;
        let mut page = match limit / 2 {
            0 => Vec::new(),
            before => self.store.messages(conversation, Page::Before(seq), before).await?,
        };
        let rest = limit.saturating_sub(u32::try_from(page.len()).unwrap_or(limit));
        page.extend(self.store.messages(conversation, Page::After(seq.saturating_sub(1)), rest).await?);
        Ok(page)
    }

    /// Whether `reader` may read a conversation: a member may, and a backend (`None`) if there is such a conversation.
    pub(super) async fn may_read(
        &self,
        conversation: &ConversationId,
        reader: Option<&UserId>,
    ) -> Result<(), ProtocolError> {
        match reader {
            Some(reader) => self.members.of_member(conversation, reader).await.map(drop),
            None => match self.store.outside(conversation, None).await? {
                Refusal::NotFound => Err(refused(Refusal::NotFound)),
                _ => Ok(()),
            },
        }
    }

    /// The users whom `user` has blocked, in order of id.
    pub async fn blocks(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, ProtocolError> {
        Ok(self.store.blocked_by(user, after, limit).await?)
    }

    /// The names of users, in their order.
    pub async fn names_of(&self, users: &[UserId]) -> Result<Vec<Names>, ProtocolError> {
        let found: HashMap<UserId, Names> = self.store.names_of(users).await?.into_iter().collect();
        let names = |user: &UserId| {
            let Names { username, shown } = found.get(user).cloned().unwrap_or_default();
            // A name that came just now may not be stored yet. Whether the other one is free only the store knows.
            Names { username, shown: shown.or_else(|| self.names.at_hand(user).flatten()) }
        };
        Ok(users.iter().map(names).collect())
    }

    /// The conversations to which `user` is invited, in order of id.
    pub async fn invitations(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<Conversation>, ProtocolError> {
        Ok(self.store.invitations(user, after, limit).await?)
    }

    /// Channels that everybody may join, in order of id, whose titles hold `query`.
    pub async fn public_channels(
        &self,
        query: Option<&str>,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<ChannelPage, StoreError> {
        self.store.public_channels(query, after, limit).await
    }
}
