//! The one task that publishes: what has gathered while a pipeline was under way makes the next one. It keeps the order of
//! each user's events, also when the first of them has to wait for unread counts from the store.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::{Cmd, Pipeline, Value};
use shared::UserId;
use shared::redis_keys::{log_key, unread_key, user_channel};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{push_jobs, repeated};
use crate::backbone::push_jobs::job_of;
use crate::backbone::queue::Job;
use crate::backbone::redis::link::{Link, Replies};
use crate::backbone::redis::scripts;
use crate::backbone::{Append, BackboneError, BackboneHost, DeliveryKind, DeliveryOutcome, Durable};
use crate::store::UnreadCount;
use crate::switches;

/// Deliveries per pipeline, so that one doesn't keep Redis busy for more than some 20 ms.
const PIPELINE_MAX: usize = 1024;

/// Events that one call of the script appends: Redis does nothing else meanwhile, for a millisecond at the most.
const CALL_MAX: usize = 64;

/// Loads of unread counts at a time: after Redis came back empty, everybody's are due, and the store is asked for many at once.
const LOADS_MAX: usize = 64;

/// Unread counts that are put into Redis in one pipeline, and the most that one user may have on top.
const SEEDS_MAX: usize = 4096;

/// The longest wait for a user's unread counts. Without them their event goes out, and moves no count.
const LOAD_WITHIN: Duration = Duration::from_secs(5);

/// The publishing task.
pub(in crate::backbone::redis) struct PipelineWriter {
    link: Arc<Link>,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    source: Arc<dyn BackboneHost>,
    /// Durable events that wait, in order, for their user's counts.
    parked: HashMap<UserId, ParkedJobs>,
    /// Users whose counts are to be loaded, and until when.
    unloaded: VecDeque<(UserId, Instant)>,
    marks: u64,
}

struct ParkedJobs {
    /// The mark that made later events of the same pipeline wait; empty if there were none.
    mark: String,
    jobs: Vec<Job>,
}

/// One command of a pipeline.
enum Call {
    /// Publishes an ephemeral event.
    Publish(Job),
    /// Appends durable events, at least one.
    Append(Vec<Job>),
}

/// What Redis made of one delivery.
enum Reply {
    Done(DeliveryOutcome),
    /// The user's counts are not in the cache; nothing was done.
    CountsMissing,
    Failed(BackboneError),
}

/// Of a user in a pipeline: the first call with a durable event, whether others follow, and whether a count moves.
#[derive(Default)]
struct PipelineMark {
    call: usize,
    is_repeated: bool,
    is_counted: bool,
}

impl PipelineWriter {
    pub(in crate::backbone::redis) fn new(
        link: Arc<Link>,
        jobs: mpsc::UnboundedReceiver<Vec<Job>>,
        source: Arc<dyn BackboneHost>,
    ) -> Self {
        Self { link, jobs, source, parked: HashMap::new(), unloaded: VecDeque::new(), marks: 0 }
    }

