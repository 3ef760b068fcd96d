//! Erasure of a user, in steps: their messages are emptied where they stand, and what logs of others say of them goes.
//! Any node goes on where another stopped.

use std::time::{Duration, Instant};

use shared::{ProtocolError, UserId};

use super::Chat;
use crate::store::{Authored, ErasurePlace, MEMBERS_EVER_PER_PAGE};

/// How long one request goes on before it answers that the rest follows.
const AT_ONCE: Duration = Duration::from_secs(1);
/// By then what a user sent before their revocation is stored or refused, in milliseconds: each answer comes within 5 s.
const SETTLED_MS: u64 = 6_000;
/// The pause before an erasure that has to wait is looked at again.
const PAUSE: Duration = Duration::from_millis(50);

impl Chat {
    /// Begins the erasure of a user, or goes on with it, for about a second: whether it is done. The upkeep does the
    /// rest.
    pub async fn erase(&self, user: &UserId) -> Result<bool, ProtocolError> {
        let begun = Instant::now();
        // First, so that no socket of theirs brings anything new.
        self.revoke(user).await?;
        self.store.begin_erasure(user).await?;
        self.names.forget(user);
        self.backbone.forget_user(user).await?;
        while let Some(place) = self.store.erasure_of(user).await? {
            if begun.elapsed() >= AT_ONCE {
                return Ok(false);
            }
            if !self.erasure_step(user, place).await? {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(true)
    }

    /// One step of any erasure that isn't done; `false` if there is none, or it has to wait.
    pub(super) async fn go_on_erasing(&self) -> Result<bool, ProtocolError> {
        match self.store.next_erasure().await? {
            Some((user, place)) => self.erasure_step(&user, place).await,
            None => Ok(false),
        }
    }

    /// Whether it went on.
    async fn erasure_step(&self, user: &UserId, place: ErasurePlace) -> Result<bool, ProtocolError> {
        let begins = matches!(place, ErasurePlace::Messages(None) | ErasurePlace::Logs(None));
        if begins && !self.store.erasure_may_go_on(user, SETTLED_MS).await? {
            return Ok(false);
        }
        let next = match place {
            ErasurePlace::Messages(place) => {
                let of = Authored { user: user.clone(), conversation: None, since: None };
                let page = self.store.authored(&of, place.as_ref()).await?;
                for message in page.messages {
                    self.remove_message(message.id).await?;
                }
                match page.next {
                    Some(next) => Some(ErasurePlace::Messages(Some(next))),
                    None => Some(ErasurePlace::Logs(None)),
                }
            }
            ErasurePlace::Logs(after) => match self.store.place_of(user, after.as_ref()).await? {
                Some(conversation) => {
                    self.cut_logs(&conversation, user).await?;
                    Some(ErasurePlace::Logs(Some(conversation)))
                }
                None => {
                    // What was still on its way to their own log when it was forgotten.
                    self.backbone.forget_user(user).await?;
                    None
                }
            },
        };
        self.store.keep_erasure(user, next.as_ref()).await?;
        Ok(true)
    }

    /// Cuts the logs of all who are or were in a conversation.
    async fn cut_logs(&self, conversation: &shared::ConversationId, erased: &UserId) -> Result<(), ProtocolError> {
        let mut after: Option<UserId> = None;
        loop {
            let page = self.store.members_ever(conversation, after.as_ref()).await?;
            self.backbone.cut_logs(&page, erased).await?;
            if page.len() < usize::try_from(MEMBERS_EVER_PER_PAGE).unwrap_or(usize::MAX) {
                return Ok(());
            }
            after = page.last().cloned();
        }
    }
}
