//! Committed rows are published, whichever process died in between, and never twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::backbone::{Backbone, LocalBackbone};
use gateway::chat::lease::Lease;
use gateway::chat::members::MembersCache;
use gateway::chat::publish::{Direct, Directory, publisher};
use gateway::chat::usernames::KnownNames;
use gateway::metrics::Metrics;
use gateway::store::{
    CommittedBatch, CommittedEvents, Locks, MembershipChange, NewMessage, SendBatch, SendOutcome, Store, StoredMessage,
};
use serde_json::{Value, json};
use shared::command::Target;
use shared::{ConversationId, MessageId, Role, UserId};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::backbone::rig::{deaf, empty_store, settings};
use crate::store::{World, batch, event, new_group, owner, silent};
use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::node::{Node, token};
use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded, flood, flooded, logs_come_of_age, say};

/// Takes from the nodes the right to the logs of users whose ids begin with `c`, and gives it back. Nothing else fails.
const DENY_C: &str = "ACL SETUSER default resetkeys ~chat:log:{chat:user:[^c]* ~chat:l[^o]* ~chat:[^l]* ~[^c]*";
const ALLOW_ALL: &str = "ACL SETUSER default allkeys";

/// Rows that are this old are taken over at once.
const OLD: &str = "UPDATE outbox SET committed_at = committed_at - interval '1 minute'";
/// A sweep comes every two seconds.
const SWEPT_WITHIN: Duration = Duration::from_secs(6);

/// Commits a message as a node would that died before it published: its row is unpublished, and owned by `owned_by`.
async fn commit_silently(store: &Arc<dyn Store>, to: &ConversationId, owned_by: &str, content: &str) {
    let ids = store.reserve_ids(2).await.expect("ids");
    let message = NewMessage {
        id: MessageId::new(ids.start + 1).expect("an id"),
        target: Target::Conversation(to.clone()),
        sender: user("a"),
        temp_id: None,
        kind: "text".into(),
        content: content.into(),
        reply_to: None,
        data: None,
    };
    let batch = SendBatch {
        id: ids.start,
        owner: owner(owned_by),
        messages: vec![message],
        locks: Locks::Wait,
        owes_events: false,
    };
    let outcomes = store.send(&batch).await.expect("committed").outcomes;
    assert!(matches!(outcomes.as_slice(), [SendOutcome::Stored(_)]), "{outcomes:?}");
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("an id")
}

/// The conversation of a message.
fn conversation_of(message: &Value) -> ConversationId {
    ConversationId::parse(message["conversationId"].as_str().expect("an id")).expect("an id")
}

/// How many rows are not published.
async fn unpublished(cluster: &TwoNodes) -> i64 {
    let client = cluster.database.client().await;
    let row = client.query_one("SELECT count(*) FROM outbox WHERE published_at IS NULL", &[]).await.expect("a count");
    row.get(0)
}

async fn wait_until_published(cluster: &TwoNodes, left: i64) {
    let asked = async {
        while unpublished(cluster).await != left {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SWEPT_WITHIN, asked).await.expect("the sweep comes in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_dead_node_are_published_once_and_those_of_a_living_one_left_alone() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        let conversation = conversation_of(&say(cluster.one.http, "a", "b", "first").await);
        b.until_message("first").await;
        wait_until_published(&cluster, 0).await;
        let store = gateway::store::connect(&cluster.database.url).await.expect("a store");
        store.beat(&owner("alive:1")).await.expect("a beat");
        logs_come_of_age().await;
        for n in 0..3 {
            commit_silently(&store, &conversation, "dead:1", &format!("dead {n}")).await;
            commit_silently(&store, &conversation, "alive:1", &format!("alive {n}")).await;
        }
        cluster.database.client().await.execute(OLD, &[]).await.expect("aged");
        for n in 0..3 {
            b.until_message(&format!("dead {n}")).await;
        }
        wait_until_published(&cluster, 3).await;
        b.settle().await;
        assert_eq!(b.contents(), ["first", "dead 0", "dead 1", "dead 2"]);
    })
    .await;
}

