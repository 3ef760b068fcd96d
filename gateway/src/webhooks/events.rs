//! The webhook of events: posts what was committed, in order for each conversation, at least once.
//! It offers [`EventsWebhook`], one task per node, of which one at a time delivers: the one that has the lease.
//! It keeps no place that it has come to: an event is owed until it is marked, so what commits late is not passed over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shared::{Conversation, ConversationId, Message, MessageId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::schedule::{Due, EVENTS_PER_POST, Next, POSTS_AT_ONCE, Schedule};
use super::signed::{PostOutcome, SignedPosts};
use crate::clock::every;
use crate::config::EventsConfig;
use crate::http_client::EndpointError;
use crate::metrics::Metrics;
use crate::store::{DueEvent, OwedDetail, Owner, Store, StoreError, Wanted};
use crate::switches;

/// How long the delivery stays with a node that doesn't renew its lease, in milliseconds.
const LEASE_MS: u64 = 10_000;
/// How often the lease is renewed, or asked for.
const LEASE_EVERY: Duration = Duration::from_secs(2);
/// A node that could not renew its lease for so long stops before another one begins.
const LEASE_TRUSTED: Duration = Duration::from_secs(6);
/// How often new events are looked for when there were none.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// The longest that the receiver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// The largest answer; it is not used.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How often the lag is measured, and delivered events are deleted.
const TIDY_EVERY: Duration = Duration::from_secs(10);
/// How long delivered events are kept, so that they can be repeated: a day.
const DELIVERED_KEPT_MS: u64 = 86_400_000;
/// How long dead events are kept: 30 days.
const DEAD_KEPT_MS: u64 = 30 * DELIVERED_KEPT_MS;
/// The pause between two steps of deleting.
const PRUNE_PAUSE: Duration = Duration::from_millis(20);

/// The task behind `EVENTS_WEBHOOK_URL`.
pub struct EventsWebhook {
    posts: SignedPosts,
    store: Arc<dyn Store>,
    owner: Owner,
    metrics: Arc<Metrics>,
    schedule: Schedule,
}

/// The end of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Something was tried.
    Worked,
    /// Nothing is owed that may be tried.
    Idle,
    /// Nothing may be tried until then.
    Wait(Instant),
}

/// The posted body.
#[derive(Serialize)]
struct Batch<'a> {
    id: &'a str,
    events: Vec<&'a RawValue>,
}

/// An event as the receiver reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PostedEvent<'a> {
    id: String,
    r#type: &'static str,
    at: Timestamp,
    conversation_id: &'a ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<&'a Conversation>,
    #[serde(flatten)]
    detail: &'a OwedDetail,
}

/// What has become of a post.
#[derive(Default)]
struct Posted {
    delivered: Vec<Due>,
    /// Refused by themselves.
    refused: Vec<(u64, String)>,
    /// Not taken; what would have followed wasn't tried.
    failed: Vec<Due>,
    why: String,
}

impl EventsWebhook {
    /// A webhook that isn't running yet.
    ///
    /// # Errors
    /// The URL is `https` and no certificate authority is trusted here.
    pub fn new(
        config: &EventsConfig,
        store: Arc<dyn Store>,
        owner: Owner,
        metrics: Arc<Metrics>,
    ) -> Result<Self, EndpointError> {
        let posts = SignedPosts::new("events", (&config.url, &config.secret), ANSWER_WITHIN, ANSWER_BYTES_MAX)?;
        Ok(Self { posts, store, owner, metrics, schedule: Schedule::default() })
    }

