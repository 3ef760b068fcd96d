//! The violations of RFC 6455 and RFC 7692, each with the close code that answers it.

use shared::CloseCode;

use crate::ws::deflate::InflateError;

/// The peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A client frame without mask (RFC 6455 §5.1).
    #[error("a client frame is not masked")]
    Unmasked,
    /// A reserved bit that nothing agreed on gives a meaning there (§5.2; RFC 7692 §6).
    #[error("a reserved bit is set")]
    Reserved,
    /// A compressed message whose bytes are not a deflate stream, or not a whole one (RFC 7692 §7.2.2).
    #[error("a compressed message can't be inflated")]
    Deflate,
    /// An opcode that means nothing (§5.2).
    #[error("the opcode is unknown")]
    Opcode,
    /// A length that isn't in its shortest form, or has its highest bit set (§5.2).
    #[error("the length is not in its shortest form")]
    LengthEncoding,
    /// A control frame without FIN (§5.5).
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// A control frame of more than 125 bytes (§5.5).
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A continuation, but no message is open (§5.4).
    #[error("a continuation without a message")]
    ContinuationUnexpected,
    /// A new message inside of an open one (§5.4).
    #[error("a message begins inside of another")]
    ContinuationExpected,
    /// A close frame of one byte (§5.5.1).
    #[error("a close frame has half a code")]
    CloseLength,
    /// A close code that may not be sent (§7.4).
    #[error("close code {0} may not be sent")]
    CloseCode(u16),
    /// Text, or the reason of a close frame, that isn't UTF-8 (§8.1).
    #[error("text is not UTF-8")]
    Utf8,
    /// A message over the limit (§7.4.1).
    #[error("a message is over the limit")]
    TooBig,
}

impl Fault {
    /// The code of the close frame that answers it.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Unmasked
            | Self::Reserved
            | Self::Deflate
            | Self::Opcode
            | Self::LengthEncoding
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::ContinuationUnexpected
            | Self::ContinuationExpected
            | Self::CloseLength
            | Self::CloseCode(_) => CloseCode::WebSocketProtocol,
            Self::Utf8 => CloseCode::InvalidUtf8,
            Self::TooBig => CloseCode::MessageTooBig,
        }
    }
}

impl From<InflateError> for Fault {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::TooBig => Self::TooBig,
            InflateError::Damaged => Self::Deflate,
        }
    }
}
