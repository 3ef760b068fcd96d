//! The sources of settings: flags and environment (by clap), then the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::{ConfigError, fault};

/// A row is a setting: its flag, its name, its default if it has one, and its help, which ends with that default.
macro_rules! settings {
    ($($field:ident $name:literal $(= $default:literal)?, $help:literal;)+) => {
        /// The settings as flags; each can stand in the environment as well, under its name in upper case.
        #[derive(clap::Args, Default, Clone)]
        pub struct SettingsArgs {
            /// A TOML file with settings, their names in lower case
            #[arg(long, value_name = "FILE")]
            pub config: Option<PathBuf>,
            $(
                #[arg(
                    long,
                    env = $name,
                    help = concat!($help $(, " [", $default, "]")?),
                    hide_env_values = true,
                    hide_env = true,
                    value_name = "VALUE",
                    help_heading = "Settings"
                )]
                $field: Option<String>,
            )+
        }

        impl SettingsArgs {
            fn into_map(self) -> BTreeMap<&'static str, String> {
                let mut map = BTreeMap::new();
                $( if let Some(value) = self.$field { map.insert($name, value); } )+
                map
            }
        }

        /// Every setting's name and default (empty: none), in the order of `--help`.
        const SETTINGS: &[(&str, &str)] = &[$(($name, concat!($($default)?))),+];
    };
}

