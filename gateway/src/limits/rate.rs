//! A rate with a burst, in one number (GCRA): the time at which the allowance is whole again.

/// How often something may happen. Times are microseconds of the process's clock.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    cost_us: u64,
    burst_us: u64,
}

impl Rate {
    /// One in `cost_us`, and at once as many as fit into `burst_us`; a cost of 0 is no limit.
    #[must_use]
    pub const fn new(cost_us: u64, burst_us: u64) -> Self {
        Self { cost_us, burst_us }
    }

    /// At most `count` a second and twice that at once; 0: no limit.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        if count == 0 { Self::new(0, 0) } else { Self::new(1_000_000 / count as u64, 2_000_000) }
    }

    /// At most `count` a second and `burst` seconds' worth at once; 0: no limit.
    #[must_use]
    pub const fn with_burst(count: u32, burst: u64) -> Self {
        if count == 0 { Self::new(0, 0) } else { Self::new(1_000_000 / count as u64, burst * 1_000_000) }
    }

    /// The cost of one, in microseconds.
    #[must_use]
    pub const fn cost_us(self) -> u64 {
        self.cost_us
    }

    /// The burst, in microseconds.
    #[must_use]
    pub const fn burst_us(self) -> u64 {
        self.burst_us
    }

    /// Takes `count` from an allowance that is whole at `full_at_us`: when it is whole then.
    ///
    /// # Errors
    /// There is less left: how many microseconds until there is enough.
    pub const fn take(self, count: u64, full_at_us: u64, now_us: u64) -> Result<u64, u64> {
        if self.cost_us == 0 {
            return Ok(full_at_us);
        }
        let full_at_us = self.after(count, full_at_us, now_us);
        let latest_us = now_us.saturating_add(self.burst_us);
        if full_at_us > latest_us { Err(full_at_us - latest_us) } else { Ok(full_at_us) }
    }

    /// When the allowance is whole after `count` were taken.
    pub(super) const fn after(self, count: u64, full_at_us: u64, now_us: u64) -> u64 {
        let from_us = if full_at_us > now_us { full_at_us } else { now_us };
        from_us.saturating_add(self.cost_us.saturating_mul(count))
    }
}

/// One allowance; whole at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at_us: u64,
}

impl Bucket {
    /// Takes one.
    ///
    /// # Errors
    /// There is none left: how many microseconds until there is.
    pub const fn take(&mut self, rate: Rate, now_us: u64) -> Result<(), u64> {
        match rate.take(1, self.full_at_us, now_us) {
            Ok(full_at_us) => {
                self.full_at_us = full_at_us;
                Ok(())
            }
            Err(wait_us) => Err(wait_us),
        }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_whole(&self, now_us: u64) -> bool {
        self.full_at_us <= now_us
    }

    /// Takes `count`, also if there is less: how many microseconds until that is made up for.
    pub const fn overdraw(&mut self, rate: Rate, count: u64, now_us: u64) -> u64 {
        self.full_at_us = rate.after(count, self.full_at_us, now_us);
        self.full_at_us.saturating_sub(now_us.saturating_add(rate.burst_us))
    }

    /// Takes a turn that costs `count`, as soon as the turns before it are made up for: in how many microseconds.
    ///
    /// # Errors
    /// That is in more than `within_us`: by how much.
    pub const fn queue(&mut self, rate: Rate, count: u64, within_us: u64, now_us: u64) -> Result<u64, u64> {
        let wait_us = self.full_at_us.saturating_sub(now_us.saturating_add(rate.burst_us));
        if wait_us > within_us {
            return Err(wait_us - within_us);
        }
        self.full_at_us = rate.after(count, self.full_at_us, now_us);
        Ok(wait_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_twice_the_rate_then_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_second(50));
        let granted = (0..150).filter(|_| bucket.take(rate, 0).is_ok()).count();
        assert_eq!(granted, 100);
        assert_eq!(bucket.take(rate, 0), Err(20_000));
        assert_eq!(bucket.take(rate, 20_000), Ok(()));
        assert_eq!(bucket.take(rate, 20_000), Err(20_000));
        let granted = (0..100).filter(|n| bucket.take(rate, 1_000_000 + n).is_ok()).count();
        assert_eq!(granted, 49);
    }

    #[test]
    fn whoever_overdraws_and_waits_keeps_to_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(200, 1_000_000));
        let (started_us, mut taken) = (60_000_000, 0);
        let mut now_us = started_us;
        while now_us < started_us + 10_000_000 {
            now_us += bucket.overdraw(rate, 1_000, now_us);
            taken += 1_000;
        }
        assert_eq!(taken, 11 * 5_000);
    }

    #[test]
    fn zero_is_no_limit() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_second(0));
        assert!((0..10_000).all(|_| bucket.take(rate, 0).is_ok()));
        assert_eq!(bucket.overdraw(rate, 10_000, 0), 0);
    }
}
