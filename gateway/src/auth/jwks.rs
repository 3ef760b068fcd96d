//! Public keys that an issuer publishes (RFC 7517). They are fetched from the one URL of the settings when a token
//! names an unknown key, or after ten minutes.
//!
//! Only one task fetches. Fetched keys stay valid while the URL can't be reached. Without any key, tokens can't be
//! checked, and the client is told to retry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use metrics::{Counter, counter};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Unavailable;
use super::keys::{EC, ED, Key, RSA};
use crate::http_client::{Endpoint, EndpointError};

/// How long a fetch may take.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// The largest document, in bytes, and the most keys of it that are kept.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
const KEYS_MAX: usize = 64;
/// The longest `kid`, in bytes, for which anything is fetched.
const KID_BYTES_MAX: usize = 256;
/// How often the keys are fetched without a reason, so that one that was withdrawn goes.
const REFRESH: Duration = Duration::from_secs(600);
/// The least time between two fetches for keys that we don't have.
const UNKNOWN_KID_EVERY: Duration = Duration::from_secs(60);
/// The first and the longest pause after a fetch that failed.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The keys of an issuer.
pub struct Jwks {
    endpoint: Endpoint,
    /// `None` until the first successful fetch.
    keys: RwLock<Option<Arc<[PublishedKey]>>>,
    turn: Mutex<Turn>,
    wake: Notify,
    /// Counts fetches, the failed ones too.
    fetches: watch::Sender<u64>,
    fetched: Counter,
    failed: Counter,
}

/// A key and its name.
pub(super) struct PublishedKey {
    id: Option<String>,
    pub(super) key: Key,
}

/// Whether a fetch may be requested.
struct Turn {
    /// One is under way, or about to begin.
    fetching: bool,
    /// The next for an unknown key may not begin before.
    not_before: Option<Instant>,
}

/// Which of the issuer's keys may have signed a token.
pub(super) enum Candidates {
    /// One of these, if any.
    Keys(Arc<[PublishedKey]>),
    /// One that we don't have.
    Unknown,
}

impl Jwks {
    /// Keys of this URL; nothing is fetched before [`Jwks::keep`].
    pub fn new(url: hyper::Uri) -> Result<Self, EndpointError> {
        Ok(Self {
            endpoint: Endpoint::new(url, FETCH_WITHIN, DOCUMENT_BYTES_MAX)?,
            keys: RwLock::default(),
            turn: Mutex::new(Turn { fetching: true, not_before: None }),
            wake: Notify::new(),
            fetches: watch::Sender::new(0),
            fetched: counter!("parley_jwks_fetches_total", "result" => "fetched"),
            failed: counter!("parley_jwks_fetches_total", "result" => "failed"),
        })
    }

