//! Jobs to notify users who were nowhere online when a message came (`chat:push`): who has taken one keeps it by saying so
//! again and again, until it is done; a job of somebody who fell silent is taken by another.

use std::time::Duration;

use async_trait::async_trait;
use shared::{ConversationId, MessageId, UserId};

use super::{BackboneError, Delivery, DeliveryKind};

/// How long a job stays with who took it without [`PushJobs::keep_push_jobs`].
pub const PUSH_JOB_KEPT: Duration = Duration::from_secs(10);

/// A job. One and the same message and user may come as two jobs, after a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushJob {
    /// What the backbone calls it.
    pub handle: String,
    /// Whom to notify.
    pub user: UserId,
    /// Of which message.
    pub message: MessageId,
    /// Where the message stands.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: u64,
}

/// The jobs of the whole cluster.
#[async_trait]
pub trait PushJobs: Send + Sync {
    /// Takes at most `limit` jobs: those of takers that fell silent before new ones.
    async fn take_push_jobs(&self, limit: usize) -> Result<Vec<PushJob>, BackboneError>;

    /// Says that this node is still at these jobs.
    async fn keep_push_jobs(&self, handles: &[String]) -> Result<(), BackboneError>;

    /// The job is done.
    async fn finish_push_job(&self, job: &PushJob) -> Result<(), BackboneError>;

    /// The job can't be done: it goes to the bounded list of dead ones (`chat:push:dead`), with the reason.
    async fn bury_push_job(&self, job: &PushJob, why: &str) -> Result<(), BackboneError>;

    /// How many dead ones are kept, for operators and tests.
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
    })
}
