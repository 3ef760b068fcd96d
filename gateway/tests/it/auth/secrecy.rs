//! No credential stands in a log, at any level of detail.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::json;

use crate::support::client::Client;
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, SECRET, token};
use crate::support::ports::free_address;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;

/// A node in a process of its own, and everything that it says.
struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

fn listen(said: &Arc<Mutex<String>>, stream: impl Read + Send + 'static) -> JoinHandle<()> {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut said = said.lock();
            said.push_str(&line);
            said.push('\n');
        }
    })
}

impl Process {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.arg("serve").env("RUST_LOG", "trace").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.envs(settings.iter().copied()).spawn().expect("the gateway starts");
        let said = Arc::new(Mutex::new(String::new()));
        let out = listen(&said, child.stdout.take().expect("piped"));
        let err = listen(&said, child.stderr.take().expect("piped"));
        Self { child, said, readers: vec![out, err] }
    }

    /// Where it says that it listens.
    async fn address(&self) -> std::net::SocketAddr {
        for _ in 0..200 {
            let said = self.said.lock().clone();
            let listening = said.lines().find(|line| line.contains("listening"));
            if let Some((_, rest)) = listening.and_then(|line| line.split_once(" http=")) {
                return rest.split(' ').next().expect("an address").parse().expect("an address");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("it does not listen: {}", self.said.lock());
    }

    /// Ends it; all that it has said.
    fn end(mut self) -> String {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.readers.drain(..).for_each(|reader| reader.join().expect("its output was read"));
        std::mem::take(&mut *self.said.lock())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_ticket_or_session_is_logged_at_any_level() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite:{}", folder.path().join("parley.db").display());
    // Nobody is there: asking it fails, which is logged.
    let nobody = free_address();
    let service = format!("http://{nobody}/check");
    let process = Process::start(&[
        ("HTTP_HOST", "127.0.0.1"),
        ("OPS_HOST", "127.0.0.1"),
        ("HTTP_PORT", "0"),
        ("OPS_PORT", "0"),
        ("REDIS_URL", &redis.url()),
        ("DATABASE_URL", &database),
        ("JWT_SECRET", SECRET),
        ("API_KEY", API_KEY),
        ("AUTH_SERVICE_URL", &service),
        ("JWKS_URL", &service),
    ]);
    let to = process.address().await;
    redis.ask("SET session:a-session-that-nobody-sees s");
    let token = token("a");
    let foreign = "a-foreign-token-that-nobody-sees";
    let (_, authorization) = bearer(&token);
    let (status, issued) = post(to, "/api/v2/ws-token", &[("authorization", &authorization)], json!({})).await;
    assert_eq!(status, 200);
    let ticket = issued["ticket"].as_str().expect("a ticket").to_owned();
    let cookie = format!("token={token}");
    let subprotocol = format!("chat.v1, bearer.{token}");
    let ways: [(String, Vec<(&str, &str)>); 7] = [
        (format!("/chat/ws?token={token}"), vec![]),
        (format!("/chat/ws?ticket={ticket}"), vec![]),
        ("/chat/ws".into(), vec![("authorization", &authorization)]),
        ("/chat/ws".into(), vec![("cookie", &cookie)]),
        ("/chat/ws".into(), vec![("sec-websocket-protocol", &subprotocol)]),
        ("/chat/ws".into(), vec![("cookie", "session_id=a-session-that-nobody-sees")]),
        ("/chat/ws".into(), vec![]),
    ];
    for (path, headers) in &ways {
        let mut client = Client::open(to, path, headers).await.expect("upgrade");
        if headers.is_empty() && !path.contains('?') {
            client.send("auth", json!({ "token": token })).await;
        }
        client.expect("auth_success").await;
    }
    for path in [format!("/chat/ws?token={foreign}"), format!("/ws?token={foreign}")] {
        assert!(Client::open(to, &path, &[]).await.err().is_some_and(|refused| refused.0.contains("503")));
    }
    assert_eq!(get(to, "/api/v1/conversations", &[("cookie", &cookie)]).await.0, 200);
    assert_eq!(get(to, "/api/v1/conversations", &[("x-api-key", "a-wrong-key-that-nobody-sees")]).await.0, 401);

    let said = process.end();
    assert!(said.contains("DEBUG gateway") && said.contains("AUTH_SERVICE_URL"), "it says much: {said}");
    let signature = token.rsplit('.').next().expect("three parts");
    for secret in [signature, &ticket, foreign, "that-nobody-sees", SECRET, API_KEY] {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was logged");
    }
}

/// Libraries would print every parameter of a statement and every argument of a command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_content_and_no_password_hash_is_logged_at_any_level() {
    let (redis, database) = (Redis::start(), Postgres::database().await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = format!("sqlite:{}", folder.path().join("parley.db").display());
    let everything = "trace,tokio_postgres=trace,tokio_postgres::query=trace,tokio_postgres::prepare=debug,redis=trace,\
                      redis::aio=trace,hyper=trace,hyper::proto=trace,hyper_util=trace,rusqlite=trace,h2=trace";
    for (store, level) in [(&database.url, "debug"), (&database.url, everything), (&file, everything)] {
        let process = Process::start(&[
            ("RUST_LOG", level),
            ("HTTP_HOST", "127.0.0.1"),
            ("OPS_HOST", "127.0.0.1"),
            ("HTTP_PORT", "0"),
            ("OPS_PORT", "0"),
            ("REDIS_URL", &redis.url()),
            ("DATABASE_URL", store),
            ("JWT_SECRET", SECRET),
            ("API_KEY", API_KEY),
        ]);
        let to = process.address().await;
        let (_, authorization) = bearer(&token("a"));
        let headers = [("authorization", authorization.as_str())];
        let channel = json!({
            "kind": "channel", "title": "a-title-that-nobody-sees", "visibility": "public",
            "password": "a-password-that-nobody-sees",
        });
        let (status, made) = post(to, "/api/v1/conversations", &headers, channel).await;
        assert_eq!(status, 201, "{made}");
        let join = format!("/api/v1/conversations/{}/join", made["id"].as_str().expect("an id"));
        let (_, others) = bearer(&token("b"));
        let wrong = json!({ "password": "a-wrong-one-that-nobody-sees" });
        assert_eq!(post(to, &join, &[("authorization", &others)], wrong).await.0, 403);
        let message = json!({ "to": "b", "content": "a-content-that-nobody-sees" });
        assert_eq!(post(to, "/api/v1/messages", &headers, message).await.0, 201);
        let said = process.end();
        assert!(said.contains("gateway::http::rest: answered"), "it says much: {said}");
        for secret in ["that-nobody-sees", "$argon2", "$scrypt", "$2b$"] {
            let line = said.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} was logged");
        }
    }
}
