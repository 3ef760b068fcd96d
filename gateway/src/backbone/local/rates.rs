//! Users' allowances in this process: the same arithmetic as on Redis.

use std::collections::HashMap;
use std::time::Instant;

use async_trait::async_trait;
use shared::UserId;

use super::LocalBackbone;
use crate::backbone::{BackboneError, Draw, Grant, Rates};

/// Allowances that aren't whole.
pub(super) struct Allowances {
    start: Instant,
    /// When each is whole again, in microseconds since `start`.
    full_at_us: HashMap<UserId, u64>,
}

impl Allowances {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), full_at_us: HashMap::new() }
    }

    /// Forgets those that are whole again.
    pub(super) fn sweep(&mut self) {
        let now_us = self.now_us();
        self.full_at_us.retain(|_, full_at_us| *full_at_us > now_us);
    }

    fn draw(&mut self, user: &UserId, draw: Draw) -> Grant {
        let now_us = self.now_us();
        let full_at_us = self.full_at_us.entry(user.clone()).or_insert(now_us);
        let (next_us, grant) = draw.decide(*full_at_us, now_us);
        *full_at_us = next_us;
        grant
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX / 2)
    }
}

#[async_trait]
impl Rates for LocalBackbone {
    async fn draw(&self, user: &UserId, draw: Draw) -> Result<Grant, BackboneError> {
        Ok(self.shared.allowances.lock().draw(user, draw))
    }
}
