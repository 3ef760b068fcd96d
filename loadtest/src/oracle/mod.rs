//! The oracle: drives a deployment, writes everything down, and proves afterwards that nothing was lost, doubled or
//! disordered. The proof ([`check`]) is a pure function over what was written down.

mod check;
mod evidence;
mod herd;
mod replay;
mod scenario;
mod store;
mod verdict;

pub use check::check;
pub use evidence::{
    Ack, Attempt, ConversationFacts, DeviceEvidence, DeviceLog, Entry, Evidence, Failure, FetchReason, MessageRow,
    Record, Recorder, Sighting,
};
pub use herd::{HerdCost, HerdEnd, HerdPlan, StoreLoad};
pub use scenario::{Cast, OracleArgs, Run, play, run};
pub use verdict::{Counts, Verdict, Violation, ViolationKind};
