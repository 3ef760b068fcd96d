//! From text to typed values, with faults that say what would be right.

use std::fmt::Display;
use std::str::FromStr;

use super::ConfigError;

/// A fault of a setting.
pub(super) fn fault(name: &'static str, fault: impl Into<String>) -> ConfigError {
    ConfigError::Setting { name, fault: fault.into() }
}

/// A whole number between `least` and `most`.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    name: &'static str,
    value: Option<&str>,
    default: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    let Some(text) = value else { return Ok(default) };
    match text.trim().parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(fault(name, format!("{text:?} won't do; give a whole number from {least} to {most}"))),
    }
}

/// `true` or `false`.
pub(super) fn boolean(name: &'static str, value: Option<&str>, default: bool) -> Result<bool, ConfigError> {
    match value.map(str::trim) {
        None => Ok(default),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(text) => Err(fault(name, format!("{text:?} won't do; give true or false"))),
    }
}

/// Comma-separated values without the empty ones.
pub(super) fn list(value: Option<&str>) -> Vec<String> {
    let parts = value.unwrap_or_default().split(',').map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