    /// Fetches the keys, now and again, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut retry = RETRY_MIN;
        loop {
            let pause = match self.fetch().await {
                Ok(keys) => {
                    tracing::debug!(keys = keys.len(), "fetched the keys of JWKS_URL");
                    *self.keys.write() = Some(keys);
                    self.fetched.increment(1);
                    retry = RETRY_MIN;
                    REFRESH
                }
                Err(reason) => {
                    let keys = self.keys.read().as_ref().map_or(0, |keys| keys.len());
                    tracing::warn!(reason, keys, "the keys of JWKS_URL could not be fetched; retrying");
                    self.failed.increment(1);
                    let pause = retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    pause
                }
            };
            self.turn.lock().fetching = false;
            self.fetches.send_modify(|count| *count += 1);
            tokio::select! {
                () = tokio::time::sleep(pause) => self.turn.lock().fetching = true,
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The keys that may have signed a token with this header's `kid`.
    pub(super) fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> Candidates {
        let keys = self.keys.read().clone();
        let known = |keys: &Arc<[PublishedKey]>| match kid {
            Some(kid) => keys.iter().any(|key| key.id.as_deref() == Some(kid)),
            None => true,
        };
        match keys {
            Some(keys) if known(&keys) => Candidates::Keys(keys),
            _ if !is_public(algorithm) || kid.is_some_and(|kid| kid.len() > KID_BYTES_MAX) => {
                Candidates::Keys(Arc::default())
            }
            _ => Candidates::Unknown,
        }
    }

    /// Waits for a fetch because a token names a key that we don't have; at most one a minute begins for that.
    pub(super) async fn fetch_anew(&self) -> Result<(), Unavailable> {
        let mut fetches = self.fetches.subscribe();
        let wait = {
            let mut turn = self.turn.lock();
            let now = Instant::now();
            // As long as there is none at all, the task tries by itself.
            let may_begin = self.keys.read().is_some() && turn.not_before.is_none_or(|not_before| now >= not_before);
            if !turn.fetching && may_begin {
                *turn = Turn { fetching: true, not_before: Some(now + UNKNOWN_KID_EVERY) };
                self.wake.notify_one();
            }
            turn.fetching
        };
        // A fetch that takes too long, or the end of the node: the keys stay as they are.
        if wait && tokio::time::timeout(FETCH_WITHIN, fetches.changed()).await.is_err() {
            tracing::debug!("keys were not fetched in time");
        }
        match *self.keys.read() {
            Some(_) => Ok(()),
            None => Err(Unavailable { service: "issuer of the tokens", retry_after_ms: 2000 }),
        }
    }

    async fn fetch(&self) -> Result<Arc<[PublishedKey]>, String> {
        let answer = self.endpoint.get(hyper::HeaderMap::new()).await.map_err(|error| error.to_string())?;
        if answer.status != hyper::StatusCode::OK {
            return Err(format!("it answers {}", answer.status));
        }
        published(&answer.body)
    }
}

impl PublishedKey {
    /// Whether a token with this `kid` may be checked with it.
    pub(super) fn fits(&self, kid: Option<&str>) -> bool {
        kid.is_none() || self.id.as_deref() == kid
    }
}

fn is_public(algorithm: Algorithm) -> bool {
    [RSA, EC, ED].iter().any(|kind| kind.contains(&algorithm))
}

/// The keys of a document that can check signatures; others in it do no harm.
fn published(document: &[u8]) -> Result<Arc<[PublishedKey]>, String> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<Value>,
    }
    let document: Document =
        serde_json::from_slice(document).map_err(|_| "it is not JSON with an array \"keys\"".to_owned())?;
    let keys: Arc<[_]> = document.keys.into_iter().filter_map(published_key).take(KEYS_MAX).collect();
    if keys.is_empty() { Err("it holds no RSA, EC or Ed25519 key for signatures".to_owned()) } else { Ok(keys) }
}

/// A key is bound to the algorithms of its kind and curve, and to the one that it names. Secrets are never taken from a URL.
fn published_key(value: Value) -> Option<PublishedKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => ED,
        _ => &[],
    };
    let algorithms: Vec<Algorithm> = match common.key_algorithm {
        None => kind.to_vec(),
        Some(named) => {
            let named = Algorithm::try_from(named).ok()?;
            kind.iter().copied().filter(|algorithm| *algorithm == named).collect()
        }
    };
    if !signs || !verifies || algorithms.is_empty() {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(PublishedKey { id: common.key_id.clone(), key: Key { algorithms, key } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_for_signatures_is_left_out() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}"#);
        let keys = published(format!(r#"{{"keys":[{good},7,null,{{}},{{"kty":"xyz"}}]}}"#).as_bytes()).expect("a key");
        assert_eq!(
            (keys.len(), keys[0].id.as_deref(), &keys[0].key.algorithms),
            (1, Some("a"), &vec![Algorithm::EdDSA])
        );
        assert!(keys[0].fits(None) && keys[0].fits(Some("a")) && !keys[0].fits(Some("b")));
        for bad in [
            r#"{"kty":"oct","k":"c2VjcmV0","kid":"a","alg":"HS256"}"#.to_owned(),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"enc","x":"{x}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","key_ops":["sign"],"x":"{x}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"RS256","x":"{x}"}}"#),
            r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.to_owned(),
            r#"{"kty":"RSA","e":"AQAB"}"#.to_owned(),
        ] {
            assert!(published(format!(r#"{{"keys":[{bad}]}}"#).as_bytes()).is_err(), "{bad}");
        }
        for document in ["", "[]", "<html>", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "null"] {
            assert!(published(document.as_bytes()).is_err(), "{document}");
        }
    }
}
