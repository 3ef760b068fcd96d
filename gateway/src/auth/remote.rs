//! The remote authentication service (`AUTH_SERVICE_URL`), which checks tokens that none of our own keys has signed.
//!
//! Its answers are kept for at most a minute, under a hash of the token. Simultaneous checks of one token share one
//! request, and while the service fails no request waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use metrics::{Counter, Histogram, counter, gauge, histogram};
use moka::Expiry;
use moka::future::Cache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::Timestamp;

use super::claims::{USERNAME, is_admin, names, seconds, user_id};
use super::{AuthError, Identity, NO_EXPIRY_S, TokenRefusal, Unavailable};
use crate::breaker::Breaker;
use crate::http_client::{Answer, Endpoint, EndpointError};
use crate::limits::{AddressKey, SharedPlaces};
use crate::overload::{Kind, Queue};

/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Answers that are kept, and for how long: less if the token ends before.
const KEPT_MAX: u64 = 50_000;
const ACCEPTED_FOR: Duration = Duration::from_secs(60);
/// A refused token may become good; a storm of the same one is still asked about once.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Questions under way at the same time; more are sent away. One address has three quarters of what is left at most.
const QUESTIONS_MAX: usize = 256;
/// A longer token is not sent: what stands before the service may refuse it with an answer that looks like an outage.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// With so many of them under way, none is asked while the service doesn't answer.
const UNANSWERED_MAX: usize = 32;
/// How long the service isn't asked after failures in a row, until one question finds out whether it is back.
const BREAKER_OPEN_FOR: Duration = Duration::from_secs(5);

/// The service.
pub struct Remote {
    endpoint: Endpoint,
    answers: Cache<[u8; 32], CachedVerdict>,
    places: SharedPlaces,
    queue: Arc<Queue>,
    breaker: Breaker,
    counts: Counts,
}

/// An answer, and how long it is good for.
#[derive(Clone)]
struct CachedVerdict {
    verdict: Result<Arc<Identity>, TokenRefusal>,
    good_for: Duration,
}

struct GoodFor;

impl Expiry<[u8; 32], CachedVerdict> for GoodFor {
    fn expire_after_create(&self, _: &[u8; 32], kept: &CachedVerdict, _: Instant) -> Option<Duration> {
        Some(kept.good_for)
    }
}

struct Counts {
    accepted: Counter,
    refused: Counter,
    failed: Counter,
    not_asked: Counter,
    seconds: Histogram,
}

impl Remote {
    /// The service at this URL, which has `timeout` to answer.
    pub fn new(url: hyper::Uri, timeout: Duration) -> Result<Self, EndpointError> {
        let count = |result: &'static str| counter!("parley_auth_service_total", "result" => result);
        Ok(Self {
            endpoint: Endpoint::new(url, timeout, ANSWER_BYTES_MAX)?,
            answers: Cache::builder().max_capacity(KEPT_MAX).expire_after(GoodFor).build(),
            places: SharedPlaces::new(QUESTIONS_MAX),
            queue: Queue::new(Kind::Tokens),
            breaker: Breaker::new(BREAKER_OPEN_FOR, gauge!("parley_auth_service_open")),
            counts: Counts {
                accepted: count("accepted"),
                refused: count("refused"),
                failed: count("failed"),
                not_asked: count("not_asked"),
                seconds: histogram!("parley_auth_service_seconds"),
            },
        })
    }

    /// The identity, by the service's answer, or by a cached one. The question counts for the client at `from`.
    pub(super) async fn ask(&self, token: &str, from: AddressKey) -> Result<Identity, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::Malformed.into());
        }
        // A value that no header can hold isn't a token.
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| TokenRefusal::Malformed)?;
        bearer.set_sensitive(true);
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let kept = self.answers.try_get_with(key, self.question(token, bearer, from)).await;
        let identity = kept.map_err(|unavailable| *unavailable)?.verdict?;
        if identity.expires_at_s <= Timestamp::now().unix_seconds() {
            return Err(TokenRefusal::Expired.into());
        }
        Ok((*identity).clone())
    }

    async fn question(&self, token: &str, bearer: HeaderValue, from: AddressKey) -> Result<CachedVerdict, Unavailable> {
        let away = |wait: Duration| {
            self.counts.not_asked.increment(1);
            unavailable(wait)
        };
        let waits = self.places.taken() >= UNANSWERED_MAX && self.queue.stands_still();
        let place = if waits { None } else { self.places.take(from) };
        let _place = place.ok_or_else(|| away(Duration::from_millis(self.queue.refuse().retry_after_ms)))?;
        let attempt = self.breaker.attempt().map_err(away)?;
        let _waiting = self.queue.wait(Instant::now());
        let asked_at = Instant::now();
        let body = Bytes::from(json!({ "token": token }).to_string());
        let answer = self.endpoint.post_json(HeaderMap::from_iter([(AUTHORIZATION, bearer)]), body).await;
        self.counts.seconds.record(asked_at.elapsed());
        let verdict = answer.map_err(|error| NoVerdict::Outage(error.to_string())).and_then(|answer| verdict(&answer));
        match verdict {
            Ok(verdict) => {
                attempt.succeeded();
                Ok(self.keep(verdict))
            }
            Err(NoVerdict::ThisToken(reason)) => {
                attempt.succeeded();
                self.counts.failed.increment(1);
                tracing::debug!(reason, "the authentication service (AUTH_SERVICE_URL) could not check a token");
                Err(unavailable(Duration::from_secs(1)))
            }
            Err(NoVerdict::Outage(reason)) => {
                attempt.failed();
                self.counts.failed.increment(1);
                tracing::warn!(reason, "the authentication service (AUTH_SERVICE_URL) returned an invalid answer");
                Err(unavailable(Duration::from_secs(1)))
            }
        }
    }

    fn keep(&self, verdict: Result<Identity, TokenRefusal>) -> CachedVerdict {
        match verdict {
            Ok(identity) => {
                self.counts.accepted.increment(1);
                let left_s = identity.expires_at_s.saturating_sub(Timestamp::now().unix_seconds());
                let left = Duration::from_secs(u64::try_from(left_s).unwrap_or_default());
                CachedVerdict { verdict: Ok(Arc::new(identity)), good_for: left.min(ACCEPTED_FOR) }
            }
            Err(refused) => {
                self.counts.refused.increment(1);
                CachedVerdict { verdict: Err(refused), good_for: REFUSED_FOR }
            }
        }
    }
}