/// Review hole 30: the sweep, too, tells of a conversation before its first message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_opened_is_told_before_its_first_message() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        let mut a = Follower::join(cluster.two.http, "a").await;
        let store = gateway::store::connect(&cluster.database.url).await.expect("a store");
        // Both have logs by then, which show that nothing of it was published.
        for user in ["a", "b"] {
            say(cluster.one.http, user, "c", "before").await;
        }
        wait_until_published(&cluster, 0).await;
        logs_come_of_age().await;
        b.settle().await;
        a.settle().await;
        let before = [b.events.len(), a.events.len()];
        let mut dead = batch(&store, &[("@b", "a", "", "first"), ("@b", "a", "", "second")]).await;
        dead.owner = owner("dead:1");
        let opened = store.send(&dead).await.expect("committed").opened.remove(0);
        cluster.database.client().await.execute(OLD, &[]).await.expect("aged");
        b.until_message("second").await;
        a.settle().await;
        for ((follower, kind), before) in [(&b, "message.new"), (&a, "message.sent")].into_iter().zip(before) {
            let durable: Vec<&Value> = follower.events.iter().skip(before).collect();
            let kinds: Vec<&str> = durable.iter().filter_map(|event| event["type"].as_str()).collect();
            assert_eq!(kinds, ["conversation.created", kind, kind]);
            assert_eq!(durable[0]["payload"]["conversation"]["id"], opened.id.as_str());
        }
    })
    .await;
}

/// The publication reached the log, but its mark was lost: the redo finds the event there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redo_of_what_was_published_tells_nobody() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        flood(cluster.two.http, "a", "b", 50).await;
        b.until_message("m49").await;
        wait_until_published(&cluster, 0).await;
        let client = cluster.database.client().await;
        let forget = "UPDATE outbox SET published_at = NULL, committed_at = committed_at - interval '10 seconds'";
        assert!(client.execute(forget, &[]).await.expect("forgotten") > 0);
        wait_until_published(&cluster, 0).await;
        b.settle().await;
        assert_eq!(b.contents(), flooded(50));
        assert!(b.notices.is_empty(), "{:?}", b.notices);
    })
    .await;
}

/// M4: the publication reached the sockets, but not its answer the publisher; then Redis came back empty, and the redo finds
/// no log that has the event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncertain_publication_is_not_repeated_when_redis_comes_back_empty() {
    bounded(async {
        let mut cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        flood(cluster.two.http, "a", "b", 20).await;
        b.until_message("m19").await;
        wait_until_published(&cluster, 0).await;
        cluster.redis.kill();
        cluster.one.wait_ready(false).await;
        cluster.two.wait_ready(false).await;
        let forget = "UPDATE outbox SET published_at = NULL, committed_at = committed_at - interval '10 seconds' \
            WHERE message_ids <> '{}'";
        assert!(cluster.database.client().await.execute(forget, &[]).await.expect("forgotten") > 0);
        cluster.redis.restart();
        cluster.one.wait_ready(true).await;
        wait_until_published(&cluster, 0).await;
        say(cluster.two.http, "a", "b", "after").await;
        b.until_message("after").await;
        let expected: Vec<String> = flooded(20).into_iter().chain(["after".to_owned()]).collect();
        assert_eq!(b.contents(), expected);
        let positions = b.events.iter().filter(|event| event["type"] == "position").count();
        assert!(b.notices.len() == 1 && positions > 0, "{:?} {positions}", b.notices);
        assert_eq!(b.notices[0]["type"], "resync");
    })
    .await;
}