settings! {
    http_host "HTTP_HOST" = "0.0.0.0", "Address of the public listener";
    http_port "HTTP_PORT" = "8086", "Port of the public listener";
    ops_host "OPS_HOST" = "0.0.0.0", "Address of the operators' listener";
    ops_port "OPS_PORT" = "8087", "Port of the operators' listener";
    redis_url "REDIS_URL", "redis://host:port, several separated by commas (Redis Cluster), or redis-sentinel://host:port,host:port,…/name of the master; with TLS rediss://… and rediss-sentinel://…";
    redis_namespace "REDIS_NAMESPACE", "What stands before every key and channel in Redis, for deployments that share one Redis: 1 to 32 of A-Z a-z 0-9 _ - [nothing]";
    redis_ca_file "REDIS_CA_FILE", "PEM file with the authorities that signed the certificates of Redis servers and Sentinels [this machine's trusted authorities]";
    database_url "DATABASE_URL", "postgres://…?sslmode=verify-full&sslrootcert=<file> or sqlite:<file>";
    jwt_secret "JWT_SECRET", "HMAC secrets of tokens, comma-separated; the first signs";
    jwt_public_key_file "JWT_PUBLIC_KEY_FILE", "PEM files with public keys of tokens, comma-separated";
    jwks_url "JWKS_URL", "URL of an issuer's public keys (JWKS)";
    jwt_issuer "JWT_ISSUER", "The only issuer to accept";
    jwt_audience "JWT_AUDIENCE", "The audience that tokens must name";
    jwt_user_claims "JWT_USER_CLAIMS" = "sub,user_id,userId,id", "Claims with the user id, in order";
    jwt_username_claim "JWT_USERNAME_CLAIM" = "username", "Claim with the name by which others look a user up; the issuer has to keep it unique";
    auth_enabled "AUTH_ENABLED" = "true", "false is allowed only with `gateway dev`";
    auth_service_url "AUTH_SERVICE_URL", "URL of a service that checks tokens signed by none of the keys above";
    auth_timeout "AUTH_TIMEOUT" = "10s", "Time for that service's answer, like 10s or 500ms";
    session_cookie "SESSION_COOKIE" = "session_id", "Cookie that names a session in Redis";
    api_key "API_KEY", "Key of backends (header X-API-Key)";
    allowed_origins "ALLOWED_ORIGINS", "Origins of browsers, comma-separated, or * [the same host]";
    trusted_proxies "TRUSTED_PROXIES", "Proxies that are trusted to report a client's address: addresses or networks like 10.0.0.0/8, comma-separated";
    proxy_protocol "PROXY_PROTOCOL" = "false", "Connections of trusted proxies begin with a PROXY header";
    heartbeat_seconds "HEARTBEAT_SECONDS" = "25", "Silence before a ping";
    heartbeat_timeout_seconds "HEARTBEAT_TIMEOUT_SECONDS" = "10", "Silence after the ping that ends a connection";
    auth_deadline_seconds "AUTH_DEADLINE_SECONDS" = "10", "Time for the auth frame";
    write_timeout_seconds "WRITE_TIMEOUT_SECONDS" = "10", "A write without progress that ends a connection";
    max_frame_bytes "MAX_FRAME_BYTES" = "65536", "Largest message from a client";
    max_content_chars "MAX_CONTENT_CHARS" = "4000", "Longest content of a message";
    message_kinds "MESSAGE_KINDS" = "*", "Kinds of messages beside text, comma-separated, or *";
    compress_min_bytes "COMPRESS_MIN_BYTES" = "512", "Smallest payload that is compressed for sockets that negotiated permessage-deflate, 0 for no compression";
    send_queue_bytes "SEND_QUEUE_BYTES" = "1048576", "Bytes that may wait for one socket";
    max_connections "MAX_CONNECTIONS", "Sockets on this node [from the descriptor limit]";
    max_connections_per_user "MAX_CONNECTIONS_PER_USER" = "20", "Sockets of one user on this node, 0 for any";
    max_connections_per_ip "MAX_CONNECTIONS_PER_IP" = "0", "Sockets of one address (IPv6: /64) on this node, 0 for any";
    connect_rate_per_ip "CONNECT_RATE_PER_IP" = "0", "Handshakes of one address per second on this node, burst twice that, 0 for any";
    connect_rate_per_user "CONNECT_RATE_PER_USER" = "1", "Connects of one user per second on this node, burst forty times that, 0 for any";
    commands_per_second "COMMANDS_PER_SECOND" = "50", "Commands of one connection, burst twice that, 0 for any";
    user_commands_per_second "USER_COMMANDS_PER_SECOND" = "100", "Commands of one user on all nodes, burst twice that, 0 for any";
    large_conversation_members "LARGE_CONVERSATION_MEMBERS" = "0", "Members above which a conversation's events are published once for all, 0 for none";
    large_events_per_second "LARGE_EVENTS_PER_SECOND" = "50", "Durable events of one large conversation per second on one node, burst twice that, 0 for any";
    resume_events "RESUME_EVENTS" = "256", "Events that a user's log keeps";
    resume_seconds "RESUME_SECONDS" = "3600", "How long the log outlives the user's last sign of life";
    online_ttl_seconds "ONLINE_TTL_SECONDS" = "60", "How long a user stays online without a sign of life";
    offline_grace_seconds "OFFLINE_GRACE_SECONDS" = "5", "How long a user may be gone before user.offline";
    presence_audience "PRESENCE_AUDIENCE" = "500", "Users who are notified of a user's presence, and largest number of others in a conversation that counts";
    message_retention_days "MESSAGE_RETENTION_DAYS" = "0", "Days after which messages are deleted, 0 for never";
    audit_retention_days "AUDIT_RETENTION_DAYS" = "0", "Days after which lines of the audit trail are deleted, 0 for never";
    worker_threads "WORKER_THREADS" = "1", "Threads that serve connections; one costs the least per message";
    drain_delay_seconds "DRAIN_DELAY_SECONDS" = "5", "Time to keep serving, unready, before sockets are closed";
    drain_seconds "DRAIN_SECONDS" = "30", "Time for the whole drain";
    push_webhook_url "PUSH_WEBHOOK_URL", "URL to which push notifications are posted, for messages that no connection received";
    push_webhook_secret "PUSH_WEBHOOK_SECRET", "Secret that signs these posts [none: WEBHOOK_SECRET]";
    hook_url "HOOK_URL", "URL of a backend that is asked before a message, an edit or a reaction is stored";
    hook_timeout "HOOK_TIMEOUT" = "2s", "Time for its answer, like 2s or 500ms";
    hook_on_failure "HOOK_ON_FAILURE" = "refuse", "What happens without an answer: refuse or allow";
    events_webhook_url "EVENTS_WEBHOOK_URL", "URL of a backend to which every committed change is posted";
    webhook_secret "WEBHOOK_SECRET", "Secret that signs what is posted to webhooks";
    otel_exporter_otlp_endpoint "OTEL_EXPORTER_OTLP_ENDPOINT", "Collector of traces (OTLP over HTTP), like http://127.0.0.1:4318 [none: no traces]";
    otel_traces_sampler_arg "OTEL_TRACES_SAMPLER_ARG" = "0.01", "Share of messages that is traced, 0 to 1";
}

