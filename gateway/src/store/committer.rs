//! Commits the batches of the lanes, and answers their callers. Publishes nothing; the [`CommitSink`] does.
//!
//! A conversation that another transaction holds stops nobody else: its messages wait in a line of their own, in order
//! (NOLOSS.md, C5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use shared::{ConversationId, MessageId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::busy::{BusyLines, LineId};
use super::lane::{Item, PendingItem};
use super::messages::name_of;
use super::{
    CommitSink, CommittedBatch, CommittedEvents, IdBlock, Locks, NewMessage, NewMessageDraft, OutboxRow, Owner,
    Receipt, ReceiptChange, Refusal, SendBatch, SendOutcome, SentBatch, Store, StoreError, StoredMessage,
};
use crate::switches;
use crate::traces::{self, Step};

/// How long one try of a batch may take, in milliseconds: two tries fit into the five seconds.
const TRY_MS_MAX: u64 = 2_200;

/// The pause before the second try, in milliseconds.
const RETRY_PAUSE_MS: u64 = 100;

/// Lines of busy conversations that are committed at once. Each takes a connection, and waits for a quarter of a second
/// until the next one has its turn.
const LINES_AT_ONCE: usize = 2;

/// How long such a try may take: it isn't begun if the caller is told sooner that the message was not stored.
const LINE_TRY_MAX: Duration = Duration::from_millis(400);

/// The settings of a [`GroupCommit`](super::GroupCommit).
#[derive(Clone)]
pub struct GroupCommitSettings {
    /// The boot of a node that publishes the committed rows.
    pub owner: Owner,
    /// Publishes what is committed.
    pub sink: Arc<dyn CommitSink>,
    /// Whether the webhook is owed events for messages.
    pub owes_events: bool,
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
pub(super) struct Committer {
    store: Arc<dyn Store>,
    ids: Arc<IdBlock>,
    settings: GroupCommitSettings,
    measured: BatchMetrics,
    /// Messages of conversations that others hold.
    busy: Mutex<BusyLines<PendingItem<NewMessageDraft>>>,
    /// Told when a line begins.
    begun: Notify,
}

/// The measures of each batch of messages.
struct BatchMetrics {
    seconds: Histogram,
    messages: Histogram,
    failed: Counter,
}

/// A message whose conversation another transaction holds, and the conversation's id, if the store looked.
type BusyItem = (PendingItem<NewMessageDraft>, Option<ConversationId>);

impl Committer {
    pub(super) fn new(store: Arc<dyn Store>, ids: Arc<IdBlock>, settings: GroupCommitSettings) -> Self {
        Self {
            store,
            ids,
            settings,
            measured: BatchMetrics {
                seconds: metrics::histogram!("parley_store_batch_seconds"),
                messages: metrics::histogram!("parley_store_batch_messages"),
                failed: metrics::counter!("parley_store_batches_failed_total"),
            },
            busy: Mutex::new(BusyLines::new(|asked| asked.item.bytes())),
            begun: Notify::new(),
        }
    }

    /// Commits a batch of the lane. What another transaction holds waits in a line of its own, and later messages of the
    /// same conversation behind it: the store knows them by whichever name they call it.
    pub(super) async fn commit_sends(self: Arc<Self>, asked: Vec<PendingItem<NewMessageDraft>>) {
        let held = self.busy.lock().held();
        let still_busy = self.commit(asked, Locks::Leave { held }).await;
        if still_busy.is_empty() {
            return;
        }
        let mut lines = self.busy.lock();
        for (asked, conversation) in still_busy {
            let name = name_of(&asked.item.sender, &asked.item.target);
            let names = conversation.map(|id| id.to_string()).into_iter().chain([name]).collect();
            if let Err(asked) = lines.wait(names, asked) {
                asked.answer(Err(too_much_waits()));
            }
        }
        self.begun.notify_one();
    }

    /// Commits what waits in lines, some lines at a time, until `emptied` and nothing waits any more.
    pub(super) async fn commit_busy(self: Arc<Self>, emptied: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < LINES_AT_ONCE
                && let Some((line, asked)) = self.busy.lock().take()
            {
                under_way.push(self.commit_line(line, asked));
            }
            tokio::select! {
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                () = self.begun.notified() => {}
                () = emptied.cancelled(), if under_way.is_empty() => return,
            }
        }
    }

    async fn commit_line(&self, line: LineId, asked: Vec<PendingItem<NewMessageDraft>>) {
        let asked: Vec<_> = asked.into_iter().filter_map(|asked| asked.if_in_time(LINE_TRY_MAX)).collect();
        let rest = if asked.is_empty() { Vec::new() } else { self.commit(asked, Locks::Wait).await };
        self.busy.lock().give_back(line, rest.into_iter().map(|(asked, _)| asked).collect());
    }

