//! Pages of other sites: what they may read, and that a browser's cookies change nothing for them.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::http::{bearer, get, post, request};
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};

const FRONT: &str = "https://chat.example";
const EVIL: &str = "https://evil.example";

/// Status and headers of a request without a body.
async fn headers_of(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
    let stream = TcpStream::connect(to).await.expect("the node accepts");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("an HTTP connection");
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    body.collect().await.expect("a body");
    connection.abort();
    (parts.status.as_u16(), parts.headers)
}

/// The first bytes that come back for what is written.
async fn raw(to: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(to).await.expect("the node accepts");
    stream.write_all(text.as_bytes()).await.expect("it is read");
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().expect("text"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_changes_nothing_for_another_site() {
    let node = Node::embedded(&[("ALLOWED_ORIGINS", FRONT)]).await;
    let admin = token_with(json!({ "sub": "root", "scope": "admin", "exp": in_seconds(60), "iat": in_seconds(0) }));
    let cookie = format!("token={admin}");
    let own = format!("http://{}", node.http);
    let message = json!({ "to": "b", "content": "hello" });
    let orders = [
        ("POST", "/api/v1/messages", message.clone()),
        ("POST", "/api/v1/conversations", json!({ "kind": "group", "title": "x" })),
        ("POST", "/api/v1/control/revoke", json!({ "userId": "b" })),
        ("POST", "/api/v1/broadcast", json!({ "event": { "type": "x", "payload": {} } })),
        ("POST", "/api/v2/ws-token", json!({})),
        ("PATCH", "/api/v1/messages/1", json!({ "content": "x" })),
        ("DELETE", "/api/v1/messages/1", json!({})),
        ("POST", "/api/groups/invite", json!({ "group_id": 1, "user_id": 2 })),
    ];
    for (method, path, body) in &orders {
        let foreign: [&[(&str, &str)]; 4] = [
            &[("cookie", &cookie), ("origin", EVIL)],
            &[("cookie", &cookie), ("origin", "null")],
            &[("cookie", &cookie), ("sec-fetch-site", "cross-site")],
            &[("cookie", &cookie), ("sec-fetch-site", "same-site")],
        ];
        for headers in foreign {
            let (status, answer) = request(node.http, method, path, headers, body.to_string()).await;
            assert_eq!((status, &answer["error"]["code"]), (403, &json!("FORBIDDEN")), "{method} {path} {headers:?}");
        }
        // A page can send text without a preflight.
        let plain = [("cookie", &*cookie), ("origin", EVIL), ("content-type", "text/plain")];
        assert_eq!(request(node.http, method, path, &plain, body.to_string()).await.0, 415, "{method} {path}");
    }
    for allowed in [
        vec![("cookie", &*cookie)],
        vec![("cookie", &*cookie), ("origin", FRONT)],
        vec![("cookie", &*cookie), ("origin", &*own)],
        vec![("cookie", &*cookie), ("sec-fetch-site", "same-origin")],
    ] {
        let (status, answer) = post(node.http, "/api/v1/messages", &allowed, message.clone()).await;
        assert_eq!(status, 201, "{allowed:?}: {answer}");
    }
    let bearer = format!("Bearer {admin}");
    let shown = [("authorization", &*bearer), ("origin", EVIL)];
    assert_eq!(post(node.http, "/api/v1/messages", &shown, message).await.0, 201, "no browser sends that unasked");
}

/// Listening makes a user online and takes places of theirs: a page of another site does neither by their cookie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_of_another_site_listens_by_a_cookie() {
    for origins in [FRONT, "*"] {
        let node = Node::embedded(&[("ALLOWED_ORIGINS", origins)]).await;
        let (cookie, own) = (format!("token={}", token("a")), format!("http://{}", node.http));
        let (stream, poll) = (("accept", "text/event-stream"), ("accept", "*/*"));
        for asked in [stream, poll] {
            for from in [("origin", EVIL), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
                let headers = [("cookie", &*cookie), from, asked];
                let answered = headers_of(node.http, "GET", "/api/v1/events?wait=0", &headers);
                let answered = tokio::time::timeout(Duration::from_secs(30), answered).await;
                let (status, headers) = answered.expect("a stream would not end");
                assert_eq!((status, text(&headers, "content-type")), (403, Some("application/json")), "{from:?}");
            }
        }
        let (_, presence) = get(node.http, "/api/v1/presence?users=a", &[("x-api-key", API_KEY)]).await;
        assert_eq!(presence["users"]["a"]["online"], false, "{presence}");
        for from in [("origin", &*own), ("sec-fetch-site", "same-origin"), ("x-from", "no browser")] {
            let headers = [("cookie", &*cookie), from, poll];
            assert_eq!(get(node.http, "/api/v1/events?wait=0", &headers).await.0, 200, "{from:?}");
        }
        let (name, bearer) = bearer(&token("a"));
        let shown = [(name, bearer.as_str()), ("origin", EVIL), poll];
        assert_eq!(get(node.http, "/api/v1/events?wait=0", &shown).await.0, 200, "no browser sends that unasked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_origin_may_come_with_a_token_and_not_by_a_cookie() {
    let node = Node::embedded(&[("ALLOWED_ORIGINS", "*")]).await;
    let (cookie, query) = (format!("token={}", token("a")), format!("/chat/ws?token={}", token("a")));
    Client::open(node.http, &query, &[("origin", EVIL)]).await.expect("an upgrade").expect("auth_success").await;
    let refused = Client::open(node.http, "/chat/ws", &[("origin", EVIL), ("cookie", &cookie)]).await;
    assert!(refused.err().expect("a refusal").0.contains("403"), "a page of any site would read along");
    let own = format!("http://{}", node.http);
    let same = Client::open(node.http, "/chat/ws", &[("origin", &own), ("cookie", &cookie)]).await;
    same.expect("an upgrade").expect("auth_success").await;
    let message = json!({ "to": "b", "content": "hello" });
    let (status, _) = post(node.http, "/api/v1/messages", &[("cookie", &cookie), ("origin", EVIL)], message).await;
    assert_eq!(status, 403);
    let (_, headers) = headers_of(node.http, "GET", "/api/v1/conversations", &[("origin", EVIL)]).await;
    assert_eq!(text(&headers, "access-control-allow-origin"), Some("*"));
    assert_eq!(text(&headers, "access-control-allow-credentials"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_origins_may_read_and_preflight() {
    let node = Node::embedded(&[("ALLOWED_ORIGINS", "https://chat.example/,https://*.apps.example:443")]).await;
    for origin in [FRONT, "https://one.apps.example"] {
        let asks = [("origin", origin), ("access-control-request-method", "POST")];
        let (status, headers) = headers_of(node.http, "OPTIONS", "/api/v1/messages", &asks).await;
        assert_eq!((status, text(&headers, "access-control-allow-origin")), (204, Some(origin)));
        assert_eq!(text(&headers, "access-control-allow-credentials"), Some("true"));
        assert_eq!(text(&headers, "access-control-max-age"), Some("600"));
        assert_eq!(text(&headers, "vary"), Some("Origin"));
        let allowed = text(&headers, "access-control-allow-headers").expect("a list").to_ascii_lowercase();
        assert!(allowed.contains("idempotency-key") && !allowed.contains("api-key"), "{allowed}");
        // Errors have to be readable, too.
        let (status, headers) = headers_of(node.http, "GET", "/api/v1/conversations", &[("origin", origin)]).await;
        assert_eq!((status, text(&headers, "access-control-allow-origin")), (401, Some(origin)));
        assert_eq!(text(&headers, "access-control-expose-headers"), Some("Retry-After, X-Request-Id"));
    }
    let asks = [("origin", EVIL), ("access-control-request-method", "POST")];
    let (status, headers) = headers_of(node.http, "OPTIONS", "/api/v1/messages", &asks).await;
    assert_eq!(
        (status, text(&headers, "access-control-allow-origin"), text(&headers, "vary")),
        (403, None, Some("Origin"))
    );
    let (_, headers) = headers_of(node.http, "GET", "/api/v1/conversations", &[]).await;
    assert_eq!(text(&headers, "x-content-type-options"), Some("nosniff"));
    assert_eq!(text(&headers, "cache-control"), Some("no-store"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheme_counts_where_a_trusted_proxy_tells_it() {
    let node = Node::embedded(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let cookie = format!("token={}", token("a"));
    let message = json!({ "to": "b", "content": "hello" });
    let plain = format!("http://{}", node.http);
    for (scheme, status) in [("http", 201), ("https", 403)] {
        let headers = [("cookie", &*cookie), ("origin", &*plain), ("x-forwarded-proto", scheme)];
        assert_eq!(post(node.http, "/api/v1/messages", &headers, message.clone()).await.0, status, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_cookies_may_hold_any_bytes() {
    let node = Node::embedded(&[]).await;
    for path in ["/chat/ws", "/ws/chat", "/ws", "/ws/channels"] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncookie: name=J\u{fc}rgen; token={}; \u{2603}=x\r\n\r\n",
            node.http,
            token("7")
        );
        let answer = raw(node.http, &request).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{path}: {answer}");
        let rest = raw(node.http, &request.replace(&format!("GET {path}"), "GET /api/v1/conversations")).await;
        assert!(rest.starts_with("HTTP/1.1 200"), "{rest}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_head_is_refused() {
    let node = Node::embedded(&[]).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    let (version, key) = ("sec-websocket-version: 13\r\n", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    let host = format!("host: {}\r\n", node.http);
    let long = format!("x: {}\r\n", "y".repeat(40_000));
    for (lines, status) in [
        (format!("{upgrade}{version}{key}"), 400),
        (format!("{host}{host}{upgrade}{version}{key}"), 400),
        (format!("{host}{long}"), 431),
        (format!("{host}{upgrade}{version}sec-websocket-key: short\r\n"), 400),
        (format!("{host}{upgrade}{version}{key}content-length: 5\r\n"), 400),
        (format!("{host}{upgrade}{key}sec-websocket-version: 12\r\n"), 400),
        ("host: a b\r\n".to_owned(), 400),
        (format!("{host}{upgrade}{version}{key}{key}"), 400),
        (format!("{host}connection: upgrade\r\nupgrade: h2c, websocket\r\n{version}{key}content-length: 5\r\n"), 400),
    ] {
        let answer = raw(node.http, &format!("GET /chat/ws HTTP/1.1\r\n{lines}\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines}: {answer}");
        let names_version = answer.to_ascii_lowercase().contains("sec-websocket-version: 13");
        assert_eq!(names_version, lines.contains("version: 12"), "{answer}");
        let is_json = answer.contains("application/json");
        assert_eq!(is_json, answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_is_told_in_a_way_that_a_browser_sees() {
    let node = Node::embedded(&[]).await;
    let lines = format!(
        "host: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: chat.v9, bearer.x\r\n",
        node.http
    );
    let answer = raw(node.http, &format!("GET /chat/ws HTTP/1.1\r\n{lines}\r\n")).await.to_ascii_lowercase();
    assert!(answer.contains("sec-websocket-protocol: chat.v9\r\n"), "a browser takes only what it offered: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_answers_to_loopback_names_alone() {
    let node = Node::embedded(&[]).await;
    for path in ["/demo/users", "/api/v1/conversations", "/chat/ws"] {
        let answer = raw(node.http, &format!("GET {path} HTTP/1.1\r\nhost: evil.example:8086\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        // What comes where a name stands, and is none.
        for host in ["", "localhost,evil.example", "127.0.0.1:99999"] {
            let answer = raw(node.http, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path} {host}: {answer}");
        }
        let foreign = format!("GET http://evil.example{path} HTTP/1.0\r\n\r\n");
        assert!(raw(node.http, &foreign).await.contains(" 403 "), "{path}");
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: \u{fc}\r\n\r\n");
        assert!(raw(node.http, &bytes).await.starts_with("HTTP/1.1 400 "), "{path}");
    }
    assert_eq!(get(node.http, "/demo/users", &[]).await.0, 200);
}
