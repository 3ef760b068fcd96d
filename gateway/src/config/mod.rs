//! Settings: command line over environment over a TOML file, each checked once, here (PROTOCOL §5).
//!
//! A wrong value stops the start with its name, its fault and what would be right. Nothing is read later.

mod addresses;
mod layers;
mod machine;
mod networks;
mod origins;
mod parse;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use self::addresses::{database_url, host, redis_ca_file, redis_url};
use self::machine::{connections_from_descriptors, host_name};

pub use layers::{Layers, SettingsArgs};
pub use networks::Networks;
pub use origins::{Origin, Origins};

/// A setting that stops the start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A value that can't be used.
    #[error("{name}: {fault}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong and what would be right.
        fault: String,
    },
    /// The file can't be used.
    #[error("--config {path}: {fault}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
}

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
    /// Whom to believe about a server with TLS.
    pub redis_ca_file: Option<PathBuf>,
    /// `postgres://…` or `sqlite:…`.
    pub database_url: String,
    /// Who gets in.
    pub auth: AuthConfig,
    /// Proxies before the public listener.
    pub proxies: Proxies,
    /// Sizes, numbers and rates.
    pub limits: Limits,
    /// A socket's clocks.
    pub clocks: Timeouts,
    /// The log and presence.
    pub log: LogConfig,
    /// Where push notifications go; `None`: their jobs are left to others.
    pub push: Option<PushConfig>,
    /// Shutdown.
    pub drain: Drain,
    /// Where traces go, if anywhere.
    pub traces: Option<TracesConfig>,
    /// Threads that serve connections.
    pub worker_threads: usize,
    /// The name of the host: with the port, the name of this node.
    pub host_name: String,
}

/// Keys and rules of authentication.
#[derive(Clone)]
pub struct AuthConfig {
    /// `false` only in dev: `?user=` is believed.
    pub enabled: bool,
    /// HMAC secrets, the first one signs.
    pub jwt_secrets: Vec<String>,
    /// PEM files with public keys.
    pub jwt_public_key_files: Vec<PathBuf>,
    /// The only issuer that is accepted.
    pub issuer: Option<String>,
    /// The audience that a token must name.
    pub audience: Option<String>,
    /// Claims that may hold the user id, in order.
    pub user_claims: Vec<String>,
    /// Where an issuer publishes its keys.
    pub jwks_url: Option<Uri>,
    /// A service that knows tokens which none of our keys has signed.
    pub service: Option<AuthService>,
    /// The cookie whose value names a session.
    pub session_cookie: String,
    /// The key of backends.
    pub api_key: Option<String>,
    /// Origins of browsers; empty: the same host; `*`: any.
    pub allowed_origins: Origins,
}

/// A remote authentication service.
#[derive(Debug, Clone)]
pub struct AuthService {
    /// Where it is asked.
    pub url: Uri,
    /// How long it may take to answer.
    pub timeout: Duration,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// Whom to believe where a connection comes from.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Proxies whose word counts.
    pub trusted: Networks,
    /// Whether each connection of theirs begins with a PROXY header.
    pub proxy_protocol: bool,
}

/// Sizes, numbers and rates; 0 turns a limit off where PROTOCOL §5 says so.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest assembled WebSocket message, in bytes.
    pub frame_bytes_max: u32,
    /// The longest content, in characters.
    pub content_chars_max: usize,
    /// What may wait for one socket, in bytes.
    pub send_queue_bytes: u32,
    /// Sockets on this node.
    pub connections_max: usize,
    /// Sockets of one user on this node; 0: no limit.
    pub connections_per_user_max: usize,
    /// Sockets of one address on this node (IPv6: of one /64); 0: no limit.
    pub connections_per_ip_max: usize,
    /// Handshakes of one address per second on this node (burst twice that); 0: no limit.
    pub connect_rate_per_ip: u32,
    /// Commands of one connection per second (burst twice that); 0: no limit.
    pub commands_per_second: u32,
    /// Commands of one user per second on all nodes (burst twice that); 0: no limit.
    pub user_commands_per_second: u32,
}

/// The webhook of push notifications.
#[derive(Clone)]
pub struct PushConfig {
    /// Where notifications are posted.
    pub url: hyper::Uri,
    /// Signs them.
    pub secret: String,
}

impl std::fmt::Debug for PushConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushConfig").finish_non_exhaustive()
    }
}

