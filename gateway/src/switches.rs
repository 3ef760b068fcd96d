//! Switches off one mechanism, so that `loadtest/necessity.sh` can show that a test fails without it (NOLOSS.md).
//! It offers [`off`], which reads `PARLEY_OFF` (names, separated by commas) in debug builds.
//! It never does anything in a release build: there the calls are compiled away.

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
