//! The answer to a command that could not be carried out: the same codes on every dialect and over REST.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lists::words_of;

/// The error codes, on every dialect and over REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The frame is not a JSON object with a `type`.
    InvalidMessage,
    /// A field is missing, empty, too long or of the wrong type.
    ValidationError,
    /// No command has this `type`.
    UnknownEvent,
    /// Content or a body is larger than the limit.
    PayloadTooLarge,
    /// No valid token came yet.
    Unauthenticated,
    /// The token has expired.
    TokenExpired,
    /// The user lacks the right.
    Forbidden,
    /// The user is no member of the conversation.
    NotMember,
    /// The user is banned from the conversation.
    Banned,
    /// One of the two has blocked the other.
    Blocked,
    /// The backend that was asked before doesn't want it.
    Refused,
    /// The conversation wants a password, or another one.
    PasswordRequired,
    /// There is no such thing, or none that the user may know of.
    NotFound,
    /// The request contradicts what is there.
    Conflict,
    /// Too many commands.
    RateLimited,
    /// A bound on size or number is reached.
    LimitExceeded,
    /// A fault of the server.
    InternalError,
    /// The store or the backbone is away; try again.
    Unavailable,
    /// No answer in time; the outcome is unknown and the command may be repeated.
    Timeout,
}

words_of! {
    ErrorCode,
    /// The code as it stands in frames and metric labels.
    as_str {
        InvalidMessage => "INVALID_MESSAGE",
        ValidationError => "VALIDATION_ERROR",
        UnknownEvent => "UNKNOWN_EVENT",
        PayloadTooLarge => "PAYLOAD_TOO_LARGE",
        Unauthenticated => "UNAUTHENTICATED",
        TokenExpired => "TOKEN_EXPIRED",
        Forbidden => "FORBIDDEN",
        NotMember => "NOT_MEMBER",
        Banned => "BANNED",
        Blocked => "BLOCKED",
        Refused => "REFUSED",
        PasswordRequired => "PASSWORD_REQUIRED",
        NotFound => "NOT_FOUND",
        Conflict => "CONFLICT",
        RateLimited => "RATE_LIMITED",
        LimitExceeded => "LIMIT_EXCEEDED",
        InternalError => "INTERNAL_ERROR",
        Unavailable => "UNAVAILABLE",
        Timeout => "TIMEOUT",
    }
}

impl ErrorCode {
    /// Whether the same command may succeed when it is sent again unchanged.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::InternalError | Self::Unavailable | Self::Timeout)
    }

    /// The HTTP status that carries this code over REST.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidMessage | Self::ValidationError | Self::UnknownEvent => 400,
            Self::Unauthenticated | Self::TokenExpired => 401,
            Self::Forbidden
            | Self::NotMember
            | Self::Banned
            | Self::Blocked
            | Self::Refused
            | Self::PasswordRequired => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::LimitExceeded => 409,
            Self::PayloadTooLarge => 413,
            Self::RateLimited => 429,
            Self::InternalError => 500,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// An error answer: the payload of an `error` frame, and the `error` member of a REST answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{}: {message}", code.as_str())]
pub struct ProtocolError {
    /// The fault, for programs.
    pub code: ErrorCode,
    /// The fault, for people. Never holds a token or a message body.
    pub message: Cow<'static, str>,
    /// Whether the same command may be sent again.
    pub retryable: bool,
    /// How long to wait before that, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'static, str>>,
}

impl ProtocolError {
    /// An error with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retryable: code.is_retryable(), retry_after_ms: None, field: None }
    }

    /// `VALIDATION_ERROR` about `field`; the sentence becomes "`field` `fault`".
    pub fn field(field: &'static str, fault: impl std::fmt::Display) -> Self {
        Self { field: Some(Cow::Borrowed(field)), ..Self::new(ErrorCode::ValidationError, format!("{field} {fault}")) }
    }

    /// The same error with a time to wait before the next try.
    #[must_use]
    pub fn retry_after_ms(mut self, wait_ms: u64) -> Self {
        self.retry_after_ms = Some(wait_ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_code_and_in_json_agree() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(&code).expect("a code serializes"), format!("\"{}\"", code.as_str()));
        }
    }
}
