//! The webhook of push notifications: takes jobs about messages that no connection received, and posts them, signed.
//! It offers [`PushWebhook`], one task per node. A job is tried ten times in about three minutes, then it is kept as dead.
//! It never posts to another URL than the one of the settings. A job may be posted twice, with the same id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::{Message, UserId};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::backbone::{Backbone, PUSH_JOB_KEPT, PushJob};
use crate::config::PushConfig;
use crate::http_client::EndpointError;
use crate::metrics::Metrics;
use crate::store::{Page, Store};
use crate::webhooks::signed::{PostOutcome, SignedPosts};

/// Jobs that a node holds, with those that wait for their next try.
const JOBS_HELD_MAX: usize = 64;
/// How often new jobs are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Tries of one job by one node.
const TRIES_MAX: u32 = 10;
/// The wait after the first try; it doubles up to the longest.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest that the receiver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// The largest answer; it is not used.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The task behind `PUSH_WEBHOOK_URL`.
pub struct PushWebhook {
    posts: SignedPosts,
    backbone: Arc<dyn Backbone>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

/// The posted body.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    /// The same for every try and repetition.
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a UserId>,
    /// In the place of a user: all members who are connected nowhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    large: bool,
    message: &'a Message,
}

impl PushWebhook {
    /// A webhook that isn't running yet.
    ///
    /// # Errors
    /// The URL is `https` and no certificate authority is trusted here.
    pub fn new(
        config: &PushConfig,
        backbone: Arc<dyn Backbone>,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, EndpointError> {
        let posts = SignedPosts::new("push", (&config.url, &config.secret), ANSWER_WITHIN, ANSWER_BYTES_MAX)?;
        Ok(Self { posts, backbone, store, metrics })
    }

    /// Works until `stop`, then ends the requests that are under way. Jobs that are left are taken by other nodes.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut keep = tokio::time::interval(PUSH_JOB_KEPT / 4);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held: HashMap<tokio::task::Id, String> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let id = match ended {
                        Ok((id, ())) => id,
                        Err(fault) => {
                            tracing::error!(%fault, "a push job panicked");
                            fault.id()
                        }
                    };
                    held.remove(&id);
                }
                _ = keep.tick() => self.keep(held.values().cloned().collect()).await,
                _ = look.tick(), if held.len() < JOBS_HELD_MAX => {
                    for job in self.take(JOBS_HELD_MAX - held.len()).await {
                        let handle = job.handle.clone();
                        // A job that we were too slow to keep, and that comes back to us, is under way already.
                        if !held.values().any(|known| *known == handle) {
                            let task = tasks.spawn(Arc::clone(&self).carry_out(job, stop.clone()));
                            held.insert(task.id(), handle);
                        }
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn take(&self, limit: usize) -> Vec<PushJob> {
        match self.backbone.take_push_jobs(limit).await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::debug!(%error, "push jobs could not be taken");
                Vec::new()
            }
        }
    }

    async fn keep(&self, handles: Vec<String>) {
        if let Err(error) = self.backbone.keep_push_jobs(&handles).await {
            tracing::debug!(%error, "push jobs could not be renewed: another node may post them too");
        }
    }

    async fn carry_out(self: Arc<Self>, job: PushJob, stop: CancellationToken) {
        tokio::select! {
            biased;
            ended = self.try_until_done(&job, &stop) => if let Some(result) = ended { self.end(&job, result).await },
            // Time for the try that is under way.
            () = after(&stop, ANSWER_WITHIN) => {}
        }
    }

    /// `None`: stopped before it was done.
    async fn try_until_done(&self, job: &PushJob, stop: &CancellationToken) -> Option<Result<&'static str, String>> {
        let id = match &job.user {
            Some(user) => format!("{}.{user}", job.message),
            None => job.message.to_string(),
        };
        let mut tries = 0;
        loop {
            let fault = match self.store.messages(&job.conversation, Page::After(job.seq - 1), 1).await {
                // The store's outages count for nothing.
                Err(error) => error.to_string(),
                Ok(found) => {
                    let message = found.into_iter().find(|message| message.id == job.message);
                    let Some(message) = message.filter(|message| message.deleted_at.is_none()) else {
                        return Some(Ok("obsolete"));
                    };
                    tries += 1;
                    let (user_id, large) = (job.user.as_ref(), job.user.is_none());
                    let notice = Notice { id: &id, kind: "message.new", user_id, large, message: &message };
                    match self.posts.post(&id, &notice).await {
                        PostOutcome::Delivered => return Some(Ok("delivered")),
                        PostOutcome::Refused(why) => return Some(Err(why)),
                        PostOutcome::Failed(why) if tries >= TRIES_MAX => return Some(Err(why)),
                        PostOutcome::Failed(why) => why,
                    }
                }
            };
            self.metrics.push("retried");
            tracing::debug!(id, tries, fault, "a push notification failed and will be retried");
            tokio::select! {
                () = tokio::time::sleep(wait(tries)) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    async fn end(&self, job: &PushJob, result: Result<&'static str, String>) {
        let ended = match &result {
            Ok(_) => self.backbone.finish_push_job(job).await,
            Err(why) => {
                tracing::warn!(message = %job.message, why, "a push notification could not be delivered");
                self.backbone.bury_push_job(job, why).await
            }
        };
        self.metrics.push(result.unwrap_or("dead"));
        if let Err(error) = ended {
            tracing::debug!(%error, "a push job could not be marked as done: it will be posted again");
        }
    }
}

/// The wait after so many tries, from half of it to the whole at random, so that jobs spread.
fn wait(tries: u32) -> Duration {
    let whole = WAIT_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(WAIT_MAX);
    whole.mul_f64(rand::random_range(0.5..=1.0))
}

async fn after(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_ten_tries_take_some_minutes() {
        assert!((1..200).all(|tries| wait(tries) <= WAIT_MAX && wait(tries) >= WAIT_FIRST / 2));
        assert!(wait(3) >= Duration::from_secs(1) && wait(3) <= Duration::from_secs(2));
        let total: Duration = (1..TRIES_MAX).map(wait).sum();
        assert!((60..240).contains(&total.as_secs()), "{total:?}");
    }
}
