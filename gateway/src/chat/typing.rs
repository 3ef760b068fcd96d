//! Typing: ephemeral. The server ends it after silence, because clients can vanish while their user types.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::{ConversationId, ConversationKind, Event, ProtocolError, UserId};

use super::Chat;
use crate::backbone::{Delivery, DeliveryKind};
use crate::clock::coarse_s;
use crate::store::{Members, StoreError};

/// Silence after which the server ends a typing.
const TYPING_S: u32 = 6;
/// Users that can be typing on one node at once; more are not shown.
const TYPING_MAX: usize = 100_000;

/// The users of this node who are typing, where, and until when.
#[derive(Debug, Default)]
pub struct Typing {
    shown: Mutex<HashMap<(UserId, ConversationId), Shown>>,
}

/// A typing that others are shown.
#[derive(Debug)]
struct Shown {
    until_s: u32,
    /// The members who were never shown it, because of a block between them and the typist; ascending by id.
    hidden_from: Vec<UserId>,
}

/// A typing that is over.
pub(super) struct EndedTyping {
    user: UserId,
    conversation: ConversationId,
    hidden_from: Vec<UserId>,
}

impl Chat {
    /// Tells the other members that the user types, or has stopped.
    pub async fn typing(&self, user: &UserId, conversation: &ConversationId, on: bool) -> Result<(), ProtocolError> {
        let key = (user.clone(), conversation.clone());
        let members = self.members.of_member(conversation, user).await?;
        if members.blocked {
            return Err(super::refused(crate::store::Refusal::Blocked));
        }
        let hidden_from = match on {
            true => match self.hidden_from(user, conversation, &members).await {
                Ok(hidden_from) => hidden_from,
                Err(error) => {
                    tracing::debug!(%error, "a typing is not shown, because blocks can't be looked up");
                    return Ok(());
                }
            },
            false => Vec::new(),
        };
        let told = {
            let mut shown = self.typing.shown.lock();
            let before = shown.remove(&key);
            if on && shown.len() < TYPING_MAX {
                // Its end goes to everybody who was shown it, also to those blocked meanwhile.
                let mut never = hidden_from.clone();
                if let Some(before) = before {
                    never.retain(|user| before.hidden_from.binary_search(user).is_ok());
                }
                shown.insert(key, Shown { until_s: coarse_s() + TYPING_S, hidden_from: never });
                Some(hidden_from)
            } else {
                before.map(|before| before.hidden_from)
            }
        };
        // Neither shown nor known: there is nothing to tell.
        if let Some(hidden_from) = told {
            self.tell_typing(user, conversation, on, &hidden_from).await;
        }
        Ok(())
    }

    /// The members who are not shown the user's typing. The store is asked each time, because blocks take effect at once;
    /// the end of a typing needs no look. The two of a direct conversation are judged before.
    async fn hidden_from(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        members: &Members,
    ) -> Result<Vec<UserId>, StoreError> {
        if members.kind == ConversationKind::Direct || self.is_beyond_audience(members) {
            return Ok(Vec::new());
        }
        if members.route.large {
            return self.store.blocked_in(conversation, user).await;
        }
        let others: Vec<UserId> =
            members.list.iter().map(|(member, _)| member).filter(|m| *m != user).cloned().collect();
        self.store.blocked_with(user, &others).await
    }

    /// Whether nobody is shown who types, because there are too many.
    fn is_beyond_audience(&self, members: &Members) -> bool {
        members.count().saturating_sub(1) > usize::try_from(self.presence_audience).unwrap_or(usize::MAX)
    }

    /// Ends a typing that is known.
    pub(super) async fn end_typing(&self, conversation: &ConversationId, user: &UserId) {
        if let Some(ended) = self.take_typing(conversation, user) {
            self.tell_ended(&ended).await;
        }
    }

    /// Forgets a typing that is known, because its message came. The others are told with [`Chat::tell_ended`].
    pub(super) fn take_typing(&self, conversation: &ConversationId, user: &UserId) -> Option<EndedTyping> {
        let mut shown = self.typing.shown.lock();
        if shown.is_empty() {
            return None;
        }
        let key = (user.clone(), conversation.clone());
        let Shown { hidden_from, .. } = shown.remove(&key)?;
        let (user, conversation) = key;
        Some(EndedTyping { user, conversation, hidden_from })
    }

    /// Tells those who were shown a typing that it has ended.
    pub(super) async fn tell_ended(&self, ended: &EndedTyping) {
        let EndedTyping { user, conversation, hidden_from } = ended;
        self.tell_typing(user, conversation, false, hidden_from).await;
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
        let typing: Vec<_> = self.typing.shown.lock().keys().cloned().collect();
        for (user, conversation) in typing {
            // While the store is away, members count as present.
            let Ok(members) = self.members.get(&conversation).await else { continue };
            if matches!(self.members.role_of(&conversation, &members, &user).await, Ok(None)) {
                self.end_typing(&conversation, &user).await;
            }
        }
    }

    async fn end_typing_where(&self, ends: impl Fn(&(UserId, ConversationId), u32) -> bool) {
        let ended: Vec<_> = {
            let mut shown = self.typing.shown.lock();
            shown.extract_if(|key, shown| ends(key, shown.until_s)).collect()
        };
        for ((user, conversation), shown) in ended {
            self.tell_typing(&user, &conversation, false, &shown.hidden_from).await;
        }
    }

    /// Best effort: a typing event that can't be sent now is useless later.
    async fn tell_typing(&self, user: &UserId, conversation: &ConversationId, on: bool, hidden_from: &[UserId]) {
        let Ok(members) = self.members.get(conversation).await else { return };
        if self.is_beyond_audience(&members) {
            return;
        }
        let username = match members.kind {
            ConversationKind::Direct => None,
            ConversationKind::Group | ConversationKind::Channel => self.names.of(user).await,
        };
        let (conversation_id, user_id) = (conversation.clone(), user.clone());
        let event = Event::Typing { conversation_id, user_id, is_typing: on, username };
        if members.route.large {
            let except: Vec<UserId> = std::iter::once(user).chain(hidden_from).cloned().collect();
            return self.tell_all(conversation, &event, &except);
        }
        let body = bytes::Bytes::from(event.to_json());
        let others = members.list.iter().map(|(member, _)| member);
        let others = others.filter(|member| *member != user && hidden_from.binary_search(member).is_err());
        let delivery =
            |member: &UserId| Delivery { user: member.clone(), body: body.clone(), kind: DeliveryKind::Ephemeral };
        self.publisher.publish_ephemeral(others.map(delivery).collect());
    }
}
