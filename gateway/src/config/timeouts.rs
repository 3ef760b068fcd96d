//! A socket's timeouts.

use std::time::Duration;

use super::error::ConfigError;
use super::layers::Layers;

/// The longest timeout, in seconds.
const SECONDS_MAX: u64 = 3600;

/// A socket's timeouts.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// Silence after which a ping is sent.
    pub heartbeat: Duration,
    /// Silence after the ping that ends the connection.
    pub heartbeat_timeout: Duration,
    /// Time for the first valid `auth`.
    pub auth_deadline: Duration,
    /// A write without progress for this long ends the connection.
    pub write_timeout: Duration,
}

impl Timeouts {
    pub(super) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            heartbeat: layers.seconds("HEARTBEAT_SECONDS", 1, SECONDS_MAX)?,
            heartbeat_timeout: layers.seconds("HEARTBEAT_TIMEOUT_SECONDS", 1, SECONDS_MAX)?,
            auth_deadline: layers.seconds("AUTH_DEADLINE_SECONDS", 1, SECONDS_MAX)?,
            write_timeout: layers.seconds("WRITE_TIMEOUT_SECONDS", 1, SECONDS_MAX)?,
        })
    }
}
