//! The tasks that heal users: they read the log, and wait where the backbone is away. What a read means is decided in
//! [`heal`](crate::delivery::heal).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::UserId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::backbone::{Backbone, BackboneError, LogPage};
use crate::delivery::heal::{Heal, readable};
use crate::delivery::marker::{MarkedEvent, Named};
use crate::delivery::registry::Registry;
use crate::delivery::topics::Topics;
use crate::metrics::Metrics;

/// Entries that one read brings: with messages of the largest size, some half of a socket's budget.
const PAGE_ENTRIES: u32 = 32;
/// Users that are healed at the same time.
const CONCURRENT_MAX: usize = 64;
/// The pause after the first failed read; after the second it is twice as long, and so on.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads logs for the sockets of this node.
pub struct Healer {
    registry: Arc<Registry>,
    topics: Arc<Topics>,
    backbone: Arc<dyn Backbone>,
    metrics: Arc<Metrics>,
    read_marked: ReadMarked,
}

/// Reads what markers stand for from the store, for one user, for sockets that can't fetch it.
pub type ReadMarked =
    Box<dyn Fn(UserId, Vec<Named>) -> BoxFuture<'static, Result<Vec<MarkedEvent>, BackboneError>> + Send + Sync>;

impl Healer {
    /// A healer for these sockets.
    pub fn new(
        (registry, topics): (Arc<Registry>, Arc<Topics>),
        backbone: Arc<dyn Backbone>,
        metrics: Arc<Metrics>,
        read_marked: ReadMarked,
    ) -> Self {
        Self { registry, topics, backbone, metrics, read_marked }
    }

    /// Heals each user that is asked for, until the queue's senders are gone.
    pub async fn run(self: Arc<Self>, mut users: mpsc::UnboundedReceiver<UserId>) {
        let permits = Arc::new(Semaphore::new(CONCURRENT_MAX));
        let tasks = TaskTracker::new();
        while let Some(user) = users.recv().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
            let healer = Arc::clone(&self);
            tasks.spawn(async move {
                healer.heal(user).await;
                drop(permit);
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn heal(&self, user: UserId) {
        let mut heal =
            Heal::new((Arc::clone(&self.registry), Arc::clone(&self.topics)), Arc::clone(&self.metrics), user);
        while let Some(after) = heal.next_read() {
            match self.backbone.read(heal.user(), after, PAGE_ENTRIES).await {
                Ok(page) => {
                    let page = readable(page, &self.metrics);
                    let marked = self.marked(&heal, &page).await;
                    // Without the store, flat sockets wait in front of a marker; the others go on.
                    heal.apply(after, &page, marked.as_ref().ok().and_then(|marked| marked.as_deref()));
                    if let Err(error) = marked {
                        self.pause(&mut heal, &error).await;
                    }
                }
                Err(error) => self.pause(&mut heal, &error).await,
            }
        }
    }

    /// The messages that the page's markers stand for, if some socket is to be given them.
    async fn marked(&self, heal: &Heal, page: &LogPage) -> Result<Option<Vec<MarkedEvent>>, BackboneError> {
        let named = heal.wants_marked(page);
        if named.is_empty() {
            return Ok(None);
        }
        (self.read_marked)(heal.user().clone(), named).await.map(Some)
    }

    async fn pause(&self, heal: &mut Heal, error: &BackboneError) {
        if let Some(failures) = heal.read_failed(error) {
            tokio::time::sleep(PAUSE * failures).await;
        }
    }
}
