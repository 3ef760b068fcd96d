//! Push jobs (`chat:push`): each notifies a user who was connected nowhere when a message came, or is about a message of a large
//! conversation, for whoever of its members is connected nowhere.
//!
//! A node that has taken a job renews it until the job is done. A job that is no longer renewed is taken by another node.
//!
//! The jobs that wait are bounded, and each conversation and each sender has a share of the room that is left. So whoever floods
//! takes room from themselves: what others have waiting stays, and there is room for what comes from others. Users who were
//! never here get no jobs.

use std::time::Duration;

use async_trait::async_trait;
use metrics::{Counter, counter, describe_counter};
use shared::{ConversationId, MessageId, UserId};

use super::{BackboneError, Delivery, DeliveryKind, TopicEvent, TopicPush};

/// How long a job stays with the node that took it, without [`PushJobs::keep_push_jobs`].
pub const PUSH_JOB_KEPT: Duration = Duration::from_secs(10);

/// Push jobs that may wait.
pub(super) const PUSH_JOBS_MAX: u32 = 100_000;
/// One conversation, or one sender, may have one part in so many of the room that is left. One that floods takes a ninth of
/// all, and a hundred that flood leave one part in thirteen.
pub(super) const SHARE_OF_ROOM: u32 = 8;
/// The same of all places, where nobody removes jobs that are done and there is never room.
pub(super) const SHARE_OF_ALL: u32 = 16;
/// Users whom the backbone doesn't know, and the store is asked about in one query.
pub(super) const STRANGERS_PER_QUERY: usize = 1024;

/// A job. One and the same message and user may come as two jobs, after a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushJob {
    /// The backbone's name for the job.
    pub handle: String,
    /// The user to notify; `None`: all members of the message's large conversation who are connected nowhere.
    pub user: Option<UserId>,
    /// The message.
    pub message: MessageId,
    /// The message's conversation.
    pub conversation: ConversationId,
    /// The message's `seq` in it.
    pub seq: u64,
    /// The users whom the message mentions.
    pub mentions: Vec<UserId>,
    /// The message's sender, unless another program has added the job.
    pub sender: Option<UserId>,
}

/// The jobs of the whole cluster.
#[async_trait]
pub trait PushJobs: Send + Sync {
    /// Takes at most `limit` jobs: first those that other nodes no longer renew, then new ones. Jobs in a reply that was lost
    /// are taken again after [`PUSH_JOB_KEPT`].
    async fn take_push_jobs(&self, limit: usize) -> Result<Vec<PushJob>, BackboneError>;

    /// Renews these jobs: this node is still at work on them.
    async fn keep_push_jobs(&self, handles: &[String]) -> Result<(), BackboneError>;

    /// Removes a job that is done.
    async fn finish_push_job(&self, job: &PushJob) -> Result<(), BackboneError>;

    /// Moves a job that can't be done to the bounded list of dead jobs (`chat:push:dead`), with the reason. After an error the
    /// job may be in both.
    async fn bury_push_job(&self, job: &PushJob, why: &str) -> Result<(), BackboneError>;

    /// How many dead jobs are kept, for operators and tests.
    async fn buried_push_jobs(&self) -> Result<u64, BackboneError>;
}

/// The job about a delivery that nobody received, if it wants one; without a handle.
pub(super) fn job_of(delivery: &Delivery) -> Option<PushJob> {
    let DeliveryKind::Durable(durable) = &delivery.kind else { return None };
    let sender = Some(durable.push.clone()?);
    let message = durable.message.as_ref()?;
    Some(PushJob {
        handle: String::new(),
        user: Some(delivery.user.clone()),
        message: message.id,
        conversation: message.conversation.clone(),
        seq: message.seq,
        mentions: durable.mentions.as_deref().unwrap_or_default().to_vec(),
        sender,
    })
}

/// The job about a message of a large conversation, if this event is one; without a handle.
pub(super) fn job_of_topic(event: &TopicEvent) -> Option<PushJob> {
    let TopicPush { message, sender, mentions } = event.push.as_ref()?;
    Some(PushJob {
        handle: String::new(),
        user: None,
        message: message.id,
        conversation: message.conversation.clone(),
        seq: message.seq,
        mentions: mentions.clone(),
        sender: Some(sender.clone()),
    })
}

/// How many jobs of one conversation, and of one sender, may wait when `waiting` wait in all. A job beyond that is dropped.
pub(super) fn share(jobs_max: u32, waiting: u32, is_posted: bool) -> u32 {
    if is_posted { jobs_max.saturating_sub(waiting) / SHARE_OF_ROOM } else { jobs_max / SHARE_OF_ALL }
}

/// Jobs that were not added.
pub(super) struct Dropped {
    /// Of conversations or senders that had their share.
    pub(super) shares: Counter,
    /// Of users who were never here.
    pub(super) strangers: Counter,
    /// Of users about whom the store could not be asked in time.
    pub(super) unasked: Counter,
}

impl Dropped {
    pub(super) fn new() -> Self {
        let name = "parley_push_jobs_dropped_total";
        describe_counter!(
            name,
            "Push jobs that were not added, because others of their conversation or sender wait, or the user was never here"
        );
        let count = |reason: &'static str| counter!(name, "reason" => reason);
        Self { shares: count("share"), strangers: count("stranger"), unasked: count("unasked") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs that wait when so many flood for as long as they can.
    fn flooded_by(count: u32) -> u32 {
        let mut waiting = vec![0; count as usize];
        loop {
            let before: u32 = waiting.iter().sum();
            for place in 0..waiting.len() {
                let all = waiting.iter().sum();
                if waiting[place] < share(1_000, all, true) {
                    waiting[place] += 1;
                }
            }
            if waiting.iter().sum::<u32>() == before {
                return before;
            }
        }
    }

    #[test]
    fn floods_leave_room_for_what_comes_from_others() {
        let floods = [1, 8, 50].map(flooded_by);
        assert_eq!(floods.map(|waiting| waiting < 1_000), [true; 3], "{floods:?}");
        assert!(floods[0] <= 112 && floods[1] <= 500, "{floods:?}");
        assert!(share(1_000, floods[2], true) >= 1, "{floods:?}: whoever has nothing waiting gets in");
        assert_eq!((share(1_000, 1_000, true), share(1_000, 1_000, false)), (0, 62));
    }
}