    /// Publishes until the queue is closed and empty.
    pub(in crate::backbone::redis) async fn run(mut self) {
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
                Some(loaded) = loads.next(), if !loads.is_empty() => {
                    let loaded = gathered(loaded, &mut loads);
                    self.unpark(loaded).await;
                }
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
            for batch in in_pipelines(batch) {
                self.publish(batch).await;
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
        let calls = self.calls(jobs);
        let (mark, repeated) = self.mark_for(&calls);
        let mark_of = |job: &Job| if repeated.contains(&job.delivery.user) { &*mark } else { "" };
        for job in self.carry_out(calls, mark_of, false).await {
            let mark = mark_of(&job);
            self.park(job, mark);
        }
    }

    /// Puts durable events together into calls. Each user's events keep their order. In a Cluster users are on different
    /// servers, and what a server refuses is followed call by call: there each event has a call of its own.
    fn calls(&self, jobs: Vec<Job>) -> Vec<Call> {
        let call_max = if self.link.cluster().is_some() { 1 } else { CALL_MAX };
        let mut calls = Vec::new();
        let mut appends = Vec::new();
        for job in jobs {
            let is_durable = durable(&job).is_some();
            let is_full = appends.len() >= call_max;
            if is_full || !is_durable && appends.iter().any(|append: &Job| append.delivery.user == job.delivery.user) {
                calls.push(Call::Append(std::mem::take(&mut appends)));
            }
            if is_durable {
                appends.push(job);
            } else {
                calls.push(Call::Publish(job));
            }
        }
        if !appends.is_empty() {
            calls.push(Call::Append(appends));
        }
        calls
    }

    /// A mark, and the users who have durable events in several of these calls of which one moves a count: should the counts
    /// be missing, the later calls have to wait for the first.
    fn mark_for(&mut self, calls: &[Call]) -> (String, HashSet<UserId>) {
        let mut users: HashMap<&UserId, PipelineMark> = HashMap::new();
        // Within one call the script sees to it.
        if calls.iter().filter(|call| matches!(call, Call::Append(_))).count() > 1 {
            for (place, call) in calls.iter().enumerate() {
                let Call::Append(jobs) = call else { continue };
                for job in jobs {
                    let is_counted = durable(job).is_some_and(|durable| durable.unread.is_some());
                    let user = users
                        .entry(&job.delivery.user)
                        .or_insert(PipelineMark { call: place, ..PipelineMark::default() });
                    user.is_repeated |= user.call != place;
                    user.is_counted |= is_counted;
                }
            }
        }
        let marked = users.into_iter().filter(|(_, user)| user.is_repeated && user.is_counted);
        let marked = marked.map(|(user, _)| user.clone()).collect();
        self.marks += 1;
        (format!("!{}:{}", self.link.settings.boot_id, self.marks), marked)
    }

    fn park(&mut self, job: Job, mark: &str) {
        let user = job.delivery.user.clone();
        if let Some(parked) = self.parked.get_mut(&user) {
            parked.jobs.push(job);
            return;
        }
        self.parked.insert(user.clone(), ParkedJobs { mark: mark.to_owned(), jobs: vec![job] });
        self.unloaded.push_back((user, Instant::now() + LOAD_WITHIN));
    }

    /// Puts loaded counts into the cache and publishes the events that waited for them.
    async fn unpark(&mut self, loaded: Vec<LoadedCounts>) {
        let (mut seeds, mut parked) = (Pipeline::with_capacity(loaded.len()), Vec::with_capacity(loaded.len()));
        for LoadedCounts { user, counts } in loaded {
            let Some(ParkedJobs { mark, jobs }) = self.parked.remove(&user) else { continue };
            seeds.add_command(self.seed(&user, &mark, counts));
            parked.push(jobs);
        }
        let mut ready = Vec::new();
        for (jobs, reply) in parked.into_iter().zip(self.link.run_calls(&seeds).await) {
            match reply {
                Ok(_) => ready.extend(jobs),
                Err(fault) => jobs.into_iter().for_each(|job| job.settle(Err(fault.clone()))),
            }
        }
        for ready in in_pipelines(ready) {
            for job in self.carry_out(self.calls(ready), |_| "", true).await {
                job.settle(Err(BackboneError("unread counts were missing after they were loaded".to_owned())));
            }
        }
    }

    fn seed(&self, user: &UserId, mark: &str, counts: Option<Vec<UnreadCount>>) -> Cmd {
        let key = unread_key(user);
        let Some(counts) = counts else {
            let mut forget = redis::cmd("HDEL");
            forget.arg(key).arg(mark);
            return forget;
        };
        let mut call = scripts::call(&self.link.scripts.seed, &[&key]);
        call.arg(self.link.settings.resume_seconds).arg(mark);
        for count in counts {
            call.arg(count.conversation.as_str()).arg(count.last_seq).arg(count.seen_seq);
        }
        call
    }

    /// Runs calls in one pipeline and settles their events, except those whose counts are missing, which it returns.
    async fn carry_out<'a>(
        &self,
        calls: Vec<Call>,
        mark_of: impl Fn(&Job) -> &'a str,
        counts_loaded: bool,
    ) -> Vec<Job> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in &calls {
            pipeline.add_command(match call {
                Call::Publish(job) => self.publication(job),
                Call::Append(jobs) => self.append(jobs, &mark_of, counts_loaded),
            });
        }
        let replies = self.link.run_calls(&pipeline).await;
        let mut waiting = Vec::new();
        let mut unseen = Vec::new();
        for (job, reply) in calls.into_iter().zip(replies).flat_map(|(call, reply)| call.outcomes(reply)) {
            match reply {
                Reply::Done(DeliveryOutcome::To(0)) if durable(&job).is_some_and(|durable| durable.push) => {
                    unseen.push(job);
                }
                Reply::Done(outcome) => job.settle(Ok(outcome)),
                Reply::CountsMissing => waiting.push(job),
                Reply::Failed(fault) => job.settle(Err(fault)),
            }
        }
        self.add_push_jobs(unseen).await;
        waiting
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
        let outcome = replies.and_then(Replies::whole).map(|_| DeliveryOutcome::To(0));
        for job in jobs {
            job.settle(outcome.clone());
        }
    }

    fn publication(&self, job: &Job) -> Cmd {
        let mut publish = redis::cmd(self.link.scripts.publish);
        publish.arg(user_channel(&job.delivery.user)).arg(&*job.delivery.body);
        publish
    }

    /// The call of `lua/append.lua` for these events.
    fn append<'a>(&self, jobs: &[Job], mark_of: impl Fn(&Job) -> &'a str, counts_loaded: bool) -> Cmd {
        let keys: Vec<String> =
            jobs.iter().map(|job| &job.delivery.user).flat_map(|user| [log_key(user), unread_key(user)]).collect();
        let mut call = scripts::call(&self.link.scripts.append, &keys);
        let must_open = jobs.first().is_some_and(|job| self.link.must_open_logs(&job.delivery.user));
        let commits = jobs.iter().filter_map(durable).map(|durable| durable.committed_at.unix_ms());
        call.arg(self.link.epoch_nonce()).arg(u8::from(must_open)).arg(u8::from(counts_loaded));
        call.arg(commits.max().unwrap_or_default());
        // Members of a group get the same bytes: they go to Redis once a call.
        let mut before: &[u8] = &[];
        for job in jobs {
            let Some(durable) = durable(job) else { continue };
            let body = &*job.delivery.body;
            let short = if std::ptr::eq(body, before) { Cow::default() } else { repeated::shorten(body) };
            before = body;
            call.arg(user_channel(&job.delivery.user))
                .arg(durable.committed_at.unix_ms())
                .arg(format!(":{}", durable.event_id))
                .arg(short.get(1..).unwrap_or_default())
                .arg(u8::from(durable.append == Append::Once && !switches::off("append-once")))
                .arg(mark_of(job));
            match &durable.unread {
                Some(unread) => {
                    let announce = u8::from(unread.announce);
                    call.arg(unread.conversation.as_str()).arg(unread.last_seq).arg(unread.seen_seq).arg(announce)
                }
                None => call.arg("").arg("").arg("").arg(""),
            };
        }
        call
    }
}

