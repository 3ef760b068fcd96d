//! Group commit: takes single sends and receipts, and commits them in batches. Publishes nothing; its [`CommitSink`]
//! does.
//!
//! All messages take one lane, which commits one batch after the other. So the messages that one node stores in a
//! conversation keep the order of their arrival, whether they name it by its id or by a user, and the sink is called in
//! commit order. One batch that grows during the last commit is also better than two, because most of a batch's cost is
//! fixed: with two, half as large, a full machine came to a standstill earlier. Other nodes' batches fill the time in
//! which this node's batch waits for the disk.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::committer::{Committer, GroupCommitSettings};
use super::flow::Flow;
use super::lane::CommitLane;
use super::{IdBlock, NewMessageDraft, Receipt, ReceiptChange, Refusal, SendOutcome, Store, StoreError};
use crate::overload::Kind;

/// The way into the store for messages and receipts.
pub struct GroupCommit {
    sends: CommitLane<NewMessageDraft>,
    receipts: CommitLane<Receipt>,
    /// Commits what waits for conversations that others hold; ends when nothing waits and `emptied` is cancelled.
    busy: Mutex<Option<JoinHandle<()>>>,
    closing: CancellationToken,
    emptied: CancellationToken,
}

impl GroupCommit {
    /// Starts the lanes.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, ids: Arc<IdBlock>, settings: GroupCommitSettings) -> Self {
        let (closing, emptied) = (CancellationToken::new(), CancellationToken::new());
        let committer = Arc::new(Committer::new(store, ids, settings));
        let sending = committer.clone();
        let sends = CommitLane::start(Kind::Messages, Flow::default(), closing.clone(), move |asked| {
            sending.clone().commit_sends(asked)
        });
        let busy = Mutex::new(Some(tokio::spawn(committer.clone().commit_busy(emptied.clone()))));
        let receipts = CommitLane::start(Kind::Receipts, Flow::default(), closing.clone(), move |asked| {
            committer.clone().commit_receipts(asked)
        });
        Self { sends, receipts, busy, closing, emptied }
    }

    /// Stores one message with others of its time. `Busy` within a second if too much waits: it was not stored.
    /// `Unavailable` within five seconds if the store didn't answer: the message may still have been stored, and is then
    /// published by the sweep of the outbox.
    pub fn send(&self, draft: NewMessageDraft) -> impl Future<Output = Result<SendOutcome, StoreError>> {
        self.sends.ask(draft)
    }

    /// Applies one receipt with others of its time. `Unavailable` like [`GroupCommit::send`].
    pub async fn receipt(&self, receipt: Receipt) -> Result<Result<ReceiptChange, Refusal>, StoreError> {
        self.receipts.ask(receipt).await
    }

    /// Takes nothing more, and returns when all items that were taken are committed and answered.
    pub async fn finish(&self) {
        self.closing.cancel();
        self.sends.ended().await;
        self.receipts.ended().await;
        self.emptied.cancel();
        let busy = self.busy.lock().take();
        if let Some(busy) = busy
            && let Err(fault) = busy.await
        {
            tracing::error!(%fault, "messages that waited for their conversations were not committed");
        }
    }
}
