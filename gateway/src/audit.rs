//! The audit trail on its way to the store: a bounded queue, and one task that writes batches.
//! It offers [`AuditTrail`], which takes lines, and [`AuditTask`], which writes them.
//! It never makes a command wait. While the store is away lines gather up to a bound; further lines are dropped and
//! counted.

use std::sync::Arc;
use std::time::Duration;

use shared::{CloseCode, ConversationId, Message, MessageId, Timestamp, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::{AuditAct, AuditEntry, AuditOrder, Giver, MembershipChange, Store, StoreError};

/// Lines that may wait; some two megabytes.
const WAITING_MAX: usize = 16_384;
/// Places in the queue that messages leave free: the table `messages` names them as well, the other lines stand here alone.
const KEPT_FREE: usize = 4_096;
/// Lines that are written in one transaction.
const BATCH_MAX: usize = 1_024;
/// How long a batch that isn't full waits for more.
const GATHER: Duration = Duration::from_millis(200);
/// How long to wait before a batch is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Takes lines; cheap to clone.
#[derive(Clone)]
pub struct AuditTrail {
    queue: mpsc::Sender<AuditEntry>,
    metrics: Arc<Metrics>,
}

/// The task that writes what an [`AuditTrail`] takes.
pub struct AuditTask {
    queue: mpsc::Receiver<AuditEntry>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    batch: Vec<AuditEntry>,
}

/// An audit trail into the store, and the task that does its work.
#[must_use]
pub fn audit_trail(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> (AuditTrail, AuditTask) {
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    let trail = AuditTrail { queue: sender, metrics: Arc::clone(&metrics) };
    (trail, AuditTask { queue, store, metrics, batch: Vec::new() })
}

impl AuditTrail {
    /// A connection became the user's.
    pub fn connection_opened(&self, user: &UserId, connection: String, dialect: &'static str) {
        self.note(entry(user, None, Some(connection), AuditAct::ConnectionOpened { dialect }));
    }

    /// The connection ended after `open_s` seconds; `code` if this node closed it.
    pub fn connection_closed(&self, user: &UserId, connection: String, open_s: u32, code: Option<CloseCode>) {
        let code = code.map(CloseCode::code);
        self.note(entry(user, None, Some(connection), AuditAct::ConnectionClosed { open_s, code }));
    }

    /// The user's membership of a conversation was changed by this one.
    pub fn membership(&self, user: &UserId, conversation: &ConversationId, change: &MembershipChange, by: &Giver) {
        let by = by.clone();
        let act = match *change {
            MembershipChange::Join => AuditAct::Joined { by },
            MembershipChange::Leave => AuditAct::Left { by },
            MembershipChange::Add { by: _, role } => AuditAct::Added { by, role },
            MembershipChange::Invite { by: _ } => AuditAct::Invited { by },
            MembershipChange::Kick { by: _ } => AuditAct::Kicked { by },
            MembershipChange::Ban { by: _ } => AuditAct::Banned { by },
            MembershipChange::Unban { by: _ } => AuditAct::Unbanned { by },
            MembershipChange::SetRole { by: _, role } => AuditAct::RoleChanged { by, role },
        };
        self.note(entry(user, Some(conversation), None, act));
    }

    /// The user may not write for so long (`None`: may write again), as this user or a backend said.
    pub fn muted(&self, user: &UserId, conversation: &ConversationId, by: &Giver, time: Option<Duration>) {
        let by = by.clone();
        let act = match time {
            Some(time) => AuditAct::Muted { by, seconds: time.as_secs() },
            None => AuditAct::Unmuted { by },
        };
        self.note(entry(user, Some(conversation), None, act));
    }

    /// The title, visibility or password of a conversation was changed by this user, or by a backend.
    pub fn conversation_changed(&self, conversation: &ConversationId, by: &Giver) {
        self.note_of(conversation, AuditAct::ConversationChanged { by: by.clone() });
    }

    /// A conversation was deleted by this user, or by a backend.
    pub fn conversation_deleted(&self, conversation: &ConversationId, by: &Giver) {
        self.note_of(conversation, AuditAct::ConversationDeleted { by: by.clone() });
    }

    fn note_of(&self, conversation: &ConversationId, act: AuditAct) {
        let conversation = Some(conversation.clone());
        self.note(AuditEntry { at: Timestamp::now(), user: None, conversation, connection: None, act });
    }

    /// An order was given, to one user (`to`) or to several.
    pub fn ordered(&self, to: Option<&UserId>, order: AuditOrder, by: Giver) {
        let act = AuditAct::Ordered { order, by };
        self.note(AuditEntry { at: Timestamp::now(), user: to.cloned(), conversation: None, connection: None, act });
    }

    /// A message was stored.
    pub fn message(&self, sender: &UserId, conversation: &ConversationId, id: MessageId) {
        self.note_if_roomy(entry(sender, Some(conversation), None, AuditAct::Message { id }));
    }

    /// A message was edited.
    pub fn message_edited(&self, message: &Message) {
        let act = AuditAct::MessageEdited { id: message.id };
        self.note_if_roomy(entry(&message.sender_id, Some(&message.conversation_id), None, act));
    }

    /// A message was deleted by this one. Who deletes what others said is named nowhere else.
    pub fn message_deleted(&self, message: &Message, by: &Giver) {
        let act = AuditAct::MessageDeleted { id: message.id, by: by.clone() };
        let entry = entry(&message.sender_id, Some(&message.conversation_id), None, act);
        if *by == Giver::user(&message.sender_id) { self.note_if_roomy(entry) } else { self.note(entry) }
    }

    /// Notes what the table `messages` tells as well.
    fn note_if_roomy(&self, entry: AuditEntry) {
        if self.queue.capacity() <= KEPT_FREE {
            return self.metrics.audit_dropped.increment(1);
        }
        self.note(entry);
    }

    fn note(&self, entry: AuditEntry) {
        if self.queue.try_send(entry).is_err() {
            self.metrics.audit_dropped.increment(1);
        }
    }
}

fn entry(
    user: &UserId,
    conversation: Option<&ConversationId>,
    connection: Option<String>,
    act: AuditAct,
) -> AuditEntry {
    AuditEntry { at: Timestamp::now(), user: Some(user.clone()), conversation: conversation.cloned(), connection, act }
}

impl AuditTask {
    /// Writes until `stop`, then what is still waiting, with one try for each batch.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.gather() => {}
                () = stop.cancelled() => break,
            }
            self.write_until(&stop).await;
        }
        // `close` lets what is waiting through.
        self.queue.close();
        while !self.batch.is_empty() || self.queue.recv_many(&mut self.batch, BATCH_MAX).await > 0 {
            if self.write().await.is_err() {
                self.give_up();
                return;
            }
        }
    }

    /// Fills the batch: at once if much waits, else with what comes while the first line waits. Loses nothing when dropped.
    async fn gather(&mut self) {
        if self.batch.is_empty() && self.queue.recv_many(&mut self.batch, BATCH_MAX).await < BATCH_MAX {
            tokio::time::sleep(GATHER).await;
        }
        while self.batch.len() < BATCH_MAX
            && let Ok(entry) = self.queue.try_recv()
        {
            self.batch.push(entry);
        }
    }

    /// Tries until the store takes the batch, or `stop`; then the batch stays.
    async fn write_until(&mut self, stop: &CancellationToken) {
        while let Err(StoreError::Unavailable(_) | StoreError::Busy(_)) = self.write().await {
            tokio::select! {
                () = tokio::time::sleep(RETRY_AFTER) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Writes the batch and empties it, also if the store refuses it for good: then it is counted as dropped.
    async fn write(&mut self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let lines = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        match self.store.write_audit(&self.batch).await {
            Ok(()) => self.metrics.audit_written.increment(lines),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Busy(_))) => {
                tracing::debug!(%error, lines, "audit lines wait for the store");
                return Err(error);
            }
            Err(error @ (StoreError::Failed(_) | StoreError::Refused(_))) => {
                tracing::error!(%error, lines, "audit lines could not be written and are lost");
                self.metrics.audit_dropped.increment(lines);
            }
        }
        self.batch.clear();
        Ok(())
    }

    fn give_up(&mut self) {
        let mut lines = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        while self.queue.try_recv().is_ok() {
            lines += 1;
        }
        tracing::warn!(lines, "the store is unavailable: the last audit lines are lost");
        self.metrics.audit_dropped.increment(lines);
    }
}