impl Call {
    /// What became of each of its events.
    fn outcomes(self, reply: Result<Value, BackboneError>) -> Vec<(Job, Reply)> {
        let (jobs, values) = match (self, reply) {
            (Self::Publish(job), reply) => (vec![job], reply.map(|value| vec![value])),
            (Self::Append(jobs), Ok(Value::Array(values))) if values.len() == jobs.len() => (jobs, Ok(values)),
            (Self::Append(jobs), Ok(_)) => (jobs, Err(unknown_answer())),
            (Self::Append(jobs), Err(fault)) => (jobs, Err(fault)),
        };
        match values {
            Ok(values) => jobs.into_iter().zip(values.into_iter().map(Reply::of)).collect(),
            Err(fault) => jobs.into_iter().map(|job| (job, Reply::Failed(fault.clone()))).collect(),
        }
    }
}

impl Reply {
    fn of(value: Value) -> Self {
        match value {
            Value::Int(-2) => Self::Done(DeliveryOutcome::Already),
            Value::Int(-1) => Self::CountsMissing,
            Value::Int(receivers) => match u64::try_from(receivers) {
                Ok(receivers) => Self::Done(DeliveryOutcome::To(receivers)),
                Err(_) => Self::Failed(unknown_answer()),
            },
            Value::BulkString(fault) => Self::Failed(BackboneError(String::from_utf8_lossy(&fault).into_owned())),
            _ => Self::Failed(unknown_answer()),
        }
    }
}

fn unknown_answer() -> BackboneError {
    BackboneError("Redis gave an unknown answer".to_owned())
}

/// A user's counts; none if the store doesn't tell them in time.
struct LoadedCounts {
    user: UserId,
    counts: Option<Vec<UnreadCount>>,
}

async fn load(source: Arc<dyn BackboneHost>, user: UserId, deadline: Instant) -> LoadedCounts {
    let counts = match tokio::time::timeout_at(deadline, source.unread(&user)).await {
        Ok(Ok(counts)) => Some(counts),
        Ok(Err(error)) => {
            tracing::debug!(%error, "unread counts could not be loaded");
            None
        }
        Err(_) => None,
    };
    LoadedCounts { user, counts }
}

/// `first`, and what else is loaded now.
fn gathered<L: Future<Output = LoadedCounts>>(
    first: LoadedCounts,
    loads: &mut FuturesUnordered<L>,
) -> Vec<LoadedCounts> {
    let count = |loaded: &LoadedCounts| loaded.counts.as_ref().map_or(0, Vec::len);
    let (mut seeds, mut loaded) = (count(&first), vec![first]);
    while seeds < SEEDS_MAX
        && let Some(Some(next)) = loads.next().now_or_never()
    {
        seeds += count(&next);
        loaded.push(next);
    }
    loaded
}

/// As many pipelines as they make.
fn in_pipelines(mut jobs: Vec<Job>) -> impl Iterator<Item = Vec<Job>> {
    std::iter::from_fn(move || {
        let rest = jobs.split_off(jobs.len().min(PIPELINE_MAX));
        Some(std::mem::replace(&mut jobs, rest)).filter(|jobs| !jobs.is_empty())
    })
}

fn durable(job: &Job) -> Option<&Durable> {
    match &job.delivery.kind {
        DeliveryKind::Ephemeral => None,
        DeliveryKind::Durable(durable) => Some(durable),
    }
}
