//! The backbone: one contract suite on all its forms, then what only Redis, Sentinels or a Cluster can do to it.

mod cluster;
mod cluster_failover;
mod contract;
mod failover_rig;
mod faults;
mod late;
mod namespaces;
pub(crate) mod rig;
mod sentinel;
