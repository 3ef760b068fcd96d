//! A lane: one bounded queue and the one task that empties it in batches. Independent of the kind of its items.
//!
//! New items are refused at once when they would wait too long. So those that were taken are committed in time, however
//! many come. What was refused was never committed.
//!
//! Batching is natural: the items that arrive during one commit make the next batch. Under load a batch also waits a
//! little for more items, because most of its cost to the store and to Redis is fixed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::flow::{Flow, NotTaken, Standing};
use crate::overload::{Kind, Queue};

/// The most items of one batch.
const BATCH_ITEMS_MAX: usize = 256;
/// The most bytes of one batch, as items count themselves; a single item may be larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The most items that wait in one lane.
const WAITING_ITEMS_MAX: usize = 8_192;
/// The most bytes that wait in one lane.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// After a batch of at least this many items, the next one begins no sooner than [`PACE`] after it began.
const PACED_FROM: usize = 4;
/// See [`PACED_FROM`]. At 2,500 messages a second on each of two nodes, 5 ms halve PostgreSQL's CPU for each message,
/// and take a quarter off the nodes' and Redis', for some 4 ms of the median latency (loadtest/RESULTS.md).
const PACE: Duration = Duration::from_millis(5);
/// The pause before an item that is due is looked at once more.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a caller waits for the answer, in milliseconds; five seconds are promised.
const ANSWER_MS_MAX: u64 = 4_800;

/// Something that waits in a lane.
pub(super) trait Item: Send + 'static {
    /// The caller's answer.
    type Answer: Send + 'static;
    /// Its size, in bytes.
    fn bytes(&self) -> usize;
}

/// Where a caller gets the answer.
type Answered<I> = oneshot::Receiver<Result<<I as Item>::Answer, StoreError>>;

/// An item with its caller.
pub(super) struct PendingItem<I: Item> {
    pub(super) item: I,
    answer: oneshot::Sender<Result<I::Answer, StoreError>>,
    deadline: Instant,
    standing: Standing,
}

impl<I: Item> PendingItem<I> {
    /// Answers the caller, if it still waits.
    pub(super) fn answer(self, answer: Result<I::Answer, StoreError>) {
        let _ = self.answer.send(answer);
    }

    /// The item, unless its caller gives up before something ends that takes so long. Then it is answered and left out: a
    /// caller that was told `Unavailable` may send again.
    pub(super) fn if_in_time(self, takes: Duration) -> Option<Self> {
        if self.deadline > Instant::now() + takes {
            return Some(self);
        }
        self.answer(Err(too_late()));
        None
    }
}

/// The way into a lane.
pub(super) struct CommitLane<I: Item> {
    queue: mpsc::Sender<PendingItem<I>>,
    load: Arc<Load>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// How much waits in a lane, and how it gets on.
struct Load {
    waiting_bytes: AtomicUsize,
    flow: Mutex<Flow>,
    queue: Arc<Queue>,
}

impl<I: Item> CommitLane<I> {
    /// Starts the task, which gives each batch to `commit` and goes on when that is done. The task ends when `closing`
    /// is cancelled and all queued items are committed.
    pub(super) fn start<F, C>(kind: Kind, flow: Flow, closing: CancellationToken, commit: F) -> Self
    where
        F: Fn(Vec<PendingItem<I>>) -> C + Send + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(WAITING_ITEMS_MAX);
        let load = Load { waiting_bytes: AtomicUsize::new(0), flow: Mutex::new(flow), queue: Queue::new(kind) };
        let load = Arc::new(load);
        let taker = LaneReceiver { waiting, load: load.clone(), carried: None };
        let task = Mutex::new(Some(tokio::spawn(run(taker, closing, commit))));
        Self { queue, load, task }
    }

    /// Queues `item` and waits for its answer: `Busy` at once if too much waits, or within a second if that shows later;
    /// `Unavailable` within five seconds if the store stands still. A caller that goes away doesn't take the item back.
    ///
    /// It is queued by the call itself, so that a caller who waits keeps no room for the item.
    pub(super) fn ask(&self, item: I) -> impl Future<Output = Result<I::Answer, StoreError>> + use<I> {
        let queued = self.queue(item);
        async move {
            let (answered, deadline) = queued?;
            match timeout_at(deadline, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Err(too_late()),
            }
        }
    }

    /// Queues `item`. Its answer comes, or is given up, by the deadline.
    fn queue(&self, item: I) -> Result<(Answered<I>, Instant), StoreError> {
        let bytes = item.bytes();
        let (answer, answered) = oneshot::channel();
        let now = Instant::now();
        let deadline = now + Duration::from_millis(ANSWER_MS_MAX);
        let waiting_bytes = self.load.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let standing = self.load.flow.lock().take(self.batches_ahead(waiting_bytes), now);
        let queued = match standing {
            Ok(standing) if waiting_bytes <= WAITING_BYTES_MAX => {
                self.queue.try_send(PendingItem { item, answer, deadline, standing })
            }
            not_taken => {
                self.load.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                let stands_still = matches!(not_taken, Err(NotTaken::StandsStill));
                return Err(self.load.queue.refuse_as(stands_still).into());
            }
        };
        if let Err(fault) = queued {
            self.load.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(match fault {
                mpsc::error::TrySendError::Full(_) => self.load.queue.refuse().into(),
                mpsc::error::TrySendError::Closed(_) => StoreError::Unavailable("the node is ending".into()),
            });
        }
        Ok((answered, deadline))
    }

