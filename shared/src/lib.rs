//! Parley's protocol, as the gateway and the load driver agree on it: ids, commands, events,
//! error and close codes, dialects, and the names of Redis keys. No I/O happens here.

pub mod channels_v1;
pub mod chat_v1;
pub mod close;
pub mod command;
pub mod dialect;
pub mod error;
pub mod event;
pub mod flat;
pub mod flat_frames;
pub mod frames;
pub mod id;
pub mod listings_v1;
pub mod message;
pub mod position;
pub mod schema;
pub mod social_v1;
pub mod time;

pub use close::CloseCode;
pub use command::Command;
pub use dialect::{Dialect, Wire};
pub use error::{ErrorCode, ProtocolError};
pub use event::Event;
pub use id::{ConversationId, MessageId, NotificationId, UserId};
pub use message::{Conversation, ConversationKind, Message, Role, Visibility};
pub use position::{Epoch, Position};
pub use time::Timestamp;