/// Somebody took away the right to one user's log: the rows behind are published all the same, and that one when the right is
/// given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_can_not_be_published_holds_up_no_other() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        let mut c = Follower::join(cluster.one.http, "c").await;
        let to_b = conversation_of(&say(cluster.one.http, "a", "b", "first").await);
        let to_c = conversation_of(&say(cluster.one.http, "a", "c", "first").await);
        b.until_message("first").await;
        c.until_message("first").await;
        wait_until_published(&cluster, 0).await;
        logs_come_of_age().await;
        cluster.redis.ask(DENY_C);
        let store = gateway::store::connect(&cluster.database.url).await.expect("a store");
        commit_silently(&store, &to_c, "dead:1", "to c").await;
        commit_silently(&store, &to_b, "dead:1", "to b").await;
        cluster.database.client().await.execute(OLD, &[]).await.expect("aged");
        b.until_message("to b").await;
        wait_until_published(&cluster, 1).await;
        cluster.redis.ask(ALLOW_ALL);
        c.until_message("to c").await;
        wait_until_published(&cluster, 0).await;
        assert_eq!(
            (b.contents(), c.contents()),
            (vec!["first".into(), "to b".into()], vec!["first".into(), "to c".into()])
        );
    })
    .await;
}

/// C11: one of a message's recipients can't be reached for long. The others, who have it, are left alone meanwhile, also when
/// their logs have lost it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_narrowed_to_those_who_lack_it() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let one = cluster.one.http;
        let group = json!({ "id": "g", "kind": "group", "members": ["b", "c"] });
        assert_eq!(acting(one, "POST", "/api/v1/conversations", "a", group).await.0, 201);
        let mut b = Follower::join(one, "b").await;
        let mut c = Follower::join(one, "c").await;
        wait_until_published(&cluster, 0).await;
        logs_come_of_age().await;
        cluster.redis.ask(DENY_C);
        let store = gateway::store::connect(&cluster.database.url).await.expect("a store");
        commit_silently(&store, &ConversationId::parse("g").expect("an id"), "dead:1", "to all").await;
        let client = cluster.database.client().await;
        client.execute(OLD, &[]).await.expect("aged");
        b.until_message("to all").await;
        let lacking = async {
            loop {
                let sql = "SELECT lacking FROM outbox WHERE published_at IS NULL AND lacking IS NOT NULL";
                if let Some(row) = client.query_opt(sql, &[]).await.expect("a row") {
                    return row.get::<_, Vec<String>>(0);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert_eq!(tokio::time::timeout(SWEPT_WITHIN, lacking).await.expect("narrowed"), ["c"]);
        cluster.redis.ask("XTRIM chat:log:{chat:user:b} MAXLEN 0");
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster.redis.ask(ALLOW_ALL);
        c.until_message("to all").await;
        wait_until_published(&cluster, 0).await;
        b.settle().await;
        assert_eq!(b.events.iter().filter(|event| event["type"] != "message.new").count(), 0, "{:?}", b.events);
        assert_eq!((b.contents(), c.contents()), (vec!["to all".to_owned()], vec!["to all".to_owned()]));
    })
    .await;
}

/// C1: a flat socket that was here before the commit is given the message, though the log can't tell whether it was
/// published. One that had it is given nothing, and a canonical one fetches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_log_can_not_decide_reaches_flat_sockets() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let one = cluster.one.http;
        let conversation = conversation_of(&say(one, "a", "6", "first").await);
        wait_until_published(&cluster, 0).await;
        let mut canonical = Follower::join(one, "6").await;
        let mut flat = Flat::join(one, "/ws/chat", "6").await;
        let (mut numbered, _) = Flat::join_with(cluster.two.http, "/ws/chat", &token("6"), "&resume=").await;
        let store = gateway::store::connect(&cluster.database.url).await.expect("a store");
        commit_silently(&store, &conversation, "dead:1", "undecided").await;
        cluster.database.client().await.execute(OLD, &[]).await.expect("aged");
        let marker = canonical.until("resync").await;
        assert_eq!((&marker["payload"]["reason"], &marker["seq"]), (&json!("trimmed"), &marker["payload"]["seq"]));
        let id = marker["payload"]["messageId"].as_str().expect("an id").to_owned();
        for socket in [&mut flat, &mut numbered] {
            let frame = socket.expect("new_message").await;
            assert_eq!(frame["message"]["content"], "undecided", "{id}");
            assert!(frame.get("seq").is_none_or(|seq| *seq == marker["seq"]), "{frame}");
        }
        say(one, "a", "6", "after").await;
        for socket in [&mut flat, &mut numbered] {
            assert_eq!(socket.expect("new_message").await["message"]["content"], "after");
        }
        canonical.until_message("after").await;
        // Long polling shows it among the events.
        let before = marker["seq"].as_u64().expect("a seq") - 1;
        let path = format!("/api/v1/events?since={}:{before}", canonical.epoch);
        let (status, page) = acting(one, "GET", &path, "6", json!(null)).await;
        assert_eq!((status, &page["events"][0]), (200, &marker), "{page}");
    })
    .await;
}

