//! The backbone inside one process, for `gateway dev` and for tests.
//! It offers [`LocalBackbone`], with the same semantics and the same bytes as on Redis.
//! It keeps nothing beyond the process, and never talks to another node.

mod erasure;
mod late;
mod log;
mod logins;
mod online;
mod presence;
mod push_jobs;
mod rates;
mod revocations;
mod state;
mod time;
mod topics;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shared::{ConversationId, UserId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::push_jobs::Jobs;
use self::rates::Allowances;
use self::state::{AppendOutcome, State};
use self::time::now_ms;
use super::push_jobs::{STRANGERS_PER_QUERY, job_of};
use super::queue::{Job, Queue};
use super::redo::{RedoAnswer, answer_all};
use super::{
    Backbone, BackboneError, BackboneHost, Control, Delivery, DeliveryKind, DeliveryOutcome, Durable, Entrant,
    EntryOutcome, Health, Inbox, LogHead, LogPage, PushJob, REPEATED_MAX, Revocations, Settings, payload,
};
use crate::clock::every;

/// How often expired state is looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// The longest wait for the store's answer who was ever here.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The backbone of a single node.
pub struct LocalBackbone {
    shared: Arc<Shared>,
    queue: Queue,
    late: late::LateStream,
    stop: CancellationToken,
    started: Instant,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    settings: Arc<Settings>,
    state: Mutex<State>,
    allowances: Mutex<Allowances>,
    jobs: Mutex<Jobs>,
    /// Large conversations that this node is subscribed to, with the number of subscriptions.
    topics: Mutex<HashMap<ConversationId, u32>>,
    inbox: Arc<dyn Inbox>,
    host: Arc<dyn BackboneHost>,
}

impl LocalBackbone {
    /// Starts its tasks; needs a tokio runtime.
    #[must_use]
    pub fn start(settings: Settings, inbox: Arc<dyn Inbox>, host: Arc<dyn BackboneHost>) -> Self {
        let settings = Arc::new(settings);
        let state = Mutex::new(State::new(settings.clone()));
        let allowances = Mutex::new(Allowances::new());
        let jobs = Mutex::new(Jobs::new(&settings));
        let shared = Arc::new(Shared { settings, state, allowances, jobs, topics: Mutex::default(), inbox, host });
        let stop = CancellationToken::new();
        let (queue, jobs) = Queue::new();
        let tasks = vec![tokio::spawn(shared.clone().publish(jobs)), tokio::spawn(shared.clone().sweep(stop.clone()))];
        Self {
            shared,
            queue,
            late: late::LateStream::default(),
            stop,
            started: Instant::now(),
            tasks: Mutex::new(tasks),
        }
    }
}

impl Shared {
    /// The one task that calls the inbox with users' events, so that they come in the order of their `seq`.
    async fn publish(self: Arc<Self>, mut jobs: mpsc::UnboundedReceiver<Vec<Job>>) {
        while let Some(batch) = jobs.recv().await {
            let mut strangers = Vec::new();
            for job in batch {
                let outcome = match &job.delivery.kind {
                    DeliveryKind::Ephemeral => {
                        let subscribed = self.state.lock().is_subscribed(&job.delivery.user);
                        DeliveryOutcome::To(self.give(&job.delivery.user, &job.delivery.body, subscribed))
                    }
                    DeliveryKind::Durable(durable) => match self.append(&job.delivery, durable, job.redo.as_deref()) {
                        Ok(outcome) => outcome,
                        Err(fault) => {
                            job.settle(Err(fault));
                            continue;
                        }
                    },
                };
                if outcome.reached_nobody() {
                    strangers.extend(self.add_unless_stranger(&job.delivery));
                }
                job.settle(Ok(outcome));
            }
            self.add_if_known(strangers).await;
        }
    }

    /// Adds the job that a delivery wants, if it wants one. Gives it back if this process has never seen its user.
    fn add_unless_stranger(&self, delivery: &Delivery) -> Option<PushJob> {
        let job = job_of(delivery)?;
        if !self.state.lock().knows(&delivery.user) {
            return Some(job);
        }
        self.jobs.lock().add(job);
        None
    }

    /// Adds jobs for users who were here before this process, by the store.
    async fn add_if_known(&self, strangers: Vec<PushJob>) {
        for jobs in strangers.chunks(STRANGERS_PER_QUERY) {
            let users: Vec<UserId> = jobs.iter().filter_map(|job| job.user.clone()).collect();
            // What the store can't tell in time counts as known: one notification too many is better than none.
            let asked = tokio::time::timeout(ANSWER_WITHIN, self.host.known_users(&users)).await;
            let known: HashSet<UserId> = asked.ok().and_then(Result::ok).unwrap_or(users).into_iter().collect();
            let mut all = self.jobs.lock();
            for job in jobs {
                match job.user.as_ref().is_some_and(|user| known.contains(user)) {
                    true => all.add(job.clone()),
                    false => all.dropped.strangers.increment(1),
                }
            }
        }
    }

