//! Trusted proxies, and how they report a client's address.

use super::error::{ConfigError, fault};
use super::layers::Layers;
use super::networks::Networks;

/// The proxies before the public listener.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Proxies whose statement about a client's address counts.
    pub trusted: Networks,
    /// Whether each of their connections begins with a PROXY header.
    pub proxy_protocol: bool,
}

impl Proxies {
    pub(super) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        const TRUSTED: &str = "TRUSTED_PROXIES";
        const HEADER: &str = "PROXY_PROTOCOL";
        let trusted = Networks::parse(&layers.list(TRUSTED)).map_err(|why| fault(TRUSTED, why))?;
        let proxy_protocol = layers.boolean(HEADER)?;
        if proxy_protocol && trusted.is_empty() {
            return Err(fault(HEADER, format!("works only with trusted proxies; list them in {TRUSTED}")));
        }
        Ok(Self { trusted, proxy_protocol })
    }
}
