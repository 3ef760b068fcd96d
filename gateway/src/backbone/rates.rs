//! Users' allowances of commands (`chat:rate:<user>`). Each user has one, from which all nodes draw.
//!
//! A request may count for more commands than an allowance ever holds. So it is let through when half a burst is there, and the
//! allowance is in debt afterwards.

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
    /// The most by which the allowance may be in debt, in microseconds; never less than `burst_us`.
    pub debt_us: u64,
    /// How many commands are asked for.
    pub wanted: u32,
    /// How many of them there have to be: with fewer, none is granted. Half a burst is enough for any number.
    pub least: u32,
    /// How many commands the node let pass before without a draw. They are charged first.
    pub owed: u32,
}

impl Draw {
    /// The outcome at `now_us` of a draw on an allowance that is whole at `full_at_us`, and when it is whole afterwards. The
    /// script on Redis does the same.
    pub(super) fn decide(self, full_at_us: u64, now_us: u64) -> (u64, Grant) {
        let cost_us = self.cost_us.max(1);
        let us = |commands: u32| cost_us.saturating_mul(u64::from(commands));
        let latest_us = now_us.saturating_add(self.burst_us);
        let full_at_us = full_at_us.max(now_us).saturating_add(us(self.owed)).min(now_us.saturating_add(self.debt_us));
        let half = u32::try_from(self.burst_us / 2 / cost_us).unwrap_or(u32::MAX).max(1);
        let affordable = u32::try_from(latest_us.saturating_sub(full_at_us) / cost_us).unwrap_or(u32::MAX);
        if affordable >= self.least.min(half).max(1) {
            let granted = affordable.min(self.wanted).max(self.least);
            return (full_at_us.saturating_add(us(granted)), Grant::Granted(granted));
        }
        let enough_us = full_at_us.saturating_add(us(self.wanted.max(self.least).min(half)));
        let wait_ms = enough_us.saturating_sub(latest_us).div_ceil(1000).max(1);
        (full_at_us, Grant::Refused { wait_ms })
    }
}

/// The outcome of a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// So many commands may pass: at least the least, at most what was wanted, if that is more.
    Granted(u32),
    /// No command may pass. All that were wanted, or half a burst, could pass after so many milliseconds.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred a second, two hundred at once.
    fn draw(wanted: u32, least: u32) -> Draw {
        Draw { cost_us: 10_000, burst_us: 2_000_000, debt_us: 100_000_000, wanted, least, owed: 0 }
    }

    #[test]
    fn what_is_larger_than_a_burst_is_let_through_at_half_a_burst_and_paid_afterwards() {
        let (full_at_us, grant) = draw(10, 1_010).decide(0, 5_000_000);
        assert_eq!((full_at_us, grant), (15_100_000, Grant::Granted(1_010)));
        for (now_us, wait_ms) in [(5_000_000, 8_200), (13_000_000, 200)] {
            assert_eq!(draw(10, 1).decide(full_at_us, now_us).1, Grant::Refused { wait_ms });
        }
        assert_eq!(draw(10, 1).decide(full_at_us, 13_200_000), (15_200_000, Grant::Granted(10)));
        // The next one of that size has to wait for half a burst, and gets through when it waits as long as it is told to.
        let (_, grant) = draw(10, 1_010).decide(full_at_us, 13_200_000);
        assert_eq!(grant, Grant::Refused { wait_ms: 900 });
        assert_eq!(draw(10, 1_010).decide(full_at_us, 14_100_000).1, Grant::Granted(1_010));
    }

    #[test]
    fn fewer_than_the_least_are_none() {
        let full_at_us = 5_000_000 + 2_000_000 - 30_000;
        assert_eq!(draw(10, 3).decide(full_at_us, 5_000_000).1, Grant::Granted(3));
        assert_eq!(draw(10, 4).decide(full_at_us, 5_000_000), (full_at_us, Grant::Refused { wait_ms: 70 }));
        let owing = Draw { owed: 2, ..draw(10, 1) };
        assert_eq!(owing.decide(full_at_us, 5_000_000).1, Grant::Granted(1));
        let nonsense = draw(10, 1).decide(u64::MAX, 5_000_000);
        assert_eq!(nonsense, (105_000_000, Grant::Refused { wait_ms: 98_100 }), "a debt has an end");
    }
}
