//! TLS to Redis and PostgreSQL: all traffic is encrypted, and only the right certificate is accepted.

use gateway::backbone::{RedisBackbone, Settings};
use gateway::store::connect;
use serde_json::json;

use crate::backbone::rig::{deaf, empty_store};
use crate::support::certificates::Authority;
use crate::support::client::Client;
use crate::support::node::Node;
use crate::support::ports::free_port;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;

/// A Redis that speaks TLS on a second port.
fn encrypted_redis(authority: &Authority) -> (Redis, u16) {
    let port = free_port();
    let redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &authority.path("server.pem"),
        "--tls-key-file",
        &authority.path("server.key"),
        "--tls-ca-cert-file",
        &authority.path("authority.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    (redis, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_speaks_tls_to_both_servers() {
    let authority = Authority::new();
    let (redis, port) = encrypted_redis(&authority);
    let postgres = Postgres::start_own();
    postgres.speak_tls(&authority.text("server.pem"), &authority.text("server.key")).await;
    let database = postgres.new_database().await;
    let believed = authority.path("authority.pem");
    let url = format!("{}?sslmode=verify-full&sslrootcert={believed}", database.url);
    let node = Node::serve(&format!("rediss://127.0.0.1:{port}"), &url, &[("REDIS_CA_FILE", &believed)]).await;
    node.wait_ready(true).await;
    let mut a = Client::join(node.http, "a").await;
    let mut b = Client::join(node.http, "b").await;
    a.send("message.send", json!({ "to": "b", "content": "in secret" })).await;
    assert_eq!(b.expect("message.new").await["payload"]["message"]["content"], "in secret");

    let clients: String = redis::from_redis_value(redis.ask("CLIENT LIST")).expect("text");
    let ours: Vec<&str> = clients.lines().filter(|line| line.contains(" name=parley:")).collect();
    assert_eq!(ours.len(), 2, "{clients}");
    assert!(ours.iter().all(|line| line.contains(&format!(" laddr=127.0.0.1:{port} "))), "{clients}");
    let count = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) \
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'parley'";
    let row = database.client().await.query_one(count, &[]).await.expect("counts");
    let (encrypted, plain): (i64, i64) = (row.get(0), row.get(1));
    assert!(encrypted > 0 && plain == 0, "{encrypted} connections are encrypted, {plain} are not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_nobody_vouches_for_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let postgres = Postgres::start_own();
    let database = postgres.new_database().await;
    let refused = async |parameters: String, url: &str| match connect(&format!("{url}?{parameters}")).await {
        Ok(_) => panic!("{parameters} must not connect"),
        Err(error) => error.to_string(),
    };
    let of = |authority: &Authority| format!("sslmode=require&sslrootcert={}", authority.path("authority.pem"));
    let fault = refused(of(&authority), &database.url).await;
    assert!(fault.contains("ssl = on"), "a server without TLS: {fault}");

    postgres.speak_tls(&authority.text("server.pem"), &authority.text("server.key")).await;
    let fault = refused(of(&other), &database.url).await;
    assert!(fault.contains("invalid peer certificate") && fault.contains("sslrootcert"), "another authority: {fault}");
    let elsewhere = database.url.replace("127.0.0.1", "localhost");
    let fault = refused(of(&authority), &elsewhere).await;
    assert!(fault.contains("must name the host"), "another name: {fault}");
    let fault = refused("sslmode=verify-full&sslrootcert=/nowhere.pem".to_owned(), &database.url).await;
    assert!(fault.contains("sslrootcert /nowhere.pem"), "no file: {fault}");
    let fault = refused(format!("sslmode=require&sslrootcert={}", authority.path("server.key")), &database.url).await;
    assert!(fault.contains("no certificate"), "a key: {fault}");
    connect(&format!("{}?{}", database.url, of(&authority))).await.map(drop).expect("the right authority will do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_nobody_vouches_for_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_redis, port) = encrypted_redis(&authority);
    let refused = async |host: &str, file: &str| {
        let url = format!("rediss://{host}:{port}");
        let address = (&*url, Some(std::path::Path::new(file)));
        let started = RedisBackbone::start(address, Settings::new("a", "b"), deaf(), empty_store()).await;
        started.err().expect("it does not start").0
    };
    let (another, right) = (other.path("authority.pem"), authority.path("authority.pem"));
    let (issuer, name, file) = tokio::join!(
        refused("127.0.0.1", &another),
        refused("localhost", &right),
        refused("127.0.0.1", "/nowhere.pem")
    );
    assert!(
        issuer.contains("invalid peer certificate") && issuer.contains("REDIS_CA_FILE"),
        "another authority: {issuer}"
    );
    assert!(name.contains("must name the host"), "another name: {name}");
    assert!(file.contains("REDIS_CA_FILE /nowhere.pem"), "no file: {file}");
}
