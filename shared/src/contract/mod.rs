//! The shapes of frames as JSON schemas, for `/asyncapi.json` and `/openapi.json`.
//! It offers `chat` for `chat.v1`, and `flat` for the other dialects, with the table of all dialects' frames.
//! It never reads a frame: the decoders of `dialect` do, and tests compare the two.

pub mod chat;
pub mod flat;
