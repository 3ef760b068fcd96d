//! The driver over real loopback connections, seen from the peer.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::Wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::delivery::send_queue::PushOutcome;
use crate::ws::client_frame::{client, deflated};
use crate::ws::frame::frame_text;

const MESSAGE_BYTES_MAX: u32 = 64 * 1024;
const OUTBOX_BYTES_MAX: u32 = 1024 * 1024;
/// Each side's kernel buffer where a test is about a peer that doesn't read.
const KERNEL_BYTES: u32 = 16 * 1024;
/// Large frames that get a socket stuck without filling its queue.
const STUCK_FRAMES: usize = 8;

/// A socket that is being driven, and its peer.
struct Rig {
    peer: TcpStream,
    queue: Arc<SendQueue>,
    messages: mpsc::UnboundedReceiver<Vec<u8>>,
    /// Frames without a message that were told.
    frames: Arc<AtomicUsize>,
    driver: JoinHandle<(SocketEnd, Socket)>,
}

async fn pair() -> (Socket, TcpStream, Arc<SendQueue>) {
    pair_on(Wire::CHAT).await
}

async fn pair_on(wire: Wire) -> (Socket, TcpStream, Arc<SendQueue>) {
    let small = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(KERNEL_BYTES).unwrap();
        socket.set_recv_buffer_size(KERNEL_BYTES).unwrap();
        socket
    };
    let listening = small();
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = listening.listen(1).unwrap();
    let (peer, accepted) = tokio::join!(small().connect(listener.local_addr().unwrap()), listener.accept());
    let queue = Arc::new(SendQueue::new(OUTBOX_BYTES_MAX, wire));
    (Socket::new(accepted.unwrap().0, Bytes::new(), queue.clone(), MESSAGE_BYTES_MAX), peer.unwrap(), queue)
}

impl Rig {
    async fn start() -> Self {
        let (mut socket, peer, queue) = pair().await;
        #[expect(clippy::disallowed_methods, reason = "a test ends before it can grow")]
        let (heard, messages) = mpsc::unbounded_channel();
        let frames = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&frames);
        let driver = tokio::spawn(async move {
            let mut on_message = |incoming: Incoming<'_>| {
                match incoming {
                    Incoming::Text(bytes) | Incoming::Binary(bytes) => heard.send(bytes.to_vec()).unwrap(),
                    Incoming::Frame => {
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                }
                Flow::Continue
            };
            let ended = poll_fn(|cx| socket.poll_drive(cx, true, &mut on_message)).await;
            (ended, socket)
        });
        Self { peer, queue, messages, frames, driver }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.peer.write_all(bytes).await.unwrap();
    }

    /// The peer's bytes until the end of the stream.
    async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.peer.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    async fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        self.peer.read_exact(&mut buffer).await.unwrap();
        buffer
    }

    /// Hangs up, and says how the socket ended.
    async fn ended(self) -> SocketEnd {
        drop(self.peer);
        self.driver.await.unwrap().0
    }

    /// Pushes more than the kernel takes for a peer that doesn't read, and waits until the write is stuck.
    async fn get_stuck(&self) {
        for _ in 0..STUCK_FRAMES {
            assert_eq!(self.queue.push_reply(large_frame()), PushOutcome::Queued);
        }
        while self.queue.liveness().stuck_since_s().is_none() {
            tokio::task::yield_now().await;
        }
    }
}

/// A frame that the kernel's buffers can't hold.
fn large_frame() -> Bytes {
    frame_text(&[b'x'; 4 * KERNEL_BYTES as usize])
}

/// No test waits longer than this.
async fn within_10_s<T>(test: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), test).await.expect("in time")
}

