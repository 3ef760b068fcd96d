//! The dialect `channels.v1` (seed 003).

use serde::Serialize;

use crate::chat_v1::Fields;
use crate::flat::{Id, Texts, unknown_type};
use crate::{Command, Event, ProtocolError};

/// The subprotocol that names this dialect.
pub const SUBPROTOCOL: &str = "channels.v1";

/// Reads a frame whose `type` is `kind`.
pub(crate) fn decode(
    kind: &str,
    _fields: &Fields<'_, '_>,
    _content_chars_max: usize,
) -> Result<Command, ProtocolError> {
    match kind {
        "ping" => Ok(Command::Ping { timestamp: None }),
        _ => Err(unknown_type()),
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Frame<'a> {
    Connected { user_id: Id<'a>, timestamp: i64 },
    Pong { timestamp: i64 },
}

/// Writes the frames of an event.
pub(crate) fn encode(event: &Event, out: &mut Texts) {
    match event {
        Event::AuthSuccess { user_id, connected_at, .. } => {
            out.push(&Frame::Connected { user_id: Id(user_id.as_str()), timestamp: connected_at.unix_seconds() });
        }
        Event::Pong { server_time, .. } => out.push(&Frame::Pong { timestamp: server_time.unix_seconds() }),
        Event::AuthFailed { .. }
        | Event::Error(_)
        | Event::Goaway { .. }
        | Event::Position { .. }
        | Event::Resync { .. } => out.push_common(event),
        Event::MessageSent { .. }
        | Event::MessageNew { .. }
        | Event::ConversationUpdated { .. }
        | Event::NotificationRead { .. }
        | Event::NotificationUnread { .. }
        | Event::MessageReadAck { .. }
        | Event::MessageReadUpdate { .. }
        | Event::MessageDeliveredUpdate { .. }
        | Event::Typing { .. }
        | Event::BlockAdded { .. }
        | Event::BlockRemoved { .. }
        | Event::ConversationCreated { .. }
        | Event::ConversationJoined { .. }
        | Event::ConversationLeft { .. }
        | Event::MemberJoined { .. }
        | Event::MemberLeft { .. }
        | Event::StatusBulk { .. }
        | Event::UserOnline { .. }
        | Event::UserOffline { .. }
        | Event::Notification(_)
        | Event::Broadcast { .. } => {}
    }
}
