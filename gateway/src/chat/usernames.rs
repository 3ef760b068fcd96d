//! Names from tokens, stored so that users can be shown by them and looked up. Written in batches, off the connect path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use shared::UserId;
use tokio::sync::Semaphore;

use super::Chat;
use crate::store::{Names, Store};

/// Names that wait to be written; more come with the next connect.
const WAITING_MAX: usize = 10_000;
/// Names that are remembered.
const KNOWN_MAX: u64 = 100_000;
/// How long a name from the store is cached, of a user who did not come here.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long an event waits for a name. One without it is worth more than one that comes late.
const LOOKED_UP_WITHIN: Duration = Duration::from_millis(250);
/// For how long a user who comes again with the same names isn't written again. Meanwhile they may have come to another node
/// with others.
const WRITTEN_FOR: Duration = Duration::from_secs(600);
/// How long a new connection waits for its turn to write its name.
const WRITTEN_WITHIN: Duration = Duration::from_millis(250);

/// Names, from tokens and from the store.
pub struct KnownNames {
    store: Arc<dyn Store>,
    /// On their way to the store.
    waiting: Mutex<HashMap<UserId, Names>>,
    /// One batch at a time: what gathers meanwhile makes the next one.
    writing: Semaphore,
    /// With which users came here; written.
    known: Cache<UserId, Names>,
    /// Names from the store, of users who did not come here.
    found: Cache<UserId, Option<String>>,
}

impl KnownNames {
    /// No names yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let found = Cache::builder().max_capacity(KNOWN_MAX).time_to_live(BELIEVED).build();
        let known = Cache::builder().max_capacity(KNOWN_MAX).time_to_live(WRITTEN_FOR).build();
        Self { store, waiting: Mutex::default(), writing: Semaphore::new(1), known, found }
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
        let brought = self.waiting.lock().get(user).cloned().or_else(|| self.known.get(user));
        brought.and_then(|names| names.shown).map(Some).or_else(|| self.found.get(user))
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

    fn remember(&self, user: &UserId, names: Names) {
        if names == Names::default() || self.known.get(user).as_ref() == Some(&names) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.insert(user.clone(), names);
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
        let batch: Vec<(UserId, Names)> =
            self.waiting.lock().iter().map(|(user, names)| (user.clone(), names.clone())).collect();
        if batch.is_empty() {
            return;
        }
        match self.store.remember_names(&batch).await {
            Ok(()) => {
                for (user, names) in batch {
                    self.known.insert(user.clone(), names.clone());
                    let mut waiting = self.waiting.lock();
                    if waiting.get(&user) == Some(&names) {
                        waiting.remove(&user);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "user names could not be stored; the next batch retries"),
        }
    }
}

impl Chat {
    /// Notes the names with which a user came: the one by which others look the user up, and the one that they are shown.
    pub fn remember_names(&self, user: &UserId, username: Option<String>, shown: Option<String>) {
        self.names.remember(user, Names { username, shown });
    }

    /// A user's name to show, if it is known.
    pub async fn username(&self, user: &UserId) -> Option<String> {
        self.names.of(user).await
    }

    /// Writes the noted names to the store.
    pub async fn flush_names(&self) {
        self.names.flush().await;
    }
}
