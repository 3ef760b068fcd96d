//! An open-loop schedule: everything is due at its own moment, whatever the deployment does, and latency counts from then.
//! A deployment that stalls can't slow down the load that measures it.

use std::time::{Duration, Instant};

use super::micros;

/// How long after it is made a schedule begins.
const LEAD: Duration = Duration::from_millis(50);

/// Number n is due at `start + n / rate`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    rate: f64,
}

impl Schedule {
    /// So many a second, from shortly after now.
    pub(super) fn soon(rate: f64) -> Self {
        Self { start: Instant::now() + LEAD, rate }
    }

    /// When number 0 is due.
    pub(super) fn start(self) -> Instant {
        self.start
    }

    /// When this number is due.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 numbers")]
    pub(super) fn moment(self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Microseconds since this number was due.
    pub(super) fn since_us(self, number: u64) -> u64 {
        micros(Instant::now().saturating_duration_since(self.moment(number)))
    }

    /// How many are due in this time.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive numbers"
    )]
    pub(super) fn total(self, seconds: u64) -> u64 {
        (self.rate * seconds as f64) as u64
    }

    /// Does the numbers below `total`, each as soon as it is due.
    pub(super) async fn run(self, total: u64, mut act: impl FnMut(u64)) {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        let mut next = 0;
        while next < total {
            tick.tick().await;
            while next < total && self.moment(next) <= Instant::now() {
                act(next);
                next += 1;
            }
        }
    }
}

/// Reads a rate, in events per second.
///
/// # Errors
/// No number, or none that a schedule can be made of.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.01..=1e6).contains(&rate) { Ok(rate) } else { Err("a rate is between 0.01 and 1,000,000 a second".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_late_is_caught_up_and_counts_from_when_it_was_due() {
        let schedule = Schedule::soon(1000.0);
        let mut done = Vec::new();
        schedule
            .run(schedule.total(1) / 10, |number| {
                if number == 0 {
                    std::thread::sleep(Duration::from_millis(60));
                }
                done.push((number, schedule.since_us(number)));
            })
            .await;
        assert_eq!(done.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(done[1].1 >= 50_000, "number 1 was due while number 0 held everything up: {:?}", done[1]);
        assert!(schedule.start().elapsed() >= Duration::from_millis(99));
    }

    #[test]
    fn a_rate_is_positive_and_finite() {
        assert_eq!(rate("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "inf", "NaN", "fast"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
