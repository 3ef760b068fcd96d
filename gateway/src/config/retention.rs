//! How long things are kept.

use super::error::ConfigError;
use super::layers::Layers;

/// The longest that a setting can say, in days: a hundred years.
const DAYS_MAX: u32 = 36_500;

/// How long things are kept, in days; 0: for ever.
#[derive(Debug, Clone, Copy)]
pub struct RetentionConfig {
    /// Messages.
    pub message_days: u32,
    /// Lines of the audit trail.
    pub audit_days: u32,
}

impl RetentionConfig {
    pub(super) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            message_days: layers.number("MESSAGE_RETENTION_DAYS", 0, DAYS_MAX)?,
            audit_days: layers.number("AUDIT_RETENTION_DAYS", 0, DAYS_MAX)?,
        })
    }
}
