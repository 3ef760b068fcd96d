//! Real servers and real clients, which the tests start and stop.

pub(crate) mod caller;
pub(crate) mod certificates;
pub(crate) mod client;
#[path = "../../../src/ws/client_frame.rs"]
pub(crate) mod client_frame;
pub(crate) mod cluster;
pub(crate) mod deflating;
pub(crate) mod flat;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod sentinel;
pub(crate) mod social;
pub(crate) mod two_nodes;
