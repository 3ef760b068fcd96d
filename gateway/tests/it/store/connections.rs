//! Connections to PostgreSQL: a share for each purpose, few of them, and poolers that mix them up.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gateway::overload::Kind;
use gateway::store::{StoreError, connect};
use serde_json::json;
use tokio::task::JoinSet;

use crate::store::{World, batch, bounded, conversation, new_group, owner, user};
use crate::support::http::{get, patiently, post};
use crate::support::node::API_KEY;
use crate::support::ports::free_port;
use crate::support::postgres::Postgres;
use crate::support::process::ServedNode;
use crate::support::redis::Redis;

/// A role may have fewer connections than a node would take: then calls wait for those that there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_three_connections_serves_everybody() {
    bounded(async {
        let server = Postgres::start_own();
        let database = server.new_database().await;
        let name = database.url.rsplit('/').next().expect("a name").to_owned();
        let admin = database.client().await;
        admin
            .batch_execute(&format!(
                "CREATE ROLE few LOGIN CONNECTION LIMIT 3; ALTER DATABASE {name} OWNER TO few; ALTER SCHEMA public OWNER TO few"
            ))
            .await
            .expect("a role");
        let url = database.url.replace("postgres@", "few@");
        let (redis, folder) = (Redis::start(), tempfile::tempdir().expect("a folder"));
        let node = ServedNode::start(&redis.url(), &url, &[("LOG_FORMAT", "json")], folder.path(), "node").await;

        let key = ("x-api-key", API_KEY);
        let as_backend = [key];
        for group in 0..40 {
            let asked = json!({ "id": format!("c{group}"), "kind": "group", "title": "t", "members": ["a", "b"] });
            let make = || post(node.http, "/api/v1/conversations", &as_backend, asked.clone());
            let (status, made) = patiently(make).await;
            assert_eq!(status, 201, "{made}");
        }
        let mut requests = JoinSet::new();
        for group in 0..40 {
            let (http, path) = (node.http, format!("/api/v1/conversations/c{group}/messages"));
            let message = json!({ "conversationId": format!("c{group}"), "content": "x" });
            requests.spawn(async move {
                let as_a = [key, ("x-user-id", "a")];
                for _ in 0..5 {
                    let (status, answer) = patiently(|| post(http, "/api/v1/messages", &as_a, message.clone())).await;
                    assert_eq!(status, 201, "{answer}");
                }
            });
            requests.spawn(async move {
                let as_b = [key, ("x-user-id", "b")];
                for _ in 0..5 {
                    let (status, answer) = patiently(|| get(http, &path, &as_b)).await;
                    assert_eq!(status, 200, "{answer}");
                }
            });
        }
        while let Some(done) = requests.join_next().await {
            done.expect("every call is served");
        }
        let (_, log) = node.stop(Duration::from_secs(60)).await.expect("it ends");
        let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!(count("PostgreSQL refuses further connections"), 1, "{log}");
        assert_eq!(count("takes up to so many connections to PostgreSQL, and there is less room"), 1, "{log}");
    })
    .await;
}

/// Questions that hang use up their own connections. Commits, leases and readiness have theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_that_hang_hold_up_no_commit_and_are_refused_in_time() {
    bounded(async {
        let World { store, database, .. } = &World::postgres().await;
        new_group(store, "c", &["a"]).await;
        let lock = database.as_ref().expect("a database").client().await;
        lock.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.expect("locked");

        let mut hanging = JoinSet::new();
        for _ in 0..60 {
            let store = store.clone();
            hanging.spawn(async move {
                let asked = Instant::now();
                (store.username(&user("a")).await, asked.elapsed())
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let holder = owner("n:1");
        for round in 0..20 {
            let messages = batch(store, &[("c", "a", "", "x")]).await;
            let each = tokio::join!(store.send(&messages), store.ping(), store.beat(&holder));
            assert!(each.0.is_ok() && each.1.is_ok() && each.2.is_ok(), "round {round}: {each:?}");
        }
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let asked = Instant::now();
        let late = store.username(&user("a")).await;
        assert!(matches!(&late, Err(StoreError::Busy(busy)) if busy.kind == Kind::LookUps), "{late:?}");
        assert!(asked.elapsed() < Duration::from_millis(500), "at once, not after {:?}", asked.elapsed());

        let mut busy = 0;
        while let Some(answer) = hanging.join_next().await {
            let (answer, took) = answer.expect("an answer");
            if matches!(answer, Err(StoreError::Busy(_))) {
                busy += 1;
                assert!(took < Duration::from_secs(3), "refused after {took:?}");
            } else {
                assert!(
                    took < Duration::from_secs(5) && matches!(answer, Err(StoreError::Unavailable(_))),
                    "{answer:?}"
                );
            }
        }
        assert!(busy >= 40, "{busy} were refused");
        lock.batch_execute("ROLLBACK").await.expect("unlocked");
        store.username(&user("a")).await.expect("it goes on");
        store.conversation(&conversation("c"), None).await.expect("it goes on");
    })
    .await;
}

/// A pooler that hands transactions to different connections loses statements and settings. It is found at the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_by_transaction_is_refused_and_one_by_session_serves() {
    bounded(async {
        let server = Postgres::start_own();
        let database = server.new_database().await;
        let by_transaction = PgBouncer::start(&database.url, "transaction").await;
        let fault = connect(&by_transaction.url).await.map(drop).expect_err("no node may run there").to_string();
        assert!(fault.contains("pool_mode = session") && fault.contains("DATABASE_URL"), "{fault}");
        let by_session = PgBouncer::start(&database.url, "session").await;
        let store = connect(&by_session.url).await.expect("each connection is one of the server");
        new_group(&store, "c", &["a"]).await;
    })
    .await;
}

/// PgBouncer before one database; killed when dropped.
struct PgBouncer {
    process: Child,
    folder: PathBuf,
    url: String,
}

impl PgBouncer {
    async fn start(database: &str, mode: &str) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("parley-pgbouncer-{}-{port}", std::process::id()));
        let (server, name) = database.rsplit_once('/').expect("a database's URL");
        let server_port = server.rsplit(':').next().expect("a port");
        let text = format!(
            "[databases]\n{name} = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\nauth_file =\npool_mode = {mode}\nignore_startup_parameters = extra_float_digits\n"
        );
        let text = text.replace(&format!("port={server_port}\n"), &format!("port={server_port} user=postgres\n"));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("ini"), text).expect("the folder can be written");
        let binary =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| PathBuf::from(path).exists());
        let binary = binary.expect("pgbouncer is installed (deploy/test.sh installs it)");
        let is_root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
        let mut command = Command::new(if is_root { "setpriv" } else { binary });
        if is_root {
            command.args(["--reuid=postgres", "--clear-groups", "--pdeathsig", "KILL", binary]);
        }
        let process = command.arg(folder.join("ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = process.spawn().expect("pgbouncer starts");
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), up).await.expect("pgbouncer listens");
        Self { process, folder, url: format!("postgres://postgres@127.0.0.1:{port}/{name}") }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
