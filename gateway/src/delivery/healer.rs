//! The tasks that heal users: they read the log, and wait where the backbone is away. What a read means is decided in
//! [`heal`](crate::delivery::heal).

use std::sync::Arc;
use std::time::Duration;

use shared::UserId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::backbone::Backbone;
use crate::delivery::heal::Heal;
use crate::delivery::registry::Registry;
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
    backbone: Arc<dyn Backbone>,
    metrics: Arc<Metrics>,
}

impl Healer {
    /// A healer for these sockets.
    pub fn new(registry: Arc<Registry>, backbone: Arc<dyn Backbone>, metrics: Arc<Metrics>) -> Self {
        Self { registry, backbone, metrics }
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
        let mut heal = Heal::new(Arc::clone(&self.registry), Arc::clone(&self.metrics), user);
        while let Some(after) = heal.next_read() {
            match self.backbone.read(heal.user(), after, PAGE_ENTRIES).await {
                Ok(page) => heal.apply(after, &page),
                Err(error) => {
                    if let Some(failures) = heal.read_failed(&error) {
                        tokio::time::sleep(PAUSE * failures).await;
                    }
                }
            }
        }
    }
}
