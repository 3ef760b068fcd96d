//! The services that a node calls about tokens: an issuer that publishes keys, and an authentication service. Both over
//! real HTTP, with all their faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::auth::tokens::key_pair;
use crate::support::client::{Client, Incoming};
use crate::support::http::{bearer, get, request};
use crate::support::node::{Node, in_seconds, token};

/// What a server does with a request: an answer, or silence.
type Script = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A server on a free port that keeps what it was asked.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
    script: Arc<Mutex<Script>>,
}

impl Server {
    async fn start(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/some/path", listener.local_addr().expect("bound"));
        let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let server = Self { url, asked: Arc::clone(&asked), last: Arc::clone(&last), script: Arc::clone(&script) };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (asked, last, script) = (Arc::clone(&asked), Arc::clone(&last), Arc::clone(&script));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !whole(&request) {
                        match stream.read_buf(&mut request).await {
                            Ok(0) | Err(_) => return,
                            Ok(_) => {}
                        }
                    }
                    let request = String::from_utf8_lossy(&request).into_owned();
                    asked.fetch_add(1, Ordering::SeqCst);
                    let answer = (script.lock())(&request);
                    *last.lock() = request;
                    match answer {
                        Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                        None => tokio::time::sleep(Duration::from_secs(60)).await,
                    }
                });
            }
        });
        server
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn becomes(&self, script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
        *self.script.lock() = Box::new(script);
    }
}

/// Whether head and body are there.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// An answer over a connection that ends with it.
fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Whatever\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// What the node says to a token: a user, or a code; `None` for HTTP 503.
async fn told(node: &Node, token: &str) -> Option<String> {
    let mut client = match Client::open(node.http, &format!("/chat/ws?token={token}"), &[]).await {
        Ok(client) => client,
        Err(refused) if refused.0.contains("503") => return None,
        Err(refused) => panic!("{refused:?}"),
    };
    match client.next().await {
        Incoming::Frame(frame) if frame["type"] == "auth_success" => {
            frame["payload"]["userId"].as_str().map(str::to_owned)
        }
        Incoming::Frame(frame) => frame["payload"]["code"].as_str().map(str::to_owned),
        other => panic!("{other:?}"),
    }
}

struct IssuerKey {
    jwk: Value,
    key: EncodingKey,
    algorithm: Algorithm,
}

impl IssuerKey {
    fn make(folder: &std::path::Path, kid: &str, algorithm: Algorithm) -> Self {
        let options: &[&str] = match algorithm {
            Algorithm::RS256 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Algorithm::ES256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            _ => &["-algorithm", "ed25519"],
        };
        let (private, _) = key_pair(folder, kid, options);
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&private),
            Algorithm::ES256 => EncodingKey::from_ec_pem(&private),
            _ => EncodingKey::from_ed_pem(&private),
        }
        .expect("a key");
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).expect("a JWK")).expect("JSON");
        jwk["kid"] = kid.into();
        Self { jwk, key, algorithm }
    }

    fn sign(&self, kid: Option<&str>) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, &json!({ "sub": "a", "exp": in_seconds(60) }), &self.key).expect("signed")
    }
}

