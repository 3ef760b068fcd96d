//! The oracle: drives a deployment, records everything, and then proves that nothing was lost, doubled or disordered.
//! It offers [`run`], a whole run, and [`check()`], the proof: a pure function of the records.
//! It never takes a server's word for what was stored or delivered: it compares the records.

mod args;
mod check;
mod counts;
mod drive;
mod evidence;
mod herd;
mod replay;
mod scenario;
mod settle;
mod store;
mod story;
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
