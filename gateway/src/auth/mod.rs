//! Authentication: finds tokens, tickets and session cookies in a request, and checks them.
//! It offers [`Authenticator`], which turns a [`Credential`] into an [`Identity`].
//! It never logs a credential, and never decides what a user may do.

mod authenticator;
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

/// The names with which a user comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The name by which others look the user up.
    pub username: Option<String>,
    /// The name that others are shown.
    pub shown: Option<String>,
}

/// A user whose credential was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The names in the token.
    pub names: Names,
    /// Whether the token gives admin rights.
    pub admin: bool,
    /// Unix seconds at which the token expires.
    pub expires_at_s: i64,
    /// Unix seconds at which the token was issued, if it says so.
    pub issued_at_s: Option<i64>,
    /// The session that stands in for a token, if there is one.
    pub session: Option<SessionId>,
}

/// Why a user is refused.
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

/// Why a token was refused. The text names the claim at fault; the label stands in logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// There is no token.
    #[error("a token is required")]
    Missing,
    /// It is no JSON Web Token, or longer than 16 KiB.
    #[error("the token is not valid: it is not a JSON Web Token, or it is too long")]
    Malformed,
    /// No key that is known has signed it, by an algorithm that is good for the key.
    #[error("the token is not valid: no key of this server matches its signature and algorithm")]
    Signature,
    /// Its header demands extensions (RFC 7515 §4.1.11), and none is known here.
    #[error("the token is not valid: its header lists critical extensions (crit), and this server supports none")]
    Critical,
    /// Its `nbf` lies in the future.
    #[error("the token is not valid yet: its claim nbf lies in the future")]
    NotYetValid,
    /// Its `iss` is another, or missing.
    #[error("the token is not valid: its claim iss is not the expected issuer")]
    Issuer,
    /// Its `aud` is another, or missing.
    #[error("the token is not valid: its claim aud does not hold the expected audience")]
    Audience,
    /// It has no `exp`.
    #[error("the token is not valid: its claim exp is missing or not a number")]
    NoExpiry,
    /// It names no user.
    #[error("the token is not valid: none of its claims (JWT_USER_CLAIMS) names a user")]
    NoUser,
    /// It names a user by what is no id.
    #[error("the token is not valid: the claim with the user is no id (1 to 128 of A-Z a-z 0-9 _ . : @ - | +)")]
    UserId,
    /// The session cookie's session doesn't exist, or its value can't be read.
    #[error("the session is not valid: it does not exist, or it has ended")]
    Session,
    /// The ticket is unknown, was used, or doesn't serve this request.
    #[error("the ticket is not valid: it was used, it has expired, or it is not for this request")]
    Ticket,
    /// The authentication service refused it.
    #[error("the token is not valid: the authentication service refused it")]
    Service,
    /// It was valid once.
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
        if self == Self::Expired { shared::ErrorCode::TokenExpired } else { shared::ErrorCode::Unauthenticated }
    }

    /// The close code on a socket.
    #[must_use]
    pub fn close_code(self) -> shared::CloseCode {
        match self {
            Self::Missing
            | Self::Malformed
            | Self::Signature
            | Self::Critical
            | Self::NotYetValid
            | Self::Issuer
            | Self::Audience
            | Self::NoExpiry
            | Self::NoUser
            | Self::UserId
            | Self::Session
            | Self::Ticket
            | Self::Service => shared::CloseCode::InvalidToken,
            Self::Expired => shared::CloseCode::TokenExpired,
            Self::Revoked => shared::CloseCode::SessionRevoked,
        }
    }

    /// The label in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Critical => "critical_header",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoExpiry => "no_expiry",
            Self::NoUser => "no_user",
            Self::UserId => "user_id",
            Self::Session => "session",
            Self::Ticket => "ticket",
            Self::Service => "auth_service",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}
