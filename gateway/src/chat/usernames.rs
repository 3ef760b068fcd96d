//! User names that tokens gave, kept so that a user can be named by them. Written in batches, off the connect path.

use std::collections::HashMap;

use moka::sync::Cache;
use parking_lot::Mutex;
use shared::UserId;

use super::Chat;

/// Names that wait to be written; more come with the next connect.
const WAITING_MAX: usize = 10_000;
/// Names that are known to be written.
const KNOWN_MAX: u64 = 100_000;

/// Names on their way to the store.
pub struct Usernames {
    waiting: Mutex<HashMap<UserId, String>>,
    known: Cache<UserId, String>,
}

impl Default for Usernames {
    fn default() -> Self {
        Self { waiting: Mutex::default(), known: Cache::new(KNOWN_MAX) }
    }
}

impl Chat {
    /// Notes the name with which a user came.
    pub fn remember_username(&self, user: &UserId, username: String) {
        if self.usernames.known.get(user).as_ref() == Some(&username) {
            return;
        }
        let mut waiting = self.usernames.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.insert(user.clone(), username);
        }
    }

    /// Writes the noted names to the store.
    pub async fn flush_usernames(&self) {
        let batch: Vec<(UserId, String)> = self.usernames.waiting.lock().drain().collect();
        if batch.is_empty() {
            return;
        }
        match self.store.remember_usernames(&batch).await {
            Ok(()) => batch.into_iter().for_each(|(user, name)| self.usernames.known.insert(user, name)),
            Err(error) => {
                tracing::debug!(%error, "user names could not be kept");
                batch.into_iter().for_each(|(user, name)| self.remember_username(&user, name));
            }
        }
    }
}
