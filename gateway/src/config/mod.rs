//! Settings: command line over environment over a TOML file. A file per group of settings.
//! It offers [`Config`]; each value is checked once, and a fault names the setting, its fault and a valid form.
//! It never replaces an invalid value by a default, and reads nothing after the start.

mod addresses;
mod auth;
mod drain;
mod error;
mod kinds;
mod layers;
mod limits;
mod log;
mod machine;
mod networks;
mod origins;
mod parse;
mod proxies;
mod retention;
mod timeouts;
mod traces;
mod webhooks;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use shared::redis_keys::Keys;

use self::addresses::{RedisAddress, database_url, host};
use self::error::fault;
use self::kinds::message_kinds;
use self::machine::host_name;

pub use self::auth::{AuthConfig, AuthService};
pub use self::drain::Drain;
pub use self::error::ConfigError;
pub use self::layers::{Layers, SettingsArgs};
pub use self::limits::Limits;
pub use self::log::LogConfig;
pub use self::networks::Networks;
pub use self::origins::{Origin, Origins};
pub use self::proxies::Proxies;
pub use self::retention::RetentionConfig;
pub use self::timeouts::Timeouts;
pub use self::traces::TracesConfig;
pub use self::webhooks::{EventsConfig, HookConfig, OnHookFailure, PushConfig};

/// How a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For real: Redis and a database are required.
    Serve,
    /// For trying out: embedded store and backbone, demo page.
    Dev,
}

