//! The one task that publishes: what has gathered while a pipeline was under way makes the next one. It keeps the order of
//! each user's events, also when the first of them has to wait for unread counts from the store.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use shared::UserId;
use shared::schema::{log_key, unread_key, user_channel};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::link::{Link, Replies};
use super::server::failed;
use super::{push_jobs, scripts};
use crate::backbone::push_jobs::job_of;
use crate::backbone::queue::Job;
use crate::backbone::{Append, BackboneError, Delivered, DeliveryKind, Durable, StoreSide};
use crate::off;
use crate::store::UnreadCount;

/// Deliveries per pipeline, so that one doesn't keep Redis busy for more than some 20 ms.
const PIPELINE_MAX: usize = 1024;

/// Loads of unread counts at a time: after Redis came back empty, everybody's are due.
const LOADS_MAX: usize = 16;

/// The longest wait for a user's unread counts. Without them their event goes out, and moves no count.
const LOAD_WITHIN: Duration = Duration::from_secs(5);

/// The publishing task.
pub(super) struct Publisher {
    link: Arc<Link>,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    source: Arc<dyn StoreSide>,
    /// Durable events that wait, in order, for their user's counts.
    parked: HashMap<UserId, Parked>,
    /// Users whose counts are to be loaded, and until when.
    unloaded: VecDeque<(UserId, Instant)>,
    marks: u64,
}

struct Parked {
    /// The mark that made later events of the same pipeline wait; empty if there were none.
    mark: String,
    jobs: Vec<Job>,
}

