//! Push jobs (`chat:push`): each notifies a user who was connected nowhere when a message came.
//!
//! A node that has taken a job renews it until the job is done. A job that is no longer renewed is taken by another node.

use std::time::Duration;

use async_trait::async_trait;
use shared::{ConversationId, MessageId, UserId};

use super::{BackboneError, Delivery, DeliveryKind};

/// How long a job stays with the node that took it, without [`PushJobs::keep_push_jobs`].
pub const PUSH_JOB_KEPT: Duration = Duration::from_secs(10);

/// A job. One and the same message and user may come as two jobs, after a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushJob {
    /// The backbone's name for the job.
    pub handle: String,
    /// The user to notify.
    pub user: UserId,
    /// The message.
    pub message: MessageId,
    /// The message's conversation.
    pub conversation: ConversationId,
    /// The message's `seq` in it.
    pub seq: u64,
    /// The users whom the message mentions.
    pub mentions: Vec<UserId>,
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
    let unread = durable.unread.as_ref().filter(|_| durable.push)?;
    Some(PushJob {
        handle: String::new(),
        user: delivery.user.clone(),
        message: durable.message?,
        conversation: unread.conversation.clone(),
        seq: unread.last_seq,
        mentions: durable.mentions.as_deref().unwrap_or_default().to_vec(),
    })
}
