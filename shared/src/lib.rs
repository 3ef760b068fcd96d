//! Parley's protocol, shared by the gateway and the load driver.
//! It offers ids, commands, events, error and close codes, dialects, frame schemas, and the names of Redis keys.
//! It never does I/O; only [`Timestamp::now`] reads a clock.

pub mod close;
pub mod command;
pub mod contract;
pub mod data;
pub mod dialect;
pub mod emoji;
pub mod error;
pub mod event;
pub mod id;
mod lists;
pub mod message;
pub mod position;
pub mod redis_keys;
pub mod temp_id;
pub mod time;
pub mod title;

pub use close::CloseCode;
pub use command::Command;
pub use data::MessageData;
pub use dialect::{Dialect, Wire};
pub use error::{ErrorCode, ProtocolError};
pub use event::Event;
pub use id::{ConversationId, MessageId, NotificationId, UserId};
pub use message::{Conversation, ConversationKind, Message, Role, Visibility};
pub use position::{Epoch, Place, Places, Position};
pub use temp_id::TempId;
pub use time::Timestamp;