fn unavailable(wait: Duration) -> Unavailable {
    let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
    Unavailable { service: "authentication service", retry_after_ms }
}

/// Why an answer says nothing.
#[derive(Debug, PartialEq, Eq)]
enum NoVerdict {
    /// The service, or what stands before it, can't take this token: that is the token's fate, and no outage.
    ThisToken(String),
    /// The service can't be asked.
    Outage(String),
}

/// The verdict of an answer; an error if it has none.
fn verdict(answer: &Answer) -> Result<Result<Identity, TokenRefusal>, NoVerdict> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(Err(TokenRefusal::Service)),
        // Too many requests and requests that were too slow are about the service; every other 4xx is about this token.
        status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => {
            return Err(NoVerdict::Outage(format!("it answers {status}")));
        }
        status if status.is_client_error() => return Err(NoVerdict::ThisToken(format!("it answers {status}"))),
        status => return Err(NoVerdict::Outage(format!("it answers {status}"))),
    }
    let claims: Value =
        serde_json::from_slice(&answer.body).map_err(|_| NoVerdict::Outage("its answer is not JSON".to_owned()))?;
    match claims.get("valid") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Ok(Err(TokenRefusal::Service)),
        _ => return Err(NoVerdict::Outage("its answer lacks \"valid\"".to_owned())),
    }
    let user = claims
        .get("user_id")
        .and_then(user_id)
        .ok_or_else(|| NoVerdict::ThisToken("its answer lacks a valid \"user_id\"".to_owned()))?;
    let now_s = Timestamp::now().unix_seconds();
    let expires_at_s = match claims.get("exp") {
        None | Some(Value::Null) => now_s.saturating_add(NO_EXPIRY_S),
        exp => seconds(exp).ok_or_else(|| NoVerdict::ThisToken("its \"exp\" is not a time".to_owned()))?,
    };
    if expires_at_s <= now_s {
        return Ok(Err(TokenRefusal::Expired));
    }
    Ok(Ok(Identity {
        user,
        names: names(&claims, USERNAME),
        admin: is_admin(&claims),
        expires_at_s,
        issued_at_s: seconds(claims.get("iat")),
        session: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Result<Result<Identity, TokenRefusal>, NoVerdict> {
        let status = StatusCode::from_u16(status).expect("a status");
        verdict(&Answer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    #[test]
    fn an_answer_lets_in_refuses_or_says_nothing() {
        let good = r#"{"valid": true, "user_id": 42, "username": "Ann", "scope": "admin", "iat": 7}"#;
        let identity = answered(200, good).expect("an answer").expect("let in");
        assert_eq!(
            (identity.user.as_str(), identity.names.username.as_deref(), identity.admin),
            ("42", Some("Ann"), true)
        );
        assert_eq!(identity.issued_at_s, Some(7));
        for (status, body, refused) in [
            (200, r#"{"valid": false}"#, TokenRefusal::Service),
            (401, "", TokenRefusal::Service),
            (403, "<html>", TokenRefusal::Service),
            (200, r#"{"valid": true, "user_id": "a", "exp": 1}"#, TokenRefusal::Expired),
        ] {
            assert_eq!(answered(status, body), Ok(Err(refused)), "{status} {body}");
        }
        for (status, body) in [
            (200, ""),
            (200, "<html>"),
            (200, "{}"),
            (200, r#"{"valid": "true", "user_id": "a"}"#),
            (200, r#"{"valid": true}"#),
            (200, r#"{"valid": true, "user_id": "a b"}"#),
            (200, r#"{"valid": true, "user_id": "a", "exp": "soon"}"#),
            (204, r#"{"valid": true, "user_id": "a"}"#),
            (302, ""),
            (404, ""),
            (500, r#"{"valid": true, "user_id": "a"}"#),
        ] {
            assert!(answered(status, body).is_err(), "{status} {body}");
        }
    }
}
