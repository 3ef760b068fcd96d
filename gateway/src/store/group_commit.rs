//! Group commit: takes single sends and receipts, and commits them in batches. Publishes nothing; its [`CommitSink`]
//! does.
//!
//! A conversation always takes the same lane, and a lane commits one batch after the other. So the messages that one
//! node stores in a conversation keep the order of their arrival, and the sink is called in commit order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram};
use shared::{ConversationId, MessageData, MessageId, TempId, UserId};
use tokio_util::sync::CancellationToken;

use super::flow::Flow;
use super::lane::{CommitLane, Item, PendingItem, lane_of};
use super::{
    CommitSink, CommittedBatch, CommittedEvents, IdBlock, NewMessage, OutboxRow, Owner, Receipt, ReceiptChange,
    Refusal, SendBatch, SendOutcome, Store, StoreError, StoredMessage,
};
use crate::overload::Kind;
use crate::switches;
use crate::traces::{self, Step};

/// Batches of messages of one node in flight at once. Most of a batch's cost is fixed, so one batch that grows during
/// the last commit is better than two: with two, half as large, a full machine came to a standstill earlier. Other
/// nodes' batches fill the time in which this node's batch waits for the disk.
pub const SEND_LANES: usize = 1;

/// How long one try of a batch may take, in milliseconds: two tries fit into the five seconds.
const TRY_MS_MAX: u64 = 2_200;

/// The pause before the second try, in milliseconds.
const RETRY_PAUSE_MS: u64 = 100;

/// A message to send, without an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessageDraft {
    /// The message's id, if it was made before; otherwise one is taken. Such a message is stored at most once, provided
    /// that every try has the same `temp_id`.
    pub id: Option<MessageId>,
    /// The conversation; it must exist.
    pub conversation: ConversationId,
    /// The sender.
    pub sender: UserId,
    /// Unique per sender, if given.
    pub temp_id: Option<TempId>,
    /// The kind of the content, such as `text`.
    pub kind: String,
    /// The content, without U+0000.
    pub content: String,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// What the application keeps beside the content.
    pub data: Option<MessageData>,
}

/// The settings of a [`GroupCommit`].
#[derive(Clone)]
pub struct GroupCommitSettings {
    /// The boot of a node that publishes the committed rows.
    pub owner: Owner,
    /// How many batches of messages may be in flight at once.
    pub send_lanes: usize,
    /// Publishes what is committed.
    pub sink: Arc<dyn CommitSink>,
}

/// The way into the store for messages and receipts.
pub struct GroupCommit {
    sends: Vec<CommitLane<NewMessageDraft>>,
    receipts: CommitLane<Receipt>,
    closing: CancellationToken,
}

impl GroupCommit {
    /// Starts the lanes.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, ids: Arc<IdBlock>, settings: GroupCommitSettings) -> Self {
        let closing = CancellationToken::new();
        let lanes = settings.send_lanes.max(1);
        let committer = Arc::new(Committer {
            store,
            ids,
            settings,
            measured: BatchMetrics {
                seconds: metrics::histogram!("parley_store_batch_seconds"),
                messages: metrics::histogram!("parley_store_batch_messages"),
                failed: metrics::counter!("parley_store_batches_failed_total"),
            },
        });
        let sends = (0..lanes)
            .map(|_| {
                let committer = committer.clone();
                CommitLane::start(Kind::Messages, Flow::default(), closing.clone(), move |asked| {
                    committer.clone().commit_sends(asked)
                })
            })
            .collect();
        let receipts = CommitLane::start(Kind::Receipts, Flow::default(), closing.clone(), move |asked| {
            committer.clone().commit_receipts(asked)
        });
        Self { sends, receipts, closing }
    }

    /// Stores one message with others of its time. `Busy` within a second if too much waits: it was not stored.
    /// `Unavailable` within five seconds if the store didn't answer: the
    /// message may still have been stored, and is then published by the sweep of the outbox.
    pub async fn send(&self, draft: NewMessageDraft) -> Result<SendOutcome, StoreError> {
        match self.sends.get(lane_of(&draft.conversation, self.sends.len())) {
            Some(lane) => lane.ask(draft).await,
            None => Err(StoreError::Failed("there is no lane".into())),
        }
    }

    /// Applies one receipt with others of its time. `Unavailable` like [`GroupCommit::send`].
    pub async fn receipt(&self, receipt: Receipt) -> Result<Result<ReceiptChange, Refusal>, StoreError> {
        self.receipts.ask(receipt).await
    }

    /// Takes nothing more, and returns when all items that were taken are committed and answered.
    pub async fn finish(&self) {
        self.closing.cancel();
        for lane in &self.sends {
            lane.ended().await;
        }
        self.receipts.ended().await;
    }
}

