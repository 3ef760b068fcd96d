//! The one task that publishes. Deliveries that arrive while a pipeline is under way make the next one.
//!
//! Each user's events keep their order, also while the first of them waits for unread counts from the store.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Pipeline;
use shared::UserId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::appends::{Call, Reply, durable, is_user_in_several};
use super::counts::{LoadedCounts, gathered, load};
use super::push_adding::PushAdding;
use crate::backbone::push_jobs::job_of;
use crate::backbone::queue::Job;
use crate::backbone::redis::link::Link;
use crate::backbone::{BackboneError, BackboneHost, DeliveryOutcome, PushJob};

/// Deliveries per pipeline, so that one doesn't keep Redis busy for more than some 20 ms.
const PIPELINE_MAX: usize = 1024;

/// Loads of unread counts at a time. After Redis came back empty, every user's are due.
const LOADS_MAX: usize = 64;

/// Questions to the store about users whom Redis doesn't know, at a time.
const QUESTIONS_MAX: usize = 2;

/// The longest wait for a user's unread counts. Without them the user's event is published, and moves no count.
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
    pushes: PushAdding,
}

struct ParkedJobs {
    /// The mark that made later events of the same pipeline wait; empty if there were none.
    mark: String,
    jobs: Vec<Job>,
}

impl PipelineWriter {
    pub(in crate::backbone::redis) fn new(
        link: Arc<Link>,
        jobs: mpsc::UnboundedReceiver<Vec<Job>>,
        source: Arc<dyn BackboneHost>,
    ) -> Self {
        let pushes = PushAdding::new(Arc::clone(&link), Arc::clone(&source));
        Self { link, jobs, source, parked: HashMap::new(), unloaded: VecDeque::new(), marks: 0, pushes }
    }

    /// Publishes until the queue is closed and empty.
    pub(in crate::backbone::redis) async fn run(mut self) {
        let mut open = true;
        let mut loads = FuturesUnordered::new();
        let mut questions = FuturesUnordered::new();
        while open || !loads.is_empty() || !self.unloaded.is_empty() || !questions.is_empty() {
            while questions.len() < QUESTIONS_MAX && self.pushes.has_strangers() {
                questions.push(self.pushes.ask());
            }
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
                Some(known) = questions.next(), if !questions.is_empty() => self.pushes.add_known(known).await,
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
        for job in self.still_connected(batch) {
            match self.parked.get_mut(&job.delivery.user) {
                Some(parked) if durable(&job).is_some() => parked.jobs.push(job),
                _ => jobs.push(job),
            }
        }
        let calls = Call::group(&self.link, jobs);
        self.marks += 1;
        let is_marked = is_user_in_several(&calls);
        let mark = if is_marked { format!("!{}:{}", self.link.settings.boot_id, self.marks) } else { String::new() };
        for job in self.carry_out(calls, &mark, false).await {
            self.park(job, &mark);
        }
    }

    /// Those whose connection is still there; the others fail.
    fn still_connected(&self, jobs: Vec<Job>) -> Vec<Job> {
        if jobs.iter().all(|job| job.connected_by.is_none()) {
            return jobs;
        }
        let since = self.link.connected_since();
        let is_gone = |job: &Job| job.connected_by.zip(since).is_some_and(|(by, since)| since > by);
        let (gone, there): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_gone);
        for job in gone {
            job.settle(Err(BackboneError("the connection to Redis was made anew meanwhile".to_owned())));
        }
        there
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
        for counts in loaded {
            let Some(ParkedJobs { mark, jobs }) = self.parked.remove(&counts.user) else { continue };
            seeds.add_command(counts.seed(&self.link, &mark));
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
            let calls = Call::group(&self.link, self.still_connected(ready));
            for job in self.carry_out(calls, "", true).await {
                job.settle(Err(BackboneError("unread counts were missing after they were loaded".to_owned())));
            }
        }
    }

    /// Runs calls in one pipeline and settles their events, except those whose counts are missing, which it returns.
    async fn carry_out(&mut self, calls: Vec<Call>, mark: &str, counts_loaded: bool) -> Vec<Job> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in &calls {
            pipeline.add_command(call.command(&self.link, mark, counts_loaded));
        }
        let replies = self.link.run_calls(&pipeline).await;
        let mut waiting = Vec::new();
        let mut unseen = Vec::new();
        for (job, reply) in calls.into_iter().zip(replies).flat_map(|(call, reply)| call.outcomes(reply)) {
            match reply {
                Reply::Done(outcome)
                    if outcome.reached_nobody() && durable(&job).is_some_and(|durable| durable.push.is_some()) =>
                {
                    unseen.push((job, outcome));
                }
                Reply::Done(outcome) => job.settle(Ok(outcome)),
                Reply::CountsMissing => waiting.push(job),
                Reply::Failed(fault) => job.settle(Err(fault)),
            }
        }
        self.add_push_jobs(unseen).await;
        waiting
    }

    /// Adds push jobs for messages without a receiver; only then do these count as published.
    async fn add_push_jobs(&mut self, jobs: Vec<(Job, DeliveryOutcome)>) {
        let pushes: Vec<PushJob> = jobs.iter().filter_map(|(job, _)| job_of(&job.delivery)).collect();
        let added = if pushes.is_empty() { Ok(()) } else { self.pushes.add(pushes).await };
        for (job, outcome) in jobs {
            job.settle(added.clone().map(|()| outcome));
        }
    }
}

/// As many pipelines as they make.
fn in_pipelines(mut jobs: Vec<Job>) -> impl Iterator<Item = Vec<Job>> {
    std::iter::from_fn(move || {
        let rest = jobs.split_off(jobs.len().min(PIPELINE_MAX));
        Some(std::mem::replace(&mut jobs, rest)).filter(|jobs| !jobs.is_empty())
    })
}
