//! Parses one setting each: from text to a typed value, or to a fault that says which form is valid.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;

use super::error::{ConfigError, fault};
use super::layers::Layers;

/// The fewest bytes of a secret.
const SECRET_BYTES_MIN: usize = 16;

impl Layers {
    /// A whole number between `least` and `most`.
    pub(super) fn number<T>(&self, name: &'static str, least: T, most: T) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        self.number_if_set(name, least, most)?.ok_or_else(|| fault(name, "is not set"))
    }

    /// The same, for a setting without a default.
    pub(super) fn number_if_set<T>(&self, name: &'static str, least: T, most: T) -> Result<Option<T>, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.trim().parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(Some(number)),
            _ => Err(fault(name, format!("{text:?} is invalid; give a whole number from {least} to {most}"))),
        }
    }

    /// A whole number of seconds between `least` and `most`.
    pub(super) fn seconds(&self, name: &'static str, least: u64, most: u64) -> Result<Duration, ConfigError> {
        self.number(name, least, most).map(Duration::from_secs)
    }

    /// A time like `10s` or `500ms`, between `least` and `most`.
    pub(super) fn duration(
        &self,
        name: &'static str,
        least: Duration,
        most: Duration,
    ) -> Result<Duration, ConfigError> {
        let text = self.get(name).unwrap_or_default().trim();
        let parsed = match text.strip_suffix("ms") {
            Some(millis) => millis.parse().ok().map(Duration::from_millis),
            None => text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs),
        };
        let parsed =
            parsed.ok_or_else(|| fault(name, format!("{text:?} is invalid; give a time like 10s or 500ms")))?;
        if parsed < least || parsed > most {
            return Err(fault(name, format!("{text:?} is invalid; give a time from {least:?} to {most:?}")));
        }
        Ok(parsed)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.get(name).unwrap_or_default().trim() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            text => Err(fault(name, format!("{text:?} is invalid; give true or false"))),
        }
    }

    /// Any text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// Comma-separated values without the empty ones.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let parts = self.get(name).unwrap_or_default().split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// A secret that is long enough.
    pub(super) fn secret(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        self.get(name).map(|secret| checked_secret(name, secret.to_owned())).transpose()
    }

    /// Comma-separated secrets, each of them long enough.
    pub(super) fn secrets(&self, name: &'static str) -> Result<Vec<String>, ConfigError> {
        self.list(name).into_iter().map(|secret| checked_secret(name, secret)).collect()
    }

    /// A URL that requests go to.
    pub(super) fn url(&self, name: &'static str) -> Result<Option<Uri>, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let url: Uri = text.parse().map_err(|_| fault(name, "is no URL; give one like https://host/path"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
            return Err(fault(name, "must begin with https:// (or http://) and a host"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(fault(name, "must not contain a user or a password"));
        }
        Ok(Some(url))
    }
}

fn checked_secret(name: &'static str, secret: String) -> Result<String, ConfigError> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(fault(name, "is shorter than 16 bytes; make one with `openssl rand -base64 32`"));
    }
    Ok(secret)
}