/// Settings whose values are never shown.
const SECRET: [&str; 4] = ["JWT_SECRET", "API_KEY", "PUSH_WEBHOOK_SECRET", "WEBHOOK_SECRET"];

/// The values of all layers, the higher over the lower.
#[derive(Clone, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, String>,
}

impl Layers {
    /// Lays flags and environment over the file.
    ///
    /// # Errors
    /// The file can't be read, isn't TOML, or names a setting that doesn't exist.
    pub fn read(args: SettingsArgs) -> Result<Self, ConfigError> {
        let mut values = match &args.config {
            None => BTreeMap::new(),
            Some(path) => {
                let error = |fault: String| ConfigError::File { path: path.clone(), fault };
                let text = std::fs::read_to_string(path).map_err(|fault| error(fault.to_string()))?;
                from_toml(&text).map_err(error)?
            }
        };
        // An empty variable in the environment stands for none, and does not hide the file's value.
        values.extend(args.into_map().into_iter().filter(|(_, value)| !trimmed(value).is_empty()));
        Ok(Self::of(values))
    }

    /// Layers of these values alone.
    #[must_use]
    pub fn from_pairs(pairs: &[(&'static str, &str)]) -> Self {
        Self::of(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    /// White space at a value's ends is nobody's intention: a file ends with a line end.
    fn of(mut values: BTreeMap<&'static str, String>) -> Self {
        values.values_mut().for_each(|value| *value = trimmed(value).to_owned());
        Self { values }
    }

    /// Refuses a value in quotes, or a part of a list: a shell or a file's syntax should have taken them away. Refuses line
    /// ends and other control characters amid a value: two lines were meant, or a part of another file came along.
    ///
    /// # Errors
    /// Names the first such setting.
    pub(super) fn check_writing(&self) -> Result<(), ConfigError> {
        let parts = |value: &str, is: fn(&str) -> bool| value.split(',').map(trimmed).any(is);
        let has_control = |part: &str| part.chars().any(char::is_control);
        if let Some((name, _)) = self.values.iter().find(|(_, value)| parts(value, has_control)) {
            return Err(fault(name, "holds a line end or another control character; give one line of text"));
        }
        match self.values.iter().find(|(_, value)| is_quoted(value) || parts(value, is_quoted)) {
            None => Ok(()),
            Some((name, _)) => Err(fault(
                name,
                "stands in quotes, which would be a part of the value; leave them out (files like those of Docker's \
                 --env-file keep quotes; in TOML and in a shell one pair is enough)",
            )),
        }
    }

    /// Sets a value that no layer gave.
    pub fn default_to(&mut self, name: &'static str, value: &str) {
        self.values.entry(name).or_insert_with(|| value.to_owned());
    }

    /// The value of a setting: the highest layer's, or the default.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let default = || SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, default)| *default);
        self.values.get(name).map(String::as_str).or_else(default).filter(|value| !value.is_empty())
    }

    /// Name and value of every setting that has one, secrets masked.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        SETTINGS.iter().filter_map(|(name, _)| {
            let value = self.get(name)?;
            let shown = if SECRET.contains(name) { MASK.to_owned() } else { without_secrets(value) };
            Some((*name, shown))
        })
    }
}