/// Forty messages of 64 KiB that arrive in 3 KB are 2.5 MiB to inflate, check and read: not in one turn.
#[tokio::test]
async fn bombs_of_one_peer_leave_others_their_turn() {
    within_10_s(async {
        const BOMBS: usize = 40;
        let wire = Wire { deflate_from: std::num::NonZeroU16::new(512), ..Wire::CHAT };
        let (mut socket, mut peer, _queue) = pair_on(wire).await;
        let bomb = client(0xC1, &deflated(&[b' '; MESSAGE_BYTES_MAX as usize], 15));
        peer.write_all(&bomb.repeat(BOMBS)).await.unwrap();
        let (mut seen, mut most) = (0, 0);
        while seen < BOMBS {
            let turn = poll_fn(|cx| {
                let mut messages = 0;
                let driven = socket.poll_drive(cx, true, &mut |incoming| {
                    assert_eq!(incoming.bytes(), MESSAGE_BYTES_MAX as usize);
                    messages += 1;
                    Flow::Continue
                });
                assert!(driven.is_pending());
                if messages > 0 { Poll::Ready(messages) } else { Poll::Pending }
            });
            let messages = turn.await;
            seen += messages;
            most = most.max(messages);
        }
        assert_eq!((seen, most), (BOMBS, 4));
    })
    .await;
}

#[tokio::test]
async fn messages_come_in_order_whatever_the_frames() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        let large = vec![b'l'; MESSAGE_BYTES_MAX as usize];
        let stream = [
            client(0x81, b"one"),
            client(0x01, b"tw"),
            client(0x89, b"mid"),
            client(0x80, b"o"),
            client(0x8A, b"unasked"),
            client(0x82, b"three"),
            client(0x81, &large),
        ];
        rig.send(&stream.concat()).await;
        for expected in [&b"one"[..], b"two", b"three", &large] {
            assert_eq!(rig.messages.recv().await.unwrap(), expected);
        }
        assert_eq!(rig.frames.load(Ordering::SeqCst), 3, "the fragment, the ping and the pong are counted");
        assert_eq!(rig.read(5).await, b"\x8A\x03mid");
        for byte in client(0x81, b"bytewise") {
            rig.send(&[byte]).await;
        }
        assert_eq!(rig.messages.recv().await.unwrap(), b"bytewise");
        drop(rig.peer);
        let (ended, socket) = rig.driver.await.unwrap();
        assert_eq!(ended, SocketEnd::Vanished);
        assert_eq!((socket.backlog.capacity(), socket.pongs.capacity()), (0, 0), "an idle socket keeps no buffer");
    })
    .await;
}

#[tokio::test]
async fn only_pongs_that_were_not_asked_for_are_counted() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        for _ in 0..3 {
            rig.queue.request_ping();
            assert_eq!(rig.read(2).await, b"\x89\x00");
        }
        rig.send(&[client(0x8A, b"").repeat(3), client(0x81, b"a")].concat()).await;
        assert_eq!(rig.messages.recv().await.unwrap(), b"a");
        assert_eq!(rig.frames.load(Ordering::SeqCst), 0);
        rig.send(&[client(0x8A, b"").repeat(2), client(0x81, b"b")].concat()).await;
        assert_eq!(rig.messages.recv().await.unwrap(), b"b");
        assert_eq!(rig.frames.load(Ordering::SeqCst), 2);
    })
    .await;
}

#[tokio::test]
async fn faults_are_told_by_their_close_code() {
    within_10_s(async {
        let too_big = client(0x82, &vec![0; MESSAGE_BYTES_MAX as usize + 1]);
        for (bytes, fault, told) in [
            (too_big, Fault::TooBig, &b"\x88\x11\x03\xF1message_too_big"[..]),
            (vec![0x81, 0x01, b'x'], Fault::Unmasked, b"\x88\x14\x03\xEAwebsocket_protocol"),
            (client(0x81, b"\xFF"), Fault::Utf8, b"\x88\x0E\x03\xEFinvalid_utf8"),
        ] {
            let mut rig = Rig::start().await;
            rig.queue.push_reply(frame_text(b"before"));
            // The fault stands in the header; that the peer goes on sending must not cost it the close frame.
            rig.send(&bytes).await;
            let read = rig.read_to_end().await;
            assert_eq!(read, [&frame_text(b"before")[..], told].concat());
            assert_eq!(rig.queue.push_reply(frame_text(b"after")), PushOutcome::Closing);
            assert_eq!(rig.ended().await, SocketEnd::Fault(fault));
        }
    })
    .await;
}

