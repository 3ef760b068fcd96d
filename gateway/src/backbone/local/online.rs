//! The users who are online in this process, and those whose offline announcement is due. Times are unix milliseconds.

use std::collections::HashMap;

use shared::{Timestamp, UserId};

use crate::backbone::{Presence, Settings};

/// The table.
#[derive(Default)]
pub(super) struct Online {
    users: HashMap<UserId, State>,
}

#[derive(Default)]
struct State {
    online_until_ms: Option<i64>,
    last_sign_ms: i64,
    /// Announced online; to be checked then.
    due_ms: Option<i64>,
    last_seen_ms: Option<i64>,
}

impl Online {
    /// A sign of life; whether it is news.
    pub(super) fn arrived(&mut self, user: &UserId, now_ms: i64, settings: &Settings) -> bool {
        let state = self.users.entry(user.clone()).or_default();
        state.online_until_ms = Some(now_ms + i64::from(settings.online_ttl_seconds) * 1000);
        state.last_sign_ms = now_ms;
        state.due_ms.replace(now_ms + settings.life_ms()).is_none()
    }

    /// The last socket has closed.
    pub(super) fn departed(&mut self, user: &UserId, now_ms: i64, settings: &Settings) {
        let Some(state) = self.users.get_mut(user) else { return };
        if state.is_online(now_ms) {
            state.online_until_ms = None;
            state.last_seen_ms = Some(now_ms);
            if state.due_ms.is_some() {
                state.due_ms = Some(now_ms + settings.grace_ms());
            }
        }
    }

    /// Takes those whose check is due and who are offline.
    pub(super) fn take_offline(&mut self, limit: u32, now_ms: i64, settings: &Settings) -> Vec<(UserId, Timestamp)> {
        let mut gone = Vec::new();
        for (user, state) in &mut self.users {
            if gone.len() >= limit as usize {
                break;
            }
            if state.due_ms.is_none_or(|due_ms| due_ms > now_ms) {
                continue;
            }
            if state.is_online(now_ms) {
                state.due_ms = Some(now_ms + settings.life_ms());
                continue;
            }
            state.due_ms = None;
            // Without a word of the last socket, the last sign of life is all that is known.
            let seen_ms = state.last_seen_ms.unwrap_or(0).max(state.last_sign_ms);
            state.last_seen_ms = Some(seen_ms);
            gone.push((user.clone(), Timestamp::from_unix_ms(seen_ms)));
        }
        gone
    }

    /// Forgets a user.
    pub(super) fn forget(&mut self, user: &UserId) {
        self.users.remove(user);
    }

    /// Whether the user was ever online.
    pub(super) fn knows(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    pub(super) fn presence(&self, user: &UserId, now_ms: i64) -> Presence {
        let state = self.users.get(user);
        Presence {
            online: state.is_some_and(|state| state.is_online(now_ms)),
            last_seen: state.and_then(|state| state.last_seen_ms).map(Timestamp::from_unix_ms),
        }
    }
}

impl State {
    fn is_online(&self, now_ms: i64) -> bool {
        self.online_until_ms.is_some_and(|until_ms| until_ms > now_ms)
    }
}
