//! The opening handshake (RFC 6455 §4.2): an HTTP/1.1 upgrade request in, the response and the bare TCP stream out.
//!
//! It never checks the origin, the token, or the offered subprotocols and extensions: its caller does.

use bytes::Bytes;
use fastwebsockets::upgrade::{is_upgrade_request, upgrade};
use http_body_util::Empty;
use hyper::header::{
    HeaderName, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Why a request can't become a WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum NotWebSocket {
    /// Not a GET of HTTP/1.1 that asks for an upgrade to `websocket`.
    #[error("not a WebSocket upgrade request")]
    NotUpgrade,
    /// `Sec-WebSocket-Version` isn't 13: the answer names that version ([`NotWebSocket::version`]).
    #[error("not a valid WebSocket handshake: Sec-WebSocket-Version must be 13")]
    Version,
    /// `Sec-WebSocket-Key` isn't the base64 of 16 bytes (RFC 6455 §4.1).
    #[error("not a valid WebSocket handshake: Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// The crate refused it for another reason.
    #[error("not a valid WebSocket handshake: {0}")]
    Invalid(#[from] fastwebsockets::WebSocketError),
}

/// The only version of the protocol.
const VERSION: &str = "13";

impl NotWebSocket {
    /// The status that answers it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }

    /// The version to name in the answer's `Sec-WebSocket-Version`, if the request's is another (RFC 6455 §4.4).
    #[must_use]
    pub fn version(&self) -> Option<HeaderValue> {
        matches!(self, Self::Version).then(|| HeaderValue::from_static(VERSION))
    }
}

/// Why an accepted request didn't give a stream.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The connection ended before the response was written.
    #[error("the connection ended during the upgrade: {0}")]
    Ended(#[from] hyper::Error),
    /// The server runs on something else than bare TCP.
    #[error("the upgraded connection is not a bare TCP stream")]
    NotTcp,
}

/// An upgrade whose response is still to be written.
#[derive(Debug)]
pub struct PendingUpgrade(OnUpgrade);

/// Turns a request into the 101 response, which carries `subprotocol` and `extension` if one was chosen, and the upgrade that
/// follows it.
///
/// The connection has to be served with upgrades, on `TokioIo<TcpStream>`.
///
/// # Errors
/// The request isn't one; it is to be answered with [`NotWebSocket::status`].
pub fn accept<B>(
    request: &mut Request<B>,
    subprotocol: Option<HeaderValue>,
    extension: Option<HeaderValue>,
) -> Result<(Response<Empty<Bytes>>, PendingUpgrade), NotWebSocket> {
    if request.method() != Method::GET || request.version() != Version::HTTP_11 || !is_upgrade_request(request) {
        return Err(NotWebSocket::NotUpgrade);
    }
    let headers = request.headers();
    // Neither may stand there twice (RFC 6455 §11.3.1, §11.3.5).
    if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(NotWebSocket::Version);
    }
    if !only(headers, &SEC_WEBSOCKET_KEY).is_some_and(|key| is_key(key.as_bytes())) {
        return Err(NotWebSocket::Key);
    }
    let on_upgrade = hyper::upgrade::on(&mut *request);
    // Their upgrade future would allocate a read buffer of 8 KiB per connection, so only their response is used.
    let (mut response, _) = upgrade(request)?;
    if let Some(subprotocol) = subprotocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if let Some(extension) = extension {
        response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, extension);
    }
    Ok((response, PendingUpgrade(on_upgrade)))
}

/// The value of a header that stands there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether this is the base64 of 16 bytes: 22 digits and `==`.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digits = key.strip_suffix(b"==").filter(|digits| digits.len() == 22);
    digits.is_some_and(|digits| digits.iter().all(is_digit))
}

impl PendingUpgrade {
    /// Waits until the response was written; gives the stream, of which the server knew as an `S`, and the bytes that the
    /// client sent right behind its request.
    ///
    /// # Errors
    /// The connection ended before, or isn't bare TCP.
    pub async fn complete<S>(self) -> Result<(TcpStream, Bytes), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Into<TcpStream> + Unpin + Send + 'static,
    {
        let parts = self.0.await?.downcast::<TokioIo<S>>().map_err(|_| UpgradeError::NotTcp)?;
        Ok((parts.io.into_inner().into(), parts.read_buf))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;
    use std::time::Duration;

    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const UPGRADE: &str = "Host: parley\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

    /// Sends `request` to a hyper server; what the client got, and what the server then has.
    async fn exchange(request: String) -> (String, Option<(TcpStream, Bytes)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let upgrading = Mutex::new(None);
        let service = service_fn(|mut request: Request<Incoming>| {
            let response = match accept(&mut request, Some(HeaderValue::from_static("chat.v1")), None) {
                Ok((response, accepted)) => {
                    *upgrading.lock().unwrap() = Some(accepted);
                    response
                }
                Err(refused) => Response::builder().status(refused.status()).body(Empty::new()).unwrap(),
            };
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        timeout(Duration::from_secs(10), connection.with_upgrades()).await.unwrap().unwrap();
        let upgraded = match upgrading.into_inner().unwrap() {
            Some(upgrading) => Some(upgrading.complete::<TcpStream>().await.unwrap()),
            None => None,
        };
        let mut answer = [0; 1024];
        let bytes = client.read(&mut answer).await.unwrap();
        (String::from_utf8_lossy(&answer[..bytes]).into_owned(), upgraded)
    }

    #[tokio::test]
    async fn an_upgrade_gives_the_stream_and_the_frames_sent_early() {
        let (answer, upgraded) = exchange(format!("GET /chat/ws HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}\r\nearly")).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("sec-websocket-protocol: chat.v1\r\n"), "{answer}");
        assert_eq!(upgraded.unwrap().1, "early");
    }

    #[tokio::test]
    async fn what_is_not_a_websocket_request_gets_400() {
        for request in [
            format!("GET / HTTP/1.1\r\nHost: parley\r\n{KEY}{VERSION}\r\n"),
            format!("POST / HTTP/1.1\r\n{UPGRADE}{KEY}{VERSION}\r\n"),
            format!("GET / HTTP/1.0\r\n{UPGRADE}{KEY}{VERSION}\r\n"),
            format!("GET / HTTP/1.1\r\n{UPGRADE}{VERSION}\r\n"),
            format!("GET / HTTP/1.1\r\n{UPGRADE}{KEY}Sec-WebSocket-Version: 8\r\n\r\n"),
        ] {
            let (answer, upgraded) = exchange(request.clone()).await;
            assert!(answer.contains(" 400 Bad Request\r\n"), "{request} got {answer}");
            assert!(upgraded.is_none());
        }
    }
}