#[tokio::test]
async fn a_pause_holds_messages_but_not_writes() {
    within_10_s(async {
        let (mut socket, mut peer, queue) = pair().await;
        let stream = [client(0x81, b"a"), client(0x89, b""), client(0x81, b"b"), client(0x81, b"cut")].concat();
        let (sent, kept) = stream.split_at(stream.len() - 1);
        peer.write_all(sent).await.unwrap();
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut next = async |reading: bool, socket: &mut Socket, peer: &mut TcpStream| {
            let before = seen.len();
            let mut answer = [0; 2];
            let drive = poll_fn(|cx| {
                let ended = socket.poll_drive(cx, reading, &mut |incoming| {
                    match incoming {
                        Incoming::Text(bytes) | Incoming::Binary(bytes) => seen.push(bytes.to_vec()),
                        Incoming::Frame => return Flow::Continue,
                    }
                    Flow::Pause
                });
                assert!(ended.is_pending());
                if seen.len() > before { Poll::Ready(()) } else { Poll::Pending }
            });
            // While nothing may be read, the peer's view is the event to wait for.
            tokio::select! {
                () = drive => {}
                read = peer.read_exact(&mut answer), if !reading => assert_eq!(read.unwrap(), 2),
            }
            (seen.last().cloned(), seen.len(), answer)
        };
        assert_eq!(next(true, &mut socket, &mut peer).await, (Some(b"a".to_vec()), 1, [0; 2]));
        queue.push_reply(frame_text(b""));
        assert_eq!(next(false, &mut socket, &mut peer).await, (Some(b"a".to_vec()), 1, [0x81, 0]));
        assert_eq!(next(true, &mut socket, &mut peer).await, (Some(b"b".to_vec()), 2, [0; 2]));
        queue.request_ping();
        assert_eq!(next(false, &mut socket, &mut peer).await, (Some(b"b".to_vec()), 2, [0x8A, 0]));
        peer.write_all(kept).await.unwrap();
        assert_eq!(next(true, &mut socket, &mut peer).await, (Some(b"cut".to_vec()), 3, [0; 2]));
        assert!(socket.backlog.capacity() == 0, "the backlog is freed once it is used up");
    })
    .await;
}

#[tokio::test]
async fn a_burst_is_written_whole_and_leaves_nothing_allocated() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        let mut expected = Vec::new();
        for index in 0..300_usize {
            let framed = if index % 7 == 0 { Bytes::new() } else { frame_text(&vec![b'x'; index * 20]) };
            expected.extend_from_slice(&framed);
            let pushed = if framed.is_empty() { PushOutcome::Silent } else { PushOutcome::Queued };
            assert_eq!(rig.queue.push_reply(framed), pushed);
        }
        assert!(rig.read(expected.len()).await == expected);
        rig.queue.request_ping();
        assert_eq!(rig.read(2).await, b"\x89\x00");
        assert_eq!(rig.queue.liveness().stuck_since_s(), None);
        drop(rig.peer);
        let (ended, socket) = rig.driver.await.unwrap();
        assert_eq!(ended, SocketEnd::Vanished);
        assert_eq!(socket.unwritten.capacity(), 0);
    })
    .await;
}

#[test]
fn an_idle_socket_is_small() {
    assert!(size_of::<Socket>() <= 176, "{} bytes", size_of::<Socket>());
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_stuck_then_slow_then_gone() {
    within_10_s(async {
        let rig = Rig::start().await;
        rig.get_stuck().await;
        let mut frames = STUCK_FRAMES;
        while rig.queue.push_reply(large_frame()) == PushOutcome::Queued {
            frames += 1;
            tokio::task::yield_now().await;
        }
        let bytes = frames * large_frame().len();
        assert!(bytes <= 2 * OUTBOX_BYTES_MAX as usize, "{bytes} bytes were taken for a peer that doesn't read");
        let since = Instant::now();
        let (ended, _) = rig.driver.await.unwrap();
        assert_eq!(ended, SocketEnd::Closed { code: CloseCode::SlowConsumer, told: false });
        assert!(since.elapsed() < 2 * Duration::from_secs(1));
    })
    .await;
}

#[tokio::test]
async fn a_slow_peer_that_reads_again_gets_whole_frames_and_4105() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        rig.get_stuck().await;
        let framed = large_frame();
        while rig.queue.push_reply(framed.clone()) == PushOutcome::Queued {}
        let read = rig.read_to_end().await;
        let (frames, close) = read.split_at(read.len() - b"\x88\x0F\x10\x09slow_consumer".len());
        assert_eq!(close, b"\x88\x0F\x10\x09slow_consumer");
        assert!(!frames.is_empty() && frames.len() < STUCK_FRAMES * framed.len(), "frames not begun were dropped");
        assert!(frames.chunks(framed.len()).all(|chunk| *chunk == *framed));
        assert_eq!(rig.ended().await, SocketEnd::Closed { code: CloseCode::SlowConsumer, told: true });
    })
    .await;
}