/// C9: leases tell nothing when the store's clock steps. What was begun before the connection was made is left to the sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_on_an_earlier_connection_is_left_to_the_sweep() {
    bounded(async {
        let world = World::sqlite().await;
        let rig = crate::backbone::rig::Rig::redis(settings()).await;
        let backbone = Arc::clone(&rig.a.backbone);
        backbone.open(&user("b")).await.expect("opened");
        let (lease, owner) = (Arc::new(Lease::default()), owner("n:1"));
        let directory = Directory {
            members: Arc::new(MembersCache::new(Arc::clone(&world.store))),
            names: Arc::new(KnownNames::new(Arc::clone(&world.store))),
        };
        let (store, metrics) = (Arc::clone(&world.store), Arc::new(Metrics::new()));
        let direct = Direct { message: Box::new(|_, _, _, _| {}), topic: Box::new(|_, _| {}) };
        lease.beat(&*world.store, &owner).await;
        let (publisher, task) = publisher(store, Arc::clone(&backbone), directory, metrics, direct, Arc::clone(&lease));
        let stop = CancellationToken::new();
        let task = tokio::spawn(task.run(stop.clone()));
        let publish = async |row: u64, begun: Instant| {
            let events = vec![event(&user("b"), r#"{"type":"x","payload":{}}"#)];
            publisher.publish_events(CommittedEvents { row, events, begun });
            while publisher.in_flight().lock().contains(&row) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            backbone.open(&user("b")).await.expect("opened").last
        };
        let early = Instant::now();
        assert_eq!(publish(1, early).await, 1);
        rig.redis.as_ref().expect("Redis").ask("CLIENT KILL TYPE normal SKIPME yes");
        rig.a.resubscribed().await;
        lease.beat(&*world.store, &owner).await;
        assert_eq!(publish(2, early).await, 1, "begun before");
        assert_eq!(publish(3, Instant::now()).await, 2);
        stop.cancel();
        task.await.expect("it ends");
    })
    .await;
}

/// A8: a node that was paused doesn't know what others have taken over meanwhile. Its rows are left to the sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_lease_a_node_publishes_nothing() {
    bounded(async {
        let world = World::sqlite().await;
        let backbone: Arc<dyn Backbone> = Arc::new(LocalBackbone::start(settings(), deaf(), empty_store()));
        backbone.open(&user("b")).await.expect("opened");
        let (lease, owner) = (Arc::new(Lease::default()), owner("n:1"));
        let directory = Directory {
            members: Arc::new(MembersCache::new(Arc::clone(&world.store))),
            names: Arc::new(KnownNames::new(Arc::clone(&world.store))),
        };
        let (store, metrics) = (Arc::clone(&world.store), Arc::new(Metrics::new()));
        let direct = Direct { message: Box::new(|_, _, _, _| {}), topic: Box::new(|_, _| {}) };
        let (publisher, task) = publisher(store, Arc::clone(&backbone), directory, metrics, direct, Arc::clone(&lease));
        let stop = CancellationToken::new();
        let task = tokio::spawn(task.run(stop.clone()));
        let publish = async |row: u64, begun: Instant| {
            let events = vec![event(&user("b"), r#"{"type":"x","payload":{}}"#)];
            publisher.publish_events(CommittedEvents { row, events, begun });
            let settled = async {
                // In flight until it is left to the sweep, or marked.
                while publisher.in_flight().lock().contains(&row) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(SWEPT_WITHIN, settled).await.expect("settled");
            backbone.open(&user("b")).await.expect("opened").last
        };
        let early = Instant::now();
        assert_eq!(publish(1, early).await, 0, "it was never beaten");
        lease.beat(&*world.store, &owner).await;
        assert_eq!(publish(2, early).await, 0, "begun when it was not held");
        assert_eq!(publish(3, Instant::now()).await, 1);
        stop.cancel();
        task.await.expect("it ends");
    })
    .await;
}

/// Of one row several messages find no room: it counts once among the publications that are left to the sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_messages_find_no_room_counts_once() {
    const ROOM: u64 = 16_384;
    bounded(async {
        let world = World::sqlite().await;
        let backbone: Arc<dyn Backbone> = Arc::new(LocalBackbone::start(settings(), deaf(), empty_store()));
        let (lease, stop) = (Arc::new(Lease::default()), CancellationToken::new());
        lease.beat(&*world.store, &owner("me:1")).await;
        let members = Arc::new(MembersCache::new(Arc::clone(&world.store)));
        let names = Arc::new(KnownNames::new(Arc::clone(&world.store)));
        // Handles of a recorder of its own: other tests count as well.
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let metrics = Arc::new(metrics::with_local_recorder(&recorder, Metrics::new));
        let directory = Directory { members, names };
        let direct = Direct { message: Box::new(|_, _, _, _| {}), topic: Box::new(|_, _| {}) };
        let (publisher, task) = publisher(Arc::clone(&world.store), backbone, directory, metrics, direct, lease);
        let stored = |seq: u64| {
            let message = json!({
                "id": seq.to_string(), "conversationId": "nowhere", "seq": seq, "rev": seq, "senderId": "a",
                "kind": "text", "content": "x", "createdAt": "2025-11-21T13:00:00.000Z",
            });
            StoredMessage { message: serde_json::from_value(message).expect("a message"), members_version: 1 }
        };
        let messages = (1..=ROOM + 3).map(stored).collect();
        publisher.publish_batch(CommittedBatch { row: 1, opened: Vec::new(), messages, begun: Instant::now() });
        let task = tokio::spawn(task.run(stop.clone()));
        let settled = async {
            while publisher.in_flight().lock().contains(&1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), settled).await.expect("settled");
        let counted = recorder.handle().render();
        assert!(counted.lines().any(|line| line == "parley_outbox_publish_failed_total 1"), "{counted}");
        stop.cancel();
        task.await.expect("it ends");
    })
    .await;
}

/// The embedded mode keeps nothing but its file: what an earlier process had not published is published by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_node_publishes_what_an_earlier_process_left() {
    bounded(async {
        let world = World::sqlite().await;
        let group = new_group(&world.store, "g", &["a", "b"]).await;
        commit_silently(&world.store, &group, "dead:1", "left over").await;
        let node = Node::embedded(&[("DATABASE_URL", &world.url)]).await;
        let mut b = Follower::join(node.http, "b").await;
        let file = world.url.strip_prefix("sqlite:").expect("a file");
        let aged = rusqlite::Connection::open(file).expect("opened");
        aged.execute("UPDATE outbox SET committed_at = committed_at - 60000", []).expect("aged");
        // The process that could tell whether it was published is gone, and its log with it.
        let marker = b.until("resync").await;
        assert_eq!((&marker["payload"]["reason"], &marker["payload"]["seq"]), (&json!("trimmed"), &marker["seq"]));
        assert_eq!(marker["payload"]["conversationId"], "g");
        b.settle().await;
        assert_eq!(b.contents(), Vec::<String>::new());
    })
    .await;
}

/// A node of its own runtime, so that it can end as by `kill -9`: every task at once, wherever it stands.
struct Doomed {
    node: Node,
    runtime: Runtime,
}

impl Doomed {
    async fn start(cluster: &TwoNodes) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (redis, database) = (cluster.redis.url(), cluster.database.url.clone());
        let started = runtime.spawn(async move { Node::serve(&redis, &database, &[]).await });
        Self { node: started.await.expect("it starts"), runtime }
    }

    fn kill(self) {
        self.runtime.shutdown_background();
        drop(self.node);
    }
}

