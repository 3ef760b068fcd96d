//! Checks whether a request may open a socket. A refusal is sent before the upgrade as an HTTP status, or after it as a
//! frame and a close code, which a browser can see.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::response::Response;
use shared::command::Resume;
use shared::{ProtocolError, Timestamp, UserId};

use super::rest::failure::respond;
use crate::auth::credentials::{places_in, query_value};
use crate::auth::{AuthError, Authenticator, Credential, Identity, Names, TokenRefusal, Unavailable};
use crate::limits::AddressKey;
use crate::session::Opening;

/// When a refusal is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// By HTTP 401, and without a token there is no socket.
    BeforeUpgrade,
    /// By `auth_failed` and a close code; a token may also come in the first frame.
    AfterUpgrade,
}

/// Authenticates the request, unless `believed` has the identity already. An answer instead of an opening ends the
/// request; if a token was refused, the answer's extensions hold the [`TokenRefusal`].
pub(super) async fn admit(
    authenticator: &Authenticator,
    (headers, query, from): (&HeaderMap, Option<&str>, AddressKey),
    refusal: Refusal,
    believed: Option<Identity>,
) -> Result<Opening, Response<Body>> {
    let resume = query.and_then(|query| query_value(query, "resume")).map(|text| match text.parse() {
        Ok(position) => Resume::From(position, query.and_then(places_in)),
        Err(()) => Resume::Invalid,
    });
    if let Some(identity) = believed {
        return Ok(Opening::Known(Box::new(identity), resume));
    }
    let Some(credential) = Credential::of_upgrade(headers, query, authenticator.session_cookie()) else {
        return match refusal {
            Refusal::AfterUpgrade => Ok(Opening::Unknown(resume)),
            Refusal::BeforeUpgrade => Err(unauthorized(TokenRefusal::Missing)),
        };
    };
    let known = match (authenticator.authenticate(credential, from).await, refusal) {
        // Joining checks revocations of accepted users; here the check is only for the status.
        (Ok(identity), Refusal::BeforeUpgrade) => authenticator.check_revoked(&identity).await.map(|()| identity),
        (known, _) => known,
    };
    match (known, refusal) {
        (Ok(identity), _) => Ok(Opening::Known(Box::new(identity), resume)),
        (Err(AuthError::Refused(refused)), Refusal::AfterUpgrade) => Ok(Opening::Refused(refused)),
        (Err(AuthError::Refused(refused)), Refusal::BeforeUpgrade) => Err(unauthorized(refused)),
        (Err(AuthError::Unavailable(unavailable)), _) => Err(unavailable_now(unavailable)),
    }
}

/// A user in dev who only said their name.
pub(super) fn believed(query: Option<&str>) -> Option<Identity> {
    let user = UserId::parse(&query_value(query?, "user")?).ok()?;
    let now_s = Timestamp::now().unix_seconds();
    Some(Identity {
        user,
        names: Names::default(),
        admin: false,
        expires_at_s: now_s + 86_400,
        issued_at_s: Some(now_s),
        session: None,
    })
}

fn unauthorized(refused: TokenRefusal) -> Response<Body> {
    tracing::debug!(reason = refused.label(), "a token was refused");
    let mut response = respond(&ProtocolError::new(refused.error_code(), refused.to_string()));
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response.extensions_mut().insert(refused);
    response
}

fn unavailable_now(unavailable: Unavailable) -> Response<Body> {
    let error = ProtocolError::new(Unavailable::CODE, unavailable.to_string());
    respond(&error.retry_after_ms(unavailable.retry_after_ms))
}
