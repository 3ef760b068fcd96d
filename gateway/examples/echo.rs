//! An echo server on the gateway's own WebSocket code, for the Autobahn test suite (`deploy/autobahn.sh`).
//!
//! `echo [port]` listens on the loopback, on a free port if none is given, and prints its address as the first line.
#![expect(clippy::print_stdout, reason = "the address on standard output is how a script finds the server")]

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use bytes::Bytes;
use gateway::delivery::send_queue::{PushOutcome, SendQueue};
use gateway::session::socket::{Flow, Incoming, Socket};
use gateway::ws::deflate::compressed;
use gateway::ws::extensions::accept_deflate;
use gateway::ws::frame;
use gateway::ws::handshake::{self, PendingUpgrade};
use http_body_util::Empty;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use shared::CloseCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The suite's largest message.
const MESSAGE_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// The suite sends many messages before it reads their echoes.
const OUTBOX_BYTES_MAX: u32 = 4 * MESSAGE_BYTES_MAX;
/// Everything is compressed if the client can take that, so that much of it is tried.
const COMPRESS_MIN_BYTES: Option<NonZeroU16> = NonZeroU16::new(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(port) => port.parse().context("the port is a number")?,
        None => 0,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("{}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(serve(stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream) {
    let upgrading = OnceLock::new();
    let answer = service_fn(|mut request: Request<Body>| {
        let response = answer(&mut request, &upgrading);
        async { Ok::<_, Infallible>(response) }
    });
    // How a connection ended doesn't matter here; the suite judges what it sees.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades().await;
    if let Some((upgrading, deflates)) = upgrading.into_inner() {
        echo(upgrading, deflates).await;
    }
}

fn answer(request: &mut Request<Body>, upgrading: &OnceLock<(PendingUpgrade, bool)>) -> Response<Empty<Bytes>> {
    let extension = accept_deflate(request.headers());
    let deflates = extension.is_some();
    match handshake::accept(request, None, extension) {
        Ok((response, accepted)) => {
            // The connection ends as HTTP with the first upgrade, so there is no second.
            let _ = upgrading.set((accepted, deflates));
            response
        }
        Err(refused) => {
            let mut response = Response::new(Empty::new());
            *response.status_mut() = refused.status();
            response
        }
    }
}

async fn echo(upgrading: PendingUpgrade, deflates: bool) {
    let Ok((stream, leftover)) = upgrading.complete::<TcpStream>().await else { return };
    let deflate_from = COMPRESS_MIN_BYTES.filter(|_| deflates);
    let queue = Arc::new(SendQueue::new(OUTBOX_BYTES_MAX, shared::Wire { deflate_from, ..shared::Wire::CHAT }));
    let mut socket = Socket::new(stream, leftover, queue.clone(), MESSAGE_BYTES_MAX);
    let mut on_message = |incoming: Incoming<'_>| {
        let framed = match incoming {
            Incoming::Text(text) => frame::frame_text(text),
            Incoming::Binary(bytes) => frame::frame_binary(bytes),
            Incoming::Frame => return Flow::Continue,
        };
        match queue.push_reply(compressed(&framed, deflate_from).unwrap_or(framed)) {
            PushOutcome::Queued | PushOutcome::Silent => Flow::Continue,
            PushOutcome::Old
            | PushOutcome::Gap
            | PushOutcome::Joining
            | PushOutcome::Full
            | PushOutcome::Dropped
            | PushOutcome::Overflow
            | PushOutcome::Closing => {
                queue.close(CloseCode::SlowConsumer);
                Flow::Pause
            }
        }
    };
    poll_fn(|cx| socket.poll_drive(cx, true, &mut on_message)).await;
}