/// Acknowledged over REST, never published by the node that took them: Redis was frozen, and then the node was dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_had_acknowledged_arrives_once() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let doomed = Doomed::start(&cluster).await;
        let mut b = Follower::join(cluster.two.http, "b").await;
        say(doomed.node.http, "a", "b", "before").await;
        b.until_message("before").await;
        logs_come_of_age().await;
        cluster.redis.freeze();
        for n in 0..20 {
            say(doomed.node.http, "a", "b", &format!("{n}")).await;
        }
        doomed.kill();
        cluster.redis.thaw();
        b.settle_until(Duration::from_secs(20), |b| b.contents().len() > 20).await;
        wait_until_published(&cluster, 0).await;
        b.settle().await;
        let mut contents = b.contents();
        contents.sort_by_key(|content| content.parse::<u32>().map_or(0, |n| n + 1));
        let expected: Vec<String> =
            std::iter::once("before".to_owned()).chain((0..20).map(|n| n.to_string())).collect();
        assert_eq!(contents, expected);
    })
    .await;
}

/// A12: the node was not told of the change; the commit tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_changed_unheard_are_noticed_by_the_next_message() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let one = cluster.one.http;
        let group = json!({ "id": "g", "kind": "group", "members": ["b", "c"] });
        assert_eq!(acting(one, "POST", "/api/v1/conversations", "a", group).await.0, 201);
        let mut a = Client::join(one, "a").await;
        let mut b = Follower::join(one, "b").await;
        let mut c = Follower::join(one, "c").await;
        let mut d = Follower::join(one, "d").await;
        a.send("message.send", json!({ "conversationId": "g", "content": "first" })).await;
        b.until_message("first").await;
        c.until_message("first").await;
        let store = gateway::store::connect(&cluster.database.url).await.expect("a store");
        let group = ConversationId::parse("g").expect("an id");
        let add = MembershipChange::Add { by: None, role: Role::Member };
        store.change_membership(&group, &user("d"), &add, silent()).await.expect("added");
        store
            .change_membership(&group, &user("c"), &MembershipChange::Ban { by: None }, silent())
            .await
            .expect("banned");
        a.send("message.send", json!({ "conversationId": "g", "content": "second" })).await;
        b.until_message("second").await;
        d.until_message("second").await;
        c.settle().await;
        assert_eq!(c.contents(), ["first"]);
        let (status, answer) =
            acting(one, "POST", "/api/v1/messages", "c", json!({ "conversationId": "g", "content": "no" })).await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("BANNED")), "{answer}");
    })
    .await;
}

