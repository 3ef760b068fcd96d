//! The seed of a run. All that a scenario draws follows from it, so that a run that failed can be drawn again.
//!
//! Each actor has a generator of its own, derived from the seed and the actor's number. So the order in which tasks run
//! doesn't change what any of them draws.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

/// The seed of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Seed(u64);

/// An actor of a run that draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The workload: who writes to whom, from which device.
    Workload,
    /// The device with this number in the run: all of its waits.
    Device(usize),
}

impl Seed {
    /// A random seed, short enough to be typed.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random::<u32>().into())
    }

    /// The generator of an actor.
    #[must_use]
    pub fn generator(self, actor: Actor) -> StdRng {
        let (kind, number) = match actor {
            Actor::Workload => (0_u64, 0),
            Actor::Device(number) => (1, number as u64),
        };
        // The generator is a cipher whose key this is: keys that differ in one bit give unrelated streams.
        let mut key = [0; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([self.0, kind, number]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        StdRng::from_seed(key)
    }
}

impl FromStr for Seed {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn an_actor_draws_the_same_from_one_seed_and_actors_and_seeds_differ() {
        let draw = |seed: &str, actor| seed.parse::<Seed>().expect("a seed").generator(actor).random::<u64>();
        assert_eq!(draw("7", Actor::Device(3)), draw("7", Actor::Device(3)));
        let all = [
            draw("7", Actor::Workload),
            draw("7", Actor::Device(0)),
            draw("7", Actor::Device(1)),
            draw("8", Actor::Workload),
            draw("8", Actor::Device(0)),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
    }
}
