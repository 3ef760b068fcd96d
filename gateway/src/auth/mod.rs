//! Who is it: tokens, where they come from in a request, and what they say. Never logs a token.

pub mod credentials;
pub mod token;

use shared::UserId;

/// A user whose token was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: UserId,
    /// The name that the token gave.
    pub username: Option<String>,
    /// Whether the token gives admin rights.
    pub admin: bool,
    /// Unix seconds at which the token expires.
    pub expires_at_s: i64,
    /// Unix seconds at which it was issued, if it says so.
    pub issued_at_s: Option<i64>,
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("a token is required")]
    Missing,
    /// It is malformed, signed by nobody we know, or says nothing about the user.
    #[error("the token is not valid")]
    Invalid,
    /// It was valid once.
    #[error("the token has expired")]
    Expired,
    /// It, or all older tokens of the user, were revoked.
    #[error("the token was revoked")]
    Revoked,
}

impl Refused {
    /// The code in `auth_failed` and in REST answers.
    #[must_use]
    pub fn error_code(self) -> shared::ErrorCode {
        match self {
            Self::Missing | Self::Invalid | Self::Revoked => shared::ErrorCode::Unauthenticated,
            Self::Expired => shared::ErrorCode::TokenExpired,
        }
    }

    /// The close code on a socket.
    #[must_use]
    pub fn close_code(self) -> shared::CloseCode {
        match self {
            Self::Missing | Self::Invalid => shared::CloseCode::InvalidToken,
            Self::Expired => shared::CloseCode::TokenExpired,
            Self::Revoked => shared::CloseCode::SessionRevoked,
        }
    }

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}