/// The node died before it published; until the sweep does, one member goes, another comes, and one goes and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_late_goes_to_the_members_of_then() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let one = cluster.one.http;
        let group = json!({ "id": "g", "kind": "group", "visibility": "public", "members": ["b", "c"] });
        assert_eq!(acting(one, "POST", "/api/v1/conversations", "a", group).await.0, 201);
        let mut b = Follower::join(one, "b").await;
        let mut c = Follower::join(one, "c").await;
        let mut d = Follower::join(one, "d").await;
        logs_come_of_age().await;
        let store = gateway::store::connect(&cluster.database.url).await.expect("a store");
        let group = ConversationId::parse("g").expect("an id");
        commit_silently(&store, &group, "dead:1", "late").await;
        commit_silently(&store, &group, "dead:1", "later").await;
        let change = async |path: &str, who: &str| {
            let (status, answer) =
                acting(one, "POST", &format!("/api/v1/conversations/g/{path}"), who, json!({})).await;
            assert!((200..300).contains(&status), "{path} {status} {answer}");
        };
        change("leave", "b").await;
        change("leave", "c").await;
        let mut a = Client::join(one, "a").await;
        a.send("message.send", json!({ "conversationId": "g", "content": "between" })).await;
        a.expect("message.sent").await;
        change("join", "c").await;
        change("join", "d").await;
        cluster.database.client().await.execute(OLD, &[]).await.expect("aged");
        b.until_message("later").await;
        c.until_message("later").await;
        a.send("message.send", json!({ "conversationId": "g", "content": "after" })).await;
        c.until_message("after").await;
        d.until_message("after").await;
        b.settle().await;
        assert_eq!(b.contents(), ["late", "later"]);
        assert_eq!(c.contents(), ["late", "later", "after"]);
        assert_eq!(d.contents(), ["after"]);
    })
    .await;
}

