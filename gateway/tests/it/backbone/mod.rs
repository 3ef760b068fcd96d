//! The backbone: one contract suite on all implementations, then the faults of Redis, Sentinels and a Cluster.

mod cluster;
mod cluster_failover;
mod contract;
mod failover_rig;
mod faults;
mod foreign;
mod late;
mod namespaces;
pub(crate) mod rig;
mod rights;
mod sentinel;
