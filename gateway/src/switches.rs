//! Switches a mechanism off, so that `loadtest/necessity.sh` can show that a test fails without it (NOLOSS.md).
//!
//! Only in debug builds, by the environment variable `PARLEY_OFF` (names, separated by commas). In a release nothing is ever
//! off, and the optimiser leaves no trace of the question.

/// Whether the mechanism `name` is off.
#[cfg(debug_assertions)]
#[must_use]
pub fn off(name: &str) -> bool {
    use std::sync::OnceLock;
    static OFF: OnceLock<String> = OnceLock::new();
    let off = OFF.get_or_init(|| std::env::var("PARLEY_OFF").unwrap_or_default());
    !off.is_empty() && off.split(',').any(|known| known == name)
}

/// Whether the mechanism `name` is off: never.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn off(_name: &str) -> bool {
    false
}
