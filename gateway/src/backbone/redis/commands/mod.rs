//! The commands that the node sends: appends and publications in pipelines, entering, logins, rates, jobs.
//!
//! Each file is one subject. They reach Redis through `link` alone, and keep no connection.

mod appends;
mod counts;
pub(in crate::backbone::redis) mod entrance;
mod late;
mod logins;
mod presence;
pub(in crate::backbone::redis) mod publisher;
mod push_entry;
mod push_jobs;
mod rates;
pub(in crate::backbone::redis) mod repeated;
mod revocations;
mod values;
