//! The opening handshake (RFC 6455 §4.2): an HTTP/1.1 upgrade request in, the response and then the bare TCP stream out.
//!
//! It never looks at origin, token or offered subprotocols: whoever calls it has decided on those.

use bytes::Bytes;
use fastwebsockets::upgrade::{is_upgrade_request, upgrade};
use http_body_util::Empty;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why a request can't become a WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum NotWebSocket {
    /// Not a GET of HTTP/1.1 that asks for an upgrade to `websocket`.
    #[error("not a WebSocket upgrade request")]
    NotUpgrade,
    /// `Sec-WebSocket-Key` is missing, or the version isn't 13.
    #[error("not a valid WebSocket handshake: {0}")]
    Invalid(#[from] fastwebsockets::WebSocketError),
}

impl NotWebSocket {
    /// The status that answers it (PROTOCOL §1, refusals).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
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
pub struct Upgrading(OnUpgrade);

/// Turns a request into the 101 response, which carries `subprotocol` if one was chosen, and the upgrade that follows it.
///
/// The connection has to be served with upgrades, on `TokioIo<TcpStream>`.
///
/// # Errors
/// The request isn't one; it is to be answered with [`NotWebSocket::status`].
pub fn accept<B>(
    request: &mut Request<B>,
    subprotocol: Option<HeaderValue>,
) -> Result<(Response<Empty<Bytes>>, Upgrading), NotWebSocket> {
    if request.method() != Method::GET || request.version() != Version::HTTP_11 || !is_upgrade_request(request) {
        return Err(NotWebSocket::NotUpgrade);
    }
    let on_upgrade = hyper::upgrade::on(&mut *request);
    // Their upgrade future would allocate a read buffer of 8 KiB per connection, so only their response is used.
    let (mut response, _) = upgrade(request)?;
    if let Some(subprotocol) = subprotocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok((response, Upgrading(on_upgrade)))
}

impl Upgrading {
    /// Waits until the response was written; gives the stream, and the bytes that the client sent right behind its request.
    ///
    /// # Errors
    /// The connection ended before, or isn't bare TCP.
    pub async fn complete(self) -> Result<(TcpStream, Bytes), UpgradeError> {
        let parts = self.0.await?.downcast::<TokioIo<TcpStream>>().map_err(|_| UpgradeError::NotTcp)?;
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}