    /// How many batches the items make that wait.
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    fn batches_ahead(&self, waiting_bytes: usize) -> f64 {
        let items = self.queue.max_capacity() - self.queue.capacity();
        (items as f64 / BATCH_ITEMS_MAX as f64).max(waiting_bytes as f64 / BATCH_BYTES_MAX as f64)
    }

    /// Waits until the task has ended; `closing` must have been cancelled.
    pub(super) async fn ended(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(fault) = task.await
        {
            tracing::error!(%fault, "a lane of the store ended early");
        }
    }
}

fn too_late() -> StoreError {
    StoreError::Unavailable("it was not stored in time".into())
}

async fn run<I, F, C>(mut taker: LaneReceiver<I>, closing: CancellationToken, commit: F)
where
    I: Item,
    F: Fn(Vec<PendingItem<I>>) -> C,
    C: Future<Output = ()>,
{
    let mut open = true;
    loop {
        let first = tokio::select! {
            biased;
            first = taker.first() => first,
            () = closing.cancelled(), if open => {
                taker.waiting.close();
                open = false;
                continue;
            }
        };
        let Some(first) = first else { return };
        let batch = taker.fill(first);
        let Some(oldest) = batch.first().map(|asked| asked.standing.arrived) else { continue };
        let (begun, carried) = (Instant::now(), batch.len());
        taker.load.flow.lock().begin(oldest, begun);
        let head = taker.load.queue.wait(oldest.into_std());
        let committed = commit(batch);
        tokio::pin!(committed);
        loop {
            tokio::select! {
                biased;
                () = &mut committed => break,
                () = taker.refuse_overdue() => {}
            }
        }
        drop(head);
        if carried >= PACED_FROM {
            tokio::time::sleep_until(begun + PACE).await;
        }
        taker.load.flow.lock().end(Instant::now());
    }
}

/// The way out of a lane.
struct LaneReceiver<I: Item> {
    waiting: mpsc::Receiver<PendingItem<I>>,
    load: Arc<Load>,
    /// An item that was taken from the queue, and was too large for the last batch or came after it.
    carried: Option<PendingItem<I>>,
}

impl<I: Item> LaneReceiver<I> {
    /// Cancel-safe: nothing is lost when the future is dropped.
    async fn first(&mut self) -> Option<PendingItem<I>> {
        match self.carried.take() {
            Some(carried) => Some(carried),
            None => self.waiting.recv().await,
        }
    }

    /// A batch of `first` and the items that wait. Items whose callers have given up, or have waited for too long, are
    /// answered and left out, because a caller that was told `Unavailable` may send again.
    fn fill(&mut self, first: PendingItem<I>) -> Vec<PendingItem<I>> {
        let now = Instant::now();
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(asked) = next {
            let bytes = asked.item.bytes();
            if !batch.is_empty() && batch_bytes + bytes > BATCH_BYTES_MAX {
                self.carried = Some(asked);
                break;
            }
            self.load.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match self.overdue(&asked, now) {
                Some(error) => asked.answer(Err(error)),
                None => {
                    batch_bytes += bytes;
                    batch.push(asked);
                }
            }
            next = if batch.len() < BATCH_ITEMS_MAX { self.waiting.try_recv().ok() } else { None };
        }
        batch
    }

    /// While a batch is committed: waits until the first item that waits is overdue, and answers it. Cancel-safe.
    async fn refuse_overdue(&mut self) {
        let first = match self.carried.take() {
            Some(first) => first,
            None => match self.waiting.recv().await {
                Some(first) => first,
                None => std::future::pending().await,
            },
        };
        let now = Instant::now();
        match self.overdue(&first, now) {
            Some(error) => {
                self.load.waiting_bytes.fetch_sub(first.item.bytes(), Ordering::Relaxed);
                first.answer(Err(error));
            }
            None => {
                let due = self.load.flow.lock().due(first.standing, now).min(first.deadline).max(now + LOOK_AGAIN);
                self.carried = Some(first);
                tokio::time::sleep_until(due).await;
            }
        }
    }

    /// The answer to an item that has waited for too long.
    fn overdue(&self, asked: &PendingItem<I>, now: Instant) -> Option<StoreError> {
        if asked.deadline <= now {
            return Some(too_late());
        }
        let due = self.load.flow.lock().due(asked.standing, now);
        (due <= now).then(|| self.load.queue.refuse().into())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    struct TestItem;

    impl Item for TestItem {
        type Answer = ();

        fn bytes(&self) -> usize {
            1
        }
    }

    #[tokio::test]
    async fn behind_a_large_batch_the_next_one_waits_for_more() {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let seen = begun.clone();
        let lane = CommitLane::start(
            Kind::Messages,
            Flow::default(),
            CancellationToken::new(),
            move |asked: Vec<PendingItem<TestItem>>| {
                seen.lock().push((Instant::now(), asked.len()));
                asked.into_iter().for_each(|asked| asked.answer(Ok(())));
                async {}
            },
        );
        for _ in 0..2 {
            lane.ask(TestItem).await.expect("taken");
        }
        join_all((0..PACED_FROM).map(|_| lane.ask(TestItem))).await;
        lane.ask(TestItem).await.expect("taken");
        let begun = begun.lock();
        assert_eq!(begun.iter().map(|(_, carried)| *carried).collect::<Vec<_>>(), [1, 1, PACED_FROM, 1]);
        assert!(begun[3].0 - begun[2].0 >= PACE, "{begun:?}");
    }
}
