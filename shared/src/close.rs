//! WebSocket close codes: the hundred tells a client what to do next.

use crate::lists::words_of;

/// Why the server closes a connection.
///
/// 40xx: stop. 41xx: back off with jitter, then resume. 42xx: resume. 43xx: mend, then connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// RFC 6455: done.
    Normal = 1000,
    /// RFC 6455: a frame breaks the WebSocket protocol.
    WebSocketProtocol = 1002,
    /// RFC 6455: a binary message where only text is understood.
    UnsupportedData = 1003,
    /// RFC 6455: text that is not UTF-8.
    InvalidUtf8 = 1007,
    /// RFC 6455: a message larger than the limit.
    MessageTooBig = 1009,
    /// The client breaks Parley's protocol.
    ProtocolError = 4000,
    /// The token is not valid.
    InvalidToken = 4001,
    /// The session was revoked.
    SessionRevoked = 4002,
    /// The user may not be here.
    Forbidden = 4003,
    /// No such protocol version.
    UnsupportedVersion = 4004,
    /// Another connection took this one's place.
    Superseded = 4005,
    /// The user has too many connections.
    ConnectionLimit = 4006,
    /// A hundred bad frames in a row.
    TooManyErrors = 4007,
    /// The node is full.
    OverCapacity = 4100,
    /// The limit of commands was passed and passed again.
    RateLimited = 4101,
    /// No valid `auth` frame within the deadline.
    AuthTimeout = 4102,
    /// A fault of the server.
    InternalError = 4103,
    /// The backbone is away.
    BackboneUnavailable = 4104,
    /// The client reads more slowly than events come.
    SlowConsumer = 4105,
    /// The node is going down for a deploy.
    Draining = 4200,
    /// No sign of life from the client.
    HeartbeatTimeout = 4201,
    /// An operator asked for it.
    ForceReconnect = 4202,
    /// The token has expired.
    TokenExpired = 4300,
    /// The position is lost: connect without it.
    PositionLost = 4301,
}

words_of! {
    CloseCode,
    /// The reason in the close frame, which is also the metric label.
    reason {
        Normal => "normal",
        WebSocketProtocol => "websocket_protocol",
        UnsupportedData => "unsupported_data",
        InvalidUtf8 => "invalid_utf8",
        MessageTooBig => "message_too_big",
        ProtocolError => "protocol_error",
        InvalidToken => "invalid_token",
        SessionRevoked => "session_revoked",
        Forbidden => "forbidden",
        UnsupportedVersion => "unsupported_version",
        Superseded => "superseded",
        ConnectionLimit => "connection_limit",
        TooManyErrors => "too_many_errors",
        OverCapacity => "over_capacity",
        RateLimited => "rate_limited",
        AuthTimeout => "auth_timeout",
        InternalError => "internal_error",
        BackboneUnavailable => "backbone_unavailable",
        SlowConsumer => "slow_consumer",
        Draining => "draining",
        HeartbeatTimeout => "heartbeat_timeout",
        ForceReconnect => "force_reconnect",
        TokenExpired => "token_expired",
        PositionLost => "position_lost",
    }
}

impl CloseCode {
    /// The number in the close frame.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }
}
