//! A real node in this process, on free ports.

use std::net::SocketAddr;

use gateway::app::App;
use gateway::config::{Config, Layers, Mode};

/// The secret that the tests sign with.
pub(crate) const SECRET: &str = "a-secret-for-the-tests-of-parley";
/// The key of the tests' backend.
pub(crate) const API_KEY: &str = "an-api-key-for-the-tests";

/// A running node.
pub(crate) struct Node {
    pub(crate) app: App,
    pub(crate) http: SocketAddr,
    pub(crate) ops: SocketAddr,
}

impl Node {
    /// A node with an embedded store and backbone.
    pub(crate) async fn embedded(settings: &[(&'static str, &str)]) -> Self {
        Self::start(Mode::Dev, settings).await
    }

    /// A node on Redis and a database.
    pub(crate) async fn serve(redis: &str, database: &str, settings: &[(&'static str, &str)]) -> Self {
        let mut all = vec![("REDIS_URL", redis), ("DATABASE_URL", database)];
        all.extend_from_slice(settings);
        Self::start(Mode::Serve, &all).await
    }

    async fn start(mode: Mode, settings: &[(&'static str, &str)]) -> Self {
        let mut layers = Layers::from_pairs(settings);
        let defaults = [
            ("HTTP_HOST", "127.0.0.1"),
            ("OPS_HOST", "127.0.0.1"),
            ("HTTP_PORT", "0"),
            ("OPS_PORT", "0"),
            ("JWT_SECRET", SECRET),
            ("API_KEY", API_KEY),
            ("DRAIN_DELAY_SECONDS", "0"),
            ("DRAIN_SECONDS", "2"),
            ("OFFLINE_GRACE_SECONDS", "1"),
        ];
        defaults.into_iter().for_each(|(name, value)| layers.default_to(name, value));
        let config = Config::load(mode, &layers).expect("the settings of a test are right");
        let app = App::start(config).await.expect("a node starts");
        Self { http: app.http, ops: app.ops, app }
    }

    /// Waits until `/readyz` says what is expected.
    pub(crate) async fn wait_ready(&self, ready: bool) {
        let expected = if ready { 200 } else { 503 };
        let asked = async {
            while super::http::get(self.ops, "/readyz", &[]).await.0 != expected {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(40), asked).await.expect("readiness in time");
    }
}

/// A token for `user` that lasts an hour. It is some seconds old: one of the very second of a revocation is a case of its own.
pub(crate) fn token(user: &str) -> String {
    token_with(
        serde_json::json!({ "sub": user, "username": format!("name-of-{user}"), "exp": in_seconds(3600), "iat": in_seconds(-5) }),
    )
}

/// A token with these claims.
pub(crate) fn token_with(claims: serde_json::Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("claims can be signed")
}

/// Unix seconds, so many from now.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    shared::Timestamp::now().unix_seconds() + seconds
}
