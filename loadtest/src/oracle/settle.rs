//! The end of a run: waits until every send is settled, and every device has all messages and the unread counts of the store.

use std::time::Duration;

use super::check::due_by_user;
use super::counts::holds;
use super::scenario::{Handle, LOOK, Scenario};
use super::store;

impl Scenario {
    /// Waits, for the time that a run may take to settle. The checker reports whatever is missing after that.
    pub(super) async fn settle(&self) {
        let everything = async {
            self.sends_are_settled().await;
            self.messages_are_there().await;
            self.counts_are_held().await;
        };
        // Whether that was in time, the checker finds out.
        let _ = tokio::time::timeout(Duration::from_secs(self.args.settle_seconds), everything).await;
    }

    async fn sends_are_settled(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.unsettled() {
                0 => return,
                unsettled => self.progress.show(&format!("{unsettled} sends without an answer")),
            }
        }
    }

    async fn messages_are_there(&self) {
        let read = || store::by_rest(&self.rest, &self.conversations, &self.tokens);
        let stored = until_read(read).await;
        let due = due_by_user(&self.conversations, &stored);
        let lacking = |device: &&Handle| {
            device.recorder.with(|log| due.get(&device.user).is_some_and(|due| !due.is_subset(&log.brought)))
        };
        self.until_none("devices still lack messages", lacking).await;
    }

    async fn counts_are_held(&self) {
        let stored = until_read(|| store::unread(&self.rest, &self.tokens)).await;
        let differing = |device: &&Handle| {
            let of_user = stored.get(&device.user);
            device.recorder.with(|log| of_user.is_none_or(|stored| !holds(&log.unread, stored)))
        };
        self.until_none("devices still hold other unread counts", differing).await;
    }

    /// Waits until no device is left of which this is true.
    async fn until_none(&self, which: &str, is_one: impl Fn(&&Handle) -> bool) {
        loop {
            match self.devices().filter(&is_one).count() {
                0 => return,
                left => self.progress.show(&format!("{left} {which}")),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Reads the store until it answers.
async fn until_read<T, F: Future<Output = anyhow::Result<T>>>(read: impl Fn() -> F) -> T {
    loop {
        if let Ok(answer) = read().await {
            return answer;
        }
        tokio::time::sleep(LOOK).await;
    }
}
