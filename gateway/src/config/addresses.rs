//! The addresses of the listeners, of Redis and of the database. A fault says which form is valid.

use std::net::IpAddr;
use std::path::PathBuf;

use super::Mode;
use super::error::{ConfigError, fault};
use super::layers::Layers;

/// An IP address to listen on.
pub(super) fn host(layers: &Layers, name: &'static str) -> Result<IpAddr, ConfigError> {
    let text = layers.get(name).unwrap_or_default();
    text.parse().map_err(|_| fault(name, format!("{text:?} is not an IP address; give one like 0.0.0.0 or ::1")))
}

/// Where Redis is, and whose certificates prove it.
pub(super) struct RedisAddress {
    /// One server, a Cluster, or what Sentinels name; `None` only in dev.
    pub(super) url: Option<String>,
    /// The authorities that may sign the certificate of a server with TLS.
    pub(super) ca_file: Option<PathBuf>,
}

impl RedisAddress {
    pub(super) fn read(mode: Mode, layers: &Layers) -> Result<Self, ConfigError> {
        let url = redis_url(mode, layers)?;
        let ca_file = redis_ca_file(url.as_deref(), layers)?;
        Ok(Self { url, ca_file })
    }
}

fn redis_url(mode: Mode, layers: &Layers) -> Result<Option<String>, ConfigError> {
    const NAME: &str = "REDIS_URL";
    match layers.get(NAME) {
        Some(url) if url.starts_with("redis-sentinel://") || url.starts_with("rediss-sentinel://") => {
            Ok(Some(url.to_owned()))
        }
        Some(url) if url.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) && !is_cluster(url) => Err(fault(
            NAME,
            "must name each server of a Redis Cluster by a URL of its own: redis://host:port,redis://host:port",
        )),
        Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => Ok(Some(url.to_owned())),
        Some(_) => Err(fault(
            NAME,
            "must look like redis://[:password@]host:port[/database], several of them separated by commas for a Redis \
             Cluster, or redis-sentinel://host:port,host:port/name; for TLS rediss://… or rediss-sentinel://…",
        )),
        None if mode == Mode::Dev => Ok(None),
        None => Err(fault(
            NAME,
            "is not set; `gateway serve` needs Redis, for example redis://127.0.0.1:6379 (to try Parley without, run \
             `gateway dev`)",
        )),
    }
}

/// Whether each of several servers has a URL of its own. A comma elsewhere belongs to a password.
fn is_cluster(url: &str) -> bool {
    let hosts = url.rsplit('@').next().unwrap_or_default();
    hosts.split(',').skip(1).all(|other| other.starts_with("redis://") || other.starts_with("rediss://"))
}

fn redis_ca_file(url: Option<&str>, layers: &Layers) -> Result<Option<PathBuf>, ConfigError> {
    const NAME: &str = "REDIS_CA_FILE";
    let has_tls = url.is_some_and(|url| url.starts_with("rediss://") || url.starts_with("rediss-sentinel://"));
    match layers.get(NAME) {
        Some(_) if !has_tls => Err(fault(
            NAME,
            "has no effect without TLS; give REDIS_URL as rediss://host:port or rediss-sentinel://…, or leave \
             REDIS_CA_FILE out",
        )),
        file => Ok(file.map(PathBuf::from)),
    }
}

/// The store; in memory to try Parley out.
pub(super) fn database_url(mode: Mode, layers: &Layers) -> Result<String, ConfigError> {
    const NAME: &str = "DATABASE_URL";
    let known = ["postgres://", "postgresql://", "sqlite:"];
    match layers.get(NAME) {
        Some(url) if known.iter().any(|scheme| url.starts_with(scheme)) => Ok(url.to_owned()),
        Some(_) => Err(fault(NAME, "must look like postgres://user:password@host/database or sqlite:<file>")),
        None if mode == Mode::Dev => Ok("sqlite::memory:".to_owned()),
        None => Err(fault(
            NAME,
            "is not set; `gateway serve` needs a database, for example postgres://parley@127.0.0.1/parley (to try \
             Parley without, run `gateway dev`)",
        )),
    }
}