    /// Delivers while this node has the lease, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let measured = tokio::spawn(measure(Arc::clone(&self.store), Arc::clone(&self.metrics), stop.clone()));
        let mut ticks = every(LEASE_EVERY, stop.clone());
        while ticks.next().await {
            let asked = Instant::now();
            match self.store.take_webhook(&self.owner, LEASE_MS).await {
                Ok(true) => self.lead(asked, &stop).await,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "the lease of the events webhook could not be asked for"),
            }
        }
        if let Err(fault) = measured.await {
            tracing::error!(%fault, "the lag of the events webhook could not be measured any more");
        }
    }

    /// Delivers until the lease is lost, or until `stop`: then it is given back.
    async fn lead(&mut self, asked: Instant, stop: &CancellationToken) {
        tracing::info!("this node delivers the events of the webhook");
        self.metrics.webhook_delivering.set(1.0);
        // Those that failed on another node are tried at once.
        self.schedule = Schedule::default();
        let lease = keep_lease(Arc::clone(&self.store), Arc::clone(&self.owner), asked);
        let tidy = tidy(Arc::clone(&self.store));
        tokio::select! {
            () = lease => tracing::warn!("another node may deliver the events of the webhook"),
            () = tidy => {}
            () = self.deliver() => {}
            () = stop.cancelled() => {
                if let Err(error) = self.store.take_webhook(&self.owner, 0).await {
                    tracing::debug!(%error, "the lease of the events webhook ends by itself");
                }
            }
        }
        self.metrics.webhook_delivering.set(0.0);
    }

    async fn deliver(&mut self) {
        loop {
            match self.round(Instant::now()).await {
                Ok(Round::Worked) => {}
                Ok(Round::Idle) => tokio::time::sleep(LOOK_EVERY).await,
                Ok(Round::Wait(until)) => {
                    tokio::time::sleep(until.saturating_duration_since(Instant::now()).max(LOOK_EVERY)).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "events of the webhook wait for the store");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    /// Posts what is owed and may be tried at `now`, as much as one round takes. For tests with a clock of their own.
    ///
    /// # Errors
    /// The store didn't answer.
    pub async fn round(&mut self, now: Instant) -> Result<Round, StoreError> {
        let wanted = match self.schedule.next(now) {
            Next::AllBut(held) => Wanted::AllBut(held),
            Next::Only(due, up_to) => Wanted::Only(due, up_to),
            Next::Wait(until) => return Ok(Round::Wait(until)),
        };
        let limit = u32::try_from(EVENTS_PER_POST * POSTS_AT_ONCE).unwrap_or(u32::MAX);
        let owed = self.store.due_events(&wanted, limit).await?;
        if owed.is_empty() {
            return Ok(Round::Idle);
        }
        let due = owed.iter().map(ready).collect::<Result<Vec<_>, _>>()?;
        let posts = self.schedule.cut(due);
        let posted = join_all(posts.into_iter().map(|post| self.post(post))).await;
        for posted in posted {
            self.settle(posted, now).await?;
        }
        Ok(Round::Worked)
    }

    /// Posts events, and marks those that are taken. What is refused is halved, down to the event at fault.
    async fn post(&self, post: Vec<Due>) -> Posted {
        let mut posted = Posted::default();
        let mut parts = vec![post];
        while let Some(mut part) = parts.pop() {
            let id = batch_id(&part);
            let batch = Batch { id: &id, events: part.iter().map(|event| &*event.json).collect() };
            let outcome = match self.posts.post(&id, &batch).await {
                PostOutcome::Failed(_) if switches::off("webhook-owed") => PostOutcome::Delivered,
                outcome => outcome,
            };
            match outcome {
                PostOutcome::Delivered => {
                    let ids: Vec<u64> = part.iter().map(|event| event.id).collect();
                    if let Err(error) = self.store.mark_delivered(&ids).await {
                        tracing::debug!(%error, "delivered events could not be marked: they are posted again");
                    }
                    posted.delivered.extend(part);
                }
                PostOutcome::Refused(why) => match (part.len(), part.first()) {
                    (0 | 1, Some(event)) => posted.refused.push((event.id, why)),
                    (0 | 1, None) => {}
                    (count, _) => {
                        parts.push(part.split_off(count / 2));
                        parts.push(part);
                    }
                },
                PostOutcome::Failed(why) => {
                    (posted.failed, posted.why) = (part, why);
                    break;
                }
            }
        }
        posted
    }

    async fn settle(&mut self, posted: Posted, now: Instant) -> Result<(), StoreError> {
        let Posted { delivered, refused, failed, why } = posted;
        self.metrics.webhook_events("delivered", delivered.len());
        self.schedule.delivered(&delivered);
        for (event, why) in refused {
            self.bury(event, &why).await?;
        }
        if !failed.is_empty() {
            self.metrics.webhook_events("failed", failed.len());
            tracing::debug!(why, count = failed.len(), "events of the webhook failed and will be tried again");
            for event in self.schedule.failed(&failed, now) {
                self.bury(event, &why).await?;
            }
        }
        Ok(())
    }

    async fn bury(&self, event: u64, why: &str) -> Result<(), StoreError> {
        tracing::warn!(event, why, "an event of the webhook could not be delivered");
        self.metrics.webhook_events("dead", 1);
        self.store.bury_event(event, why).await
    }
}

/// Ends when the lease is lost, or could be by now.
async fn keep_lease(store: Arc<dyn Store>, owner: Owner, asked: Instant) {
    let mut renewed = asked;
    loop {
        tokio::time::sleep(LEASE_EVERY).await;
        let asked = Instant::now();
        match store.take_webhook(&owner, LEASE_MS).await {
            Ok(true) => renewed = asked,
            Ok(false) => return,
            Err(_) if renewed.elapsed() < LEASE_TRUSTED => {}
            Err(_) => return,
        }
    }
}

/// Deletes what has been kept long enough, in small steps.
async fn tidy(store: Arc<dyn Store>) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        while let Ok(true) = store.prune_events(DELIVERED_KEPT_MS, DEAD_KEPT_MS).await {
            tokio::time::sleep(PRUNE_PAUSE).await;
        }
    }
}

/// Every node measures: the alert has to come also when no node delivers.
async fn measure(store: Arc<dyn Store>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut ticks = every(TIDY_EVERY, stop);
    while ticks.next().await {
        match store.events_lag().await {
            Ok(lag) => metrics.webhook_lag(Duration::from_millis(lag.oldest_ms), lag.owed, lag.dead),
            Err(error) => tracing::debug!(%error, "the lag of the events webhook could not be measured"),
        }
    }
}

fn ready(event: &DueEvent) -> Result<Due, StoreError> {
    let posted = PostedEvent {
        id: event.id.to_string(),
        r#type: event.kind.as_str(),
        at: event.at,
        conversation_id: &event.conversation_id,
        rev: event.rev,
        message_id: event.message_id,
        message: event.message.as_ref(),
        conversation: event.conversation.as_ref(),
        detail: &event.detail,
    };
    let json = to_raw_value(&posted).map_err(|fault| StoreError::Failed(fault.to_string()))?;
    Ok(Due { id: event.id, conversation: event.conversation_id.clone(), age_ms: event.age_ms, json })
}

/// The same for the same events.
fn batch_id(events: &[Due]) -> String {
    let (first, last) = (events.first().map_or(0, |event| event.id), events.last().map_or(0, |event| event.id));
    format!("{first}-{last}.{}", events.len())
}
