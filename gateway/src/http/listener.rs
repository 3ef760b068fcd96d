//! A node's listeners and their accept loop: HTTP/1.1 with upgrades, a deadline for each request's headers, and a limit on
//! the connections.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::{ErrorCode, ProtocolError};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_address::{ClientAddress, ClientScheme};
use super::head;
use super::open_stream::OpenStream;
use super::plain_connections::{PacedBody, PacedStream, PlainConnections, PlainPlace};
use super::proxy_protocol::{self, HeaderError};
use super::rest::failure::respond;
use crate::config::{Config, Proxies};

/// Time for a request's headers to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of a request at most before its head is complete, in bytes: more than a head may have, so that a larger one
/// is answered.
const READ_BYTES_MAX: usize = 2 * head::HEAD_BYTES_MAX;
/// Time for a request to be answered, its body included: a long poll waits at most 30 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// Time for a proxy's header to arrive.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted: with the usual 128, a storm's SYNs are dropped and sent again a second later.
const BACKLOG: u32 = 4096;

/// Bytes that the kernel takes for a client before it has sent them. Without this bound it takes some 2.5 MB for each client
/// that reads nothing, and copying them holds up everybody else.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// The two ports of a node, bound, with nothing accepted yet.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub http: TcpListener,
    /// For operators.
    pub ops: TcpListener,
}

impl Listeners {
    /// Binds the addresses of the settings.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Self { http: bind(config.http, "HTTP")?, ops: bind(config.ops, "OPS")? })
    }
}

fn bind(address: SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit both.
        socket.set_nodelay(true)?;
        SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| {
        format!("{name}_HOST and {name}_PORT: {address} can't be bound; is something else listening there?")
    })
}

/// How many connections there may be, and are.
#[derive(Debug)]
pub struct Capacity {
    open: AtomicUsize,
    max: usize,
}

/// A place for one connection, given up when dropped.
#[derive(Debug)]
pub struct Place(Arc<Capacity>);

impl Capacity {
    /// Room for `max` connections.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), max })
    }

    /// Takes a place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        (before < self.max).then_some(place)
    }

    /// How many places there are.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many places are taken.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves requests with `handle` until `stop`, each with its [`ClientAddress`]. Connections that are under way then are left
/// to `tasks`. Accepting never waits for a connection: when the places are taken, [`PlainConnections`] ends the slowest.
pub async fn serve<F, Fut>(
    listener: TcpListener,
    proxies: Arc<Proxies>,
    handle: F,
    tasks: TaskTracker,
    stop: CancellationToken,
) where
    F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(PlainConnections::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = places.take(peer.ip()) else {
                    // Each of the others waits for this node.
                    continue;
                };
                tasks.spawn(connection(stream, place, Arc::clone(&proxies), handle.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<F, Fut>(
    mut stream: TcpStream,
    place: PlainPlace,
    proxies: Arc<Proxies>,
    handle: F,
    stop: CancellationToken,
) where
    F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let peer = match for_whom(&mut stream, place.peer(), &proxies).await {
        Ok(peer) => peer,
        Err(fault) => {
            tracing::warn!(peer = %place.peer(), %fault, "a connection of a trusted proxy is closed");
            return;
        }
    };
    let place = Arc::new(place);
    let (progress, own_place) = (Arc::clone(place.progress()), Arc::clone(&place));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let client = ClientAddress::of(peer, request.headers(), &proxies);
        if let Some(scheme) = ClientScheme::of(peer, request.headers(), &proxies) {
            request.extensions_mut().insert(scheme);
        }
        request.extensions_mut().insert(client);
        let (progress, handle, place) = (Arc::clone(&progress), handle.clone(), Arc::clone(&own_place));
        // In a box, because the connection keeps the room of its largest answer as long as it lives, and a stream lives long.
        Box::pin(async move {
            let request = request.map(|body| PacedBody::of(body, Arc::clone(&progress)));
            let mut answer = match head::refusal(&request) {
                Some(refusal) => refusal,
                None => answer_in_time(handle(request)).await,
            };
            if progress.was_slow() {
                *answer.status_mut() = StatusCode::REQUEST_TIMEOUT;
            }
            if let Some(stream) = answer.extensions_mut().remove::<OpenStream>() {
                place.leave_for(stream);
            }
            progress.is_the_clients_turn();
            Ok::<_, Infallible>(answer)
        })
    });
    let stream = PacedStream::new(stream, Arc::clone(place.progress()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(READ_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = place.evicted() => {
            tracing::debug!(%peer, "a slow connection gave its place to another");
            return;
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// What a handler answers, within [`ANSWER_WITHIN`].
async fn answer_in_time(answer: impl Future<Output = Response<Body>>) -> Response<Body> {
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer,
        Err(_) => respond(&ProtocolError::new(ErrorCode::Timeout, "the request was not answered in time; try again")),
    }
}

/// Where a connection comes from: a trusted proxy says so itself, if it speaks the PROXY protocol.
async fn for_whom(stream: &mut TcpStream, peer: IpAddr, proxies: &Proxies) -> Result<IpAddr, HeaderError> {
    if !proxies.proxy_protocol || !proxies.trusted.contain(peer) {
        return Ok(peer);
    }
    let header = tokio::time::timeout(PROXY_HEADER_TIMEOUT, proxy_protocol::read(stream)).await;
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    Ok(header.map_err(|_| late())??.unwrap_or(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_takes_little_for_a_client_that_reads_nothing() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "HTTP").expect("a port");
        let client = TcpSocket::new_v4().expect("a socket");
        client.set_recv_buffer_size(4096).expect("a small buffer");
        let address = listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(client.connect(address), listener.accept());
        let (_client, (stream, _)) = (client.expect("connected"), accepted.expect("accepted"));
        let (mut taken, chunk) = (0, vec![b'x'; 64 << 10]);
        while taken < 16 << 20
            && tokio::time::timeout(Duration::from_millis(200), stream.writable())
                .await
                .is_ok_and(|ready| ready.is_ok())
        {
            taken += stream.try_write(&chunk).unwrap_or_default();
        }
        assert!(taken < 1 << 20, "{taken} bytes");
    }
}
