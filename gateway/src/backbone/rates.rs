//! Users' allowances of commands (`chat:rate:<user>`). Each user has one, from which all nodes draw.

use async_trait::async_trait;
use shared::UserId;

use super::BackboneError;

/// A draw on a user's allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The cost of one command, in microseconds: a second divided by the rate.
    pub cost_us: u64,
    /// The most that may be spent at once, in microseconds.
    pub burst_us: u64,
    /// How many commands are asked for.
    pub wanted: u32,
    /// How many commands the node let pass before without a draw. They are charged first.
    pub owed: u32,
}

/// The outcome of a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// So many commands may pass: at least one, at most what was wanted.
    Granted(u32),
    /// No command may pass. All that were wanted could pass after so many milliseconds.
    Refused {
        /// At least 1.
        wait_ms: u64,
    },
}

/// The allowances of users.
#[async_trait]
pub trait Rates: Send + Sync {
    /// Draws on a user's allowance, by the backbone's own clock. An unused allowance is whole.
    async fn draw(&self, user: &UserId, draw: Draw) -> Result<Grant, BackboneError>;
}
