//! A herd in a run: when its connections were cut, and what it cost until the last of them was back.

use super::evidence::{Entry, Recorder};
use crate::process::{Cost, CostWatch};

/// A herd whose connections have been cut.
#[derive(Debug)]
pub(super) struct Herd {
    cut_us: u64,
    watch: Option<CostWatch>,
    cost: Option<Cost>,
}

impl Herd {
    /// The connections are cut now, in microseconds since the run's start. Processes that have gone are not watched.
    pub(super) fn cut(cut_us: u64, pids: &[u32]) -> Self {
        Self { cut_us, watch: CostWatch::start(pids).ok(), cost: None }
    }

    /// Looks whether all of them are back; the cost counts until the first look that finds them so.
    pub(super) fn is_back<'a>(&mut self, mut devices: impl Iterator<Item = &'a Recorder>) -> bool {
        let Some(mut watch) = self.watch.take() else { return true };
        let since = self.cut_us;
        let back = devices.all(|device| {
            device.with(|log| {
                let mut new = log.records.iter().rev().take_while(|record| record.at_us >= since);
                new.any(|record| matches!(record.entry, Entry::Opened { .. }))
            })
        });
        if back {
            self.cost = Some(watch.read());
        } else {
            watch.look();
            self.watch = Some(watch);
        }
        back
    }

    /// When it was cut, and what it cost; `None` if it didn't come back.
    pub(super) fn end(self) -> (u64, Option<Cost>) {
        (self.cut_us, self.cost)
    }
}
