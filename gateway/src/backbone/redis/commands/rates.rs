//! Users' allowances on Redis: one script, by Redis' clock, so that the nodes' clocks don't matter.

use async_trait::async_trait;
use shared::UserId;

use crate::backbone::redis::{RedisBackbone, scripts};
use crate::backbone::{BackboneError, Draw, Grant, Rates};

#[async_trait]
impl Rates for RedisBackbone {
    async fn draw(&self, user: &UserId, draw: Draw) -> Result<Grant, BackboneError> {
        let Draw { cost_us, burst_us, debt_us, wanted, least, owed } = draw;
        let mut call = scripts::call(&self.link.scripts.draw, &[self.link.keys().rate(user)]);
        call.arg(cost_us).arg(burst_us).arg(wanted).arg(owed).arg(least).arg(debt_us);
        let (granted, wait_ms): (u32, u64) = self.link.run_script(&call).await?;
        Ok(if granted > 0 { Grant::Granted(granted) } else { Grant::Refused { wait_ms } })
    }
}
