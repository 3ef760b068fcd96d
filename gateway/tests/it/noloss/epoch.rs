//! Sockets whose log is begun anew get `resync` (NOLOSS.md, A4, A5). What stands in a log for a message is `position` on a
//! socket that certainly had the message, else `resync`, or the message itself (NOLOSS.md, C1).

use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use gateway::backbone::{Inbox, LogHead, LogPage};
use gateway::delivery::fanout::Fanout;
use gateway::delivery::heal::Heal;
use gateway::delivery::marker::{MarkedEvent, Named};
use gateway::delivery::registry::{LogEvent, Registry};
use gateway::delivery::send_queue::{Batch, SendQueue};
use gateway::delivery::topics::Topics;
use gateway::metrics::Metrics;
use serde_json::Value;
use shared::{Epoch, UserId};
use tokio::sync::mpsc;

/// A fan-out with one socket of ann at position 5 of the epoch `redis.1`.
struct Rig {
    fanout: Fanout,
    topics: Arc<Topics>,
    registry: Arc<Registry>,
    queue: Arc<SendQueue>,
    heal: mpsc::UnboundedReceiver<UserId>,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "it holds one user")]
    fn new() -> Self {
        let registry = Arc::new(Registry::new(0));
        let (sender, heal) = mpsc::unbounded_channel();
        let topics = Arc::new(Topics::new(false, Arc::clone(&registry), Arc::new(Metrics::new())));
        let ways = (Arc::clone(&registry), Arc::clone(&topics));
        let fanout = Fanout::new(ways, Arc::new(Metrics::new()), sender, Box::new(|_| {}));
        let queue = Arc::new(SendQueue::new(1 << 20, shared::Wire::CHAT));
        registry.add(&ann(), 1, Arc::clone(&queue), u32::MAX).expect("room");
        registry.join(&ann(), 1, &Epoch::parse("redis.1").expect("an epoch"), 5, Bytes::new());
        Self { fanout, topics, registry, queue, heal }
    }

    fn push(&self, payload: &str) {
        self.fanout.user_event("ann", payload.as_bytes());
    }

    fn heal(&self, user: UserId) -> Heal {
        Heal::new((Arc::clone(&self.registry), Arc::clone(&self.topics)), Arc::new(Metrics::new()), user)
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

/// Nobody knows what a log held that has vanished: not even a socket that seems to have had everything is told otherwise.
#[test]
fn a_new_epoch_on_an_open_socket_is_a_resync() {
    let rig = Rig::new();
    rig.push(&first_of("redis.2"));
    assert_eq!(rig.frames(), [RESYNC, FIRST]);
    rig.push(&first_of("redis.2"));
    assert_eq!(rig.frames(), Vec::<String>::new(), "once");
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

/// The connection is back: what was missed meanwhile is read from the log of every user.
#[test]
fn after_a_lost_subscription_every_user_is_healed() {
    let mut rig = Rig::new();
    rig.fanout.resubscribed();
    assert_eq!(rig.heal.try_recv(), Ok(ann()));
}

/// B1: while nobody heard it, the log was begun anew, and its sixth event looks like the next one. It comes once, under the
/// epoch that it has.
#[test]
fn events_of_a_log_that_was_begun_anew_unheard_come_under_its_epoch() {
    let mut rig = Rig::new();
    // Before the subscription was lost, a read began: it says nothing of what comes behind.
    let mut earlier = rig.heal(ann());
    assert_eq!(earlier.next_read(), Some(5));
    rig.fanout.user_in_doubt("ann");
    earlier.apply(5, &page("redis.1", 5, &[]), None);
    rig.push(&message(6, 70));
    assert_eq!(rig.frames(), Vec::<String>::new(), "it is left to the log");
    assert_eq!(rig.heal.try_recv(), Ok(ann()), "which is read");
    let mut heal = rig.heal(ann());
    assert_eq!(heal.next_read(), Some(5));
    heal.apply(5, &page("other.2", 5, &[]), None);
    assert_eq!(rig.frames(), [RESYNC]);
    assert_eq!(heal.next_read(), Some(5));
    heal.apply(5, &page("other.2", 6, &[(6, &message(6, 70))]), None);
    rig.push(&message(7, 71));
    assert_eq!(rig.frames(), [r#""message.new" 6"#, r#""message.new" 7"#]);
    // The log is the same: what was left to it comes from there.
    rig.fanout.user_resubscribed("ann");
    rig.push(&message(8, 72));
    assert_eq!(rig.frames(), Vec::<String>::new());
    assert_eq!(heal.next_read(), Some(7));
    heal.apply(7, &page("other.2", 8, &[(8, &message(8, 72))]), None);
    rig.push(&message(9, 73));
    assert_eq!(rig.frames(), [r#""message.new" 8"#, r#""message.new" 9"#]);
}

/// B1: the head was read, then the log was begun anew, then the gate is opened: events of the new log aren't those of the old.
#[test]
fn a_log_that_is_begun_anew_during_a_join_is_read() {
    let mut rig = Rig::new();
    let queue = Arc::new(SendQueue::new(1 << 20, shared::Wire::CHAT));
    let bob = UserId::parse("bob").expect("an id");
    rig.registry.add(&bob, 2, Arc::clone(&queue), u32::MAX).expect("room");
    rig.fanout.user_event("bob", first_of("redis.2").as_bytes());
    assert_eq!(rig.heal.try_recv(), Ok(bob.clone()));
    rig.registry.join(&bob, 2, &Epoch::parse("redis.1").expect("an epoch"), 1, Bytes::new());
    rig.fanout.user_event("bob", message(2, 70).as_bytes());
    rig.queue = queue;
    assert_eq!(rig.frames(), Vec::<String>::new());
    let mut heal = rig.heal(bob);
    assert_eq!(heal.next_read(), Some(1));
    heal.apply(1, &page("redis.2", 2, &[(2, &message(2, 70))]), None);
    assert_eq!(rig.frames(), [RESYNC]);
}

/// What was read of a log of these events, whose last `seq` is this.
fn page(epoch: &str, last: u64, entries: &[(u64, &str)]) -> LogPage {
    let head = LogHead { epoch: Epoch::parse(epoch).expect("an epoch"), floor: 0, last };
    let entries = entries.iter().map(|(seq, payload)| (*seq, Bytes::copy_from_slice(payload.as_bytes())));
    LogPage { head, entries: entries.collect() }
}

/// What stands in the log in place of messages.
fn marker(seq: u64, ids: &str) -> String {
    marker_in("redis.1", seq, ids)
}

fn marker_in(epoch: &str, seq: u64, ids: &str) -> String {
    let payload = format!(r#"{{"reason":"trimmed","epoch":"{epoch}","seq":{seq},"messageIds":[{ids}]}}"#);
    format!(r#"{{"seq":{seq},"type":"resync","payload":{payload}}}"#)
}

fn message(seq: u64, id: u64) -> String {
    format!(r#"{{"seq":{seq},"type":"message.new","payload":{{"message":{{"id":"{id}"}}}}}}"#)
}

/// C1: a marker is the position of a socket that had its messages, in their place or under an earlier epoch.
#[test]
fn a_marker_is_a_position_only_where_its_messages_came() {
    let rig = Rig::new();
    rig.push(&message(6, 70));
    rig.push(&message(7, 71));
    assert_eq!(rig.frames(), [r#""message.new" 6"#, r#""message.new" 7"#]);
    rig.push(&marker(8, r#""70""#));
    rig.push(&marker(9, r#""70","71""#));
    rig.push(&marker(10, r#""70","72""#));
    rig.push(&marker(11, r#""72""#));
    assert_eq!(rig.frames(), [r#""position" 8"#, r#""position" 9"#, r#""resync" 10"#, r#""resync" 11"#]);
    // So it is for kept notifications.
    rig.push(r#"{"seq":12,"type":"notification","payload":{"notificationId":"90"}}"#);
    rig.push(&marker(13, "").replace("messageIds\":[]", "notificationIds\":[\"90\"]"));
    rig.push(&marker(14, "").replace("messageIds\":[]", "notificationIds\":[\"91\"]"));
    assert_eq!(rig.frames(), [r#""notification" 12"#, r#""position" 13"#, r#""resync" 14"#]);
    rig.push(&format!("{{\"epoch\":\"other.2\",\"seq\":0}}\n{}", marker_in("other.2", 1, r#""71""#)));
    assert_eq!(rig.frames(), [RESYNC, r#""position" 1"#]);
    // One of a log whose beginning wasn't heard is left to the heal.
    rig.push(&marker_in("other.3", 2, r#""73""#));
    assert_eq!((rig.frames(), rig.queue.position()), (Vec::new(), Some((1, 2))));
}

/// C1: a flat socket fetches nothing, so that it is given the message, from the store, unless it had it.
#[test]
fn a_flat_socket_is_given_the_message_of_a_marker() {
    let rig = Rig::new();
    let join = |connection, numbered| {
        let wire = shared::Wire::plain(shared::Dialect::Listings, numbered);
        let queue = Arc::new(SendQueue::new(1 << 20, wire));
        rig.registry.add(&ann(), connection, Arc::clone(&queue), u32::MAX).expect("room");
        rig.registry.join(&ann(), connection, &Epoch::parse("redis.1").expect("an epoch"), 5, Bytes::new());
        queue
    };
    let (plain, numbered) = (join(2, false), join(3, true));
    let texts = |queue: &Arc<SendQueue>| {
        let mut batch = Batch::default();
        queue.take(&mut batch, Waker::noop());
        String::from_utf8_lossy(&batch.frames.into_iter().flatten().collect::<Vec<u8>>()).into_owned()
    };
    let stored = |id: u64, age_s| MarkedEvent {
        named: Named::Message(shared::MessageId::new(id).expect("an id")),
        age: std::time::Duration::from_secs(age_s),
        envelope: full_message(id).into(),
    };
    // Live it isn't taken: the message has to be read first.
    let text = marker(6, r#""80","81","82""#);
    rig.push(&text);
    assert_eq!((texts(&plain), texts(&numbered), plain.position()), (String::new(), String::new(), Some((5, 6))));
    let epoch = Epoch::parse("redis.1").expect("an epoch");
    // 82 was committed long before these sockets came.
    let marked = [stored(80, 0), stored(81, 0), stored(82, 10_000)];
    let event = LogEvent::logged(6, text.as_bytes()).with_marked(Some(&marked));
    rig.registry.push_logged("ann", &epoch, &event);
    let (at_plain, at_numbered) = (texts(&plain), texts(&numbered));
    let ids = |text: &str| [80, 81, 82].map(|id| text.matches(&format!("content-{id}")).count());
    assert_eq!((ids(&at_plain), ids(&at_numbered)), ([1, 1, 0], [1, 1, 1]));
    assert_eq!((at_plain.matches("\"seq\"").count(), at_numbered.matches("\"seq\":6").count()), (0, 1));
    // What they have been given isn't given again.
    let text = marker(7, r#""80""#);
    let event = LogEvent::logged(7, text.as_bytes()).with_marked(Some(&marked));
    rig.registry.push_logged("ann", &epoch, &event);
    assert_eq!(texts(&plain), "");
    assert!(texts(&numbered).contains(r#""type":"position""#));
    assert_eq!(plain.position(), Some((7, 7)));
}

/// The envelope of a message with all that a flat frame needs.
fn full_message(id: u64) -> String {
    serde_json::json!({ "type": "message.new", "payload": { "message": {
        "id": id.to_string(), "conversationId": "3", "seq": id, "rev": id, "senderId": "5", "kind": "text",
        "content": format!("content-{id}"), "createdAt": "2025-11-21T13:00:00.000Z" }, "to": "ann" } })
    .to_string()
}
