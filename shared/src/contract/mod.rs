//! The shapes of frames as JSON schemas, for `/asyncapi.json` and `/openapi.json`: `chat` for `chat.v1`, `flat` for the other
//! dialects, and in it the table of all. Only schemars reads these types. The decoders of `dialect` read frames by
//! themselves, and tests hold the two together.

pub mod chat;
pub mod flat;
