//! Comings and goings of users for the webhook of events: in posts of their own, at most once. Nothing keeps them, because a
//! backend that missed one may ask who is online.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::{Timestamp, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::signed::{PostOutcome, SignedPosts};
use crate::config::EventsConfig;
use crate::http_client::EndpointError;
use crate::metrics::Metrics;

/// Comings and goings that wait while the receiver is slow; further ones are dropped and counted.
const WAITING_MAX: usize = 10_000;
/// Of these in one post.
const PER_POST: usize = 100;
/// The longest that the receiver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// The largest answer; it is not used.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where comings and goings are handed in. Cloning it is cheap.
#[derive(Clone)]
pub struct PresencePosts {
    queue: mpsc::Sender<Turn>,
    metrics: Arc<Metrics>,
}

/// The task that posts them.
pub struct PresenceTask {
    posts: SignedPosts,
    waiting: mpsc::Receiver<Turn>,
    metrics: Arc<Metrics>,
}

/// A coming or going, as the receiver reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Turn {
    id: String,
    r#type: &'static str,
    at: Timestamp,
    user_id: UserId,
}

#[derive(Serialize)]
struct Batch<'a> {
    id: &'a str,
    events: &'a [Turn],
}

impl PresencePosts {
    /// The handle, and the task that has to be run.
    ///
    /// # Errors
    /// The URL is `https` and no certificate authority is trusted here.
    pub fn new(config: &EventsConfig, metrics: Arc<Metrics>) -> Result<(Self, PresenceTask), EndpointError> {
        let posts = SignedPosts::new("events", (&config.url, &config.secret), ANSWER_WITHIN, ANSWER_BYTES_MAX)?;
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        Ok((Self { queue, metrics: Arc::clone(&metrics) }, PresenceTask { posts, waiting, metrics }))
    }

    /// A user came or went; dropped if too many wait.
    pub fn tell(&self, user: &UserId, online: bool, at: Timestamp) {
        let r#type = if online { "user.online" } else { "user.offline" };
        let turn = Turn { id: format!("p{:032x}", rand::random::<u128>()), r#type, at, user_id: user.clone() };
        if self.queue.try_send(turn).is_err() {
            self.metrics.webhook_events("dropped", 1);
        }
    }
}

impl PresenceTask {
    /// Posts until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.post_all() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn post_all(&mut self) {
        let mut turns = Vec::with_capacity(PER_POST);
        while self.waiting.recv_many(&mut turns, PER_POST).await > 0 {
            let id = turns.first().map_or_else(String::new, |turn| turn.id.clone());
            match self.posts.post(&id, &Batch { id: &id, events: &turns }).await {
                PostOutcome::Delivered => self.metrics.webhook_events("delivered", turns.len()),
                PostOutcome::Failed(why) | PostOutcome::Refused(why) => {
                    self.metrics.webhook_events("dropped", turns.len());
                    tracing::debug!(why, count = turns.len(), "comings and goings were not taken by the webhook");
                }
            }
            turns.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn comings_and_goings_that_find_no_room_are_dropped() {
        let config = EventsConfig { url: "http://127.0.0.1:9/".parse().expect("a URL"), secret: "s".repeat(16) };
        let (posts, task) = PresencePosts::new(&config, Arc::new(Metrics::new())).expect("no certificates");
        let user = UserId::parse("u").expect("an id");
        (0..WAITING_MAX + 50).for_each(|_| posts.tell(&user, true, Timestamp::now()));
        assert_eq!((posts.queue.capacity(), task.waiting.len()), (0, WAITING_MAX));
    }
}
