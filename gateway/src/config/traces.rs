//! The collector of traces.

use super::error::{ConfigError, fault};
use super::layers::Layers;

/// Traces.
#[derive(Debug, Clone)]
pub struct TracesConfig {
    /// The collector's URL, without `/v1/traces`.
    pub url: String,
    /// Which share of the messages is traced, 0 to 1.
    pub share: f64,
}

impl TracesConfig {
    /// `None` without a collector: nothing is traced.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, ConfigError> {
        const URL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const SHARE: &str = "OTEL_TRACES_SAMPLER_ARG";
        let text = layers.get(SHARE).unwrap_or_default();
        let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let share =
            share.ok_or_else(|| fault(SHARE, format!("{text:?} is invalid; give a number from 0 to 1, like 0.01")))?;
        match layers.get(URL) {
            None => Ok(None),
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Some(Self { url: url.to_owned(), share }))
            }
            Some(_) => Err(fault(URL, "must look like http://host:4318 (OTLP over HTTP, not gRPC)")),
        }
    }
}