#[tokio::test]
async fn an_abort_drops_a_stuck_socket_at_once() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        rig.get_stuck().await;
        let since = Instant::now();
        rig.queue.abort();
        let (ended, socket) = rig.driver.await.unwrap();
        assert_eq!(ended, SocketEnd::Aborted);
        assert!(since.elapsed() < Duration::from_millis(900), "it doesn't wait for the peer");
        drop(socket);
        let error = rig.peer.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn our_close_follows_what_is_queued_and_no_reset_destroys_it() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        rig.queue.push_reply(frame_text(b"last words"));
        rig.queue.close(CloseCode::Draining);
        rig.queue.request_ping();
        assert_eq!(rig.read(12).await, *frame_text(b"last words"));
        // The peer goes on sending for a while, and reads only then.
        rig.send(&client(0x82, &vec![1; 60_000])).await;
        rig.send(&client(0x88, b"\x10\x68")).await;
        let rest = rig.read_to_end().await;
        assert!(rest.ends_with(b"\x88\x0A\x10\x68draining"), "{rest:?}");
        assert_eq!(rig.ended().await, SocketEnd::Closed { code: CloseCode::Draining, told: true });
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_never_closes_is_let_go_after_a_second() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        let since = Instant::now();
        rig.queue.close(CloseCode::Normal);
        assert_eq!(rig.read_to_end().await, b"\x88\x08\x03\xE8normal");
        assert_eq!(rig.driver.await.unwrap().0, SocketEnd::Closed { code: CloseCode::Normal, told: true });
        assert!((900..3_000).contains(&since.elapsed().as_millis()));
    })
    .await;
}

#[tokio::test]
async fn the_peers_close_is_echoed_even_when_more_follows() {
    within_10_s(async {
        for (payload, code, echo) in
            [(&b"\x03\xE9bye"[..], Some(1001), &b"\x88\x02\x03\xE9"[..]), (b"", None, b"\x88\x00")]
        {
            let mut rig = Rig::start().await;
            let stream = [client(0x81, b"hi"), client(0x88, payload), client(0x81, b"not for you"), vec![0xFF; 40_000]];
            rig.send(&stream.concat()).await;
            assert_eq!(rig.read_to_end().await, echo);
            assert_eq!(rig.messages.recv().await.unwrap(), b"hi");
            assert_eq!(rig.ended().await, SocketEnd::Peer(code));
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_pings_without_reading_costs_a_bounded_buffer() {
    within_10_s(async {
        let mut rig = Rig::start().await;
        rig.get_stuck().await;
        rig.send(&client(0x89, &[b'p'; 125]).repeat(200)).await;
        rig.send(&client(0x89, b"latest")).await;
        rig.send(&client(0x81, b"sync")).await;
        assert_eq!(rig.messages.recv().await.unwrap(), b"sync");
        rig.queue.close(CloseCode::Normal);
        let read = rig.read_to_end().await;
        let tail = &read[read.len() - (2 + 6 + 2 + 8)..];
        assert_eq!(tail, b"\x8A\x06latest\x88\x08\x03\xE8normal");
        let pongs = read.windows(127).filter(|bytes| bytes.starts_with(b"\x8A\x7Dppp")).count();
        assert!(pongs <= PONG_BYTES_MAX / 127 + 1, "{pongs} pongs were kept");
        assert_eq!(rig.ended().await, SocketEnd::Closed { code: CloseCode::Normal, told: true });
    })
    .await;
}
