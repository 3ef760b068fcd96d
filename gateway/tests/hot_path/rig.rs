//! The delivering side of a node with some sockets of one user, and a client's side of the wire.

use std::cell::Cell;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use gateway::delivery::counts::LoadedCounts;
use gateway::delivery::envelope::{CountMove, MoveKind};
use gateway::delivery::fanout::Fanout;
use gateway::delivery::registry::Registry;
use gateway::delivery::send_queue::{Batch, SendQueue};
use gateway::delivery::topics::Topics;
use gateway::metrics::{self, Metrics};
use gateway::store::UnreadCount;
use shared::{Epoch, UserId, Wire};
use tokio::sync::mpsc;
use zlib_rs::{Deflate, DeflateFlush};

/// Whose sockets they are.
pub(crate) const USER: &str = "100201";

/// The conversation of their messages.
const CONVERSATION: &str = "1002003004";

/// A fan-out to sockets that have joined.
pub(crate) struct Rig {
    /// Where payloads go in.
    pub(crate) fanout: Fanout,
    queues: Vec<Arc<SendQueue>>,
    seq: Cell<u64>,
}

impl Rig {
    /// A socket for each of these, at position 0.
    #[expect(clippy::disallowed_methods, reason = "nobody is healed")]
    pub(crate) fn new(wires: &[Wire]) -> Self {
        metrics::recorder().expect("a recorder");
        let registry = Arc::new(Registry::new(0));
        let (heal, _) = mpsc::unbounded_channel();
        let topics = Topics::new(false, Arc::clone(&registry), Arc::new(Metrics::new()));
        let fanout =
            Fanout::new((Arc::clone(&registry), Arc::new(topics)), Arc::new(Metrics::new()), heal, Box::new(|_| {}));
        let user: UserId = USER.parse().expect("an id");
        let epoch = Epoch::parse("redis.1").expect("an epoch");
        let join = |(wire, connection)| {
            let queue = Arc::new(SendQueue::new(1 << 20, wire));
            registry.add(&user, connection, Arc::clone(&queue), u32::MAX).expect("room");
            registry.join(&user, connection, &epoch, 0, Bytes::new());
            queue
        };
        let queues: Vec<Arc<SendQueue>> = wires.iter().copied().zip(1..).map(join).collect();
        load_counts(&registry, &user);
        for queue in &queues {
            queue.take(&mut Batch::default(), Waker::noop());
        }
        Self { fanout, queues, seq: Cell::new(0) }
    }

    /// The next payload on the user's channel: the body with its `seq`.
    pub(crate) fn payload(&self, body: &[u8]) -> Bytes {
        self.seq.set(self.seq.get() + 1);
        let body = std::str::from_utf8(body).expect("UTF-8").strip_prefix('{').expect("an envelope");
        let seq = self.seq.get();
        format!("{{\"seq\":{seq},{body}").into()
    }

    /// Takes what waits, as the sockets' tasks do; every socket has something.
    pub(crate) fn take(&self) -> usize {
        let take = |queue: &Arc<SendQueue>| {
            let mut batch = Batch::default();
            assert!(queue.take(&mut batch, Waker::noop()), "something was queued");
            batch.frames.iter().map(Bytes::len).sum::<usize>()
        };
        self.queues.iter().map(take).sum()
    }
}

/// The node has the user's unread counts, as after their first event.
fn load_counts(registry: &Registry, user: &UserId) {
    let event = CountMove { conversation: CONVERSATION.into(), kind: MoveKind::New { seq: 1 } };
    if registry.repeat_counts(user, 1, &[event]) {
        let conversation = CONVERSATION.parse().expect("an id");
        let counts = vec![UnreadCount { conversation, last_seq: 1, seen_seq: 0 }];
        registry.begin_count_load(user, 1).expect("it was asked for");
        registry.counts_loaded(user, 1, LoadedCounts::All(counts));
    }
}

/// A client's frame (RFC 6455 §5.3) with this first byte.
pub(crate) fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![head];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | short),
        Ok(_) | Err(_) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(payload.len()).expect("less than 64 KiB").to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The payload of a client's compressed message (RFC 7692 §7.2.1).
pub(crate) fn deflated(message: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(6, false, 15);
    let mut payload = vec![0; message.len() + 64];
    deflate.compress(message, &mut payload, DeflateFlush::SyncFlush).expect("it deflates");
    payload.truncate(usize::try_from(deflate.total_out()).expect("in memory") - 4);
    payload
}
