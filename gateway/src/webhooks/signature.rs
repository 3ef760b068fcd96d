//! The signature by which a webhook's receiver checks that a request is ours and fresh: HMAC-SHA256 over the time and
//! the body.

use std::fmt::Write;

use aws_lc_rs::hmac;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use shared::Timestamp;

/// The signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-parley-signature");
/// The webhook: `push`, `hook` or `events`.
const WEBHOOK: HeaderName = HeaderName::from_static("x-parley-webhook");
/// The id of the body, the same for every try.
const DELIVERY: HeaderName = HeaderName::from_static("x-parley-delivery");

/// The key of the signatures.
pub(super) struct Signer(hmac::Key);

impl Signer {
    /// A signer with this secret.
    #[must_use]
    pub(super) fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The headers of a request of this webhook with this id and body, signed now.
    ///
    /// # Errors
    /// The id can't stand in a header.
    pub(super) fn headers(
        &self,
        webhook: &'static str,
        id: &str,
        body: &[u8],
    ) -> Result<HeaderMap, InvalidHeaderValue> {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(WEBHOOK, HeaderValue::from_static(webhook));
        headers.insert(DELIVERY, HeaderValue::from_str(id)?);
        headers.insert(SIGNATURE, HeaderValue::from_str(&self.sign(Timestamp::now().unix_seconds(), body))?);
        Ok(headers)
    }

    /// The signature's value: `t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>`.
    fn sign(&self, unix_s: i64, body: &[u8]) -> String {
        let mut text = format!("t={unix_s},v1=");
        let signed = [format!("{unix_s}.").as_bytes(), body].concat();
        for byte in hmac::sign(&self.0, &signed).as_ref() {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as `printf '1700000000.{"id":"1"}' | openssl dgst -sha256 -hmac a-secret-of-the-test`.
    #[test]
    fn the_signature_is_the_one_that_openssl_makes() {
        let signer = Signer::new("a-secret-of-the-test");
        let expected = "t=1700000000,v1=05a90d6cc15d274dfbdf2ed9a096cb4d536e7b87ab98d613ea9ac26a0e814f22";
        assert_eq!(signer.sign(1_700_000_000, br#"{"id":"1"}"#), expected);
        assert_ne!(signer.sign(1_700_000_001, br#"{"id":"1"}"#), expected);
    }
}
