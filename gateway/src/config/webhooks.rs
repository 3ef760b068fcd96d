//! The webhooks: push notifications, the hook that is asked before something is stored, and the events of a backend.

use std::time::Duration;

use hyper::Uri;

use super::error::{ConfigError, fault};
use super::layers::Layers;

/// The secret of every webhook that has none of its own.
const SECRET: &str = "WEBHOOK_SECRET";

/// The webhook of push notifications.
#[derive(Clone)]
pub struct PushConfig {
    /// Where notifications are posted.
    pub url: Uri,
    /// Signs them.
    pub secret: String,
}

/// The hook.
#[derive(Clone)]
pub struct HookConfig {
    /// Where questions are posted.
    pub url: Uri,
    /// Signs them.
    pub secret: String,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What stands in place of an answer that doesn't come.
    pub on_failure: OnHookFailure,
}

/// The webhook of events.
#[derive(Clone)]
pub struct EventsConfig {
    /// Where events are posted.
    pub url: Uri,
    /// Signs them.
    pub secret: String,
}

/// What stands in place of an answer of the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHookFailure {
    /// The command is refused, and may be sent again.
    Refuse,
    /// It is carried out.
    Allow,
}

impl PushConfig {
    /// `None` without a webhook: push jobs are left to others.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, ConfigError> {
        const OWN: &str = "PUSH_WEBHOOK_SECRET";
        match (layers.url("PUSH_WEBHOOK_URL")?, layers.secret(OWN)?, layers.secret(SECRET)?) {
            (Some(url), Some(secret), _) | (Some(url), None, Some(secret)) => Ok(Some(Self { url, secret })),
            (None, None, _) => Ok(None),
            (Some(_), None, None) => Err(fault(OWN, without_secret("PUSH_WEBHOOK_URL", "it, or WEBHOOK_SECRET,"))),
            (None, Some(_), _) => {
                Err(fault(OWN, "is set and PUSH_WEBHOOK_URL is not; give the URL, or leave the secret out"))
            }
        }
    }
}

impl HookConfig {
    /// `None` without a hook: nobody is asked.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, ConfigError> {
        let timeout = layers.duration("HOOK_TIMEOUT", Duration::from_millis(50), Duration::from_secs(4))?;
        let on_failure = match layers.get("HOOK_ON_FAILURE") {
            Some("refuse") | None => OnHookFailure::Refuse,
            Some("allow") => OnHookFailure::Allow,
            Some(_) => return Err(fault("HOOK_ON_FAILURE", "must be refuse or allow")),
        };
        match (layers.url("HOOK_URL")?, layers.secret(SECRET)?) {
            (Some(url), Some(secret)) => Ok(Some(Self { url, secret, timeout, on_failure })),
            (None, _) => Ok(None),
            (Some(_), None) => Err(fault(SECRET, without_secret("HOOK_URL", "it"))),
        }
    }
}

impl EventsConfig {
    /// `None` without a webhook: nobody is owed an event.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, ConfigError> {
        match (layers.url("EVENTS_WEBHOOK_URL")?, layers.secret(SECRET)?) {
            (Some(url), Some(secret)) => Ok(Some(Self { url, secret })),
            (None, _) => Ok(None),
            (Some(_), None) => Err(fault(SECRET, without_secret("EVENTS_WEBHOOK_URL", "it"))),
        }
    }
}

fn without_secret(url: &str, what: &str) -> String {
    format!("is not set; {url} needs {what} to sign requests; make one with `openssl rand -base64 32`")
}

impl std::fmt::Debug for PushConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushConfig").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for HookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookConfig").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EventsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventsConfig").finish_non_exhaustive()
    }
}