impl Item for NewMessageDraft {
    type Answer = SendOutcome;

    fn bytes(&self) -> usize {
        // Ids and the rest of a row weigh something too.
        256 + self.content.len() + self.data.as_ref().map_or(0, |data| data.as_str().len())
    }
}

impl Item for Receipt {
    type Answer = Result<ReceiptChange, Refusal>;

    fn bytes(&self) -> usize {
        256
    }
}

/// Makes batches of the items of its lanes, commits them, and answers their callers.
struct Committer {
    store: Arc<dyn Store>,
    ids: Arc<IdBlock>,
    settings: GroupCommitSettings,
    measured: BatchMetrics,
}

/// The measures of each batch of messages.
struct BatchMetrics {
    seconds: Histogram,
    messages: Histogram,
    failed: Counter,
}

impl Committer {
    async fn commit_sends(self: Arc<Self>, asked: Vec<PendingItem<NewMessageDraft>>) {
        let batch = match self.batch(&asked).await {
            Ok(batch) => batch,
            Err(error) => return answer_all(asked, &error),
        };
        let begun = Instant::now();
        match self.store_batch(&batch).await {
            Ok(outcomes) => {
                self.committed(batch.id, &outcomes, begun);
                for (asked, outcome) in asked.into_iter().zip(outcomes) {
                    asked.answer(Ok(outcome));
                }
            }
            // One message that can't be stored must not fail the others.
            Err(StoreError::Failed(_)) if asked.len() > 1 && !switches::off("one-by-one") => {
                self.commit_singly(asked, batch).await
            }
            Err(error) => answer_all(asked, &error),
        }
    }

    /// Ids are taken before the first try, so that the second one is recognised.
    async fn batch(&self, asked: &[PendingItem<NewMessageDraft>]) -> Result<SendBatch, StoreError> {
        let count = u32::try_from(asked.len()).unwrap_or(u32::MAX);
        let mut ids = self.ids.take(count.saturating_add(1)).await?;
        let id = ids.next().ok_or_else(too_few_ids)?;
        let messages = asked
            .iter()
            .zip(ids)
            .map(|(asked, id)| new_message(&asked.item, id))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(too_few_ids)?;
        Ok(SendBatch { id, owner: self.settings.owner.clone(), messages })
    }

