//! The caller: a user with a token, or a backend with the API key, which may act for a user.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use shared::{ErrorCode, ProtocolError, UserId};
use subtle::ConstantTimeEq;

use super::Api;
use super::failure::Failure;
use crate::auth::{AuthError, Credential, Identity, TokenRefusal, Unavailable};
use crate::http::browsers::{Source, foreign_cookie};
use crate::http::client_address::{ClientScheme, address_key};
use crate::limits::{Allowance, BulkPlace, BulkWork, TooManyBulkRequests};
use crate::store::Giver;

/// Where a caller listens: by polls, or to a stream.
pub(super) const EVENTS_PATH: &str = "/api/v1/events";

/// The caller.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// A user with a valid token.
    User(Identity),
    /// A backend, acting for this user if it names one.
    Backend(Option<UserId>),
}

impl Caller {
    /// The user in whose name something is done; an error for a backend that names none.
    pub(super) fn user(&self) -> Result<&UserId, Failure> {
        self.acts_for().ok_or_else(|| {
            Failure(ProtocolError {
                field: Some("X-User-Id".into()),
                ..ProtocolError::new(ErrorCode::ValidationError, "a backend must name the user in X-User-Id")
            })
        })
    }

    /// The user in whose name something is done; `None` for a backend in its own name.
    pub(super) fn acts_for(&self) -> Option<&UserId> {
        match self {
            Self::User(identity) => Some(&identity.user),
            Self::Backend(user) => user.as_ref(),
        }
    }

    /// Whether the caller acts in the caller's own name.
    pub(super) fn is_in_own_name(&self) -> bool {
        match self {
            Self::User(_) | Self::Backend(None) => true,
            Self::Backend(Some(_)) => false,
        }
    }

    /// The identity of a user who acts in their own name.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::User(identity) => Some(identity),
            Self::Backend(_) => None,
        }
    }

    /// Charges a user's request that counts for more than one command; backends answer for themselves.
    pub(super) async fn pay(&self, api: &Api, charge: u32) -> Result<(), Failure> {
        let Self::User(identity) = self else { return Ok(()) };
        // One was charged with the token.
        match charge.saturating_sub(1) {
            0 => Ok(()),
            rest => admit(api, &identity.user, rest).await,
        }
    }

    /// Charges a user for the part of a request's charge that was known only when it was carried out.
    pub(super) fn owe(&self, api: &Api, charge: u32) {
        if let Self::User(identity) = self {
            api.node.user_rates.owe(&identity.user, charge);
        }
    }

    /// Waits for the turn of a bulk request; a request for fewer users is none.
    pub(super) async fn turn<'a>(&self, api: &'a Api, work: BulkWork) -> Result<Option<BulkPlace<'a>>, Failure> {
        if !work.is_bulk() {
            return Ok(None);
        }
        let bulk = match self {
            Self::User(_) => &api.node.bulk_of_users,
            Self::Backend(_) => &api.node.bulk_of_backends,
        };
        bulk.enter(work).await.map(Some).map_err(|TooManyBulkRequests { retry_after_ms }| {
            let error = ProtocolError::new(ErrorCode::Unavailable, "too many requests for many users run at once");
            Failure(error.retry_after_ms(retry_after_ms))
        })
    }

    /// The giver of an order, for the audit trail.
    pub(super) fn giver(&self) -> Giver {
        Giver { user: self.acts_for().cloned(), is_backend: matches!(self, Self::Backend(_)) }
    }

    /// Refuses everybody but backends and admins.
    pub(super) fn must_be_privileged(&self) -> Result<(), Failure> {
        match self {
            Self::Backend(_) => Ok(()),
            Self::User(identity) if identity.admin => Ok(()),
            Self::User(_) => {
                Err(Failure(ProtocolError::new(ErrorCode::Forbidden, "this takes the API key or an admin's token")))
            }
        }
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Failure> {
        if let Some(given) = parts.headers.get("x-api-key") {
            return backend(given.as_bytes(), api, parts);
        }
        let authenticator = &api.node.authenticator;
        let shown = Credential::of_request(&parts.headers, authenticator.session_cookie());
        let shown = shown.ok_or_else(|| refused(TokenRefusal::Missing))?;
        // Who listens is online, and takes a place of the user's.
        let changes = !parts.method.is_safe() || parts.uri.path() == EVENTS_PATH;
        if changes && Credential::is_by_cookie(&parts.headers) {
            let scheme = parts.extensions.get::<ClientScheme>().copied();
            if !Source::of(&parts.headers, scheme, &api.origins).may_use_cookies() {
                return Err(Failure(foreign_cookie()));
            }
        }
        let identity =
            authenticator.authenticate_request(shown, address_key(&parts.extensions)).await.map_err(not_let_in)?;
        authenticator.check_revoked(&identity).await.map_err(not_let_in)?;
        named_user(parts)?;
        // Backends answer for themselves; a user's requests count as the user's commands do.
        admit(api, &identity.user, 1).await?;
        Ok(Self::User(identity))
    }
}

async fn admit(api: &Api, user: &UserId, charge: u32) -> Result<(), Failure> {
    match api.node.user_rates.admit(user, charge).await {
        Allowance::Granted => Ok(()),
        Allowance::Wait(wait_ms) => {
            let error = ProtocolError::new(ErrorCode::RateLimited, "too many requests");
            Err(Failure(error.retry_after_ms(wait_ms)))
        }
    }
}

fn backend(given: &[u8], api: &Api, parts: &Parts) -> Result<Caller, Failure> {
    let known = api.api_key.as_ref().is_some_and(|key| bool::from(key.as_bytes().ct_eq(given)));
    if !known {
        return Err(Failure(ProtocolError::new(ErrorCode::Unauthenticated, "the API key is not valid")));
    }
    Ok(Caller::Backend(named_user(parts)?))
}

/// The user in `X-User-Id`. It names nobody beside a user's token, but has to be an id there as well.
fn named_user(parts: &Parts) -> Result<Option<UserId>, ProtocolError> {
    let Some(value) = parts.headers.get("x-user-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_| ProtocolError::field("X-User-Id", "is not a user id"))?;
    UserId::parse(text).map(Some).map_err(|fault| ProtocolError::field("X-User-Id", fault))
}

pub(super) fn not_let_in(error: AuthError) -> Failure {
    match error {
        AuthError::Refused(reason) => refused(reason),
        AuthError::Unavailable(reason) => unavailable(reason),
    }
}

pub(super) fn unavailable(unavailable: Unavailable) -> Failure {
    let error = ProtocolError::new(Unavailable::CODE, unavailable.to_string());
    Failure(error.retry_after_ms(unavailable.retry_after_ms))
}

fn refused(refused: TokenRefusal) -> Failure {
    tracing::debug!(reason = refused.label(), "a token was refused");
    Failure(ProtocolError::new(refused.error_code(), refused.to_string()))
}
