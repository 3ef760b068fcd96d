//! From text to typed values, with faults that say what would be right.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;

use super::ConfigError;

/// A fault of a setting.
pub(super) fn fault(name: &'static str, fault: impl Into<String>) -> ConfigError {
    ConfigError::Setting { name, fault: fault.into() }
}

/// A whole number between `least` and `most`.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    name: &'static str,
    value: Option<&str>,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    let text = value.unwrap_or_default();
    match text.trim().parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(fault(name, format!("{text:?} won't do; give a whole number from {least} to {most}"))),
    }
}

/// `true` or `false`.
pub(super) fn boolean(name: &'static str, value: Option<&str>) -> Result<bool, ConfigError> {
    match value.unwrap_or_default().trim() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        text => Err(fault(name, format!("{text:?} won't do; give true or false"))),
    }
}

/// Comma-separated values without the empty ones.
pub(super) fn list(value: Option<&str>) -> Vec<String> {
    let parts = value.unwrap_or_default().split(',').map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A cookie's name (RFC 6265 §4.1.1).
pub(super) fn cookie_name(name: &'static str, value: Option<&str>) -> Result<String, ConfigError> {
    let text = value.unwrap_or_default();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 128 || !text.bytes().all(token) {
        return Err(fault(name, format!("{text:?} is no name of a cookie; give one like session_id")));
    }
    if text == "token" {
        return Err(fault(name, "that cookie holds a token; give another name, like session_id"));
    }
    Ok(text.to_owned())
}

/// A URL that requests go to.
pub(super) fn url(name: &'static str, value: Option<&str>) -> Result<Option<Uri>, ConfigError> {
    let Some(text) = value else { return Ok(None) };
    let url: Uri = text.parse().map_err(|_| fault(name, "is no URL; give one like https://host/path"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
        return Err(fault(name, "must begin with https:// (or http://) and a host"));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(fault(name, "may hold no user and no password"));
    }
    Ok(Some(url))
}

/// A time like `10s` or `500ms`, between `least` and `most`.
pub(super) fn duration(
    name: &'static str,
    value: Option<&str>,
    least: Duration,
    most: Duration,
) -> Result<Duration, ConfigError> {
    let text = value.unwrap_or_default().trim();
    let parsed = match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs),
    };
    let parsed = parsed.ok_or_else(|| fault(name, format!("{text:?} won't do; give a time like 10s or 500ms")))?;
    if parsed < least || parsed > most {
        return Err(fault(name, format!("{text:?} won't do; give a time from {least:?} to {most:?}")));
    }
    Ok(parsed)
}
