//! The integration tests: one binary, real servers, the public path.

#![cfg(test)]

mod admin;
mod architecture;
mod auth;
mod auth_remote;
mod auth_sessions;
mod backbone;
mod backbone_faults;
mod backbone_late;
mod backbone_rig;
mod bad_input;
mod drain;
mod limits;
mod limits_addresses;
mod metrics;
mod noloss_epoch;
mod noloss_heal;
mod noloss_outbox;
mod noloss_resume;
mod noloss_rig;
mod noloss_sockets;
mod push;
mod rest;
mod seed002;
mod seed003;
mod seed003_frames;
mod seed003_large;
mod seed004;
mod seed004_late;
mod seed004_socket;
mod store;
mod store_audit;
mod store_group_commit;
mod store_membership;
mod store_notifications;
mod store_outbox;
mod store_receipts;
mod store_sends;
mod store_start;
mod support;
mod switches;
mod traces;
mod two_nodes;
