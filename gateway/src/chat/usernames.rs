//! User names from tokens, stored so that users can be named by them. Written in batches, off the connect path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use shared::UserId;
use tokio::sync::Semaphore;

use super::Chat;
use crate::store::Store;

/// Names that wait to be written; more come with the next connect.
const WAITING_MAX: usize = 10_000;
/// Names that are remembered.
const KNOWN_MAX: u64 = 100_000;
/// How long a name from the store is cached, of a user who did not come here.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long an event waits for a name. One without it is worth more than one that comes late.
const LOOKED_UP_WITHIN: Duration = Duration::from_millis(250);
/// How long a new connection waits for its turn to write its name.
const WRITTEN_WITHIN: Duration = Duration::from_millis(250);

/// Names, from tokens and from the store.
pub struct Names {
    store: Arc<dyn Store>,
    /// On their way to the store.
    waiting: Mutex<HashMap<UserId, String>>,
    /// One batch at a time: what gathers meanwhile makes the next one.
    writing: Semaphore,
    /// With which users came here; written.
    known: Cache<UserId, String>,
    /// Names from the store, of users who did not come here.
    found: Cache<UserId, Option<String>>,
}

impl Names {
    /// No names yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let found = Cache::builder().max_capacity(KNOWN_MAX).time_to_live(BELIEVED).build();
        Self { store, waiting: Mutex::default(), writing: Semaphore::new(1), known: Cache::new(KNOWN_MAX), found }
    }

    /// The user's name, if it is known or quickly found: while the store is away no caller waits for long.
    pub async fn of(&self, user: &UserId) -> Option<String> {
        if let Some(known) = self.at_hand(user) {
            return known;
        }
        match tokio::time::timeout(LOOKED_UP_WITHIN, self.store.username(user)).await {
            Ok(Ok(found)) => {
                self.found.insert(user.clone(), found.clone());
                found
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a user name could not be looked up");
                None
            }
            Err(_) => {
                tracing::debug!("a user name could not be looked up in time");
                None
            }
        }
    }

    /// The user's name, or that there is none, if this node knows.
    pub fn at_hand(&self, user: &UserId) -> Option<Option<String>> {
        if let Some(name) = self.waiting.lock().get(user) {
            return Some(Some(name.clone()));
        }
        self.known.get(user).map(Some).or_else(|| self.found.get(user))
    }

    /// Looks several users up by one query. What isn't found quickly counts as unknown for now: an event without a name is
    /// worth more than one that comes late.
    pub async fn look_up(&self, users: &[UserId]) {
        match tokio::time::timeout(LOOKED_UP_WITHIN, self.store.usernames(users)).await {
            Ok(Ok(named)) => {
                let mut named: HashMap<UserId, String> = named.into_iter().collect();
                users.iter().for_each(|user| self.found.insert(user.clone(), named.remove(user)));
            }
            Ok(Err(error)) => tracing::debug!(%error, "user names could not be looked up"),
            Err(_) => tracing::debug!("user names could not be looked up in time"),
        }
    }

    fn remember(&self, user: &UserId, name: String) {
        if self.known.get(user).as_ref() == Some(&name) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.insert(user.clone(), name);
        }
    }

    /// Forgets a user's name.
    pub fn forget(&self, user: &UserId) {
        self.waiting.lock().remove(user);
        self.known.invalidate(user);
        self.found.invalidate(user);
    }

    async fn flush(&self) {
        if self.waiting.lock().is_empty() {
            return;
        }
        // Left to the next pass if the store is slow.
        let Ok(Ok(_turn)) = tokio::time::timeout(WRITTEN_WITHIN, self.writing.acquire()).await else { return };
        // Copied, not taken: until they are known, they have to be found here.
        let batch: Vec<(UserId, String)> =
            self.waiting.lock().iter().map(|(user, name)| (user.clone(), name.clone())).collect();
        if batch.is_empty() {
            return;
        }
        match self.store.remember_usernames(&batch).await {
            Ok(()) => {
                for (user, name) in batch {
                    self.known.insert(user.clone(), name.clone());
                    let mut waiting = self.waiting.lock();
                    if waiting.get(&user) == Some(&name) {
                        waiting.remove(&user);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "user names could not be stored; the next batch retries"),
        }
    }
}

impl Chat {
    /// Notes the name with which a user came.
    pub fn remember_username(&self, user: &UserId, username: String) {
        self.names.remember(user, username);
    }

    /// A user's name, if it is known.
    pub async fn username(&self, user: &UserId) -> Option<String> {
        self.names.of(user).await
    }

    /// Writes the noted names to the store.
    pub async fn flush_usernames(&self) {
        self.names.flush().await;
    }
}
