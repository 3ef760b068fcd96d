//! Payloads as they come over the backbone: newline-separated envelopes, which are not trusted before they are checked.
//!
//! Offers [`Payload::parse`], which reads an event once for all that delivery needs of it, and the lines of a payload. It
//! writes no envelope and knows no socket.

mod check;
mod count_move;
mod json;
mod lines;
mod live;
mod message;
mod topic;

pub use check::{FirstEvent, InvalidPayload, Opened, Payload, first_event, is_logged, message_of};
pub use count_move::{CountMove, MoveKind};
pub use lines::{companions, first_line, lines};
pub use live::live_event;
pub use message::MessageRef;
pub use topic::{StepKind, TopicMessage, TopicNotice, TopicPayload, TopicStep, Turn, as_sent};
