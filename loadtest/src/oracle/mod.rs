//! The oracle: drives a deployment, writes everything down, and proves afterwards that nothing was lost, doubled or
//! disordered. The proof ([`check`]) is a pure function over what was written down.

mod args;
mod check;
mod drive;
mod evidence;
mod herd;
mod replay;
mod scenario;
mod settle;
mod store;
mod verdict;
mod workload;

pub use args::OracleArgs;
pub use check::check;
pub use evidence::{
    Ack, Attempt, ConversationFacts, DeviceEvidence, DeviceLog, Entry, Evidence, Failure, FetchReason, MessageRow,
    Record, Recorder, Sighting,
};
pub use herd::{HerdCost, HerdEnd, HerdPlan, StoreLoad};
pub use scenario::{Run, play, run};
pub use verdict::{Counts, Verdict, Violation, ViolationKind};
pub use workload::Cast;