    /// Tries a batch again, with the same id, if the first try's end is uncertain.
    async fn store_batch(&self, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError> {
        let started = Instant::now();
        let result = match in_time(self.store.send(batch)).await {
            Err(StoreError::Unavailable(_)) if !switches::off("batch-retry") => {
                tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
                in_time(self.store.send(batch)).await
            }
            result => result,
        };
        self.measured.seconds.record(started.elapsed());
        match &result {
            Ok(outcomes) => self.measured.messages.record(f64::from(u32::try_from(outcomes.len()).unwrap_or(u32::MAX))),
            Err(_) => self.measured.failed.increment(1),
        }
        result
    }

    /// Every message in a batch of its own, whose outbox row has the message's id: ids are unique among both.
    async fn commit_singly(&self, asked: Vec<PendingItem<NewMessageDraft>>, batch: SendBatch) {
        let mut away: Option<StoreError> = None;
        for (asked, message) in asked.into_iter().zip(batch.messages) {
            if let Some(away) = &away {
                asked.answer(Err(away.clone()));
                continue;
            }
            let single = SendBatch { id: message.id.get(), owner: batch.owner.clone(), messages: vec![message] };
            let begun = Instant::now();
            match self.store_batch(&single).await {
                Ok(outcomes) => {
                    self.committed(single.id, &outcomes, begun);
                    let outcome = outcomes.into_iter().next();
                    asked.answer(outcome.ok_or_else(|| StoreError::Failed("the store gave no outcome".into())));
                }
                Err(error) => {
                    away = matches!(error, StoreError::Unavailable(_) | StoreError::Busy(_)).then(|| error.clone());
                    asked.answer(Err(error));
                }
            }
        }
    }

    fn committed(&self, row: u64, outcomes: &[SendOutcome], begun: Instant) {
        let messages: Vec<StoredMessage> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                SendOutcome::Stored(stored) => Some(stored.clone()),
                SendOutcome::Duplicate(_) | SendOutcome::Refused(_) => None,
            })
            .collect();
        if traces::on() {
            messages.iter().for_each(|stored| traces::record(Step::Commit, stored.message.id, begun, outcomes.len()));
        }
        if !messages.is_empty() {
            self.settings.sink.messages(CommittedBatch { row, messages, begun });
        }
    }

    async fn commit_receipts(self: Arc<Self>, asked: Vec<PendingItem<Receipt>>) {
        let receipts: Arc<[Receipt]> = asked.iter().map(|asked| asked.item.clone()).collect();
        let begun = Instant::now();
        let result = match self.ids.next().await {
            Ok(row) => self.store_receipts(row, &receipts).await.map(|changes| (row, changes)),
            Err(error) => Err(error),
        };
        match result {
            Ok((row, changes)) => {
                let events = self.settings.sink.receipt_events(&receipts, &changes);
                if !events.is_empty() {
                    self.settings.sink.receipts(CommittedEvents { row, events, begun });
                }
                for (asked, change) in asked.into_iter().zip(changes) {
                    asked.answer(Ok(change));
                }
            }
            Err(error) => answer_all(asked, &error),
        }
    }

    /// If the first try did commit, the second changes nothing and writes no row, and the sweep publishes the first
    /// one's row.
    async fn store_receipts(
        &self,
        row: u64,
        receipts: &Arc<[Receipt]>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
        let outbox = || {
            let (sink, receipts) = (self.settings.sink.clone(), receipts.clone());
            OutboxRow {
                id: row,
                owner: self.settings.owner.clone(),
                events: Box::new(move |changes: &Vec<Result<ReceiptChange, Refusal>>| {
                    sink.receipt_events(&receipts, changes)
                }),
            }
        };
        match in_time(self.store.receipts(receipts, outbox())).await {
            Err(StoreError::Unavailable(_)) => {
                tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
                in_time(self.store.receipts(receipts, outbox())).await
            }
            result => result,
        }
    }
}

async fn in_time<T>(attempt: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(Duration::from_millis(TRY_MS_MAX), attempt)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("the store did not answer in time".into())))
}

fn new_message(draft: &NewMessageDraft, id: u64) -> Option<NewMessage> {
    Some(NewMessage {
        id: draft.id.or_else(|| MessageId::new(id))?,
        conversation: draft.conversation.clone(),
        sender: draft.sender.clone(),
        temp_id: draft.temp_id.clone().filter(|_| !switches::off("temp-id")),
        kind: draft.kind.clone(),
        content: draft.content.clone(),
        reply_to: draft.reply_to,
        data: draft.data.clone(),
    })
}

fn too_few_ids() -> StoreError {
    StoreError::Failed("the store has no ids left".into())
}

fn answer_all<I: Item>(asked: Vec<PendingItem<I>>, error: &StoreError) {
    for asked in asked {
        asked.answer(Err(error.clone()));
    }
}
