//! A seeded model of delivery: gates, registry, fan-out and heals of two nodes under random schedules of pushes that are
//! lost, doubled or late, of servers that change, logs that vanish or are trimmed, slow readers and reconnects.
//!
//! The parts under test are the node's own; the backbone's log and the clients are values in one thread, so a seed is a
//! schedule. It fails without each of these (`PARLEY_OFF`): gate, once, epoch-resync, hole-resync, direct-position,
//! opened-line. `MODEL_SEED=7` repeats one schedule and prints its steps; `MODEL_SCHEDULES=1000000` tries that many.

#![cfg(test)]

mod backbone;
mod client;
mod node;
mod world;

use std::ops::Range;

use shared::UserId;
use world::World;

/// Schedules that are tried if nothing else is said.
const SCHEDULES: u64 = 10_000;
/// Steps of a schedule before it is brought to rest.
const STEPS: usize = 60;

/// Whose sockets they are: users have nothing in common, so one is enough.
fn user() -> UserId {
    UserId::parse("ann").expect("an id")
}

/// One schedule. `print` tells its steps.
fn run(seed: u64, print: bool) -> Result<(), String> {
    let mut world = World::new(seed, print);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.come_to_rest()
}

/// The first of these schedules that fails, and why.
fn first_failure(seeds: Range<u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| run(seed, false).err().map(|fault| (seed, fault)))
}

#[test]
fn every_socket_is_given_each_event_in_order_and_once_or_is_told() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    if let Some(seed) = number("MODEL_SEED") {
        run(seed, true).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        return;
    }
    let schedules = number("MODEL_SCHEDULES").unwrap_or(SCHEDULES);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let share = schedules.div_ceil(threads);
    let failures = std::thread::scope(|scope| {
        let part =
            |thread: u64| scope.spawn(move || first_failure(thread * share..((thread + 1) * share).min(schedules)));
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts.into_iter().filter_map(|part| part.join().expect("a thread")).collect::<Vec<_>>()
    });
    if let Some((seed, fault)) = failures.into_iter().min_by_key(|(seed, _)| *seed) {
        panic!("{fault}\nrepeat it with: MODEL_SEED={seed} cargo test -p gateway --test model -- --nocapture");
    }
}