    /// Commits a batch and answers its callers. Returns those whose conversations others hold, in their order.
    async fn commit(&self, asked: Vec<PendingItem<NewMessageDraft>>, locks: Locks) -> Vec<BusyItem> {
        let batch = match self.batch(&asked, locks).await {
            Ok(batch) => batch,
            Err(error) => {
                answer_all(asked, &error);
                return Vec::new();
            }
        };
        let begun = Instant::now();
        match self.store_batch(&batch).await {
            Ok(sent) => {
                self.committed(batch.id, &sent, begun);
                asked.into_iter().zip(sent.outcomes).filter_map(|(asked, outcome)| settle(asked, outcome)).collect()
            }
            // One message that can't be stored must not fail the others.
            Err(StoreError::Failed(_)) if asked.len() > 1 && !switches::off("one-by-one") => {
                self.commit_singly(asked, batch).await
            }
            Err(error) => {
                answer_all(asked, &error);
                Vec::new()
            }
        }
    }

    /// Ids are taken before the first try, so that the second one is recognised.
    async fn batch(&self, asked: &[PendingItem<NewMessageDraft>], locks: Locks) -> Result<SendBatch, StoreError> {
        let count = u32::try_from(asked.len()).unwrap_or(u32::MAX);
        let mut ids = self.ids.take(count.saturating_add(1)).await?;
        let id = ids.next().ok_or_else(too_few_ids)?;
        let messages = asked
            .iter()
            .zip(ids)
            .map(|(asked, id)| new_message(&asked.item, id))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(too_few_ids)?;
        let GroupCommitSettings { owner, owes_events, .. } = &self.settings;
        Ok(SendBatch { id, owner: owner.clone(), messages, locks, owes_events: *owes_events })
    }

    /// Tries a batch again, with the same id, if the first try's end is uncertain.
    async fn store_batch(&self, batch: &SendBatch) -> Result<SentBatch, StoreError> {
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
            Ok(sent) => {
                self.measured.messages.record(f64::from(u32::try_from(sent.outcomes.len()).unwrap_or(u32::MAX)));
            }
            Err(_) => self.measured.failed.increment(1),
        }
        result
    }

    /// Every message in a batch of its own, whose outbox row has the message's id: ids are unique among both. A message of
    /// a conversation that is found busy stays behind the earlier ones.
    async fn commit_singly(&self, asked: Vec<PendingItem<NewMessageDraft>>, batch: SendBatch) -> Vec<BusyItem> {
        let mut away: Option<StoreError> = None;
        let (mut busy, mut locks) = (Vec::new(), batch.locks);
        for (asked, message) in asked.into_iter().zip(batch.messages) {
            if let Some(away) = &away {
                asked.answer(Err(away.clone()));
                continue;
            }
            if locks == Locks::Wait && !busy.is_empty() {
                busy.push((asked, None));
                continue;
            }
            let id = message.id.get();
            let owner = batch.owner.clone();
            let owes_events = batch.owes_events;
            let single = SendBatch { id, owner, messages: vec![message], locks: locks.clone(), owes_events };
            let begun = Instant::now();
            match self.store_batch(&single).await {
                Ok(sent) => {
                    self.committed(single.id, &sent, begun);
                    let outcome = sent.outcomes.into_iter().next();
                    let Some(outcome) = outcome else {
                        asked.answer(Err(StoreError::Failed("the store gave no outcome".into())));
                        continue;
                    };
                    let Some(one) = settle(asked, outcome) else { continue };
                    if let Locks::Leave { held } = &mut locks {
                        held.push(name_of(&one.0.item.sender, &one.0.item.target));
                        held.extend(one.1.iter().map(ToString::to_string));
                    }
                    busy.push(one);
                }
                Err(error) => {
                    away = matches!(error, StoreError::Unavailable(_) | StoreError::Busy(_)).then(|| error.clone());
                    asked.answer(Err(error));
                }
            }
        }
        busy
    }

    fn committed(&self, row: u64, sent: &SentBatch, begun: Instant) {
        let messages: Vec<StoredMessage> = sent
            .outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                SendOutcome::Stored(stored) => Some(stored.clone()),
                SendOutcome::Duplicate(_) | SendOutcome::Refused(_) | SendOutcome::Busy(_) => None,
            })
            .collect();
        if traces::on() {
            messages
                .iter()
                .for_each(|stored| traces::record(Step::Commit, stored.message.id, begun, sent.outcomes.len()));
        }
        if !messages.is_empty() {
            self.settings.sink.messages(CommittedBatch { row, opened: sent.opened.clone(), messages, begun });
        }
    }

    pub(super) async fn commit_receipts(self: Arc<Self>, asked: Vec<PendingItem<Receipt>>) {
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
                owed: None,
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

/// Answers the caller, unless the message is to be sent again.
fn settle(asked: PendingItem<NewMessageDraft>, outcome: SendOutcome) -> Option<BusyItem> {
    match outcome {
        SendOutcome::Busy(conversation) => return Some((asked, conversation)),
        SendOutcome::Stored(_) | SendOutcome::Duplicate(_) | SendOutcome::Refused(_) => asked.answer(Ok(outcome)),
    }
    None
}

fn too_much_waits() -> StoreError {
    StoreError::Unavailable("too much waits for conversations that are busy".into())
}

async fn in_time<T>(attempt: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(Duration::from_millis(TRY_MS_MAX), attempt)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("the store did not answer in time".into())))
}

fn new_message(draft: &NewMessageDraft, id: u64) -> Option<NewMessage> {
    Some(NewMessage {
        id: draft.id.or_else(|| MessageId::new(id))?,
        target: draft.target.clone(),
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
