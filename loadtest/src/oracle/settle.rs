//! The end of a run: waits until every send is settled and every device has all messages of the store.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use shared::{MessageId, UserId};

use super::check::due_by_user;
use super::scenario::{Handle, LOOK, Scenario};
use super::store;

impl Scenario {
    /// Waits, for the time that a run may take to settle. The checker reports whatever is missing after that.
    pub(super) async fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(self.args.settle_seconds);
        let mut due: Option<HashMap<&UserId, HashSet<MessageId>>> = None;
        while Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            let unsettled = self.unsettled();
            if unsettled > 0 {
                self.progress.show(&format!("{unsettled} sends without an answer"));
                continue;
            }
            let Some(due) = &due else {
                let rest = store::by_rest(&self.rest, &self.conversations, &self.tokens);
                let left = deadline.saturating_duration_since(Instant::now());
                if let Ok(Ok(stored)) = tokio::time::timeout(left, rest).await {
                    due = Some(due_by_user(&self.conversations, &stored));
                }
                continue;
            };
            let lacking = |device: &&Handle| {
                device.recorder.with(|log| due.get(&device.user).is_some_and(|due| !due.is_subset(&log.brought)))
            };
            let incomplete = self.devices().filter(lacking).count();
            if incomplete == 0 {
                return;
            }
            self.progress.show(&format!("{incomplete} devices still lack messages"));
        }
    }
}
