//! Keys that check tokens, each bound to the algorithms of its kind.

use jsonwebtoken::{Algorithm, DecodingKey};

/// A key, and the algorithms that it may be used with.
pub(super) struct Key {
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

pub(super) const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
pub(super) const RSA: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
pub(super) const EC: &[Algorithm] = &[Algorithm::ES256, Algorithm::ES384];
pub(super) const ED: &[Algorithm] = &[Algorithm::EdDSA];

/// The key in a PEM file, if it holds one of a kind that we use.
pub(super) fn public_key(pem: &[u8]) -> Option<Key> {
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return Some(Key { algorithms: RSA.to_vec(), key });
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        return Some(Key { algorithms: EC.to_vec(), key });
    }
    DecodingKey::from_ed_pem(pem).ok().map(|key| Key { algorithms: ED.to_vec(), key })
}
