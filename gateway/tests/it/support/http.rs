//! Requests as a backend or a browser makes them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long a node may be too busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request, whose body is JSON unless a header says otherwise; status and JSON (or the text as a JSON string).
pub(crate) async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (u16, Value) {
    let stream = TcpStream::connect(to).await.expect("the node accepts");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("an HTTP connection");
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    let body = body.into();
    if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    connection.abort();
    let json = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    (status, json)
}

/// GET.
pub(crate) async fn get(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    request(to, "GET", path, headers, "").await
}

/// POST of JSON.
pub(crate) async fn post(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, Value) {
    request(to, "POST", path, headers, body.to_string()).await
}

/// Asks again, as clients do, while the node is too busy for it: the tests of a run share the machine. Any other refusal is
/// given as it is.
pub(crate) async fn patiently<F: Future<Output = (u16, Value)>>(mut ask: impl FnMut() -> F) -> (u16, Value) {
    let since = Instant::now();
    loop {
        let (status, answer) = ask().await;
        let error = &answer["error"];
        let is_busy = status == 503 && error["message"].as_str().is_some_and(|why| why.starts_with("too many"));
        let Some(wait_ms) = error["retryAfterMs"].as_u64().filter(|_| is_busy) else { return (status, answer) };
        assert!(since.elapsed() < PATIENCE, "still too busy after {PATIENCE:?}: {answer}");
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}

/// The header of a user's token.
pub(crate) fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}