/// B6: PostgreSQL can't hold U+0000, so it never gets that far; neighbours in the batch are none the worse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zero_character_is_refused_and_spoils_nothing() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut a = Client::join(cluster.one.http, "a").await;
        let mut b = Follower::join(cluster.two.http, "b").await;
        for n in 0..20 {
            a.send("message.send", json!({ "to": "b", "content": format!("m{n}") })).await;
            a.send("message.send", json!({ "to": "b", "content": "zero \u{0}" })).await;
            a.send("message.send", json!({ "to": "b", "content": "x", "tempId": "zero \u{0}" })).await;
            a.send("message.send", json!({ "to": "b", "content": "x", "kind": "zero \u{0}" })).await;
        }
        for _ in 0..60 {
            assert_eq!(a.expect("error").await["payload"]["code"], "VALIDATION_ERROR");
        }
        b.until_message("m19").await;
        assert_eq!(b.contents(), flooded(20));
        let body = json!({ "to": "b", "content": "zero \u{0}" });
        let (status, answer) = acting(cluster.one.http, "POST", "/api/v1/messages", "a", body).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("VALIDATION_ERROR")), "{answer}");
    })
    .await;
}

/// A user name with U+0000, from a token, must not keep the names of others from being written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zero_character_in_a_user_name_spoils_nothing() {
    bounded(async {
        use crate::support::node::{in_seconds, token_with};
        let cluster = TwoNodes::start(&[]).await;
        let claims = json!({ "sub": "z", "username": "zero \u{0}", "exp": in_seconds(3600), "iat": in_seconds(0) });
        let (_z, _) = Client::join_with(cluster.one.http, &token_with(claims)).await;
        let _b = Client::join(cluster.one.http, "b").await;
        let mut a = Client::join(cluster.one.http, "a").await;
        a.send("block.add", json!({ "username": "name-of-b" })).await;
        assert_eq!(a.expect("block.added").await["payload"]["userId"], "b");
    })
    .await;
}

/// A message to very many goes out in slices: another conversation's message doesn't wait until all of them have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loud_group_holds_up_nobody_else() {
    bounded(async {
        let nodes = TwoNodes::start(&[]).await;
        let mut members: Vec<String> = (0..3000).map(|n| format!("invented-{n:04}")).collect();
        members.push("zz".to_owned());
        let group = json!({ "kind": "group", "id": "loud", "title": "Loud", "members": members });
        assert_eq!(acting(nodes.one.http, "POST", "/api/v1/conversations", "a", group).await.0, 201);
        let mut last = Client::join(nodes.two.http, "zz").await;
        let mut bystander = Client::join(nodes.two.http, "c").await;
        say(nodes.one.http, "b", "c", "hello").await;
        bystander.expect("message.new").await;

        let mut loud = Client::join(nodes.one.http, "a").await;
        for n in 0..20 {
            loud.send(
                "message.send",
                json!({ "conversationId": "loud", "content": format!("{n}"), "tempId": format!("{n}") }),
            )
            .await;
        }
        say(nodes.one.http, "b", "c", "meanwhile").await;
        assert_eq!(bystander.expect("message.new").await["payload"]["message"]["content"], "meanwhile");
        let told = last.settle().await;
        let before = told.iter().filter(|frame| frame["type"] == "message.new").count();
        assert!(before < 20, "the bystander's message came after all {before} of the group's");
        // And all of them come, in order.
        let mut contents: Vec<String> =
            told.iter().filter(|frame| frame["type"] == "message.new").map(content_of).collect();
        while contents.len() < 20 {
            contents.push(content_of(&last.expect("message.new").await));
        }
        assert_eq!(contents, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    })
    .await;
}

fn content_of(frame: &Value) -> String {
    frame["payload"]["message"]["content"].as_str().expect("content").to_owned()
}
