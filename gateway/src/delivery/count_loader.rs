//! The one task that loads unread counts from the store: those of many users in one query, never on the way of an event.

use std::sync::Arc;
use std::time::Duration;

use shared::{ConversationId, UserId};

use crate::delivery::counts::{LoadedCounts, WantedCounts};
use crate::delivery::registry::Registry;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// Users in one query. After a deploy everybody's counts are due.
const USERS_MAX: usize = 128;
/// The pause after a failed load.
const PAUSE: Duration = Duration::from_millis(500);

/// Loads unread counts for the users of this node.
pub struct CountLoader {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

/// The counts that one load brings.
#[derive(Default)]
struct CountLoad {
    /// Users of whom all counts are wanted.
    all: Vec<UserId>,
    /// Users of whom some are, each with the number of their conversations.
    some: Vec<(UserId, usize)>,
    /// These conversations, user by user.
    places: Vec<(UserId, ConversationId)>,
}

impl CountLoader {
    /// A loader for these sockets.
    pub fn new(registry: Arc<Registry>, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { registry, store, metrics }
    }

    /// Loads what is asked for; ends when it is dropped.
    pub async fn run(self) {
        // After a failure users are loaded one by one, so that one whose counts can't be read holds up nobody else.
        let (mut limit, mut number) = (USERS_MAX, 0);
        loop {
            let users = self.registry.counts_due(limit).await;
            number += 1;
            let load = self.begin(users, number);
            match self.load(&load).await {
                Ok(loaded) => {
                    loaded.into_iter().for_each(|(user, loaded)| self.registry.counts_loaded(&user, number, loaded));
                    limit = USERS_MAX;
                }
                Err(error) => {
                    tracing::debug!(%error, "unread counts could not be loaded");
                    self.metrics.count_loads_failed.increment(1);
                    let users = load.all.iter().chain(load.some.iter().map(|(user, _)| user));
                    users.for_each(|user| self.registry.count_load_failed(user, number));
                    limit = 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn begin(&self, users: Vec<UserId>, number: u64) -> CountLoad {
        let mut load = CountLoad::default();
        for user in users {
            match self.registry.begin_count_load(&user, number) {
                None => {}
                Some(WantedCounts::All) => load.all.push(user),
                Some(WantedCounts::Of(conversations)) => {
                    load.some.push((user.clone(), conversations.len()));
                    load.places.extend(conversations.into_iter().map(|conversation| (user.clone(), conversation)));
                }
            }
        }
        load
    }

    async fn load(&self, load: &CountLoad) -> Result<Vec<(UserId, LoadedCounts)>, StoreError> {
        let mut loaded = Vec::with_capacity(load.all.len() + load.some.len());
        if !load.all.is_empty() {
            let counts = self.store.unread(&load.all).await?.into_iter().map(LoadedCounts::All);
            loaded.extend(load.all.iter().cloned().zip(counts));
        }
        if !load.places.is_empty() {
            let counts = self.store.unread_in(&load.places).await?;
            let conversations = load.places.iter().map(|(_, conversation)| conversation.clone());
            let mut counts = conversations.zip(counts);
            for (user, count) in &load.some {
                loaded.push((user.clone(), LoadedCounts::Of(counts.by_ref().take(*count).collect())));
            }
        }
        Ok(loaded)
    }
}