/// A socket's clocks.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// Silence after which a ping is sent.
    pub heartbeat: Duration,
    /// Silence after the ping that ends the connection.
    pub heartbeat_timeout: Duration,
    /// Time for the first valid `auth`.
    pub auth_deadline: Duration,
    /// A write without progress for this long ends the connection.
    pub write_timeout: Duration,
}

/// The log and presence.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Events that a log keeps.
    pub resume_events: u32,
    /// How long a log outlives its user's last sign of life.
    pub resume_window: Duration,
    /// How long a user stays online without a sign of life.
    pub online_ttl: Duration,
    /// How long a user may be gone before `user.offline`.
    pub offline_grace: Duration,
    /// How many users are told of a user's presence.
    pub presence_audience: u32,
}

/// Shutdown.
#[derive(Debug, Clone)]
pub struct Drain {
    /// How long to serve on, unready, before the first close.
    pub delay: Duration,
    /// The whole of it, the delay included.
    pub total: Duration,
}

/// Traces.
#[derive(Debug, Clone)]
pub struct TracesConfig {
    /// The collector's URL, without `/v1/traces`.
    pub url: String,
    /// Which share of the messages is traced, 0 to 1.
    pub share: f64,
}

impl Config {
    /// Checks the layers' values.
    pub fn load(mode: Mode, layers: &Layers) -> Result<Self, ConfigError> {
        let value = |name| layers.get(name);
        let enabled = parse::boolean("AUTH_ENABLED", value("AUTH_ENABLED"))?;
        if !enabled && mode == Mode::Serve {
            return Err(parse::fault("AUTH_ENABLED", "can be false only with `gateway dev`"));
        }
        let http_port = parse::number("HTTP_PORT", value("HTTP_PORT"), 0, u16::MAX)?;
        let ops_port = parse::number("OPS_PORT", value("OPS_PORT"), 0, u16::MAX)?;
        let config = Self {
            mode,
            http: SocketAddr::new(host("HTTP_HOST", value("HTTP_HOST"))?, http_port),
            ops: SocketAddr::new(host("OPS_HOST", value("OPS_HOST"))?, ops_port),
            redis_url: redis_url(mode, value("REDIS_URL"))?,
            redis_ca_file: redis_ca_file(value("REDIS_URL"), value("REDIS_CA_FILE"))?,
            database_url: database_url(mode, value("DATABASE_URL"))?,
            auth: auth(layers, enabled)?,
            proxies: proxies(layers)?,
            limits: limits(layers)?,
            clocks: Timeouts {
                heartbeat: seconds(layers, "HEARTBEAT_SECONDS", 1, 3600)?,
                heartbeat_timeout: seconds(layers, "HEARTBEAT_TIMEOUT_SECONDS", 1, 3600)?,
                auth_deadline: seconds(layers, "AUTH_DEADLINE_SECONDS", 1, 3600)?,
                write_timeout: seconds(layers, "WRITE_TIMEOUT_SECONDS", 1, 3600)?,
            },
            log: LogConfig {
                resume_events: parse::number("RESUME_EVENTS", value("RESUME_EVENTS"), 16, 100_000)?,
                resume_window: seconds(layers, "RESUME_SECONDS", 60, 604_800)?,
                online_ttl: seconds(layers, "ONLINE_TTL_SECONDS", 5, 3600)?,
                offline_grace: seconds(layers, "OFFLINE_GRACE_SECONDS", 0, 600)?,
                presence_audience: parse::number("PRESENCE_AUDIENCE", value("PRESENCE_AUDIENCE"), 0, 10_000)?,
            },
            push: push(layers)?,
            drain: Drain {
                delay: seconds(layers, "DRAIN_DELAY_SECONDS", 0, 3600)?,
                total: seconds(layers, "DRAIN_SECONDS", 1, 3600)?,
            },
            traces: traces(layers)?,
            worker_threads: parse::number("WORKER_THREADS", value("WORKER_THREADS"), 1, 1024)?,
            host_name: host_name(),
        };
        config.check_together()?;
        Ok(config)
    }

