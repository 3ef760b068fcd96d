//! WebSocket close codes (PROTOCOL §1): the hundred tells a client what to do next.

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

impl CloseCode {
    /// Every code, for the contract documents.
    pub const ALL: [Self; 24] = [
        Self::Normal,
        Self::WebSocketProtocol,
        Self::UnsupportedData,
        Self::InvalidUtf8,
        Self::MessageTooBig,
        Self::ProtocolError,
        Self::InvalidToken,
        Self::SessionRevoked,
        Self::Forbidden,
        Self::UnsupportedVersion,
        Self::Superseded,
        Self::ConnectionLimit,
        Self::TooManyErrors,
        Self::OverCapacity,
        Self::RateLimited,
        Self::AuthTimeout,
        Self::InternalError,
        Self::BackboneUnavailable,
        Self::SlowConsumer,
        Self::Draining,
        Self::HeartbeatTimeout,
        Self::ForceReconnect,
        Self::TokenExpired,
        Self::PositionLost,
    ];

    /// The number in the close frame.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The reason in the close frame, which is also the metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::WebSocketProtocol => "websocket_protocol",
            Self::UnsupportedData => "unsupported_data",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MessageTooBig => "message_too_big",
            Self::ProtocolError => "protocol_error",
            Self::InvalidToken => "invalid_token",
            Self::SessionRevoked => "session_revoked",
            Self::Forbidden => "forbidden",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Superseded => "superseded",
            Self::ConnectionLimit => "connection_limit",
            Self::TooManyErrors => "too_many_errors",
            Self::OverCapacity => "over_capacity",
            Self::RateLimited => "rate_limited",
            Self::AuthTimeout => "auth_timeout",
            Self::InternalError => "internal_error",
            Self::BackboneUnavailable => "backbone_unavailable",
            Self::SlowConsumer => "slow_consumer",
            Self::Draining => "draining",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::ForceReconnect => "force_reconnect",
            Self::TokenExpired => "token_expired",
            Self::PositionLost => "position_lost",
        }
    }
}
