//! Parley's load driver: clients with full client behaviour, an oracle, and the measurements of RESULTS.md.
//! It offers [`oracle`], which proves that nothing was lost, and [`modes`], which measure.
//! It never uses anything but `chat.v1`, streams of its events and REST, so it runs against any deployment.

pub mod client;
pub mod modes;
pub mod oracle;
pub mod process;
pub mod report;
pub mod rest;
pub mod seed;
pub mod speech;
pub mod sse;
pub mod target;
pub mod ws;
