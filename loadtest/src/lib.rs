//! Parley's load driver: clients with full client behaviour, an oracle that proves that nothing is lost, and the
//! measurements of loadtest/RESULTS.md. It speaks `chat.v1` and REST only, so it runs against any deployment.

pub mod client;
pub mod modes;
pub mod oracle;
pub mod process;
pub mod report;
pub mod rest;
pub mod seed;
pub mod speech;
pub mod target;
pub mod ws;
