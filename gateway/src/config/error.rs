//! A wrong setting: its name, its fault, and a valid form.

use std::path::PathBuf;

/// A setting that stops the start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A value that can't be used.
    #[error("{name}: {fault}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The fault, and a valid form.
        fault: String,
    },
    /// The file can't be used.
    #[error("--config {path}: {fault}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
}

/// A fault of a setting.
pub(super) fn fault(name: &'static str, fault: impl Into<String>) -> ConfigError {
    ConfigError::Setting { name, fault: fault.into() }
}
