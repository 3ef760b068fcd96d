//! Typing: ephemeral. The server ends it after silence, because clients can vanish while their user types.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::{ConversationId, ConversationKind, Event, ProtocolError, UserId};

use super::Chat;
use crate::backbone::{Delivery, DeliveryKind};
use crate::clock::coarse_s;

/// Silence after which the server ends a typing.
const TYPING_S: u32 = 6;
/// Users that can be typing on one node at once; more are not shown.
const TYPING_MAX: usize = 100_000;

/// The users of this node who are typing, where, and until when.
#[derive(Debug, Default)]
pub struct Typing {
    until_s: Mutex<HashMap<(UserId, ConversationId), u32>>,
}

impl Chat {
    /// Tells the other members that the user types, or has stopped.
    pub async fn typing(&self, user: &UserId, conversation: &ConversationId, on: bool) -> Result<(), ProtocolError> {
        let key = (user.clone(), conversation.clone());
        let members = self.members.of_member(conversation, user).await?;
        if members.blocked {
            return Err(super::refused(crate::store::Refusal::Blocked));
        }
        {
            let mut until_s = self.typing.until_s.lock();
            if on && until_s.len() < TYPING_MAX {
                until_s.insert(key, coarse_s() + TYPING_S);
            } else if until_s.remove(&key).is_none() {
                // Neither shown nor known: there is nothing to tell.
                return Ok(());
            }
        }
        self.tell_typing(user, conversation, on).await;
        Ok(())
    }

    /// Ends a typing that is known, because its message came.
    pub(super) async fn end_typing(&self, conversation: &ConversationId, user: &UserId) {
        let known = {
            let mut until_s = self.typing.until_s.lock();
            !until_s.is_empty() && until_s.remove(&(user.clone(), conversation.clone())).is_some()
        };
        if known {
            self.tell_typing(user, conversation, false).await;
        }
    }

    /// Ends every typing of a user whose last socket here has closed.
    pub async fn end_all_typing(&self, user: &UserId) {
        self.end_typing_where(|(typist, _), _| typist == user).await;
    }

    /// Ends typings that were silent for too long, and those of users who left: another node may have
    /// removed them.
    pub async fn end_silent_typing(&self) {
        let now_s = coarse_s();
        self.end_typing_where(|_, until_s| until_s <= now_s).await;
        let typing: Vec<_> = self.typing.until_s.lock().keys().cloned().collect();
        for (user, conversation) in typing {
            // While the store is away, members count as present.
            if self.members.get(&conversation).await.is_ok_and(|members| members.role(&user).is_none()) {
                self.end_typing(&conversation, &user).await;
            }
        }
    }

    async fn end_typing_where(&self, ends: impl Fn(&(UserId, ConversationId), u32) -> bool) {
        let ended: Vec<_> = {
            let mut until_s = self.typing.until_s.lock();
            until_s.extract_if(|key, until_s| ends(key, *until_s)).map(|(key, _)| key).collect()
        };
        for (user, conversation) in ended {
            self.tell_typing(&user, &conversation, false).await;
        }
    }

    /// Best effort: a typing event that can't be sent now is useless later.
    async fn tell_typing(&self, user: &UserId, conversation: &ConversationId, on: bool) {
        let Ok(members) = self.members.get(conversation).await else { return };
        if members.list.len().saturating_sub(1) > usize::try_from(self.presence_audience).unwrap_or(usize::MAX) {
            return;
        }
        let username = match members.kind {
            ConversationKind::Direct => None,
            ConversationKind::Group | ConversationKind::Channel => self.names.of(user).await,
        };
        let (conversation_id, user_id) = (conversation.clone(), user.clone());
        let event = Event::Typing { conversation_id, user_id, is_typing: on, username };
        let body = bytes::Bytes::from(event.to_json());
        let others = members.list.iter().map(|(member, _)| member).filter(|member| *member != user);
        let delivery =
            |member: &UserId| Delivery { user: member.clone(), body: body.clone(), kind: DeliveryKind::Ephemeral };
        self.publisher.publish_ephemeral(others.map(delivery).collect());
    }
}
