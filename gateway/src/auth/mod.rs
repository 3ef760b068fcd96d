//! Authentication: finds tokens, tickets and session cookies in a request, and checks them.
//!
//! Offers [`Authenticator`], which turns a [`Credential`] into an [`Identity`]. Never logs a credential.

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

/// How long a connection lasts, in seconds, if its credential names no end.
pub const NO_EXPIRY_S: i64 = 86_400;

/// A user whose credential was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The name in the token, if any.
    pub username: Option<String>,
    /// Whether the token gives admin rights.
    pub admin: bool,
    /// Unix seconds at which the token expires.
    pub expires_at_s: i64,
    /// Unix seconds at which the token was issued, if it says so.
    pub issued_at_s: Option<i64>,
    /// The session that stands in for a token, if there is one.
    pub session: Option<SessionId>,
}

/// Why a user is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The credential is refused.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
    /// The credential can't be checked now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A service that authentication needs is unavailable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {service} is unavailable; try again")]
pub struct Unavailable {
    /// The service, in words.
    pub service: &'static str,
    /// When to try again, in milliseconds.
    pub retry_after_ms: u64,
}

impl Unavailable {
    /// The code in REST answers.
    pub const CODE: shared::ErrorCode = shared::ErrorCode::Unavailable;

    /// Sessions, tickets and revocations are out of reach.
    pub(crate) fn backbone(error: &crate::backbone::BackboneError) -> Self {
        tracing::debug!(%error, "a credential could not be checked: the backbone is unavailable");
        Self { service: "backbone", retry_after_ms: 1000 }
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// There is no token.
    #[error("a token is required")]
    Missing,
    /// The token is malformed, its signature is by none of our keys, or it names no user.
    #[error("the token is not valid")]
    Invalid,
    /// The token was valid once.
    #[error("the token has expired")]
    Expired,
    /// The token, or all older tokens of the user, were revoked.
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