fn document(keys: &[&IssuerKey]) -> String {
    answer(200, &json!({ "keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>() }).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_keys_check_tokens_and_are_fetched_again_when_they_rotate() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = |kid, algorithm| IssuerKey::make(folder.path(), kid, algorithm);
    let (rsa, ec, ed) = (make("r1", Algorithm::RS256), make("e1", Algorithm::ES256), make("d1", Algorithm::EdDSA));
    // A start without the issuer: tokens can't be checked, whoever brings one is told to come again.
    let issuer = Server::start(|_| Some(answer(500, "<html>"))).await;
    let node = Node::embedded(&[("JWKS_URL", &issuer.url)]).await;
    assert_eq!(told(&node, &rsa.sign(Some("r1"))).await, None);
    assert_eq!(told(&node, &token("b")).await.as_deref(), Some("b"), "our own keys do without");
    let first = document(&[&rsa, &ec, &ed]);
    issuer.becomes(move |_| Some(first.clone()));
    let patience = Instant::now();
    while told(&node, &rsa.sign(Some("r1"))).await.is_none() {
        assert!(patience.elapsed() < Duration::from_secs(10), "it goes on trying");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (key, kid) in [(&rsa, "r1"), (&ec, "e1"), (&ed, "d1")] {
        for kid in [Some(kid), None] {
            assert_eq!(told(&node, &key.sign(kid)).await.as_deref(), Some("a"), "{kid:?}");
        }
    }
    assert_eq!(told(&node, &rsa.sign(Some("e1"))).await.as_deref(), Some("UNAUTHENTICATED"), "another key's name");
    // A secret never comes from there, nor is a public key one.
    let public = rsa.jwk["n"].as_str().expect("a modulus").as_bytes();
    let header = Header { kid: Some("r1".into()), ..Header::new(Algorithm::HS256) };
    let confused = encode(&header, &json!({ "sub": "a", "exp": in_seconds(60) }), &EncodingKey::from_secret(public));
    assert_eq!(told(&node, &confused.expect("signed")).await.as_deref(), Some("UNAUTHENTICATED"));

    // The issuer rotates: the first unknown name is worth a fetch, the next ones within a minute are not.
    let rotated = make("r2", Algorithm::RS256);
    let second = document(&[&rotated, &ec]);
    issuer.becomes(move |_| Some(second.clone()));
    let before = issuer.asked();
    let new = rotated.sign(Some("r2"));
    let together = tokio::join!(told(&node, &new), told(&node, &new), told(&node, &new));
    assert_eq!(together, (Some("a".into()), Some("a".into()), Some("a".into())));
    assert_eq!(told(&node, &rsa.sign(Some("r1"))).await.as_deref(), Some("UNAUTHENTICATED"), "it was withdrawn");
    assert_eq!(told(&node, &make("r3", Algorithm::EdDSA).sign(Some("r3"))).await.as_deref(), Some("UNAUTHENTICATED"));
    assert_eq!(issuer.asked(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_holds_no_keys_changes_nothing() {
    for nonsense in
        [answer(200, "{"), answer(200, r#"{"keys":[]}"#), answer(302, ""), answer(200, &"x".repeat(300_000))]
    {
        let issuer = Server::start(move |_| Some(nonsense.clone())).await;
        let node = Node::embedded(&[("JWKS_URL", &issuer.url)]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let key = IssuerKey::make(folder.path(), "k", Algorithm::EdDSA);
        assert_eq!(told(&node, &key.sign(Some("k"))).await, None);
        assert_eq!(told(&node, "no.jwt.token").await.as_deref(), Some("UNAUTHENTICATED"));
    }
}

const ANN: &str = r#"{"valid": true, "user_id": 42, "username": "Ann", "scope": "chat admin"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_lets_in_or_refuses_and_is_asked_once() {
    let service = Server::start(|request| {
        std::thread::sleep(Duration::from_millis(100));
        let says = |token: &str| request.contains(&format!("authorization: Bearer {token}\r\n"));
        Some(match () {
            () if says("opaque") => answer(200, ANN),
            () if says("short") => answer(200, &format!(r#"{{"valid":true,"user_id":"s","exp":{}}}"#, in_seconds(3))),
            () if says("no") => answer(200, r#"{"valid": false}"#),
            () => answer(403, "<html>"),
        })
    })
    .await;
    let node = Node::embedded(&[("AUTH_SERVICE_URL", &service.url)]).await;
    let five = tokio::join!(
        told(&node, "opaque"),
        told(&node, "opaque"),
        told(&node, "opaque"),
        told(&node, "opaque"),
        told(&node, "opaque")
    );
    assert_eq!(five.0.as_deref(), Some("42"));
    assert!([five.1, five.2, five.3, five.4].iter().all(|told| *told == five.0));
    assert_eq!(service.asked(), 1);
    let asked = service.last.lock().clone();
    assert!(asked.starts_with("POST /some/path HTTP/1.1\r\n") && asked.ends_with(r#"{"token":"opaque"}"#), "{asked}");
    // Over REST as well, with the rights that it gave.
    let (name, value) = bearer("opaque");
    let stats = "/api/v1/internal/chat/ws/stats";
    assert_eq!(get(node.http, stats, &[(name, &value)]).await.0, 200);
    assert_eq!(service.asked(), 1, "the answer was kept");

    for (token, code) in [("no", "UNAUTHENTICATED"), ("other", "UNAUTHENTICATED")] {
        assert_eq!(told(&node, token).await.as_deref(), Some(code));
    }
    let refused = Client::open(node.http, "/ws?token=no", &[]).await.err().expect("no upgrade");
    assert!(refused.0.contains("401"), "{refused:?}");
    // Tokens of our own need nobody.
    let before = service.asked();
    assert_eq!(told(&node, &token("b")).await.as_deref(), Some("b"));
    assert_eq!(service.asked(), before);
    // The auth frame asks, too; and the connection ends when the service says that its token does.
    let mut client = Client::open(node.http, "/chat/ws", &[]).await.expect("upgrade");
    client.send("auth", json!({ "token": "short" })).await;
    assert_eq!(client.expect("auth_success").await["payload"]["userId"], "s");
    assert_eq!(client.expect_close().await, 4300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_can_not_be_asked_is_503_and_soon_not_asked() {
    let service = Server::start(|_| Some(answer(500, ANN))).await;
    let node = Node::embedded(&[("AUTH_SERVICE_URL", &service.url), ("AUTH_TIMEOUT", "300ms")]).await;
    let ten_megabytes = answer(200, &format!(r#"{{"valid":true,"user_id":"a","x":"{}"}}"#, "x".repeat(10 << 20)));
    let faults: [Script; 4] = [
        Box::new(|_| Some(answer(500, ANN))),
        Box::new(|_| Some(answer(200, "<html>we are sorry</html>"))),
        Box::new(move |_| Some(ten_megabytes.clone())),
        Box::new(|_| None),
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        service.becomes(fault);
        assert_eq!(told(&node, &format!("token-{n}")).await, None);
    }
    // A socket that is open already is told by a close code.
    let mut client = Client::open(node.http, "/chat/ws", &[]).await.expect("upgrade");
    client.send("auth", json!({ "token": "token-9" })).await;
    assert_eq!(client.expect_close().await, 4104);
    // That was the fifth failure: nobody waits for it any more.
    let before = (service.asked(), Instant::now());
    for n in 10..30 {
        assert_eq!(told(&node, &format!("token-{n}")).await, None);
    }
    assert_eq!(service.asked(), before.0);
    let (name, value) = bearer("token-30");
    let (status, body) = request(node.http, "GET", "/api/v1/conversations", &[(name, &value)], "").await;
    assert_eq!(
        (status, &body["error"]["code"], &body["error"]["retryable"]),
        (503, &json!("UNAVAILABLE"), &json!(true))
    );
    assert!(body["error"]["retryAfterMs"].as_u64().is_some_and(|wait| wait <= 5_000), "{body}");
    assert_eq!(told(&node, &token("b")).await.as_deref(), Some("b"), "our own tokens do without");
    // It is well again: one is tried, and then all are asked.
    service.becomes(|_| Some(answer(200, ANN)));
    let patience = Instant::now();
    while told(&node, "token-40").await.is_none() {
        assert!(patience.elapsed() < Duration::from_secs(15), "it is tried again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(told(&node, "token-41").await.as_deref(), Some("42"));
    let (_, metrics) = get(node.ops, "/metrics", &[]).await;
    assert!(metrics.as_str().expect("text").contains("parley_auth_service_total{result=\"failed\"}"));
}

/// What a stranger's token makes the service, or what stands before it, answer is that token's fate: no other one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_the_service_can_not_take_keep_nobody_out() {
    let long = "x".repeat(7_000);
    let service = Server::start(|request| {
        Some(if request.contains("xxxx") {
            answer(400, "request header or cookie too large")
        } else {
            answer(200, ANN)
        })
    });
    let service = service.await;
    let node = Node::embedded(&[("AUTH_SERVICE_URL", &service.url)]).await;
    for n in 0..20 {
        assert_eq!(told(&node, &format!("{long}{n}")).await, None);
        assert_eq!(told(&node, &format!("good-{n}")).await.as_deref(), Some("42"), "after {n} bad ones");
    }
    let asked = service.asked();
    let (name, value) = bearer(&long.repeat(2));
    assert_eq!(get(node.http, "/api/v1/conversations", &[(name, &value)]).await.0, 401);
    assert_eq!(service.asked(), asked, "a token of 14 KB is never sent");
}

/// The service is slow, and one address asks it about as many tokens as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_does_not_take_all_places_at_the_service() {
    let service = Server::start(|request| if request.contains("hang") { None } else { Some(answer(200, ANN)) }).await;
    let settings = [("AUTH_SERVICE_URL", &*service.url), ("TRUSTED_PROXIES", "127.0.0.1"), ("AUTH_TIMEOUT", "30s")];
    let node = Node::embedded(&settings).await;
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..300 {
        let to = node.http;
        flood.spawn(async move {
            let (name, value) = bearer(&format!("hang-{n}"));
            get(to, "/api/v1/conversations", &[(name, &value), ("x-forwarded-for", "10.0.0.1")]).await.0
        });
    }
    // Those beyond the share are sent away at once.
    let mut sent_away = 0;
    while sent_away < 108 {
        let status = tokio::time::timeout(Duration::from_secs(30), flood.join_next()).await.expect("an answer");
        assert_eq!(status.expect("one is left").expect("it ends well"), 503);
        sent_away += 1;
    }
    for n in 0..10 {
        let (name, value) = bearer(&format!("good-{n}"));
        let headers = [(name, &*value), ("x-forwarded-for", "10.0.0.2")];
        assert_eq!(get(node.http, "/api/v1/conversations", &headers).await.0, 200, "another address is served");
    }
    flood.abort_all();
}

/// Many questions that nobody answers take no further ones in: those are refused at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_questions_without_an_answer_are_refused() {
    let service = Server::start(|_| None).await;
    let node = Node::embedded(&[("AUTH_SERVICE_URL", &service.url), ("AUTH_TIMEOUT", "30s")]).await;
    let http = node.http;
    let ask = move |token: String| async move {
        let (name, value) = bearer(&token);
        request(http, "GET", "/api/v1/conversations", &[(name, &value)], "").await
    };
    let hanging: Vec<_> = (0..40).map(|n| tokio::spawn(ask(format!("token-{n}")))).collect();
    let patience = Instant::now();
    while service.asked() < 40 {
        assert!(patience.elapsed() < Duration::from_secs(20), "all are asked about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let asked = Instant::now();
    let (status, body) = ask("one-more".to_owned()).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("UNAVAILABLE")));
    assert!(body["error"]["retryAfterMs"].as_u64().is_some_and(|wait| (500..5_000).contains(&wait)), "{body}");
    assert!(asked.elapsed() < Duration::from_secs(5) && service.asked() == 40, "it was not asked about");
    hanging.into_iter().for_each(|task| task.abort());
}
