//! What large conversations cost the store, and that a moment of disorder costs it nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway::backbone::{BackboneError, LocalBackbone};
use gateway::delivery::registry::Registry;
use gateway::delivery::send_queue::{Batch, SendQueue};
use gateway::delivery::topics::{Head, LargeStore, Missed, MissedRow, Own, Sources, Topics, Wish};
use gateway::metrics::Metrics;
use serde_json::Value;
use shared::{ConversationId, Place, UserId, Wire};

use crate::backbone::rig::{deaf, empty_store, settings};
use crate::store::{conversation, user};

/// A conversation with a hundred messages, each `rev` of which is a message.
struct Hundred {
    reads: AtomicU32,
}

fn envelope(rev: u64) -> Bytes {
    let text = format!(
        r#"{{"rev":{rev},"type":"message.new","payload":{{"message":{{"seq":{rev},"senderId":"a","createdAt":"2026-01-05T09:30:00.000Z"}}}}}}"#
    );
    text.into()
}

#[async_trait]
impl LargeStore for Hundred {
    async fn missed(&self, _: &ConversationId, after: u64) -> Result<Missed, BackboneError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let row = |rev| {
            let changed = format!(r#"{{"rev":{rev},"type":"message.edited","payload":{{}}}}"#).into();
            MissedRow { rev, seq: rev, was_large: true, is_changed: false, new: envelope(rev), changed }
        };
        let head = Head { place: Place { rev: 100, seq: 100 }, large: true };
        Ok(Missed { head: Some(head), floor: after, rows: (1..=100).filter(|rev| *rev > after).map(row).collect() })
    }

    async fn heads(&self, _: &[ConversationId]) -> Result<HashMap<ConversationId, Head>, BackboneError> {
        Ok(HashMap::new())
    }

    async fn own(&self, _: &UserId, _: BTreeSet<ConversationId>) -> Result<Vec<Own>, BackboneError> {
        Ok(Vec::new())
    }
}

struct Rig {
    topics: Topics,
    store: Arc<Hundred>,
}

impl Rig {
    fn new() -> Self {
        let (registry, metrics) = (Arc::new(Registry::new(0)), Arc::new(Metrics::new()));
        let topics = Topics::new(true, registry, metrics);
        let store = Arc::new(Hundred { reads: AtomicU32::new(0) });
        let backbone = Arc::new(LocalBackbone::start(settings(), deaf(), empty_store()));
        topics.open(Sources { backbone, store: Arc::clone(&store) as Arc<dyn LargeStore> });
        Self { topics, store }
    }

    /// A socket whose gate is open, which goes on from a place.
    fn join(&self, rev: u64) -> Arc<SendQueue> {
        let queue = Arc::new(SendQueue::new(1 << 20, Wire::CHAT));
        queue.open_at(1, Bytes::new());
        self.topics.join(&conversation("g"), &user("u"), Arc::clone(&queue), Wish::From(Place { rev, seq: rev }));
        queue
    }

    fn publish(&self, rev: u64) {
        assert!(self.topics.event("g", &envelope(rev)));
    }

    fn reads(&self) -> u32 {
        self.store.reads.load(Ordering::Relaxed)
    }
}

/// The `rev`s that a socket was given, once there are so many.
async fn revs(queue: &SendQueue, count: usize) -> Vec<u64> {
    let mut revs = Vec::new();
    let mut batch = Batch::default();
    let given = async {
        while revs.len() < count {
            queue.take(&mut batch, std::task::Waker::noop());
            for framed in batch.frames.drain(..) {
                for text in gateway::ws::frame::text_payloads(&framed) {
                    let frame: Value = serde_json::from_slice(text).expect("JSON");
                    revs.push(frame["rev"].as_u64().unwrap_or_else(|| panic!("{frame}")));
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given).await.expect("events in time");
    revs
}

/// All who come back at once to a node that had none of them, each from another place, cost the store one read.
#[tokio::test]
async fn those_who_come_back_together_cost_one_read() {
    let rig = Rig::new();
    let back: Vec<_> = (1..=99).rev().map(|rev| (rev, rig.join(rev))).collect();
    for (rev, queue) in &back {
        let missed = usize::try_from(100 - rev).expect("a small number");
        assert_eq!(revs(queue, missed).await, (rev + 1..=100).collect::<Vec<_>>());
    }
    let late = rig.join(40);
    assert_eq!(revs(&late, 60).await.len(), 60);
    assert_eq!(rig.reads(), 1);
    rig.topics.close().await;
}

/// Two nodes publish two changes in the other order: nothing is read, and everybody gets them in order.
#[tokio::test]
async fn a_moment_of_disorder_costs_no_read() {
    let rig = Rig::new();
    let queue = rig.join(99);
    assert_eq!(revs(&queue, 1).await, [100]);
    for rev in [103, 102, 101, 102, 104] {
        rig.publish(rev);
    }
    assert_eq!(revs(&queue, 4).await, [101, 102, 103, 104]);
    assert_eq!(rig.reads(), 1);
    // What doesn't come in a moment counts as lost.
    rig.publish(106);
    let waited = async {
        while rig.reads() == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("a read in time");
    rig.topics.close().await;
}
