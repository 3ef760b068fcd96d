//! The integration tests: one binary, real servers, the public path.

#![cfg(test)]

mod auth;
mod backbone;
mod backbone_faults;
mod backbone_rig;
mod bad_input;
mod rest;
mod seed002;
mod support;
mod two_nodes;
