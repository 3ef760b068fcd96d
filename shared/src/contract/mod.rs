//! The shapes of frames as JSON schemas, for `/asyncapi.json` and `/openapi.json`.
//!
//! Types here are read by schemars alone; the decoders of `dialect` read frames by themselves, and a test holds the two together.

pub mod chat;
pub mod flat;
