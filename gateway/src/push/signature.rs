//! The signature by which a webhook's receiver checks that a request is ours and fresh: HMAC-SHA256 over the time and
//! the body.

use std::fmt::Write;

use aws_lc_rs::hmac;

/// The header.
pub const SIGNATURE_HEADER: &str = "x-parley-signature";

/// The key of the signatures.
pub struct Signer(hmac::Key);

impl Signer {
    /// A signer with this secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The header's value: `t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>`.
    #[must_use]
    pub fn sign(&self, unix_s: i64, body: &[u8]) -> String {
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
