//! The duration of a shutdown.

use std::time::Duration;

use super::error::{ConfigError, fault};
use super::layers::Layers;

/// Shutdown.
#[derive(Debug, Clone)]
pub struct Drain {
    /// How long to serve on, unready, before the first close.
    pub delay: Duration,
    /// The whole of it, the delay included.
    pub total: Duration,
}

impl Drain {
    pub(super) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        const DELAY: &str = "DRAIN_DELAY_SECONDS";
        const TOTAL: &str = "DRAIN_SECONDS";
        let drain = Self { delay: layers.seconds(DELAY, 0, 3600)?, total: layers.seconds(TOTAL, 1, 3600)? };
        if drain.delay >= drain.total {
            return Err(fault(TOTAL, format!("is the time for the whole drain and must be above {DELAY}")));
        }
        Ok(drain)
    }
}
