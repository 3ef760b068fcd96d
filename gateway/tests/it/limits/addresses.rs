//! The limits of one address, and which headers count for a client's address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Incoming};
use crate::support::haproxy::Haproxy;
use crate::support::node::{Node, token};

/// Sends bytes; what comes back until the head of an answer is complete, or the connection ends.
pub(crate) async fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.expect("the node accepts");
    stream.write_all(bytes).await.expect("a live connection");
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(bytes) => answer.extend_from_slice(&buffer[..bytes]),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer or an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// An upgrade request, behind what a proxy puts in front of it.
pub(crate) fn upgrade(before: &str, headers: &str) -> Vec<u8> {
    format!(
        "{before}GET /chat/ws?token={} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
        token("a")
    )
    .into_bytes()
}

async fn connect(to: SocketAddr, forwarded: &[&str]) -> Result<Client, String> {
    let headers: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
    let path = format!("/chat/ws?token={}", token("a"));
    let mut client = Client::open(to, &path, &headers).await.map_err(|refused| refused.0)?;
    client.expect("auth_success").await;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_sockets_and_a_header_changes_nothing() {
    let node = Node::embedded(&[("MAX_CONNECTIONS_PER_IP", "2")]).await;
    let one = connect(node.http, &["192.0.2.1"]).await.expect("room");
    let _two = connect(node.http, &["192.0.2.2"]).await.expect("room");
    let refused = connect(node.http, &["192.0.2.3"]).await.err().expect("a forged header gives no room");
    assert!(refused.contains("429"), "{refused}");
    let answer = exchange(node.http, &upgrade("", "")).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("\r\nretry-after: 10\r\n"), "{answer}");
    drop(one);
    let free = async { while connect(node.http, &[]).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), free).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_of_one_address_have_a_rate() {
    let node = Node::embedded(&[("CONNECT_RATE_PER_IP", "2"), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(exchange(node.http, &upgrade("", "x-forwarded-for: 192.0.2.1\r\n")).await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429")).collect();
    assert!(answers[..4].iter().all(|answer| answer.starts_with("HTTP/1.1 101")), "{answers:?}");
    assert!(!refused.is_empty() && refused.iter().all(|answer| answer.contains("\r\nretry-after: 1\r\n")));
    // The rest of the API is not concerned, nor is another address, nor this one a while later.
    let answer =
        exchange(node.http, b"GET /none HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 192.0.2.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let answer = exchange(node.http, &upgrade("", "x-forwarded-for: 192.0.2.2\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let later = async {
        while !exchange(node.http, &upgrade("", "x-forwarded-for: 192.0.2.1\r\n")).await.starts_with("HTTP/1.1 101") {}
    };
    tokio::time::timeout(Duration::from_secs(10), later).await.expect("a while later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_haproxy_clients_have_their_own_addresses() {
    let node = Node::embedded(&[("MAX_CONNECTIONS_PER_IP", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    // HAProxy puts whom it serves behind what the client claims. Here that is 127.0.0.1 itself, which is trusted, so that the
    // first untrusted address from the right is the one before it.
    let haproxy = Haproxy::with(&node, "option forwardfor", "").await;
    let _one = connect(haproxy.address, &["198.51.100.9, 192.0.2.1"]).await.expect("room");
    let refused = connect(haproxy.address, &["198.51.100.7, 192.0.2.1"]).await.err().expect("the same address");
    assert!(refused.contains("429"), "{refused}");
    let _other = connect(haproxy.address, &["192.0.2.1, 192.0.2.2"]).await.expect("another one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_says_where_a_client_is() {
    let settings =
        [("MAX_CONNECTIONS_PER_IP", "1"), ("TRUSTED_PROXIES", "127.0.0.1,192.0.2.99"), ("PROXY_PROTOCOL", "true")];
    let node = Node::embedded(&settings).await;
    // A real one, both versions: sockets work through it, and count for the client's address.
    for version in ["send-proxy", "send-proxy-v2"] {
        let haproxy = Haproxy::with(&node, "", version).await;
        let mut client = connect(haproxy.address, &[]).await.expect("room");
        client.send("ping", json!({})).await;
        client.expect("pong").await;
        let refused = connect(haproxy.address, &[]).await.err().expect("the same address");
        assert!(refused.contains("429"), "{version}: {refused}");
        drop(client);
        let gone = async {
            while connect(haproxy.address, &[]).await.is_err() {}
            while node.app.node().registry.socket_count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the place is given up");
    }
    // By hand: each source has its own count, frames that come right behind the handshake are not lost.
    let line = |source: &str| format!("PROXY TCP4 {source} 127.0.0.1 4711 8086\r\n");
    let mut open = Vec::new();
    for (source, headers, status) in [
        ("192.0.2.1", "", "101"),
        ("192.0.2.1", "", "429"),
        ("192.0.2.2", "x-forwarded-for: 192.0.2.3\r\n", "101"),
        ("192.0.2.2", "x-forwarded-for: 192.0.2.4\r\n", "429"),
        // The source is a trusted proxy itself, whose header counts.
        ("192.0.2.99", "x-forwarded-for: 192.0.2.1\r\n", "429"),
        ("192.0.2.99", "x-forwarded-for: 192.0.2.5\r\n", "101"),
    ] {
        let mut stream = TcpStream::connect(node.http).await.expect("the node accepts");
        stream.write_all(&upgrade(&line(source), headers)).await.expect("sent");
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{source} {headers}: {answer}");
        open.push(stream);
    }
    // Without a header, or with a malformed one, the connection ends without an answer.
    for before in
        ["", "PROXY TCP4 nonsense\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 1 1 1 1 1\r\n", "\r\n\r\n\0\r\nQUIT\nxxxxxxxx"]
    {
        assert_eq!(exchange(node.http, &upgrade(before, "")).await, "", "{before:?}");
    }
    // One who begins and doesn't go on is cut off, and holds nobody up meanwhile.
    let mut slow = TcpStream::connect(node.http).await.expect("the node accepts");
    slow.write_all(b"PROXY TCP4 ").await.expect("sent");
    let started = Instant::now();
    let answered = exchange(node.http, &upgrade(&line("192.0.2.6"), "")).await;
    assert!(answered.starts_with("HTTP/1.1 101"), "{answered}");
    assert_eq!(answer(&mut slow).await, "");
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_header_of_a_stranger_or_unasked_is_a_bad_request() {
    let line = "PROXY TCP4 192.0.2.1 127.0.0.1 4711 8086\r\n";
    let strangers = [("TRUSTED_PROXIES", "192.0.2.99"), ("PROXY_PROTOCOL", "true")];
    for settings in [&strangers[..], &[("TRUSTED_PROXIES", "127.0.0.1")]] {
        let node = Node::embedded(settings).await;
        let answer = exchange(node.http, &upgrade(line, "")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let plain = exchange(node.http, &upgrade("", "")).await;
        assert!(plain.starts_with("HTTP/1.1 101"), "{plain}");
    }
    // An address of HAProxy's own kind of check needs no socket: the operators' listener takes no header at all.
    let node = Node::embedded(&strangers).await;
    let answer = exchange(node.ops, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut client = connect(node.http, &[]).await.expect("room");
    assert!(matches!(client.next().await, Incoming::Frame(_)));
}

/// On every path, with the token in the request and in the first frame; another user notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_connects_at_a_rate() {
    let node = Node::embedded(&[]).await;
    for n in 0..40 {
        drop(
            Client::open(node.http, &format!("/ws?token={}", token("often")), &[])
                .await
                .unwrap_or_else(|_| panic!("{n}")),
        );
    }
    let refused =
        Client::open(node.http, &format!("/ws?token={}", token("often")), &[]).await.err().expect("a refusal").0;
    assert!(refused.contains("429"), "{refused}");
    let mut chat =
        Client::open(node.http, &format!("/chat/ws?token={}", token("often")), &[]).await.expect("an upgrade");
    assert_eq!(chat.expect_close().await, 4101);
    let mut first_frame = Client::open(node.http, "/chat/ws", &[]).await.expect("an upgrade");
    first_frame.send("auth", serde_json::json!({ "token": token("often") })).await;
    assert_eq!(first_frame.expect_close().await, 4101);
    Client::join(node.http, "seldom").await.settle().await;
}

/// Sockets without a token have a deadline, and those of one address don't take all places meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_without_a_token_of_one_address_leave_places_for_others() {
    let node = Node::embedded(&[("MAX_CONNECTIONS", "40"), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let open = async |from: &'static str| Client::open(node.http, "/chat/ws", &[("x-forwarded-for", from)]).await;
    let mut waiting = Vec::new();
    let refused = loop {
        match open("10.0.0.1").await {
            Ok(client) => waiting.push(client),
            Err(refused) => break refused.0,
        }
    };
    assert!((20..40).contains(&waiting.len()), "{}", waiting.len());
    let again = "GET /chat/ws HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 10.0.0.1\r\nconnection: upgrade\r\n\
                 upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = exchange(node.http, again.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 10"), "{refused}: {answer}");
    let other = open("10.0.0.2").await;
    assert!(other.is_ok(), "another address has places left");
    let mut known = connect(node.http, &["10.0.0.1"]).await.expect("who has a token is not concerned");
    known.send("ping", serde_json::json!({})).await;
    known.expect("pong").await;
}
