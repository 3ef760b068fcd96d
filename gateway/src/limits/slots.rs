//! A rate for each of any number of keys, in a table that never grows: a fixed number of slots, each with one
//! allowance. A key has two slots, chosen by a hash that clients can't predict, and passes if one of them has something
//! left.
//!
//! So a key alone always gets its rate. It is limited without fault only if other keys have used up both of its slots.
//! With k such keys among n slots, that happens to (2k/n)² of the keys. An unused slot is whole again after its burst.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Rate;

/// Slots of a table: 512 KiB.
const SLOTS: usize = 1 << 16;

/// The table.
pub struct Slots {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
    rate: Rate,
}

impl Slots {
    /// A table in which every key has this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new(), rate }
    }

    /// Takes one of the key's allowance.
    ///
    /// # Errors
    /// There is none left: how many microseconds until there is.
    pub fn take<K: Hash + ?Sized>(&self, key: &K, now_us: u64) -> Result<(), u64> {
        self.take_many(key, 1, now_us)
    }

    /// Takes `count` of the key's allowance, or nothing.
    ///
    /// # Errors
    /// There is less left: how many microseconds until there is enough. An allowance that never holds so many is never
    /// enough.
    pub fn take_many<K: Hash + ?Sized>(&self, key: &K, count: u64, now_us: u64) -> Result<(), u64> {
        let take = |full_at_us| self.rate.take(count, full_at_us, now_us);
        let [one, two] = self.places(key).map(|place| self.change(place, take));
        match (one, two) {
            (Ok(()), _) | (_, Ok(())) => Ok(()),
            (Err(one), Err(two)) => Err(one.min(two)),
        }
    }

    /// Takes `count` of the key's allowance, also if there is less.
    pub fn overdraw<K: Hash + ?Sized>(&self, key: &K, count: u64, now_us: u64) {
        for place in self.places(key) {
            // It is taken in any case.
            let _ = self.change(place, |full_at_us| Ok(self.rate.after(count, full_at_us, now_us)));
        }
    }

    fn places<K: Hash + ?Sized>(&self, key: &K) -> [usize; 2] {
        let hash = self.hasher.hash_one(key);
        [hash, hash >> 32].map(|hash| usize::try_from(hash & (SLOTS as u64 - 1)).unwrap_or_default())
    }

    fn change(&self, place: usize, change: impl Fn(u64) -> Result<u64, u64>) -> Result<(), u64> {
        let Some(slot) = self.slots.get(place) else { return Ok(()) };
        let mut full_at_us = slot.load(Ordering::Relaxed);
        loop {
            let next_us = change(full_at_us)?;
            match slot.compare_exchange_weak(full_at_us, next_us, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at_us = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_rate_and_a_hundred_abusers_stop_nobody_else() {
        let slots = Slots::new(Rate::per_second(5));
        for key in 0..100_u32 {
            let granted = (0..50).filter(|_| slots.take(&key, 1_000_000).is_ok()).count();
            // More only if its slots are two that others have taken from less.
            assert!((10..=20).contains(&granted), "{granted}");
            assert!(slots.take(&key, 1_000_000).is_err_and(|wait_us| wait_us > 0 && wait_us <= 200_000));
        }
        let refused = (1000..11_000_u32).filter(|key| slots.take(key, 1_000_000).is_err()).count();
        assert!(refused < 50, "of 10,000 others some (200 / 65,536)², not {refused}");
        assert!((0..100_u32).all(|key| slots.take(&key, 4_000_000).is_ok()), "whole again after the burst");
    }

    #[test]
    fn many_are_taken_together_or_not_at_all_and_a_debt_is_made_up_for() {
        let slots = Slots::new(Rate::per_second(5));
        assert!(slots.take_many(&"a", 11, 1_000_000).is_err(), "more than it ever holds");
        assert_eq!(slots.take_many(&"a", 8, 1_000_000), Ok(()));
        assert_eq!(slots.take_many(&"a", 3, 1_000_000), Err(200_000));
        assert_eq!(slots.take_many(&"a", 2, 1_000_000), Ok(()));
        slots.overdraw(&"a", 5, 1_000_000);
        assert_eq!(slots.take(&"a", 2_000_000), Err(200_000));
        assert_eq!(slots.take(&"a", 2_200_000), Ok(()));
    }
}
