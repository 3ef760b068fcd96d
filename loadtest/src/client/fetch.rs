//! Fetches the messages and unread counts that a client lacks from the store, over REST, until the store has answered all of
//! it.

use std::time::Duration;

use shared::ConversationId;

use super::held_counts::UnreadCounts;
use super::reconnect::Backoff;
use crate::oracle::FetchReason;
use crate::rest::{Credentials, MessageView, Rest};

/// The part to fetch.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) reason: FetchReason,
    pub(super) rest: Rest,
    /// The node to ask first; another after each failure.
    pub(super) node: usize,
    pub(super) token: String,
    /// Conversations, each with the highest contiguous `seq` and the highest `rev` that the client has.
    pub(super) wanted: Vec<(ConversationId, u64, u64)>,
    /// The waits between failed requests.
    pub(super) backoff: Backoff,
}

/// The messages that a fetch returned.
#[derive(Debug)]
pub(super) struct FetchResult {
    pub(super) reason: FetchReason,
    pub(super) messages: Vec<MessageView>,
    /// The counts of all conversations; none if only holes were to be filled.
    pub(super) unread: Option<UnreadCounts>,
}

impl Fetch {
    /// Asks until everything is there; ends only with the whole, so the caller bounds it by dropping it.
    pub(super) async fn run(mut self) -> FetchResult {
        let mut messages = Vec::new();
        let unread = match self.reason {
            FetchReason::Start | FetchReason::Resync => Some(self.counts().await),
            FetchReason::Hole => None,
        };
        for (conversation, after, rev) in std::mem::take(&mut self.wanted) {
            loop {
                match self.one(&conversation, after, rev).await {
                    Ok(found) => break messages.extend(found),
                    Err(_) => self.try_elsewhere().await,
                }
            }
            self.backoff.succeeded();
        }
        FetchResult { reason: self.reason, messages, unread }
    }

    async fn counts(&mut self) -> UnreadCounts {
        loop {
            match self.rest.unread(self.node, Credentials::User(&self.token)).await {
                Ok(counts) => {
                    self.backoff.succeeded();
                    return counts;
                }
                Err(_) => self.try_elsewhere().await,
            }
        }
    }

    async fn try_elsewhere(&mut self) {
        self.node = self.node.wrapping_add(1);
        tokio::time::sleep(self.backoff.wait(Some(Duration::from_millis(100)))).await;
    }

    async fn one(&self, conversation: &ConversationId, after: u64, rev: u64) -> anyhow::Result<Vec<MessageView>> {
        let who = Credentials::User(&self.token);
        let mut messages = self.rest.messages_after(self.node, who, conversation, after).await?;
        // Edits, deletes and reactions don't make a new `seq`; a hole in `seq` says nothing about them.
        if self.reason == FetchReason::Resync {
            messages.extend(self.rest.messages_changed(self.node, who, conversation, rev).await?);
        }
        messages.sort_by_key(|message| message.seq);
        messages.dedup_by_key(|message| message.seq);
        Ok(messages)
    }
}
