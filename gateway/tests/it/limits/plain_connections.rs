//! Connections that are no sockets: as many of them as there are places, each held by a client that does as little as it can,
//! and honest clients that come meanwhile. Straight to the node, and through HAProxy with the project's own configuration.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::Client;
use crate::support::haproxy::Haproxy;
use crate::support::http::{bearer, get, post};
use crate::support::node::{Node, token};

/// More than there are places.
const HELD: usize = 2_100;

/// A connection whose client takes next to nothing in.
async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(2048).expect("a small buffer");
    socket.connect(to).await.expect("the node accepts")
}

/// What stands between the clients and the node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    Haproxy,
}

/// Opens [`HELD`] connections that have written `text`, then lets honest clients in.
async fn honest_ones_get_in(way: Way, text: impl Fn(SocketAddr) -> String, trickle: Option<&'static [u8]>) {
    let node = Node::embedded(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let haproxy = match way {
        Way::Straight => None,
        // One node under both names, so that all of them are held on it.
        Way::Haproxy => Some(Haproxy::before(&node, &node).await),
    };
    let to = haproxy.as_ref().map_or(node.http, |haproxy| haproxy.address);
    let text = text(to);
    let mut held = Vec::with_capacity(HELD);
    for _ in 0..HELD {
        let mut stream = connect(to).await;
        stream.write_all(text.as_bytes()).await.expect("the kernel takes it");
        held.push(stream);
    }
    let trickling = trickle.map(|bytes| {
        tokio::spawn(async move {
            loop {
                for stream in &mut held {
                    // Those whose place was given to another are told so here.
                    drop(stream.write_all(bytes).await);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    });
    let token = token("a");
    let (name, value) = bearer(&token);
    let honest = async {
        let mut times = Vec::new();
        for n in 0..30 {
            let started = Instant::now();
            let (status, _) = get(to, "/api/v1/conversations", &[(name, &value)]).await;
            assert_eq!(status, 200);
            let message = json!({ "to": "b", "content": "hello", "tempId": format!("t{n}") });
            assert_eq!(post(to, "/api/v1/messages", &[(name, &value)], message).await.0, 201);
            drop(Client::join(to, "a").await);
            times.push(started.elapsed());
        }
        times.sort();
        times
    };
    let times = tokio::time::timeout(Duration::from_secs(60), honest).await;
    let times = times.expect("honest clients are served all the time");
    assert!(times[times.len() / 2] < Duration::from_secs(1), "two requests and a socket take {times:?}");
    if let Some(trickling) = trickling {
        trickling.abort();
    }
}

fn many_requests(to: SocketAddr) -> String {
    format!("GET /openapi.json HTTP/1.1\r\nhost: {to}\r\n\r\n").repeat(60)
}

fn long_body(to: SocketAddr) -> String {
    format!(
        "POST /api/v1/messages HTTP/1.1\r\nhost: {to}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 2000000\r\n\r\n{{",
        token("m")
    )
}

fn half_head(to: SocketAddr) -> String {
    format!("GET /readyz HTTP/1.1\r\nhost: {to}\r\nx: ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_readers_keep_nobody_out() {
    honest_ones_get_in(Way::Straight, many_requests, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trickling_bodies_keep_nobody_out() {
    honest_ones_get_in(Way::Straight, long_body, Some(b" ")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_heads_keep_nobody_out() {
    honest_ones_get_in(Way::Straight, half_head, Some(b"x")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_readers_behind_haproxy_keep_nobody_out() {
    honest_ones_get_in(Way::Haproxy, many_requests, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trickling_bodies_behind_haproxy_keep_nobody_out() {
    honest_ones_get_in(Way::Haproxy, long_body, Some(b" ")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_heads_behind_haproxy_keep_nobody_out() {
    honest_ones_get_in(Way::Haproxy, half_head, Some(b"x")).await;
}

/// Nothing has to run short for that: what a client has to do has a deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_too_slowly_ends_the_request() {
    let node = Node::embedded(&[]).await;
    let mut stream = connect(node.http).await;
    let head = format!(
        "POST /api/v1/messages HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{{",
        node.http,
        token("a")
    );
    stream.write_all(head.as_bytes()).await.expect("it is read");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut answer)).await;
    read.expect("it doesn't wait for ever").expect("an answer, then the end");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("too slowly"), "{answer}");
}