    /// Rules that hold between settings.
    fn check_together(&self) -> Result<(), ConfigError> {
        if self.drain.delay >= self.drain.total {
            return Err(parse::fault(
                "DRAIN_SECONDS",
                "is the whole of the drain and must be above DRAIN_DELAY_SECONDS",
            ));
        }
        if self.clocks.heartbeat * 3 > self.log.online_ttl * 2 {
            return Err(parse::fault(
                "ONLINE_TTL_SECONDS",
                "must be at least one and a half times HEARTBEAT_SECONDS, or connected users would count as offline",
            ));
        }
        let keyed = !self.auth.jwt_secrets.is_empty() || !self.auth.jwt_public_key_files.is_empty();
        let keyed = keyed || self.auth.jwks_url.is_some() || self.auth.service.is_some();
        if self.auth.enabled && !keyed && self.mode == Mode::Serve {
            return Err(parse::fault(
                "JWT_SECRET",
                "is not set; set it, JWT_PUBLIC_KEY_FILE, JWKS_URL or AUTH_SERVICE_URL, so that tokens can be checked",
            ));
        }
        Ok(())
    }
}

fn auth(layers: &Layers, enabled: bool) -> Result<AuthConfig, ConfigError> {
    let jwt_secrets = parse::list(layers.get("JWT_SECRET"));
    if jwt_secrets.iter().any(|secret| secret.len() < 16) {
        return Err(parse::fault("JWT_SECRET", "is shorter than 16 bytes; make one with `openssl rand -base64 32`"));
    }
    let api_key = layers.get("API_KEY").map(str::to_owned);
    if api_key.as_ref().is_some_and(|key| key.len() < 16) {
        return Err(parse::fault("API_KEY", "is shorter than 16 bytes; make one with `openssl rand -base64 32`"));
    }
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(60));
    let auth_timeout = parse::duration("AUTH_TIMEOUT", layers.get("AUTH_TIMEOUT"), least, most)?;
    Ok(AuthConfig {
        enabled,
        jwt_secrets,
        jwt_public_key_files: parse::list(layers.get("JWT_PUBLIC_KEY_FILE")).into_iter().map(PathBuf::from).collect(),
        issuer: layers.get("JWT_ISSUER").map(str::to_owned),
        audience: layers.get("JWT_AUDIENCE").map(str::to_owned),
        user_claims: parse::list(layers.get("JWT_USER_CLAIMS")),
        jwks_url: parse::url("JWKS_URL", layers.get("JWKS_URL"))?,
        service: parse::url("AUTH_SERVICE_URL", layers.get("AUTH_SERVICE_URL"))?
            .map(|url| AuthService { url, timeout: auth_timeout }),
        session_cookie: parse::cookie_name("SESSION_COOKIE", layers.get("SESSION_COOKIE"))?,
        api_key,
        allowed_origins: Origins::parse(layers.get("ALLOWED_ORIGINS"))?,
    })
}

fn push(layers: &Layers) -> Result<Option<PushConfig>, ConfigError> {
    let (url, secret) = (layers.get("PUSH_WEBHOOK_URL"), layers.get("PUSH_WEBHOOK_SECRET"));
    let Some(url) = url else {
        let fault = "is set and PUSH_WEBHOOK_URL is not; give the URL, or leave the secret out";
        return secret.map_or(Ok(None), |_| Err(parse::fault("PUSH_WEBHOOK_SECRET", fault)));
    };
    let parsed = url.parse::<hyper::Uri>().ok().filter(|url| {
        let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        matches!(url.scheme_str(), Some("http" | "https")) && plain
    });
    let url = parsed.ok_or_else(|| {
        parse::fault("PUSH_WEBHOOK_URL", "must look like https://host[:port]/path, without a user or password")
    })?;
    match secret {
        Some(secret) if secret.len() >= 16 => Ok(Some(PushConfig { url, secret: secret.to_owned() })),
        Some(_) => Err(parse::fault(
            "PUSH_WEBHOOK_SECRET",
            "is shorter than 16 bytes; make one with `openssl rand -base64 32`",
        )),
        None => Err(parse::fault(
            "PUSH_WEBHOOK_SECRET",
            "is not set; PUSH_WEBHOOK_URL needs it to sign requests; make one with `openssl rand -base64 32`",
        )),
    }
}

fn proxies(layers: &Layers) -> Result<Proxies, ConfigError> {
    let trusted = Networks::parse(&parse::list(layers.get("TRUSTED_PROXIES")))
        .map_err(|fault| parse::fault("TRUSTED_PROXIES", fault))?;
    let proxy_protocol = parse::boolean("PROXY_PROTOCOL", layers.get("PROXY_PROTOCOL"))?;
    if proxy_protocol && trusted.is_empty() {
        return Err(parse::fault("PROXY_PROTOCOL", "is taken from trusted proxies only; list them in TRUSTED_PROXIES"));
    }
    Ok(Proxies { trusted, proxy_protocol })
}

