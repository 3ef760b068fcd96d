//! A herd in a run: when and how its connections were cut, and its cost until the last of them was back.

use std::process::Command;
use std::time::Instant;

use serde::Serialize;

use super::evidence::{Entry, Recorder};
use crate::process::{Cost, CostWatch, cpu_seconds, cpu_seconds_of_tree};

/// How a herd is made, and what is watched meanwhile.
#[derive(Debug, Clone, Default)]
pub struct HerdPlan {
    /// The processes under test.
    pub pids: Vec<u32>,
    /// The node to kill in place of resets: all that listen are at the first address, the others elsewhere.
    pub kill: Option<u32>,
    /// The store's main process.
    pub store: Option<u32>,
}

/// The outcome of a herd.
#[derive(Debug)]
pub struct HerdEnd {
    /// When it was cut, in microseconds since the run's start.
    pub cut_us: u64,
    /// Its cost; `None` if it didn't come back.
    pub cost: Option<HerdCost>,
}

/// The cost of a herd between the cut and the last one back.
#[derive(Debug, Clone, Serialize)]
pub struct HerdCost {
    /// Of the processes under test.
    #[serde(flatten)]
    pub cost: Cost,
    /// Of this driver, which shares the machine with them.
    pub driver_cpu_seconds: f64,
    /// Of the store, if it was watched.
    pub store_load: Option<StoreLoad>,
}

/// How busy the store was, in core-seconds a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StoreLoad {
    /// From the first message to the cut.
    pub steady: f64,
    /// From the cut until the last one was back.
    pub herd: f64,
}

/// The CPU time of the store at some moment.
#[derive(Debug, Clone, Copy)]
struct StoreSample {
    at: Instant,
    cpu_seconds: f64,
}

/// A herd that is going to be, and then one whose connections have been cut.
#[derive(Debug)]
pub(super) struct Herd {
    plan: HerdPlan,
    first_message: Option<StoreSample>,
    cut: Option<Disconnection>,
}

#[derive(Debug)]
struct Disconnection {
    at_us: u64,
    watch: Option<CostWatch>,
    store: Option<StoreSample>,
    driver_cpu_seconds: f64,
    cost: Option<HerdCost>,
}

impl StoreSample {
    fn now(pid: Option<u32>) -> Option<Self> {
        Some(Self { at: Instant::now(), cpu_seconds: cpu_seconds_of_tree(pid?).ok()? })
    }

    /// Core-seconds a second since `before`.
    fn load_since(self, before: Self) -> f64 {
        (self.cpu_seconds - before.cpu_seconds) / self.at.duration_since(before.at).as_secs_f64().max(0.001)
    }
}

impl Herd {
    /// The first message leaves now.
    pub(super) fn begin(plan: &HerdPlan) -> Self {
        Self { plan: plan.clone(), first_message: StoreSample::now(plan.store), cut: None }
    }

    /// The connections are cut now, in microseconds since the run's start: by killing the node if one is named, else by
    /// the caller. Processes that have gone are not watched.
    pub(super) fn cut(&mut self, at_us: u64) {
        self.cut = Some(Disconnection {
            at_us,
            watch: CostWatch::start(&self.plan.pids).ok(),
            store: StoreSample::now(self.plan.store),
            driver_cpu_seconds: driver_cpu_seconds(),
            cost: None,
        });
        if let Some(pid) = self.plan.kill {
            // One that can't be killed leaves its sockets open; then nobody is back in the end.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }

    /// Whether somebody else still has to cut the connections.
    pub(super) fn is_cut_by_resets(&self) -> bool {
        self.plan.kill.is_none()
    }

    /// Looks whether all of them are back; the cost counts until the first look that finds them so.
    pub(super) fn is_back<'a>(&mut self, mut devices: impl Iterator<Item = &'a Recorder>) -> bool {
        let Some(cut) = &mut self.cut else { return true };
        let Some(mut watch) = cut.watch.take() else { return true };
        let since = cut.at_us;
        let back = devices.all(|device| {
            device.with(|log| {
                let mut new = log.records.iter().rev().take_while(|record| record.at_us >= since);
                new.any(|record| matches!(record.entry, Entry::Opened { .. }))
            })
        });
        if back {
            let store_load = match (self.first_message, cut.store, StoreSample::now(self.plan.store)) {
                (Some(first), Some(at_cut), Some(now)) => {
                    Some(StoreLoad { steady: at_cut.load_since(first), herd: now.load_since(at_cut) })
                }
                (_, _, _) => None,
            };
            let driver_cpu_seconds = driver_cpu_seconds() - cut.driver_cpu_seconds;
            cut.cost = Some(HerdCost { cost: watch.read(), driver_cpu_seconds, store_load });
        } else {
            watch.look();
            cut.watch = Some(watch);
        }
        back
    }

    /// Its outcome; `None` if it was never cut.
    pub(super) fn end(self) -> Option<HerdEnd> {
        self.cut.map(|cut| HerdEnd { cut_us: cut.at_us, cost: cut.cost })
    }
}

fn driver_cpu_seconds() -> f64 {
    cpu_seconds(std::process::id()).unwrap_or(0.0)
}
