//! What each user may still ask of the whole cluster (`chat:rate:<user>`): one allowance that all nodes draw from.

use async_trait::async_trait;
use shared::UserId;

use super::BackboneError;

/// A draw on a user's allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// What one command costs, in microseconds: a second divided by the rate.
    pub cost_us: u64,
    /// What may be spent at once, in microseconds.
    pub burst_us: u64,
    /// Commands that are asked for.
    pub wanted: u32,
    /// Commands that were let through before without being asked for: they are charged first.
    pub owed: u32,
}

/// What a draw gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// So many commands may pass: at least one, at most what was wanted.
    Granted(u32),
    /// None may; all that was wanted could be had after so many milliseconds.
    Refused {
        /// At least 1.
        wait_ms: u64,
    },
}

/// The allowances of users.
#[async_trait]
pub trait Rates: Send + Sync {
    /// Draws on a user's allowance, by the backbone's own clock. An allowance that nobody drew on is whole.
    async fn draw(&self, user: &UserId, draw: Draw) -> Result<Grant, BackboneError>;
}
