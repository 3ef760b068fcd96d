//! The accept loop of a listener: HTTP/1.1 with upgrades, slow requests cut off, as many connections as there is room for.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::future::{Either, ready};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_address::{ClientAddress, ClientScheme};
use super::head;
use super::proxy_protocol::{self, HeaderError};
use crate::config::Proxies;

/// Time for a request's headers to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of a request at most before its head is complete, in bytes: more than a head may have, so that a larger one
/// is answered.
const READ_BYTES_MAX: usize = 2 * head::HEAD_BYTES_MAX;
/// Time for a proxy's header to arrive.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Connections that are not sockets (yet), at the most: more wait to be accepted. None of them can sit there for long.
const PLAIN_CONNECTIONS_MAX: usize = 2048;

/// Serves requests with `handle` until `stop`, each with its [`ClientAddress`]; connections that are under way then are left to `tasks`.
pub async fn serve<F, Fut>(
    listener: TcpListener,
    proxies: Arc<Proxies>,
    handle: F,
    tasks: TaskTracker,
    stop: CancellationToken,
) where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(PLAIN_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let connection = connection(stream, peer, Arc::clone(&proxies), handle.clone(), stop.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip(), permit))
}

async fn connection<F, Fut>(
    mut stream: TcpStream,
    peer: IpAddr,
    proxies: Arc<Proxies>,
    handle: F,
    stop: CancellationToken,
) where
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let peer = match for_whom(&mut stream, peer, &proxies).await {
        Ok(peer) => peer,
        Err(fault) => {
            tracing::warn!(%peer, %fault, "a connection of a trusted proxy is closed");
            return;
        }
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        let client = ClientAddress::of(peer, request.headers(), &proxies);
        if let Some(scheme) = ClientScheme::of(peer, request.headers(), &proxies) {
            request.extensions_mut().insert(scheme);
        }
        request.extensions_mut().insert(client);
        let answer = match head::refusal(&request) {
            Some(refusal) => Either::Left(ready(refusal)),
            None => Either::Right(handle(request)),
        };
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(READ_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
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
