//! A start that can't succeed says which setting is at fault, before anything is connected to.

use gateway::app::App;
use gateway::config::{Config, Layers, Mode};

use crate::support::postgres::Postgres;
use crate::support::redis::Redis;

/// Nothing listens on this port.
const AWAY: &str = "127.0.0.1:1";

async fn fault(pairs: &[(&'static str, &str)]) -> String {
    let defaults = [("HTTP_PORT", "0"), ("OPS_PORT", "0"), ("JWT_SECRET", "0123456789abcdef")];
    let layers = Layers::from_pairs(&[&defaults[..], pairs].concat());
    let config = match Config::load(Mode::Serve, &layers) {
        Ok(config) => config,
        Err(error) => return error.to_string(),
    };
    match App::start(config).await {
        Ok(_) => panic!("it must not start"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn every_setting_is_checked_before_anything_is_connected_to() {
    let (redis, database) = (format!("redis://{AWAY}"), format!("postgres://parley@{AWAY}/parley"));
    let good = [("REDIS_URL", redis.as_str()), ("DATABASE_URL", database.as_str())];
    for (name, value, expected) in [
        ("JWT_PUBLIC_KEY_FILE", "/does/not/exist.pem", "JWT_PUBLIC_KEY_FILE /does/not/exist.pem"),
        ("JWT_PUBLIC_KEY_FILE", "/dev/null", "JWT_PUBLIC_KEY_FILE /dev/null: holds no"),
        ("REDIS_URL", "redis://:pa/ss@127.0.0.1:1", "percent-encoded"),
        ("REDIS_URL", "redis://127.0.0.1:1/x", "REDIS_URL"),
        (
            "DATABASE_URL",
            "postgres://parley@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/nowhere.pem",
            "/nowhere.pem",
        ),
        ("DATABASE_URL", "postgres://parley@127.0.0.1:1/d?nonsense=1", "DATABASE_URL is no PostgreSQL URL"),
        ("API_KEY", "short", "API_KEY"),
    ] {
        let told = fault(&[&good[..], &[(name, value)]].concat()).await;
        assert!(told.contains(expected), "{name}={value}: {told}");
    }
    let tls = [("REDIS_URL", "rediss://127.0.0.1:1"), ("REDIS_CA_FILE", "/nowhere.pem"), good[1]];
    let told = fault(&tls).await;
    assert!(told.contains("REDIS_CA_FILE /nowhere.pem"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_redis_refuses_is_told_as_that() {
    let (redis, database) = (Redis::start(), Postgres::database().await);
    redis.ask("CONFIG SET requirepass 100%41");
    for login in [":100%41@", ":wrong@", ""] {
        let url = format!("redis://{login}127.0.0.1:{}", redis.port());
        let told = fault(&[("REDIS_URL", &url), ("DATABASE_URL", &database.url)]).await;
        assert!(told.contains("password") && told.contains("% as %25"), "{login}: {told}");
        assert!(!told.contains("running there") && !told.contains("100"), "{told}");
    }
}