/// What Redis made of one delivery.
enum Reply {
    Done(Delivered),
    /// The user's counts are not in the cache; nothing was done.
    CountsMissing,
    /// Nothing was done.
    ScriptMissing,
    Failed(BackboneError),
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, jobs: mpsc::UnboundedReceiver<Vec<Job>>, source: Arc<dyn StoreSide>) -> Self {
        Self { link, jobs, source, parked: HashMap::new(), unloaded: VecDeque::new(), marks: 0 }
    }

    /// Publishes until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        let mut open = true;
        let mut loads = FuturesUnordered::new();
        while open || !loads.is_empty() || !self.unloaded.is_empty() {
            while loads.len() < LOADS_MAX
                && let Some((user, deadline)) = self.unloaded.pop_front()
            {
                loads.push(load(self.source.clone(), user, deadline));
            }
            let mut batch = Vec::new();
            tokio::select! {
                jobs = self.jobs.recv(), if open => match jobs {
                    Some(jobs) => batch = jobs,
                    None => open = false,
                },
                Some((user, counts)) = loads.next(), if !loads.is_empty() => self.unpark(&user, counts).await,
            }
            if batch.is_empty() {
                continue;
            }
            // Lets every task that is about to publish do so before the pipeline goes out.
            tokio::task::yield_now().await;
            while batch.len() < PIPELINE_MAX
                && let Ok(jobs) = self.jobs.try_recv()
            {
                batch.extend(jobs);
            }
            while !batch.is_empty() {
                let rest = batch.split_off(batch.len().min(PIPELINE_MAX));
                self.publish(batch).await;
                batch = rest;
            }
        }
    }

    /// Publishes what needn't wait behind a parked event of the same user.
    async fn publish(&mut self, batch: Vec<Job>) {
        let mut jobs = Vec::with_capacity(batch.len());
        for job in batch {
            match self.parked.get_mut(&job.delivery.user) {
                Some(parked) if durable(&job).is_some() => parked.jobs.push(job),
                _ => jobs.push(job),
            }
        }
        let (mark, repeated) = self.mark_for(&jobs);
        let mark_of = |job: &Job| if repeated.contains(&job.delivery.user) { &*mark } else { "" };
        let mut calls = Pipeline::with_capacity(jobs.len());
        for job in &jobs {
            calls.add_command(self.call(job, mark_of(job), false));
        }
        for job in self.carry_out(jobs, calls).await {
            let mark = mark_of(&job);
            self.park(job, mark);
        }
    }

    /// A mark, and the users who have several durable events here of which one moves a count: should the counts be missing,
    /// the later events have to wait for the first.
    fn mark_for(&mut self, jobs: &[Job]) -> (String, HashSet<UserId>) {
        let mut users: HashMap<&UserId, (bool, bool)> = HashMap::with_capacity(jobs.len());
        for job in jobs {
            if let Some(durable) = durable(job) {
                let is_counted = durable.unread.is_some();
                users
                    .entry(&job.delivery.user)
                    .and_modify(|(repeated, counted)| (*repeated, *counted) = (true, *counted || is_counted))
                    .or_insert((false, is_counted));
            }
        }
        let marked =
            users.into_iter().filter(|(_, state)| *state == (true, true)).map(|(user, _)| user.clone()).collect();
        self.marks += 1;
        (format!("!{}:{}", self.link.settings.boot_id, self.marks), marked)
    }

    fn park(&mut self, job: Job, mark: &str) {
        let user = job.delivery.user.clone();
        if let Some(parked) = self.parked.get_mut(&user) {
            parked.jobs.push(job);
            return;
        }
        self.parked.insert(user.clone(), Parked { mark: mark.to_owned(), jobs: vec![job] });
        self.unloaded.push_back((user, Instant::now() + LOAD_WITHIN));
    }

    /// Puts loaded counts into the cache and publishes the events that waited for them.
    async fn unpark(&mut self, user: &UserId, counts: Option<Vec<UnreadCount>>) {
        let Some(Parked { mark, jobs }) = self.parked.remove(user) else { return };
        if let Err(fault) = self.seed(user, &mark, counts).await {
            for job in jobs {
                job.settle(Err(fault.clone()));
            }
            return;
        }
        let mut calls = Pipeline::with_capacity(jobs.len());
        for job in &jobs {
            calls.add_command(self.call(job, "", true));
        }
        for job in self.carry_out(jobs, calls).await {
            job.settle(Err(BackboneError("unread counts were missing after they were loaded".to_owned())));
        }
    }

    async fn seed(&self, user: &UserId, mark: &str, counts: Option<Vec<UnreadCount>>) -> Result<(), BackboneError> {
        let key = unread_key(user);
        let Some(counts) = counts else {
            let mut forget = redis::cmd("HDEL");
            return self.link.run(forget.arg(key).arg(mark)).await;
        };
        let mut call = scripts::call(&self.link.scripts.seed, &[&key]);
        call.arg(self.link.settings.resume_seconds).arg(mark);
        for count in counts {
            call.arg(count.conversation.as_str()).arg(count.last_seq).arg(count.seen_seq);
        }
        self.link.run_script(&call).await
    }

    /// Runs one call per job in one pipeline and settles them, except those whose counts are missing, which it returns.
    async fn carry_out(&self, jobs: Vec<Job>, calls: Pipeline) -> Vec<Job> {
        let mut replies = self.attempt(&calls).await;
        if replies.iter().any(|reply| matches!(reply, Reply::ScriptMissing)) {
            self.retry(&calls, &mut replies).await;
        }
        let mut waiting = Vec::new();
        let mut unseen = Vec::new();
        for (job, reply) in jobs.into_iter().zip(replies) {
            match reply {
                Reply::Done(Delivered::To(0)) if durable(&job).is_some_and(|durable| durable.push) => {
                    unseen.push(job);
                }
                Reply::Done(outcome) => job.settle(Ok(outcome)),
                Reply::CountsMissing => waiting.push(job),
                Reply::ScriptMissing => job.settle(Err(BackboneError("Redis does not keep scripts".to_owned()))),
                Reply::Failed(fault) => job.settle(Err(fault)),
            }
        }
        self.add_push_jobs(unseen).await;
        waiting
    }

    async fn attempt(&self, calls: &Pipeline) -> Vec<Reply> {
        match self.link.run_pipeline(calls).await {
            Ok(replies) => replies.each().map(|reply| reply.map_or_else(Reply::Failed, Reply::of)).collect(),
            Err(fault) => calls.cmd_iter().map(|_| Reply::Failed(fault.clone())).collect(),
        }
    }

    /// Repeats the calls that found no script: those certainly did nothing.
    async fn retry(&self, calls: &Pipeline, replies: &mut [Reply]) {
        let mut again = Pipeline::new();
        let missing = |reply: &&mut Reply| matches!(reply, Reply::ScriptMissing);
        for (call, _) in calls.cmd_iter().zip(replies.iter_mut()).filter(|(_, reply)| missing(reply)) {
            again.add_command(call.clone());
        }
        let new = match self.link.load_scripts().await {
            Ok(()) => self.attempt(&again).await,
            Err(fault) => again.cmd_iter().map(|_| Reply::Failed(fault.clone())).collect(),
        };
        for (old, new) in replies.iter_mut().filter(missing).zip(new) {
            *old = new;
        }
    }

    /// Adds push jobs for messages that nobody received; only then are they published.
    async fn add_push_jobs(&self, jobs: Vec<Job>) {
        let mut pipeline = Pipeline::with_capacity(jobs.len());
        for job in &jobs {
            if let Some(push) = job_of(&job.delivery) {
                push_jobs::add(&mut pipeline, &push);
            }
        }
        let replies = self.link.run_pipeline(&pipeline).await;
        let outcome = replies.and_then(Replies::whole).map(|_| Delivered::To(0));
        for job in jobs {
            job.settle(outcome.clone());
        }
    }

    fn call(&self, job: &Job, mark: &str, counts_loaded: bool) -> Cmd {
        let user = &job.delivery.user;
        let channel = user_channel(user);
        let body: &[u8] = &job.delivery.body;
        match &job.delivery.kind {
            DeliveryKind::Ephemeral => {
                let mut publish = redis::cmd(self.link.scripts.publish);
                publish.arg(channel).arg(body);
                publish
            }
            DeliveryKind::Durable(durable) => {
                let script = match durable.append {
                    Append::First => &self.link.scripts.append,
                    Append::Once if off::is("append-once") => &self.link.scripts.append,
                    Append::Once => &self.link.scripts.append_once,
                };
                let mut call = scripts::call(script, &[&log_key(user), &unread_key(user)]);
                call.arg(channel)
                    .arg(format!("{}:{}", durable.committed_at.unix_ms(), durable.event_id))
                    .arg(body)
                    .arg(self.link.epoch_nonce())
                    .arg(u8::from(self.link.must_open_logs(user)))
                    .arg(mark);
                if let Some(unread) = &durable.unread {
                    call.arg(unread.conversation.as_str())
                        .arg(unread.last_seq)
                        .arg(unread.seen_seq)
                        .arg(u8::from(unread.announce))
                        .arg(u8::from(counts_loaded));
                }
                call
            }
        }
    }
}

