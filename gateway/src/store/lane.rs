//! A lane: one bounded queue and the one task that empties it in batches. Independent of the kind of its items.
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
/// How long a caller waits for the answer, in milliseconds; five seconds are promised.
const ANSWER_MS_MAX: u64 = 4_800;

/// Something that waits in a lane.
pub(super) trait Item: Send + 'static {
    /// The caller's answer.
    type Answer: Send + 'static;
    /// Its size, in bytes.
    fn bytes(&self) -> usize;
}

/// An item with its caller.
pub(super) struct PendingItem<I: Item> {
    pub(super) item: I,
    answer: oneshot::Sender<Result<I::Answer, StoreError>>,
    deadline: Instant,
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
    waiting_bytes: Arc<AtomicUsize>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<I: Item> CommitLane<I> {
    /// Starts the task, which gives each batch to `commit` and goes on when that is done. The task ends when `closing`
    /// is cancelled and all queued items are committed.
    pub(super) fn start<F, C>(closing: CancellationToken, commit: F) -> Self
    where
        F: Fn(Vec<PendingItem<I>>) -> C + Send + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(WAITING_ITEMS_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let taker = LaneReceiver { waiting, waiting_bytes: waiting_bytes.clone(), carried: None };
        let task = Mutex::new(Some(tokio::spawn(run(taker, closing, commit))));
        Self { queue, waiting_bytes, task }
    }

    /// Queues `item` and waits for its answer: `Unavailable` at once if too much waits, and at the latest within five
    /// seconds. A caller that goes away doesn't take the item back.
    pub(super) async fn ask(&self, item: I) -> Result<I::Answer, StoreError> {
        let bytes = item.bytes();
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + Duration::from_millis(ANSWER_MS_MAX);
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > WAITING_BYTES_MAX
            || self.queue.try_send(PendingItem { item, answer, deadline }).is_err()
        {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(StoreError::Unavailable("too much waits to be stored, or the node is ending".into()));
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(too_late()),
        }
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
        let (begun, carried) = (Instant::now(), batch.len());
        if !batch.is_empty() {
            commit(batch).await;
        }
        if carried >= PACED_FROM {
            tokio::time::sleep_until(begun + PACE).await;
        }
    }
}

/// The way out of a lane.
struct LaneReceiver<I: Item> {
    waiting: mpsc::Receiver<PendingItem<I>>,
    waiting_bytes: Arc<AtomicUsize>,
    /// An item that was taken from the queue, and was too large for the last batch.
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

    /// A batch of `first` and the items that wait. Items whose callers have given up are answered and left out, because
    /// a caller that was told `Unavailable` may send again.
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
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            if asked.deadline <= now {
                asked.answer(Err(too_late()));
            } else {
                batch_bytes += bytes;
                batch.push(asked);
            }
            next = if batch.len() < BATCH_ITEMS_MAX { self.waiting.try_recv().ok() } else { None };
        }
        batch
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
        let lane = CommitLane::start(CancellationToken::new(), move |asked: Vec<PendingItem<TestItem>>| {
            seen.lock().push((Instant::now(), asked.len()));
            asked.into_iter().for_each(|asked| asked.answer(Ok(())));
            async {}
        });
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
