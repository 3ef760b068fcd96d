//! Push jobs on their way into the stream: at once for users whom Redis knows. The store is asked about the others, on nobody
//! else's time, because Redis may have lost its memory.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value, from_redis_value};
use shared::UserId;

use super::push_entry::{JOBS_PER_CALL, add};
use crate::backbone::push_jobs::{Dropped, STRANGERS_PER_QUERY};
use crate::backbone::redis::damaged::{begin_anew, is_other_type};
use crate::backbone::redis::link::Link;
use crate::backbone::{BackboneError, BackboneHost, PushJob};

/// Jobs of users whom Redis doesn't know and who wait for the store's answer.
const STRANGERS_MAX: usize = 16_384;
/// The longest that the store may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The way of jobs into the stream.
pub(super) struct PushAdding {
    link: Arc<Link>,
    source: Arc<dyn BackboneHost>,
    /// Jobs of users about whom the store is to be asked.
    strangers: VecDeque<PushJob>,
    dropped: Dropped,
}

impl PushAdding {
    pub(super) fn new(link: Arc<Link>, source: Arc<dyn BackboneHost>) -> Self {
        Self { link, source, strangers: VecDeque::new(), dropped: Dropped::new() }
    }

    /// Adds the jobs of users whom Redis knows; the others wait for the store's answer. Each is for one user.
    pub(super) async fn add(&mut self, jobs: Vec<PushJob>) -> Result<(), BackboneError> {
        let known = self.known(&jobs).await?;
        let (jobs, strangers): (Vec<_>, Vec<_>) = jobs.into_iter().zip(known).partition(|(_, is_known)| *is_known);
        for (job, _) in strangers {
            if self.strangers.len() < STRANGERS_MAX {
                self.strangers.push_back(job);
            } else {
                self.dropped.unasked.increment(1);
            }
        }
        write(&self.link, jobs.into_iter().map(|(job, _)| job).collect(), &self.dropped).await
    }

    /// Adds these jobs, those that wait for the store's answer included.
    pub(super) async fn add_all(mut self, jobs: Vec<PushJob>) -> Result<(), BackboneError> {
        self.add(jobs).await?;
        while self.has_strangers() {
            let known = self.ask().await;
            write(&self.link, known, &self.dropped).await?;
        }
        Ok(())
    }

    /// Whether jobs wait for the store's answer.
    pub(super) fn has_strangers(&self) -> bool {
        !self.strangers.is_empty()
    }

    /// Asks the store about the next users; ready with the jobs of those who were ever here. What the store can't tell counts as
    /// known: one notification too many is better than none.
    pub(super) fn ask(&mut self) -> impl Future<Output = Vec<PushJob>> + use<> {
        let count = self.strangers.len().min(STRANGERS_PER_QUERY);
        let jobs: Vec<PushJob> = self.strangers.drain(..count).collect();
        let (source, strangers) = (Arc::clone(&self.source), self.dropped.strangers.clone());
        async move {
            let users: Vec<UserId> = jobs.iter().filter_map(|job| job.user.clone()).collect();
            let asked = tokio::time::timeout(ANSWER_WITHIN, source.known_users(&users)).await;
            let known: HashSet<UserId> = asked.ok().and_then(Result::ok).unwrap_or(users).into_iter().collect();
            let all = jobs.len();
            let jobs: Vec<PushJob> =
                jobs.into_iter().filter(|job| job.user.as_ref().is_some_and(|user| known.contains(user))).collect();
            strangers.increment((all - jobs.len()) as u64);
            jobs
        }
    }

    /// Adds the jobs of users whom the store knows.
    pub(super) async fn add_known(&self, jobs: Vec<PushJob>) {
        if let Err(error) = write(&self.link, jobs, &self.dropped).await {
            tracing::debug!(%error, "push jobs of users whom Redis has forgotten could not be added");
        }
    }

    /// Whether Redis has seen each job's user, or has a log of theirs.
    async fn known(&self, jobs: &[PushJob]) -> Result<Vec<bool>, BackboneError> {
        let keys = self.link.keys();
        let mut pipeline = Pipeline::with_capacity(jobs.len() * 2);
        for user in jobs.iter().filter_map(|job| job.user.as_ref()) {
            pipeline.cmd("EXISTS").arg(keys.last_seen(user));
            pipeline.cmd("EXISTS").arg(keys.log(user));
        }
        let replies = self.link.run_pipeline(&pipeline).await?.whole()?;
        Ok(replies.chunks(2).map(|replies| replies.contains(&Value::Int(1))).collect())
    }
}

/// Adds jobs, as far as their conversations and senders have room.
pub(super) async fn write(link: &Link, jobs: Vec<PushJob>, counted: &Dropped) -> Result<(), BackboneError> {
    let mut pipeline = Pipeline::new();
    for jobs in jobs.chunks(JOBS_PER_CALL) {
        pipeline.add_command(add(link, jobs));
    }
    for (call, reply) in pipeline.cmd_iter().zip(link.run_calls(&pipeline).await) {
        let dropped = match reply {
            Err(error) if is_other_type(&error) => {
                begin_anew(link, &link.keys().push_stream()).await?;
                link.run_script(call).await?
            }
            reply => from_redis_value(reply?).unwrap_or_default(),
        };
        counted.shares.increment(dropped);
    }
    Ok(())
}