/// Without white space at the ends, and without the mark that some editors put before a file's text.
fn trimmed(value: &str) -> &str {
    value.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

fn is_quoted(value: &str) -> bool {
    let pairs = [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];
    let mut rest = value.chars();
    let ends = rest.next().zip(rest.next_back());
    ends.is_some_and(|ends| pairs.contains(&ends))
}

/// What stands in the place of a secret.
const MASK: &str = "********";

/// Words in the name of a URL's parameter whose value may be a secret.
const SECRET_WORDS: [&str; 9] = ["pass", "pwd", "key", "token", "secret", "auth", "credential", "sig", "jwt"];

/// URLs whose passwords and keys are masked: in the user's part, in the query and in the fragment.
#[must_use]
fn without_secrets(value: &str) -> String {
    if let Some((at, _)) = value.match_indices(",redis").find(|(at, _)| {
        let rest = value.get(at + 1..).unwrap_or_default();
        rest.starts_with("redis://") || rest.starts_with("rediss://")
    }) {
        let (first, others) = value.split_at(at);
        return format!("{},{}", without_secrets(first), without_secrets(others.trim_start_matches(',')));
    }
    let (address, parameters) = match value.rsplit_once('@') {
        // A password may hold a ? that should have been encoded.
        Some((before, after)) if before.contains("://") => match after.find(['?', '#']) {
            Some(at) => value.split_at(before.len() + 1 + at),
            None => (value, ""),
        },
        _ => value.find(['?', '#']).map_or((value, ""), |at| value.split_at(at)),
    };
    without_user_secret(address) + &without_secret_parameters(parameters)
}

/// A URL without parameters.
fn without_user_secret(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last one: a password may hold an @ or a / that should have been encoded.
    let Some((user_info, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    match user_info.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{MASK}@{host}"),
        // Services take a key as the user; databases know a user without a password.
        None if scheme.starts_with("http") => format!("{scheme}://{MASK}@{host}"),
        None => url.to_owned(),
    }
}

fn without_secret_parameters(parameters: &str) -> String {
    let each = parameters.split_inclusive(['?', '#', '&', ';']).map(|part| {
        let (pair, end) = match part.strip_suffix(['?', '#', '&', ';']) {
            Some(pair) => part.split_at(pair.len()),
            None => (part, ""),
        };
        match pair.split_once('=') {
            Some((name, _)) if is_secret_name(name) => format!("{name}={MASK}{end}"),
            _ => part.to_owned(),
        }
    });
    each.collect()
}

/// A name with a % may be an encoded one.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains('%') || SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn from_toml(text: &str) -> Result<BTreeMap<&'static str, String>, String> {
    let table: toml::Table = text.parse().map_err(|fault: toml::de::Error| fault.to_string())?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let name = SETTINGS.iter().map(|(name, _)| *name).find(|name| name.to_ascii_lowercase() == key);
        let name = name.ok_or_else(|| format!("there is no setting {key:?}; `gateway serve --help` lists them"))?;
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Array(parts) => {
                let parts: Option<Vec<&str>> = parts.iter().map(toml::Value::as_str).collect();
                parts.ok_or_else(|| format!("{key} may hold only strings"))?.join(",")
            }
            toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => {
                return Err(format!("{key} must be a string, a whole number, true or false"));
            }
        };
        values.insert(name, text);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_in_the_file_is_refused() {
        let error = from_toml("http_port = 1\nhtp_host = \"x\"").expect_err("a typo");
        assert!(error.contains("htp_host"), "{error}");
        assert_eq!(from_toml("http_port = 1").map(|values| values["HTTP_PORT"].clone()), Ok("1".to_owned()));
    }

    #[test]
    fn passwords_are_masked() {
        assert_eq!(without_secrets("postgres://u:p@h/d"), "postgres://u:********@h/d");
        assert_eq!(without_secrets("postgres://u:p@x@h/d"), "postgres://u:********@h/d");
        assert_eq!(without_secrets("redis://h:1"), "redis://h:1");
        let masked = "redis://:********@h:1,redis://u:********@i:2,redis://k";
        assert_eq!(without_secrets("redis://:p@h:1,redis://u:q,r@i:2,redis://k"), masked);
        for (shown, url) in [
            ("postgres://u@h/d?sslmode=require&password=********", "postgres://u@h/d?sslmode=require&password=pw"),
            ("postgres://u:********@h/d?PassWord=********&x=1", "postgres://u:pw@h/d?PassWord=pw&x=1"),
            ("https://h/keys?api_key=********&v=2", "https://h/keys?api_key=pw&v=2"),
            ("https://h/keys?v=2#access_token=********", "https://h/keys?v=2#access_token=pw"),
            ("https://h/?%6bey=********", "https://h/?%6bey=pw"),
            ("https://********@h:4318/", "https://pw@h:4318/"),
            ("redis://u:********@h/0", "redis://u:p/w?x#y@h/0"),
            ("redis-sentinel://u:********@a:1,b:2/name", "redis-sentinel://u:pw@a:1,b:2/name"),
            ("sqlite:parley.db?key=********", "sqlite:parley.db?key=pw"),
            ("postgres://parley@127.0.0.1/parley", "postgres://parley@127.0.0.1/parley"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
        let layers = Layers::from_pairs(&[("JWT_SECRET", "s3cret"), ("REDIS_URL", "redis://:pw@h")]);
        let shown: Vec<_> = layers.shown().collect();
        assert!(shown.iter().all(|(_, value)| !value.contains("s3cret") && !value.contains("pw")), "{shown:?}");
    }
}
