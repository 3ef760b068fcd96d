//! How a lane gets on: how long its batches take, and whether it may take one more item. Values only.
//!
//! Two cases are told apart. A store that is slow completes batches; then an item waits for at most a second. A store that
//! stands still completes none; then what waits is kept for it, for there may be an answer within the five seconds.

use std::time::Duration;

use tokio::time::Instant;

use crate::overload::HEAD_WAIT_MAX;

/// An item that would wait for longer is not taken. The rest of the second is for its own batch, the acknowledgement, and
/// batches that take longer than those before them.
const EXPECTED_WAIT_MAX: Duration = Duration::from_millis(600);
/// A batch that takes longer stands still for the rest of its time, which doesn't count as waiting.
const BATCH_USUAL_MAX: Duration = Duration::from_millis(500);
/// A batch's share in the smoothed time, as a divisor.
const SMOOTHING: u32 = 8;

/// The state of a lane.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// How long a batch takes, smoothed.
    batch: Duration,
    /// When the batch under way began, and when its oldest item arrived.
    under_way: Option<(Instant, Instant)>,
    /// For how long the lane has stood still, up to the last batch.
    stood: Duration,
    /// Whether items wait until their callers give up.
    is_patient: bool,
}

/// An item's place in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) arrived: Instant,
    /// For how long the lane had stood still until then.
    stood: Duration,
}

/// Why an item is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It would wait for too long.
    TooMany,
    /// The store stands still.
    StandsStill,
}

impl Flow {
    /// A lane whose items wait until their callers give up: those bound the work in other ways.
    pub(super) fn patient() -> Self {
        Self { is_patient: true, ..Self::default() }
    }

    /// Takes an item behind so many batches, unless it would wait for too long.
    pub(super) fn take(&self, batches_ahead: f64, now: Instant) -> Result<Standing, NotTaken> {
        let head_waits = self.under_way.map_or(Duration::ZERO, |(_, oldest)| now.saturating_duration_since(oldest));
        let batches = batches_ahead + f64::from(u8::from(self.under_way.is_some()));
        let is_in_time = head_waits <= HEAD_WAIT_MAX && self.batch.mul_f64(batches) <= EXPECTED_WAIT_MAX;
        if is_in_time || self.is_patient {
            return Ok(Standing { arrived: now, stood: self.stood_until(now) });
        }
        let stands_still = self.stood_until(now) > self.stood;
        Err(if stands_still { NotTaken::StandsStill } else { NotTaken::TooMany })
    }

    /// A batch is begun, whose oldest item arrived then.
    pub(super) fn begin(&mut self, oldest: Instant, now: Instant) {
        self.under_way = Some((now, oldest));
    }

    /// It is done.
    pub(super) fn end(&mut self, now: Instant) {
        self.stood = self.stood_until(now);
        if let Some((begun, _)) = self.under_way.take() {
            let took = now.saturating_duration_since(begun).min(HEAD_WAIT_MAX);
            self.batch = self.batch - self.batch / SMOOTHING + took / SMOOTHING;
        }
    }

    /// When an item has waited for too long, as it looks at `now`.
    pub(super) fn due(&self, item: Standing, now: Instant) -> Instant {
        if self.is_patient {
            return now + HEAD_WAIT_MAX;
        }
        item.arrived + HEAD_WAIT_MAX + self.stood_until(now).saturating_sub(item.stood)
    }

    fn stood_until(&self, now: Instant) -> Duration {
        let under_way = self.under_way.map_or(Duration::ZERO, |(begun, _)| now.saturating_duration_since(begun));
        self.stood + under_way.saturating_sub(BATCH_USUAL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A lane whose batches take so long.
    fn steady(took: Duration, start: Instant) -> (Flow, Instant) {
        (0..100).fold((Flow::default(), start), |(mut flow, now), _| {
            flow.begin(now, now);
            flow.end(now + took);
            (flow, now + took)
        })
    }

    #[test]
    fn an_item_is_taken_if_its_turn_comes_in_time() {
        let now = Instant::now();
        assert!(Flow::default().take(30.0, now).is_ok(), "nothing is known yet");
        let (patient, then) = (0..9).fold((Flow::patient(), now), |(mut flow, now), _| {
            flow.begin(now, now);
            flow.end(now + ms(900));
            (flow, now + ms(900))
        });
        let item = patient.take(99.0, then).expect("it waits for however long");
        assert!(patient.due(item, then + ms(4_000)) > then + ms(4_000));
        let (mut flow, now) = steady(ms(100), now);
        assert!(flow.take(5.9, now).is_ok() && flow.take(6.1, now).is_err());
        flow.begin(now, now);
        assert!(flow.take(4.9, now).is_ok() && flow.take(5.1, now).is_err(), "the batch under way counts");
        assert_eq!(flow.take(9.0, now).err(), Some(NotTaken::TooMany));
        assert!(flow.take(0.0, now + ms(1_000)).is_ok());
        assert_eq!(flow.take(0.0, now + ms(1_001)).err(), Some(NotTaken::StandsStill));
        flow.end(now + ms(3_000));
        assert!(flow.take(2.0, now + ms(3_000)).is_ok(), "one pause is not what batches take");
    }

    #[test]
    fn an_item_is_due_after_a_second_unless_the_store_stands_still() {
        let (mut flow, now) = steady(ms(100), Instant::now());
        let item = flow.take(1.0, now).expect("taken");
        assert_eq!(flow.due(item, now + ms(900)), now + ms(1_000));
        flow.begin(now, now);
        assert_eq!(flow.due(item, now + ms(400)), now + ms(1_000), "batches are only slow");
        assert_eq!(flow.due(item, now + ms(2_500)), now + ms(3_000), "it stood still for two seconds");
        flow.end(now + ms(2_500));
        assert_eq!(flow.due(item, now + ms(2_900)), now + ms(3_000), "that stays");
        let later = flow.take(0.0, now + ms(2_600)).expect("taken");
        assert_eq!(flow.due(later, now + ms(2_900)), now + ms(3_600));
    }
}
