//! Push jobs in this process: bounded, and lost with it.

use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;

use super::LocalBackbone;
use crate::backbone::{BackboneError, PushJob, PushJobs};

/// Jobs that wait, and dead ones, at the most; the oldest go first.
const JOBS_MAX: usize = 10_000;

/// All jobs.
#[derive(Default)]
pub(super) struct Jobs {
    count: u64,
    waiting: VecDeque<PushJob>,
    taken: HashMap<String, PushJob>,
    dead: VecDeque<(PushJob, String)>,
}

impl Jobs {
    pub(super) fn add(&mut self, job: PushJob) {
        self.count += 1;
        self.waiting.push_back(PushJob { handle: self.count.to_string(), ..job });
        if self.waiting.len() > JOBS_MAX {
            self.waiting.pop_front();
        }
    }
}

#[async_trait]
impl PushJobs for LocalBackbone {
    async fn take_push_jobs(&self, limit: usize) -> Result<Vec<PushJob>, BackboneError> {
        let mut jobs = self.shared.jobs.lock();
        let count = jobs.waiting.len().min(limit);
        let taken: Vec<PushJob> = jobs.waiting.drain(..count).collect();
        jobs.taken.extend(taken.iter().map(|job| (job.handle.clone(), job.clone())));
        Ok(taken)
    }

    /// The only taker is this process, which ends with its jobs.
    async fn keep_push_jobs(&self, _handles: &[String]) -> Result<(), BackboneError> {
        Ok(())
    }

    async fn finish_push_job(&self, job: &PushJob) -> Result<(), BackboneError> {
        self.shared.jobs.lock().taken.remove(&job.handle);
        Ok(())
    }

    async fn bury_push_job(&self, job: &PushJob, why: &str) -> Result<(), BackboneError> {
        let mut jobs = self.shared.jobs.lock();
        jobs.taken.remove(&job.handle);
        jobs.dead.push_back((job.clone(), why.to_owned()));
        if jobs.dead.len() > JOBS_MAX {
            jobs.dead.pop_front();
        }
        Ok(())
    }

    async fn buried_push_jobs(&self) -> Result<u64, BackboneError> {
        Ok(self.shared.jobs.lock().dead.len() as u64)
    }
}
