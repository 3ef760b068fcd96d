//! The accept loop of a listener: HTTP/1.1 with upgrades, slow requests cut off, as many connections as there is room for.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for a request's headers to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head, in bytes: a token of 16 KiB fits.
const HEAD_BYTES_MAX: usize = 32 * 1024;
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

/// Serves requests with `handle` until `stop`; connections that are under way then are left to `tasks`.
pub async fn serve<F, Fut>(listener: TcpListener, handle: F, tasks: TaskTracker, stop: CancellationToken)
where
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
            Ok((stream, permit)) => {
                let connection = connection(stream, handle.clone(), stop.clone());
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
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection<F, Fut>(stream: TcpStream, handle: F, stop: CancellationToken)
where
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before its first request");
        return;
    }
    let service = service_fn(move |request| {
        let response = handle(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
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
