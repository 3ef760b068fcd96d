//! Push jobs in this process: bounded, and lost with it.

use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;
use shared::{ConversationId, UserId};

use super::LocalBackbone;
use crate::backbone::push_jobs::{Dropped, share};
use crate::backbone::{BackboneError, PushJob, PushJobs, Settings};

/// Dead jobs that are kept; the oldest go first.
const DEAD_MAX: usize = 10_000;

/// All jobs.
pub(super) struct Jobs {
    jobs_max: u32,
    is_posted: bool,
    count: u64,
    waiting: VecDeque<PushJob>,
    taken: HashMap<String, PushJob>,
    dead: VecDeque<(PushJob, String)>,
    /// How many wait or are taken, by conversation and by sender.
    of_conversations: HashMap<ConversationId, u32>,
    of_senders: HashMap<UserId, u32>,
    pub(super) dropped: Dropped,
}

impl Jobs {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            jobs_max: settings.push_jobs_max,
            is_posted: settings.push_is_posted,
            count: 0,
            waiting: VecDeque::new(),
            taken: HashMap::new(),
            dead: VecDeque::new(),
            of_conversations: HashMap::new(),
            of_senders: HashMap::new(),
            dropped: Dropped::new(),
        }
    }

    /// Adds a job, unless its conversation or its sender has its share.
    pub(super) fn add(&mut self, job: PushJob) {
        let all = u32::try_from(self.waiting.len() + self.taken.len()).unwrap_or(u32::MAX);
        let share = share(self.jobs_max, all, self.is_posted);
        let of_conversation = self.of_conversations.get(&job.conversation).copied().unwrap_or_default();
        let of_sender = job.sender.as_ref().and_then(|sender| self.of_senders.get(sender)).copied().unwrap_or_default();
        if of_conversation >= share || of_sender >= share {
            self.dropped.shares.increment(1);
            return;
        }
        if all >= self.jobs_max
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.uncount(&oldest);
        }
        self.of_conversations.insert(job.conversation.clone(), of_conversation + 1);
        if let Some(sender) = &job.sender {
            self.of_senders.insert(sender.clone(), of_sender + 1);
        }
        self.count += 1;
        self.waiting.push_back(PushJob { handle: self.count.to_string(), ..job });
    }

    fn end(&mut self, job: &PushJob) {
        if let Some(job) = self.taken.remove(&job.handle) {
            self.uncount(&job);
        }
    }

    fn uncount(&mut self, job: &PushJob) {
        uncount(&mut self.of_conversations, &job.conversation);
        if let Some(sender) = &job.sender {
            uncount(&mut self.of_senders, sender);
        }
    }
}

fn uncount<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
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
        self.shared.jobs.lock().end(job);
        Ok(())
    }

    async fn bury_push_job(&self, job: &PushJob, why: &str) -> Result<(), BackboneError> {
        let mut jobs = self.shared.jobs.lock();
        jobs.end(job);
        jobs.dead.push_back((job.clone(), why.to_owned()));
        if jobs.dead.len() > DEAD_MAX {
            jobs.dead.pop_front();
        }
        Ok(())
    }

    async fn buried_push_jobs(&self) -> Result<u64, BackboneError> {
        Ok(self.shared.jobs.lock().dead.len() as u64)
    }
}