/// All settings of a node, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// How the node runs.
    pub mode: Mode,
    /// The public listener.
    pub http: SocketAddr,
    /// The listener for operators.
    pub ops: SocketAddr,
    /// `redis://…`, several of them for a Cluster, or `redis-sentinel://…`, `rediss…` for TLS; `None` only in dev.
    pub redis_url: Option<String>,
    /// The names of keys and channels in Redis, with `REDIS_NAMESPACE` before them.
    pub redis_keys: Keys,
    /// The authorities that may sign the certificate of a Redis server with TLS; `None`: those that the machine trusts.
    pub redis_ca_file: Option<PathBuf>,
    /// `postgres://…` or `sqlite:…`.
    pub database_url: String,
    /// Authentication.
    pub auth: AuthConfig,
    /// Proxies before the public listener.
    pub proxies: Proxies,
    /// Sizes, numbers and rates.
    pub limits: Limits,
    /// The kinds of messages that are taken beside `text`; `None` for any.
    pub message_kinds: Option<BTreeSet<String>>,
    /// A socket's timeouts.
    pub clocks: Timeouts,
    /// The log and presence.
    pub log: LogConfig,
    /// How long messages and the audit trail are kept.
    pub retention: RetentionConfig,
    /// Where push notifications go; `None`: their jobs are left to others.
    pub push: Option<PushConfig>,
    /// The backend that is asked before something is stored, if one is.
    pub hook: Option<HookConfig>,
    /// The backend that hears of every change, if one does.
    pub events: Option<EventsConfig>,
    /// Shutdown.
    pub drain: Drain,
    /// Where traces go, if anywhere.
    pub traces: Option<TracesConfig>,
    /// Threads that serve connections.
    pub worker_threads: usize,
    /// The name of the host: with the port, the name of this node.
    pub host_name: String,
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// The first setting that is missing or invalid.
    pub fn load(mode: Mode, layers: &Layers) -> Result<Self, ConfigError> {
        layers.check_writing()?;
        let redis = RedisAddress::read(mode, layers)?;
        let config = Self {
            mode,
            http: SocketAddr::new(host(layers, "HTTP_HOST")?, layers.number("HTTP_PORT", 0, u16::MAX)?),
            ops: SocketAddr::new(host(layers, "OPS_HOST")?, layers.number("OPS_PORT", 0, u16::MAX)?),
            redis_url: redis.url,
            redis_keys: redis.keys,
            redis_ca_file: redis.ca_file,
            database_url: database_url(mode, layers)?,
            auth: AuthConfig::read(mode, layers)?,
            proxies: Proxies::read(layers)?,
            limits: Limits::read(layers)?,
            message_kinds: message_kinds(layers)?,
            clocks: Timeouts::read(layers)?,
            log: LogConfig::read(layers)?,
            retention: RetentionConfig::read(layers)?,
            push: PushConfig::read(layers)?,
            hook: HookConfig::read(layers)?,
            events: EventsConfig::read(layers)?,
            drain: Drain::read(layers)?,
            traces: TracesConfig::read(layers)?,
            worker_threads: layers.number("WORKER_THREADS", 1, 1024)?,
            host_name: host_name(),
        };
        if config.clocks.heartbeat * 3 > config.log.online_ttl * 2 {
            return Err(fault(
                "ONLINE_TTL_SECONDS",
                "must be at least one and a half times HEARTBEAT_SECONDS, or connected users would count as offline",
            ));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(mode: Mode, pairs: &[(&'static str, &str)]) -> Result<Config, String> {
        Config::load(mode, &Layers::from_pairs(pairs)).map_err(|error| error.to_string())
    }

    const GOOD: [(&str, &str); 3] = [
        ("REDIS_URL", "redis://127.0.0.1:6379"),
        ("DATABASE_URL", "postgres://parley@127.0.0.1/parley"),
        ("JWT_SECRET", "0123456789abcdef,fedcba9876543210"),
    ];

    #[test]
    fn defaults_are_those_of_the_protocol() {
        let config = load(Mode::Serve, &GOOD).expect("good settings");
        assert_eq!(config.http.to_string(), "0.0.0.0:8086");
        assert_eq!(config.ops.to_string(), "0.0.0.0:8087");
        assert_eq!(config.auth.jwt_secrets.len(), 2);
        assert_eq!(config.limits.frame_bytes_max, 65_536);
        assert_eq!(config.limits.compress_min_bytes.map(u16::from), Some(512));
        assert_eq!(config.limits.send_queue_bytes, 1_048_576);
        assert_eq!(config.clocks.heartbeat, Duration::from_secs(25));
        assert_eq!(config.log.resume_events, 256);
    }

    #[test]
    fn serve_does_not_start_without_redis_database_and_keys() {
        for (missing, _) in GOOD {
            let pairs: Vec<_> = GOOD.into_iter().filter(|(name, _)| *name != missing).collect();
            let error = load(Mode::Serve, &pairs).expect_err("a setting is missing");
            assert!(error.starts_with(missing) && error.contains("not set"), "{error}");
        }
        assert!(load(Mode::Dev, &[]).is_ok());
    }

    #[test]
    fn a_wrong_value_names_the_setting_and_what_would_be_right() {
        for (name, value, expected) in [
            ("HTTP_PORT", "abc", "a whole number from 0 to 65535"),
            ("HTTP_PORT", "70000", "a whole number from 0 to 65535"),
            ("HTTP_HOST", "nowhere", "0.0.0.0"),
            ("MAX_FRAME_BYTES", "12", "from 1024"),
            ("COMPRESS_MIN_BYTES", "2000000", "from 0 to 65535"),
            ("REDIS_URL", "http://x", "redis://"),
            ("REDIS_URL", "redis://a:1,b:2", "a URL of its own"),
            ("REDIS_URL", "redis://a:1/1", "REDIS_NAMESPACE"),
            ("REDIS_URL", "redis://me:pw@a:1/3?protocol=resp3", "REDIS_NAMESPACE"),
            ("REDIS_URL", "redis://a:1?db=1", "REDIS_NAMESPACE"),
            ("REDIS_URL", "redis://a:1/1?db=0", "REDIS_NAMESPACE"),
            ("REDIS_URL", "redis://a:1/?protocol=resp3&db=1", "REDIS_NAMESPACE"),
            ("REDIS_URL", "redis-sentinel://:pw@a:1,b/name/2", "REDIS_NAMESPACE"),
            ("REDIS_URL", "rediss://a:1,rediss://b:1/1", "REDIS_NAMESPACE"),
            ("REDIS_NAMESPACE", "a:b", "1 to 32"),
            ("REDIS_NAMESPACE", "a234567890123456789012345678901233", "1 to 32"),
            ("REDIS_CA_FILE", "/ca.pem", "rediss://host:port"),
            ("DATABASE_URL", "mysql://x", "sqlite:"),
            ("JWT_SECRET", "short", "16 bytes"),
            ("AUTH_ENABLED", "maybe", "true or false"),
            ("AUTH_ENABLED", "false", "gateway dev"),
            ("DRAIN_SECONDS", "4", "DRAIN_DELAY_SECONDS"),
            ("JWKS_URL", "ftp://x/keys", "https://"),
            ("AUTH_SERVICE_URL", "https://user:password@x/", "must not contain a user"),
            ("AUTH_TIMEOUT", "soon", "like 10s or 500ms"),
            ("AUTH_TIMEOUT", "10m", "like 10s or 500ms"),
            ("AUTH_TIMEOUT", "0s", "100ms to 60s"),
            ("SESSION_COOKIE", "my session", "session_id"),
            ("SESSION_COOKIE", "token", "another name"),
            ("TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.0/8"),
            ("TRUSTED_PROXIES", "10.0.0.1,haproxy", "10.0.0.0/8"),
            ("PROXY_PROTOCOL", "true", "TRUSTED_PROXIES"),
            ("PROXY_PROTOCOL", "v2", "true or false"),
            ("MAX_CONNECTIONS_PER_IP", "-1", "from 0"),
            ("CONNECT_RATE_PER_IP", "1.5", "from 0 to 1000000"),
            ("PUSH_WEBHOOK_SECRET", "0123456789abcdef", "PUSH_WEBHOOK_URL"),
            ("USER_COMMANDS_PER_SECOND", "many", "from 0 to 1000000"),
            ("MESSAGE_KINDS", "text,Image", "comma-separated, or *"),
            ("MESSAGE_RETENTION_DAYS", "a week", "from 0 to 36500"),
            ("AUDIT_RETENTION_DAYS", "-1", "from 0 to 36500"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http://host:4318"),
            ("OTEL_TRACES_SAMPLER_ARG", "2", "from 0 to 1"),
        ] {
            let mut pairs = GOOD.to_vec();
            pairs.push((name, value));
            let error = load(Mode::Serve, &pairs).expect_err(name);
            assert!(error.starts_with(name) && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn white_space_at_the_ends_goes() {
        let pairs = [
            ("REDIS_URL", " redis://127.0.0.1:6379\n"),
            ("DATABASE_URL", "postgres://parley@127.0.0.1/parley\r\n"),
            ("JWT_SECRET", "\u{feff}0123456789abcdef ,\tfedcba9876543210\n"),
            ("API_KEY", "\tkey-of-sixteen-bytes\n"),
            ("HTTP_HOST", " 127.0.0.1 "),
            ("JWT_ISSUER", "me "),
            ("SESSION_COOKIE", "sid\n"),
            ("JWT_AUDIENCE", " \n"),
        ];
        let config = load(Mode::Serve, &pairs).expect("good settings");
        assert_eq!(config.redis_url.as_deref(), Some("redis://127.0.0.1:6379"));
        assert_eq!(config.database_url, "postgres://parley@127.0.0.1/parley");
        assert_eq!(config.auth.jwt_secrets, ["0123456789abcdef", "fedcba9876543210"]);
        assert_eq!(config.auth.api_key.as_deref(), Some("key-of-sixteen-bytes"));
        assert_eq!(config.http.ip().to_string(), "127.0.0.1");
        assert_eq!(config.auth.issuer.as_deref(), Some("me"));
        assert_eq!(config.auth.session_cookie, "sid");
        assert_eq!(config.auth.audience, None, "white space alone is no value");
    }

    #[test]
    fn quotes_around_a_value_stop_the_start() {
        for (name, value) in [
            ("API_KEY", "\"key-of-sixteen-bytes\""),
            ("API_KEY", " 'key-of-sixteen-bytes'\n"),
            ("JWT_ISSUER", "\u{201c}me\u{201d}"),
            ("HTTP_PORT", "\"80\""),
            ("ALLOWED_ORIGINS", "\"https://a.example\""),
            ("ALLOWED_ORIGINS", "https://a.example, 'https://b.example'"),
            ("JWT_SECRET", "0123456789abcdef,\"the-other-of-sixteen-bytes\""),
        ] {
            let pairs = [&GOOD[..], &[(name, value)]].concat();
            let error = load(Mode::Serve, &pairs).expect_err(name);
            assert!(error.starts_with(name) && error.contains("leave them out"), "{error}");
            assert!(!error.contains("sixteen"), "{error}");
        }
        let inside = [&GOOD[..], &[("API_KEY", "\"key\" of sixteen bytes")]].concat();
        assert!(load(Mode::Serve, &inside).is_ok());
    }

    #[test]
    fn line_ends_and_control_characters_amid_a_value_stop_the_start() {
        for (name, value) in [
            ("API_KEY", "key-of-sixteen-bytes\nanother-of-them"),
            ("API_KEY", "key-of-sixteen\u{7f}bytes"),
            ("JWT_SECRET", "0123456789abcdef\r\nfedcba9876543210"),
            ("DATABASE_URL", "postgres://parley@127.0.0.1/\tparley"),
            ("JWT_ISSUER", "me\u{1b}[0m"),
        ] {
            let pairs = [&GOOD[..], &[(name, value)]].concat();
            let error = load(Mode::Serve, &pairs).expect_err(name);
            assert!(error.starts_with(name) && error.contains("one line of text"), "{error}");
            assert!(!error.contains("sixteen"), "{error}");
        }
        let lines = [&GOOD[..], &[("ALLOWED_ORIGINS", "https://a.example,\n https://b.example,\n")]].concat();
        assert!(load(Mode::Serve, &lines).is_ok(), "a list may have a line for each");
    }

    #[test]
    fn a_database_number_goes_with_a_namespace() {
        for url in ["redis://a:1/", "redis://a:1/0", "redis-sentinel://a:1/name", "redis-sentinel://a:1/name/0"] {
            let pairs = [&GOOD[1..], &[("REDIS_URL", url)]].concat();
            assert!(load(Mode::Serve, &pairs).is_ok_and(|config| !config.redis_keys.have_namespace()), "{url}");
        }
        for url in ["redis://a:1/1", "redis-sentinel://a:1/name/2"] {
            let pairs = [&GOOD[1..], &[("REDIS_URL", url), ("REDIS_NAMESPACE", "blue")]].concat();
            assert!(load(Mode::Serve, &pairs).is_ok_and(|config| config.redis_keys.have_namespace()), "{url}");
        }
    }

    #[test]
    fn a_webhook_has_a_url_and_a_secret() {
        let fault = |url: &str, secret: &str| {
            let pairs = [&GOOD[..], &[("PUSH_WEBHOOK_URL", url), ("PUSH_WEBHOOK_SECRET", secret)]].concat();
            load(Mode::Serve, &pairs).map(|config| config.push.is_some())
        };
        assert_eq!(fault("https://push.example/hook", "0123456789abcdef"), Ok(true));
        for (url, secret, name) in [
            ("https://push.example/hook", "", "PUSH_WEBHOOK_SECRET: is not set"),
            ("https://push.example/hook", "short", "PUSH_WEBHOOK_SECRET: is shorter"),
            ("ftp://push.example/hook", "0123456789abcdef", "PUSH_WEBHOOK_URL: must begin with https://"),
            ("/hook", "0123456789abcdef", "PUSH_WEBHOOK_URL: must begin with https://"),
            ("https://user:pw@push.example", "0123456789abcdef", "PUSH_WEBHOOK_URL: must not contain a user"),
        ] {
            assert!(fault(url, secret).is_err_and(|fault| fault.starts_with(name)), "{url} {secret}");
        }
    }
}