impl Reply {
    fn of(value: Value) -> Self {
        match value {
            Value::Int(-2) => Self::Done(Delivered::Already),
            Value::Int(-1) => Self::CountsMissing,
            Value::Int(receivers) => match u64::try_from(receivers) {
                Ok(receivers) => Self::Done(Delivered::To(receivers)),
                Err(_) => Self::Failed(BackboneError("a script gave an unknown answer".to_owned())),
            },
            Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => Self::ScriptMissing,
            Value::ServerError(error) => Self::Failed(failed(error.into())),
            _ => Self::Failed(BackboneError("Redis gave an unknown answer".to_owned())),
        }
    }
}

/// A user's counts; none if the store doesn't tell them in time.
async fn load(source: Arc<dyn StoreSide>, user: UserId, deadline: Instant) -> (UserId, Option<Vec<UnreadCount>>) {
    let counts = match tokio::time::timeout_at(deadline, source.unread(&user)).await {
        Ok(Ok(counts)) => Some(counts),
        Ok(Err(error)) => {
            tracing::debug!(%error, "unread counts could not be loaded");
            None
        }
        Err(_) => None,
    };
    (user, counts)
}

fn durable(job: &Job) -> Option<&Durable> {
    match &job.delivery.kind {
        DeliveryKind::Ephemeral => None,
        DeliveryKind::Durable(durable) => Some(durable),
    }
}
