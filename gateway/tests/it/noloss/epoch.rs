//! Sockets whose log is begun anew get `position` only if they certainly had everything, else `resync` (NOLOSS.md, A4,
//! A5).

use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use gateway::backbone::Inbox;
use gateway::delivery::fanout::Fanout;
use gateway::delivery::registry::Registry;
use gateway::delivery::send_queue::{Batch, SendQueue};
use gateway::metrics::Metrics;
use serde_json::Value;
use shared::{Epoch, UserId};
use tokio::sync::mpsc;

/// A fan-out with one socket of ann at position 5 of the epoch `redis.1`.
struct Rig {
    fanout: Fanout,
    registry: Arc<Registry>,
    queue: Arc<SendQueue>,
    heal: mpsc::UnboundedReceiver<UserId>,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "it holds one user")]
    fn new() -> Self {
        let registry = Arc::new(Registry::new(0));
        let (sender, heal) = mpsc::unbounded_channel();
        let fanout = Fanout::new(Arc::clone(&registry), Arc::new(Metrics::new()), sender, Box::new(|_| {}));
        let queue = Arc::new(SendQueue::new(1 << 20, shared::Wire::CHAT));
        registry.add(&ann(), 1, Arc::clone(&queue), u32::MAX).expect("room");
        registry.join(&ann(), 1, &Epoch::parse("redis.1").expect("an epoch"), 5, Bytes::new());
        Self { fanout, registry, queue, heal }
    }

    fn push(&self, payload: &str) {
        self.fanout.user_event("ann", payload.as_bytes());
    }

    /// The types of the frames that wait, with `seq` or reason where there is one.
    fn frames(&self) -> Vec<String> {
        let mut batch = Batch::default();
        self.queue.take(&mut batch, Waker::noop());
        let bytes: Vec<u8> = batch.frames.into_iter().flatten().collect();
        let mut frames = Vec::new();
        let mut rest = bytes.as_slice();
        while let [0x81, length, after @ ..] = rest {
            assert!(*length < 126, "the frames of this test are short");
            let (text, next) = after.split_at(usize::from(*length));
            let frame: Value = serde_json::from_slice(text).expect("JSON");
            let detail = [&frame["seq"], &frame["payload"]["reason"]].into_iter().find(|value| !value.is_null());
            frames
                .push(detail.map_or_else(|| frame["type"].to_string(), |detail| format!("{} {detail}", frame["type"])));
            rest = next;
        }
        frames
    }
}

fn ann() -> UserId {
    UserId::parse("ann").expect("an id")
}

fn first_of(epoch: &str) -> String {
    format!("{{\"epoch\":\"{epoch}\",\"seq\":0}}\n{{\"seq\":1,\"type\":\"x\",\"payload\":{{}}}}")
}

const RESYNC: &str = r#""resync" "epoch""#;
const FIRST: &str = r#""x" 1"#;

#[test]
fn a_socket_that_had_everything_gets_its_position() {
    let rig = Rig::new();
    rig.push(&first_of("redis.2"));
    assert_eq!(rig.frames(), [r#""position""#, FIRST]);
}

/// Healing reads on while events come live: whichever is first, the other is dropped.
#[test]
fn a_socket_is_given_each_event_once() {
    let rig = Rig::new();
    let event = |seq| format!(r#"{{"seq":{seq},"type":"x","payload":{{}}}}"#);
    for seq in [5, 6, 6, 4, 7] {
        rig.push(&event(seq));
    }
    assert_eq!(rig.frames(), [r#""x" 6"#, r#""x" 7"#]);
}

/// A4: the script ran and was answered, but its push died with the server; then another node is the first to publish.
#[test]
fn a_log_of_another_server_is_told_as_a_resync() {
    let rig = Rig::new();
    rig.push(&first_of("other.2"));
    assert_eq!(rig.frames(), [RESYNC, FIRST]);
}

/// The connection is back, events come, but what was missed meanwhile has not been read yet.
#[test]
fn after_an_interruption_it_is_a_resync() {
    let rig = Rig::new();
    rig.fanout.interrupted();
    rig.push(&first_of("redis.2"));
    assert_eq!(rig.frames(), [RESYNC, FIRST]);
    let mut rig = Rig::new();
    rig.fanout.interrupted();
    rig.fanout.resubscribed();
    assert_eq!(rig.heal.try_recv(), Ok(ann()));
    rig.push(&first_of("redis.2"));
    assert_eq!(rig.frames(), [RESYNC, FIRST]);
    // When the user is healed, all is certain again.
    rig.registry.end_heal("ann");
    rig.push(&first_of("redis.3"));
    assert_eq!(rig.frames(), [r#""position""#, FIRST]);
}

/// The socket knows of an event that only the old log had.
#[test]
fn a_socket_with_a_hole_gets_a_resync() {
    let mut rig = Rig::new();
    rig.push(r#"{"seq":8,"type":"x","payload":{}}"#);
    assert_eq!(rig.heal.try_recv(), Ok(ann()));
    rig.push(&first_of("redis.2"));
    assert_eq!(rig.frames(), [RESYNC, FIRST]);
}

/// B3: a redo could not prove that the log lacked its event, and began it anew.
#[test]
fn a_redo_that_could_not_be_judged_is_told_as_trimmed() {
    let rig = Rig::new();
    rig.push("{\"epoch\":\"redis.2\",\"seq\":0,\"reason\":\"trimmed\"}\n{\"seq\":1,\"type\":\"x\",\"payload\":{}}");
    assert_eq!(rig.frames(), [r#""resync" "trimmed""#, FIRST]);
}

fn message(seq: u64, id: u64) -> String {
    format!(r#"{{"seq":{seq},"type":"message.new","payload":{{"message":{{"id":"{id}"}}}}}}"#)
}

/// M4: its outcome was uncertain, so that it is redone in the log of the server that took over. Who had it gets its place.
#[test]
fn a_message_of_the_old_epoch_is_not_repeated_under_the_new_one() {
    let rig = Rig::new();
    rig.push(&message(6, 70));
    assert_eq!(rig.frames(), [r#""message.new" 6"#]);
    rig.push(&format!("{{\"epoch\":\"other.2\",\"seq\":0}}\n{}", message(1, 70)));
    rig.push(&message(2, 71));
    assert_eq!(rig.frames(), [RESYNC, r#""position" 1"#, r#""message.new" 2"#]);
    // A socket that comes later has had nothing.
    let late = Arc::new(SendQueue::new(1 << 20, shared::Wire::CHAT));
    rig.registry.add(&ann(), 2, Arc::clone(&late), u32::MAX).expect("room");
    let epoch = Epoch::parse("other.2").expect("an epoch");
    rig.registry.join(&ann(), 2, &epoch, 0, Bytes::new());
    let text = message(1, 70);
    rig.registry.push_logged("ann", &epoch, &gateway::delivery::registry::LogEvent::logged(1, text.as_bytes()));
    let of_late = Rig { queue: late, ..rig };
    assert_eq!(of_late.frames(), [r#""message.new" 1"#]);
}
