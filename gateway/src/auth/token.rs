//! JSON Web Tokens: a fixed list of algorithms, each bound to the kind of key that it may be checked with.
//!
//! An HMAC secret never checks an RS/ES/EdDSA token and a public key never an HS token, so a public key can't be abused
//! as a secret. Several keys serve rotation: any of them may have signed.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::Value;
use shared::{Timestamp, UserId};

use super::claims::{is_admin, names, seconds, user_id};
use super::jwks::{Candidates, Jwks};
use super::keys::{EC, ED, HMAC, Key, RSA, public_key};
use super::{Identity, TokenRefusal};
use crate::config::AuthConfig;

/// How far another machine's clock may be ahead, for `nbf`.
const CLOCK_SKEW_S: u64 = 5;
/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Checks tokens.
pub struct Verifier {
    keys: Vec<Key>,
    published: Option<Arc<Jwks>>,
    user_claims: Vec<String>,
    username_claim: String,
    /// The checks beside the signature, made once for each algorithm.
    validations: Vec<(Algorithm, Validation)>,
}

/// Why a token was not let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None of our keys has signed it, or it isn't a JWT. Another service may accept it; else this is the reason.
    NotOurs(TokenRefusal),
    /// It names a key of the issuer that we don't have.
    UnknownKey,
    /// It is one of ours, and not good.
    Refused(TokenRefusal),
}

/// A key that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("JWT_PUBLIC_KEY_FILE {file}: {fault}")]
pub struct KeyError {
    file: String,
    fault: String,
}

impl Verifier {
    /// Reads the keys that the settings name; `published` are those of an issuer.
    pub fn new(config: &AuthConfig, published: Option<Arc<Jwks>>) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = config
            .jwt_secrets
            .iter()
            .map(|secret| Key { algorithms: HMAC.to_vec(), key: DecodingKey::from_secret(secret.as_bytes()) })
            .collect();
        for file in &config.jwt_public_key_files {
            let error = |fault: String| KeyError { file: file.display().to_string(), fault };
            let pem = std::fs::read(file).map_err(|fault| error(fault.to_string()))?;
            keys.push(public_key(&pem).ok_or_else(|| error("holds no RSA, EC or Ed25519 public key in PEM".into()))?);
        }
        let algorithms = [HMAC, RSA, EC, ED].into_iter().flatten();
        let validations = algorithms.map(|algorithm| (*algorithm, validation(config, *algorithm))).collect();
        let (user_claims, username_claim) = (config.user_claims.clone(), config.username_claim.clone());
        Ok(Self { keys, published, user_claims, username_claim, validations })
    }

    /// Checks signature, times, issuer and audience, and reads the identity.
    pub fn verify(&self, token: &str) -> Result<Identity, Fault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Fault::Refused(TokenRefusal::Malformed));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Fault::NotOurs(TokenRefusal::Malformed))?;
        if header.crit.is_some() {
            return Err(Fault::Refused(TokenRefusal::Critical));
        }
        let (algorithm, kid) = (header.alg, header.kid.as_deref());
        match self.verify_with(token, algorithm, self.keys.iter()) {
            Err(Fault::NotOurs(_)) => {}
            decided => return decided,
        }
        match self.published.as_ref().map(|published| published.candidates(kid, algorithm)) {
            None => Err(Fault::NotOurs(TokenRefusal::Signature)),
            Some(Candidates::Unknown) => Err(Fault::UnknownKey),
            Some(Candidates::Keys(keys)) => {
                self.verify_with(token, algorithm, keys.iter().filter(|key| key.fits(kid)).map(|key| &key.key))
            }
        }
    }

    fn verify_with<'a>(
        &self,
        token: &str,
        algorithm: Algorithm,
        keys: impl Iterator<Item = &'a Key>,
    ) -> Result<Identity, Fault> {
        let validation = self.validations.iter().find(|(known, _)| *known == algorithm);
        let Some((_, validation)) = validation else {
            return Err(Fault::NotOurs(TokenRefusal::Signature));
        };
        for key in keys.filter(|key| key.algorithms.contains(&algorithm)) {
            match self.verify_by(token, &key.key, validation) {
                Err(Fault::NotOurs(_)) => {}
                decided => return decided,
            }
        }
        Err(Fault::NotOurs(TokenRefusal::Signature))
    }

    fn verify_by(&self, token: &str, key: &DecodingKey, validation: &Validation) -> Result<Identity, Fault> {
        match jsonwebtoken::decode::<Value>(token, key, validation) {
            Ok(data) => self.identity(&data.claims).map_err(Fault::Refused),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => Fault::Refused(TokenRefusal::Expired),
                // The signature is checked before everything that it signs.
                ErrorKind::InvalidSignature => Fault::NotOurs(TokenRefusal::Signature),
                ErrorKind::ImmatureSignature => Fault::Refused(TokenRefusal::NotYetValid),
                ErrorKind::InvalidIssuer => Fault::Refused(TokenRefusal::Issuer),
                ErrorKind::InvalidAudience => Fault::Refused(TokenRefusal::Audience),
                ErrorKind::MissingRequiredClaim(claim) => Fault::Refused(match claim.as_str() {
                    "iss" => TokenRefusal::Issuer,
                    "aud" => TokenRefusal::Audience,
                    _ => TokenRefusal::NoExpiry,
                }),
                _ => Fault::Refused(TokenRefusal::Malformed),
            }),
        }
    }

    fn identity(&self, claims: &Value) -> Result<Identity, TokenRefusal> {
        let claim = self.user_claims.iter().find_map(|name| claims.get(name)).ok_or(TokenRefusal::NoUser)?;
        let user = user_id(claim).ok_or(TokenRefusal::UserId)?;
        let expires_at_s = seconds(claims.get("exp")).ok_or(TokenRefusal::NoExpiry)?;
        // The library's leeway is for `nbf`; expiry is exact, as the close at 4300 is.
        if expires_at_s <= Timestamp::now().unix_seconds() {
            return Err(TokenRefusal::Expired);
        }
        Ok(Identity {
            user,
            names: names(claims, &self.username_claim),
            admin: is_admin(claims),
            expires_at_s,
            issued_at_s: seconds(claims.get("iat")),
            session: None,
        })
    }
}

fn validation(config: &AuthConfig, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = CLOCK_SKEW_S;
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["exp"]);
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    match &config.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        None => validation.validate_aud = false,
    }
    validation
}

/// A signed token for `user`, with the first secret of the settings; `None` without a secret.
#[must_use]
pub fn mint(config: &AuthConfig, user: &UserId, username: Option<&str>, admin: bool, ttl_s: u64) -> Option<String> {
    let secret = config.jwt_secrets.first()?;
    let now_s = Timestamp::now().unix_seconds();
    let mut claims = serde_json::json!({
        "sub": user,
        "iat": now_s,
        "exp": now_s.saturating_add_unsigned(ttl_s),
    });
    if let Some(fields) = claims.as_object_mut() {
        let optional = [
            (config.username_claim.as_str(), username.map(Value::from)),
            ("scope", admin.then(|| "admin".into())),
            ("iss", config.issuer.clone().map(Value::from)),
            ("aud", config.audience.clone().map(Value::from)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
    }
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).ok()
}
