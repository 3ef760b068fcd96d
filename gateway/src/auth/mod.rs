//! Who is it: tokens, tickets and session cookies, where they stand in a request, and what they say. Never logs any of them.

mod authenticator;
mod breaker;
mod claims;
pub mod credentials;
pub mod jwks;
mod keys;
mod live;
pub mod remote;
mod session;
pub mod tickets;
pub mod token;

use shared::UserId;

use crate::backbone::SessionId;

pub use authenticator::Authenticator;
pub use credentials::Credential;
pub use live::{Due, Guest, LiveSessions};

/// How long a connection lasts, in seconds, when whoever vouches for the user names no end.
pub const NO_EXPIRY_S: i64 = 86_400;

/// A user who has shown who they are.
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
    /// The session on which all of this stands, if it isn't a token.
    pub session: Option<SessionId>,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// What they showed is not good.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
    /// Nobody can say.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Whoever has to be asked can't be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {who} can't be asked now")]
pub struct Unavailable {
    /// Who that is.
    pub who: &'static str,
    /// When to try again, in milliseconds.
    pub retry_after_ms: u64,
}

impl Unavailable {
    /// The code in REST answers.
    pub const CODE: shared::ErrorCode = shared::ErrorCode::Unavailable;

    /// Sessions, tickets and revocations are out of reach.
    pub(crate) fn backbone(error: &crate::backbone::BackboneError) -> Self {
        tracing::debug!(%error, "the backbone could not be asked who it is");
        Self { who: "backbone", retry_after_ms: 1000 }
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
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

impl TokenRefusal {
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
