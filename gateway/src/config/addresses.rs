//! The addresses of the listeners, of Redis and of the database. A fault says which form is valid.

use std::net::IpAddr;
use std::path::PathBuf;

use shared::redis_keys::Keys;

use super::Mode;
use super::error::{ConfigError, fault};
use super::layers::Layers;

/// An IP address to listen on.
pub(super) fn host(layers: &Layers, name: &'static str) -> Result<IpAddr, ConfigError> {
    let text = layers.get(name).unwrap_or_default();
    text.parse().map_err(|_| fault(name, format!("{text:?} is not an IP address; give one like 0.0.0.0 or ::1")))
}

/// Where Redis is, whose certificates prove it, and how names begin there.
pub(super) struct RedisAddress {
    /// One server, a Cluster, or what Sentinels name; `None` only in dev.
    pub(super) url: Option<String>,
    /// Names of keys and channels.
    pub(super) keys: Keys,
    /// The authorities that may sign the certificate of a server with TLS.
    pub(super) ca_file: Option<PathBuf>,
}

impl RedisAddress {
    pub(super) fn read(mode: Mode, layers: &Layers) -> Result<Self, ConfigError> {
        let url = redis_url(mode, layers)?;
        let keys = redis_keys(url.as_deref(), layers)?;
        let ca_file = redis_ca_file(url.as_deref(), layers)?;
        Ok(Self { url, keys, ca_file })
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

fn redis_keys(url: Option<&str>, layers: &Layers) -> Result<Keys, ConfigError> {
    const NAME: &str = "REDIS_NAMESPACE";
    let keys = match layers.get(NAME) {
        Some(namespace) => Keys::in_namespace(namespace).map_err(|why| fault(NAME, format!("{namespace:?} {why}")))?,
        None => Keys::default(),
    };
    match url.and_then(database_number) {
        Some(number) if !keys.have_namespace() => Err(fault(
            "REDIS_URL",
            format!(
                "names database {number}, but the channels of Redis have no databases: deployments on one server would \
                 get each other's messages. Set REDIS_NAMESPACE to a name of this deployment (with it, database 0 will do)"
            ),
        )),
        _ => Ok(keys),
    }
}

/// The database that a URL names, or one of several URLs, unless it is 0.
fn database_number(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let (rest, others) = match rest.split_once(",redis") {
        Some((rest, others)) if others.starts_with("://") || others.starts_with("s://") => (rest, Some(others)),
        _ => (rest, None),
    };
    let address = rest.rsplit('@').next().unwrap_or_default().split('#').next().unwrap_or_default();
    let (address, query) = address.split_once('?').unwrap_or((address, ""));
    let path = address.split_once('/').map_or("", |(_, path)| path);
    let number =
        if scheme.ends_with("-sentinel") { path.split_once('/').map_or("", |(_, number)| number) } else { path };
    // Other clients take it from the query, too.
    let of_query = query.split('&').find_map(|pair| pair.strip_prefix("db=")).unwrap_or_default();
    // Anything else is no database, and may be a part of a password.
    let is_named =
        |number: &&str| number.bytes().all(|digit| digit.is_ascii_digit()) && number.bytes().any(|digit| digit != b'0');
    let named = [number.trim_end_matches('/'), of_query].into_iter().find(is_named);
    named.or_else(|| others.and_then(database_number))
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
