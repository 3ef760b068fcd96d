//! Calls that many callers make one by one: batched, or each by itself.

use futures_util::future::BoxFuture;

use crate::backbone::BackboneError;
use crate::backbone::batches::Batches;

/// The way into such calls; [`Link::together`](super::link::Link::together) chooses.
pub(super) enum Together<Q, A> {
    /// Calls that gather during one batch make the next.
    Batched(Batches<Q, A>),
    /// Each call goes out at once.
    Alone(Box<Ask<Q, A>>),
}

/// A call for one question: one result.
type Ask<Q, A> = dyn Fn(Q) -> BoxFuture<'static, Vec<Result<A, BackboneError>>> + Send + Sync;

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    pub(super) async fn ask(&self, question: Q) -> Result<A, BackboneError> {
        match self {
            Self::Batched(batches) => batches.ask(question).await,
            Self::Alone(ask) => {
                let answer = ask(question).await.pop();
                answer.unwrap_or_else(|| Err(BackboneError("Redis returned no reply".to_owned())))
            }
        }
    }

    /// Takes nothing more into batches, and returns when those under way are answered.
    pub(super) async fn close(&self) {
        match self {
            Self::Batched(batches) => batches.close().await,
            Self::Alone(_) => {}
        }
    }
}
