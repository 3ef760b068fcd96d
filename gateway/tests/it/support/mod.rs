//! Real servers, real clients.

pub mod client;
pub mod http;
pub mod node;
pub mod postgres;
pub mod redis;