    fn append(
        &self,
        delivery: &Delivery,
        durable: &Durable,
        redo: Option<&RedoAnswer>,
    ) -> Result<DeliveryOutcome, BackboneError> {
        let Delivery { user, body, .. } = delivery;
        let appended = self.state.lock().append(user, body, durable, redo, now_ms());
        let receivers = match appended {
            AppendOutcome::Payload { payload, subscribed } => self.give(user, &payload, subscribed),
            AppendOutcome::Outdated => {
                return Err(BackboneError("the log has changed since a redo read it".to_owned()));
            }
            AppendOutcome::Nowhere => 0,
        };
        Ok(match redo {
            None | Some(RedoAnswer::Append { .. }) => DeliveryOutcome::To(receivers),
            Some(RedoAnswer::Again { .. }) => DeliveryOutcome::Again(receivers),
            Some(RedoAnswer::Marker) => DeliveryOutcome::Marked(receivers),
        })
    }

    /// Hands a payload to the inbox; the number of subscriptions that received it.
    fn give(&self, user: &UserId, payload: &[u8], subscribed: bool) -> u64 {
        if subscribed {
            self.inbox.user_event(user.as_str(), payload);
        }
        u64::from(subscribed)
    }

    async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = every(SWEEP, stop);
        while ticks.next().await {
            self.state.lock().sweep(now_ms());
            self.allowances.lock().sweep();
        }
    }
}

impl Drop for LocalBackbone {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Backbone for LocalBackbone {
    fn describe(&self) -> String {
        "embedded, one process".to_owned()
    }

    async fn publish(&self, deliveries: Vec<Delivery>) -> Result<Vec<DeliveryOutcome>, BackboneError> {
        payload::check(&deliveries)?;
        self.queue.publish(deliveries).await
    }

    async fn redo(
        &self,
        deliveries: Vec<Delivery>,
    ) -> Result<Vec<Result<DeliveryOutcome, BackboneError>>, BackboneError> {
        payload::check(&deliveries)?;
        let users: HashSet<&UserId> = deliveries.iter().map(|delivery| &delivery.user).collect();
        let logs = {
            let state = self.shared.state.lock();
            users.into_iter().filter_map(|user| Some((user.clone(), state.known_log(user)?))).collect()
        };
        let mut answered = answer_all(&deliveries, &logs);
        let published = self.queue.publish_each(std::mem::take(&mut answered.deliveries), None).await?;
        let outcomes = answered.outcomes(&published);
        let unseen =
            deliveries.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Ok(DeliveryOutcome::Marked(0))));
        let strangers = unseen.filter_map(|(delivery, _)| self.shared.add_unless_stranger(delivery)).collect();
        self.shared.add_if_known(strangers).await;
        Ok(outcomes)
    }

    async fn subscribe(&self, user: &UserId) -> Result<(), BackboneError> {
        self.shared.state.lock().subscribe(user);
        Ok(())
    }

    fn unsubscribe(&self, user: &UserId) {
        self.shared.state.lock().unsubscribe(user, now_ms());
    }

    async fn open(&self, user: &UserId) -> Result<LogHead, BackboneError> {
        Ok(self.shared.state.lock().open(user, now_ms()))
    }

    async fn enter(&self, entrant: Entrant) -> Result<EntryOutcome, BackboneError> {
        let Entrant { user, issued_at, asked } = entrant;
        if self.is_revoked(&user, issued_at).await? {
            return Ok(EntryOutcome::Revoked);
        }
        let mut state = self.shared.state.lock();
        let head = state.open(&user, now_ms());
        let Some(asked) = asked else { return Ok(EntryOutcome::At { head, before: Vec::new() }) };
        let page = state.read(&user, asked.saturating_sub(REPEATED_MAX.into()), REPEATED_MAX, now_ms());
        let before = page.entries.into_iter().filter(|(seq, _)| *seq <= asked).rev().collect();
        Ok(EntryOutcome::At { head, before })
    }

    async fn read(&self, user: &UserId, after: u64, limit: u32) -> Result<LogPage, BackboneError> {
        Ok(self.shared.state.lock().read(user, after, limit, now_ms()))
    }

    async fn broadcast(&self, body: Bytes) -> Result<(), BackboneError> {
        self.shared.inbox.broadcast(&body);
        Ok(())
    }

    async fn control(&self, control: &Control) -> Result<(), BackboneError> {
        self.shared.inbox.control(control.clone());
        Ok(())
    }

    /// Nothing of an earlier process is under way.
    async fn fence(&self, _owner: &str) -> Result<(), BackboneError> {
        Ok(())
    }

    /// A new process has new epochs, and no other process could be subscribed.
    fn note_new_server(&self) {}

    fn leave_server(&self) {}

    fn connected_since(&self) -> Option<Instant> {
        Some(self.started)
    }

    fn nodes(&self) -> u32 {
        1
    }

    fn health(&self) -> Health {
        Health { ready: true, detail: "ready".to_owned(), server: Some(self.shared.settings.boot_id.clone()) }
    }

    async fn close(&self) {
        self.queue.close();
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task of the local backbone panicked");
            }
        }
    }
}
