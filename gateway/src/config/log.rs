//! The size and life of a user's log, and the timing of presence.

use std::time::Duration;

use super::error::ConfigError;
use super::layers::Layers;

/// The log and presence.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Events that a log keeps.
    pub resume_events: u32,
    /// How long a log outlives its user's last sign of life.
    pub resume_window: Duration,
    /// How long a user stays online without a sign of life.
    pub online_ttl: Duration,
    /// How long a user may be gone before `user.offline`.
    pub offline_grace: Duration,
    /// How many users are notified of a user's presence.
    pub presence_audience: u32,
}

impl LogConfig {
    pub(super) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            resume_events: layers.number("RESUME_EVENTS", 16, 100_000)?,
            resume_window: layers.seconds("RESUME_SECONDS", 60, 604_800)?,
            online_ttl: layers.seconds("ONLINE_TTL_SECONDS", 5, 3600)?,
            offline_grace: layers.seconds("OFFLINE_GRACE_SECONDS", 0, 600)?,
            presence_audience: layers.number("PRESENCE_AUDIENCE", 0, 10_000)?,
        })
    }
}
