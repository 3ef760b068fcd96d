//! Authentication: keys, the authentication service, sessions, origins.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::Mode;
use super::error::{ConfigError, fault};
use super::layers::Layers;
use super::origins::Origins;

/// Keys and rules of authentication.
#[derive(Clone)]
pub struct AuthConfig {
    /// `false` only in dev: `?user=` is accepted without a check.
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
    /// The claim with the name that others look a user up by.
    pub username_claim: String,
    /// Where an issuer publishes its keys.
    pub jwks_url: Option<Uri>,
    /// A service that checks tokens which none of our keys has signed.
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
    /// Where requests go.
    pub url: Uri,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl AuthConfig {
    pub(super) fn read(mode: Mode, layers: &Layers) -> Result<Self, ConfigError> {
        let timeout = layers.duration("AUTH_TIMEOUT", Duration::from_millis(100), Duration::from_secs(60))?;
        let config = Self {
            enabled: enabled(mode, layers)?,
            jwt_secrets: layers.secrets("JWT_SECRET")?,
            jwt_public_key_files: layers.list("JWT_PUBLIC_KEY_FILE").into_iter().map(PathBuf::from).collect(),
            issuer: layers.text("JWT_ISSUER"),
            audience: layers.text("JWT_AUDIENCE"),
            user_claims: layers.list("JWT_USER_CLAIMS"),
            username_claim: layers.text("JWT_USERNAME_CLAIM").unwrap_or_default(),
            jwks_url: layers.url("JWKS_URL")?,
            service: layers.url("AUTH_SERVICE_URL")?.map(|url| AuthService { url, timeout }),
            session_cookie: cookie_name(layers, "SESSION_COOKIE")?,
            api_key: layers.secret("API_KEY")?,
            allowed_origins: layers.origins()?,
        };
        if config.enabled && !config.can_check_tokens() && mode == Mode::Serve {
            return Err(fault(
                "JWT_SECRET",
                "is not set; set it, JWT_PUBLIC_KEY_FILE, JWKS_URL or AUTH_SERVICE_URL, so that tokens can be checked",
            ));
        }
        Ok(config)
    }

    fn can_check_tokens(&self) -> bool {
        let has_key = !self.jwt_secrets.is_empty() || !self.jwt_public_key_files.is_empty();
        has_key || self.jwks_url.is_some() || self.service.is_some()
    }
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

fn enabled(mode: Mode, layers: &Layers) -> Result<bool, ConfigError> {
    const NAME: &str = "AUTH_ENABLED";
    match (layers.boolean(NAME)?, mode) {
        (false, Mode::Serve) => Err(fault(NAME, "can be false only with `gateway dev`")),
        (enabled, Mode::Serve | Mode::Dev) => Ok(enabled),
    }
}

/// A cookie's name (RFC 6265 §4.1.1).
fn cookie_name(layers: &Layers, name: &'static str) -> Result<String, ConfigError> {
    let text = layers.text(name).unwrap_or_default();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 128 || !text.bytes().all(token) {
        return Err(fault(name, format!("{text:?} is not a cookie's name; give one like session_id")));
    }
    if text == "token" {
        return Err(fault(name, "that cookie holds a token; give another name, like session_id"));
    }
    Ok(text)
}
