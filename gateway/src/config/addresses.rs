//! Where the node listens, and where Redis and the database are: what an address must look like, and what to write instead.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{ConfigError, Mode, parse};

/// An IP address to listen on.
pub(super) fn host(name: &'static str, value: Option<&str>) -> Result<IpAddr, ConfigError> {
    let text = value.unwrap_or_default();
    text.parse().map_err(|_| parse::fault(name, format!("{text:?} is no IP address; give one like 0.0.0.0 or ::1")))
}

/// Redis: one server, a Cluster, or what Sentinels name; none is needed to try Parley out.
pub(super) fn redis_url(mode: Mode, value: Option<&str>) -> Result<Option<String>, ConfigError> {
    match value {
        Some(url) if url.starts_with("redis-sentinel://") || url.starts_with("rediss-sentinel://") => {
            Ok(Some(url.to_owned()))
        }
        Some(url) if url.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) && !is_cluster(url) => {
            Err(parse::fault(
                "REDIS_URL",
                "must name each server of a Redis Cluster by a URL of its own: redis://host:port,redis://host:port",
            ))
        }
        Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => Ok(Some(url.to_owned())),
        Some(_) => Err(parse::fault(
            "REDIS_URL",
            "must look like redis://[:password@]host:port[/database], several of them separated by commas for a Redis \
             Cluster, or redis-sentinel://host:port,host:port/name; for TLS rediss://… or rediss-sentinel://…",
        )),
        None if mode == Mode::Dev => Ok(None),
        None => Err(parse::fault(
            "REDIS_URL",
            "is not set; `gateway serve` needs Redis, for example redis://127.0.0.1:6379 (to try Parley without, run `gateway dev`)",
        )),
    }
}

/// Whether each of several servers has a URL of its own. A comma elsewhere belongs to a password.
fn is_cluster(url: &str) -> bool {
    let hosts = url.rsplit('@').next().unwrap_or_default();
    hosts.split(',').skip(1).all(|other| other.starts_with("redis://") || other.starts_with("rediss://"))
}

/// Whose certificates are believed for `rediss://`.
pub(super) fn redis_ca_file(url: Option<&str>, value: Option<&str>) -> Result<Option<PathBuf>, ConfigError> {
    match value {
        Some(_) if !url.is_some_and(|url| url.starts_with("rediss://") || url.starts_with("rediss-sentinel://")) => {
            Err(parse::fault(
                "REDIS_CA_FILE",
                "is of no use without TLS; give REDIS_URL as rediss://host:port or rediss-sentinel://…, or leave REDIS_CA_FILE out",
            ))
        }
        value => Ok(value.map(PathBuf::from)),
    }
}

/// The store; in memory to try Parley out.
pub(super) fn database_url(mode: Mode, value: Option<&str>) -> Result<String, ConfigError> {
    let known = ["postgres://", "postgresql://", "sqlite:"];
    match value {
        Some(url) if known.iter().any(|scheme| url.starts_with(scheme)) => Ok(url.to_owned()),
        Some(_) => {
            Err(parse::fault("DATABASE_URL", "must look like postgres://user:password@host/database or sqlite:<file>"))
        }
        None if mode == Mode::Dev => Ok("sqlite::memory:".to_owned()),
        None => Err(parse::fault(
            "DATABASE_URL",
            "is not set; `gateway serve` needs a database, for example postgres://parley@127.0.0.1/parley (to try Parley without, run `gateway dev`)",
        )),
    }
}