fn limits(layers: &Layers) -> Result<Limits, ConfigError> {
    let value = |name| layers.get(name);
    let most = usize::MAX >> 1;
    Ok(Limits {
        frame_bytes_max: parse::number("MAX_FRAME_BYTES", value("MAX_FRAME_BYTES"), 1024, 16 << 20)?,
        content_chars_max: parse::number("MAX_CONTENT_CHARS", value("MAX_CONTENT_CHARS"), 1, 1 << 20)?,
        send_queue_bytes: parse::number("SEND_QUEUE_BYTES", value("SEND_QUEUE_BYTES"), 16_384, 1 << 30)?,
        connections_max: match value("MAX_CONNECTIONS") {
            None => connections_from_descriptors(),
            given => parse::number("MAX_CONNECTIONS", given, 1, most)?,
        },
        connections_per_user_max: parse::number(
            "MAX_CONNECTIONS_PER_USER",
            value("MAX_CONNECTIONS_PER_USER"),
            0,
            most,
        )?,
        connections_per_ip_max: parse::number("MAX_CONNECTIONS_PER_IP", value("MAX_CONNECTIONS_PER_IP"), 0, most)?,
        connect_rate_per_ip: parse::number("CONNECT_RATE_PER_IP", value("CONNECT_RATE_PER_IP"), 0, 1_000_000)?,
        commands_per_second: parse::number("COMMANDS_PER_SECOND", value("COMMANDS_PER_SECOND"), 0, 1_000_000)?,
        user_commands_per_second: parse::number(
            "USER_COMMANDS_PER_SECOND",
            value("USER_COMMANDS_PER_SECOND"),
            0,
            1_000_000,
        )?,
    })
}

fn traces(layers: &Layers) -> Result<Option<TracesConfig>, ConfigError> {
    const URL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const SHARE: &str = "OTEL_TRACES_SAMPLER_ARG";
    let share = layers.get(SHARE).unwrap_or_default().parse().ok().filter(|share| (0.0..=1.0).contains(share));
    let Some(share) = share else { return Err(parse::fault(SHARE, "won't do; give a number from 0 to 1, like 0.01")) };
    match layers.get(URL) {
        None => Ok(None),
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
            Ok(Some(TracesConfig { url: url.to_owned(), share }))
        }
        Some(_) => Err(parse::fault(URL, "must look like http://host:4318 (OTLP over HTTP, not gRPC)")),
    }
}

fn seconds(layers: &Layers, name: &'static str, least: u64, most: u64) -> Result<Duration, ConfigError> {
    parse::number(name, layers.get(name), least, most).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
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
            ("REDIS_URL", "http://x", "redis://"),
            ("REDIS_URL", "redis://a:1,b:2", "a URL of its own"),
            ("REDIS_CA_FILE", "/ca.pem", "rediss://host:port"),
            ("DATABASE_URL", "mysql://x", "sqlite:"),
            ("JWT_SECRET", "short", "16 bytes"),
            ("AUTH_ENABLED", "maybe", "true or false"),
            ("AUTH_ENABLED", "false", "gateway dev"),
            ("DRAIN_SECONDS", "4", "DRAIN_DELAY_SECONDS"),
            ("JWKS_URL", "ftp://x/keys", "https://"),
            ("AUTH_SERVICE_URL", "https://user:password@x/", "no user"),
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
    fn a_webhook_has_a_url_and_a_secret() {
        let fault = |url: &str, secret: &str| {
            let pairs = [&GOOD[..], &[("PUSH_WEBHOOK_URL", url), ("PUSH_WEBHOOK_SECRET", secret)]].concat();
            load(Mode::Serve, &pairs).map(|config| config.push.is_some())
        };
        assert_eq!(fault("https://push.example/hook", "0123456789abcdef"), Ok(true));
        for (url, secret, name) in [
            ("https://push.example/hook", "", "PUSH_WEBHOOK_SECRET: is not set"),
            ("https://push.example/hook", "short", "PUSH_WEBHOOK_SECRET: is shorter"),
            ("ftp://push.example/hook", "0123456789abcdef", "PUSH_WEBHOOK_URL: must look like"),
            ("/hook", "0123456789abcdef", "PUSH_WEBHOOK_URL: must look like"),
            ("https://user:pw@push.example", "0123456789abcdef", "PUSH_WEBHOOK_URL: must look like"),
        ] {
            assert!(fault(url, secret).is_err_and(|fault| fault.starts_with(name)), "{url} {secret}");
        }
    }
}
