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
        let cost_us = draw.cost_us.max(1);
        let full_at_us = self.full_at_us.entry(user.clone()).or_insert(now_us);
        let owed_us = cost_us.saturating_mul(u64::from(draw.owed));
        let latest_us = now_us + draw.burst_us;
        *full_at_us = (*full_at_us).max(now_us).saturating_add(owed_us).min(latest_us);
        let affordable = (latest_us - *full_at_us) / cost_us;
        let granted = u32::try_from(affordable).unwrap_or(u32::MAX).min(draw.wanted);
        if granted > 0 {
            *full_at_us += u64::from(granted) * cost_us;
            return Grant::Granted(granted);
        }
        let wanted_us = cost_us.saturating_mul(u64::from(draw.wanted));
        let wait_us = full_at_us.saturating_add(wanted_us).saturating_sub(latest_us);
        Grant::Refused { wait_ms: wait_us.div_ceil(1000).max(1) }
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
