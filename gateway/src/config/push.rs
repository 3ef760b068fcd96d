//! The webhook of push notifications.

use hyper::Uri;

use super::error::{ConfigError, fault};
use super::layers::Layers;

/// The webhook of push notifications.
#[derive(Clone)]
pub struct PushConfig {
    /// Where notifications are posted.
    pub url: Uri,
    /// Signs them.
    pub secret: String,
}

impl PushConfig {
    /// `None` without a webhook: push jobs are left to others.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, ConfigError> {
        const SECRET: &str = "PUSH_WEBHOOK_SECRET";
        match (layers.url("PUSH_WEBHOOK_URL")?, layers.secret(SECRET)?) {
            (Some(url), Some(secret)) => Ok(Some(Self { url, secret })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(fault(
                SECRET,
                "is not set; PUSH_WEBHOOK_URL needs it to sign requests; make one with `openssl rand -base64 32`",
            )),
            (None, Some(_)) => {
                Err(fault(SECRET, "is set and PUSH_WEBHOOK_URL is not; give the URL, or leave the secret out"))
            }
        }
    }
}

impl std::fmt::Debug for PushConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushConfig").finish_non_exhaustive()
    }
}
