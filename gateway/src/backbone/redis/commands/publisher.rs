//! The one task that publishes. Deliveries that arrive while a pipeline is under way make the next one. Each user's events
//! keep their order.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Pipeline;
use tokio::sync::mpsc;

use super::appends::{Call, Reply, durable};
use super::push_adding::PushAdding;
use crate::backbone::push_jobs::job_of;
use crate::backbone::queue::Job;
use crate::backbone::redis::link::Link;
use crate::backbone::{BackboneError, BackboneHost, DeliveryOutcome, PushJob};

/// Deliveries per pipeline, so that one doesn't keep Redis busy for more than some 20 ms.
const PIPELINE_MAX: usize = 1024;

/// Questions to the store about users whom Redis doesn't know, at a time.
const QUESTIONS_MAX: usize = 2;

/// The publishing task.
pub(in crate::backbone::redis) struct PipelineWriter {
    link: Arc<Link>,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    pushes: PushAdding,
}

impl PipelineWriter {
    pub(in crate::backbone::redis) fn new(
        link: Arc<Link>,
        jobs: mpsc::UnboundedReceiver<Vec<Job>>,
        host: Arc<dyn BackboneHost>,
    ) -> Self {
        let pushes = PushAdding::new(Arc::clone(&link), host);
        Self { link, jobs, pushes }
    }

    /// Publishes until the queue is closed and empty.
    pub(in crate::backbone::redis) async fn run(mut self) {
        let mut open = true;
        let mut questions = FuturesUnordered::new();
        while open || !questions.is_empty() {
            while questions.len() < QUESTIONS_MAX && self.pushes.has_strangers() {
                questions.push(self.pushes.ask());
            }
            let mut batch = Vec::new();
            tokio::select! {
                jobs = self.jobs.recv(), if open => match jobs {
                    Some(jobs) => batch = jobs,
                    None => open = false,
                },
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

    /// Publishes a batch in one pipeline and settles its events.
    async fn publish(&mut self, batch: Vec<Job>) {
        let calls = Call::group(&self.link, self.still_connected(batch));
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in &calls {
            pipeline.add_command(call.command(&self.link));
        }
        let replies = self.link.run_calls(&pipeline).await;
        let mut unseen = Vec::new();
        for (job, reply) in calls.into_iter().zip(replies).flat_map(|(call, reply)| call.outcomes(reply)) {
            match reply {
                Reply::Done(outcome)
                    if outcome.reached_nobody() && durable(&job).is_some_and(|durable| durable.push.is_some()) =>
                {
                    unseen.push((job, outcome));
                }
                Reply::Done(outcome) => job.settle(Ok(outcome)),
                Reply::Failed(fault) => job.settle(Err(fault)),
            }
        }
        self.add_push_jobs(unseen).await;
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
