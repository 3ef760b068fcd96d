//! Batches of requests: the requests that arrive during one batch make the next. There is no timer.

use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::BackboneError;

/// The most requests in one batch.
const BATCH_MAX: usize = 256;
/// The most requests that wait for the next batch. A further request waits for a place.
const WAITING_MAX: usize = 1024;

/// The way into the batches.
pub(super) struct Batches<Q, A> {
    queue: Mutex<Option<mpsc::Sender<PendingRequest<Q, A>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct PendingRequest<Q, A> {
    question: Q,
    answer: oneshot::Sender<Result<A, BackboneError>>,
}

impl<Q: Send + 'static, A: Send + 'static> Batches<Q, A> {
    /// Starts the task, which gives each batch to `ask` and its answers, in the same order, to who waits for them.
    pub(super) fn start<F, C>(ask: F) -> Self
    where
        F: Fn(Vec<Q>) -> C + Send + 'static,
        C: Future<Output = Vec<Result<A, BackboneError>>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(run(waiting, ask));
        Self { queue: Mutex::new(Some(queue)), task: Mutex::new(Some(task)) }
    }

    /// Joins the next batch. A caller that stops waiting before the batch is sent isn't part of it.
    pub(super) async fn ask(&self, question: Q) -> Result<A, BackboneError> {
        let closed = || BackboneError("the backbone is closed".to_owned());
        let queue = self.queue.lock().clone().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        queue.send(PendingRequest { question, answer }).await.map_err(|_| closed())?;
        drop(queue);
        answered.await.unwrap_or_else(|_| Err(BackboneError("a batch ended without an answer".to_owned())))
    }

    /// Takes nothing more, and returns when what waits is answered.
    pub(super) async fn close(&self) {
        self.queue.lock().take();
        let task = self.task.lock().take();
        if let Some(task) = task
            && task.await.is_err()
        {
            tracing::error!("a task that sends commands to Redis panicked");
        }
    }
}

async fn run<Q, A, F, C>(mut waiting: mpsc::Receiver<PendingRequest<Q, A>>, ask: F)
where
    F: Fn(Vec<Q>) -> C,
    C: Future<Output = Vec<Result<A, BackboneError>>>,
{
    let mut asked = Vec::new();
    while waiting.recv_many(&mut asked, BATCH_MAX).await > 0 {
        // Lets every task that is about to ask do so before the batch goes out.
        tokio::task::yield_now().await;
        while asked.len() < BATCH_MAX
            && let Ok(another) = waiting.try_recv()
        {
            asked.push(another);
        }
        let wanted = asked.drain(..).filter(|asked| !asked.answer.is_closed());
        let (questions, answers): (Vec<_>, Vec<_>) = wanted.map(|asked| (asked.question, asked.answer)).unzip();
        if questions.is_empty() {
            continue;
        }
        for (answer, told) in answers.into_iter().zip(ask(questions).await) {
            // A caller that stopped waiting needs no answer.
            let _ = answer.send(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_gathers_is_asked_together_and_answered_in_order() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = sizes.clone();
        let batches = Arc::new(Batches::start(move |questions: Vec<usize>| {
            seen.lock().push(questions.len());
            async move { questions.into_iter().map(Ok).collect() }
        }));
        let asked = (0..100).map(|number| {
            let batches = batches.clone();
            tokio::spawn(async move { batches.ask(number).await.is_ok_and(|answer| answer == number) })
        });
        for told in asked.collect::<Vec<_>>() {
            assert!(told.await.expect("no panic"));
        }
        assert_eq!(sizes.lock().iter().sum::<usize>(), 100);
        assert!(sizes.lock().len() < 10, "{:?}", sizes.lock());
        batches.close().await;
        assert!(batches.ask(1).await.is_err());
    }

    #[tokio::test]
    async fn nothing_is_asked_for_who_has_gone() {
        let batches = Batches::start(|questions: Vec<&str>| async move {
            assert_eq!(questions, ["stays"]);
            vec![Ok(())]
        });
        {
            let mut gone = std::pin::pin!(batches.ask("goes"));
            assert!(futures_util::poll!(gone.as_mut()).is_pending());
        }
        assert!(batches.ask("stays").await.is_ok());
    }
}
