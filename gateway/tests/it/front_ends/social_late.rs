//! Seed 004: "Database failures don't interrupt real-time message flow". With the store frozen or gone, messages go on
//! between the sockets of this dialect, and are stored once it is back: nothing lost, nothing twice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::command::Target;
use shared::{ConversationId, MessageId, UserId};

use crate::support::client::Client;
use crate::support::http::{bearer, get};
use crate::support::node::{Node, token};
use crate::support::postgres::{Database, Postgres};
use crate::support::redis::Redis;
use crate::support::social::Social;

/// Two nodes on a Redis and a PostgreSQL of their own.
struct Servers {
    one: Node,
    two: Node,
    redis: Redis,
    postgres: Postgres,
    database: Database,
}

impl Servers {
    async fn start() -> Self {
        let (redis, postgres) = (Redis::start(), Postgres::start_own());
        let database = postgres.new_database().await;
        let settings = [("COMMANDS_PER_SECOND", "0")];
        let one = Node::serve(&redis.url(), &database.url, &settings).await;
        let two = Node::serve(&redis.url(), &database.url, &settings).await;
        one.wait_ready(true).await;
        two.wait_ready(true).await;
        Self { one, two, redis, postgres, database }
    }

    async fn history(&self, reader: &str, with: &str) -> Vec<Value> {
        let headers = bearer(&token(reader));
        let path = format!("/api/messages/private?user={with}&limit=100");
        let (status, mut page) = get(self.two.http, &path, &[(headers.0, &headers.1)]).await;
        assert_eq!(status, 200, "{page}");
        serde_json::from_value(page["items"].take()).expect("items")
    }

    /// Waits until nothing waits for the store.
    async fn late_is_empty(&self) {
        let empty = async {
            while self.redis.number("XLEN chat:late") != 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), empty).await.expect("the store takes what was kept");
    }
}

fn ids(frames: &[Value]) -> Vec<u64> {
    frames.iter().map(|frame| frame["id"].as_u64().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_on_while_the_store_is_frozen_and_are_stored_once() {
    let servers = Servers::start().await;
    let mut ann = Social::join(servers.one.http, "1").await;
    let mut tablet = Social::join(servers.two.http, "1").await;
    let mut bob = Social::join(servers.two.http, "2").await;
    let mut chat = Client::join(servers.two.http, "2").await;
    ann.say(json!({ "type": "private", "to": 2, "content": "before" })).await;
    let mut at_bob = vec![bob.expect("private").await];
    tablet.expect("private").await;
    chat.expect("message.new").await;
    // Long enough that what comes live can't be taken for what the log has just brought.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ann.settle().await;

    servers.postgres.freeze();
    let started = Instant::now();
    for n in 1..=5 {
        ann.say(json!({ "type": "private", "to": 2, "content": format!("m{n}"), "temp_id": format!("t{n}") })).await;
    }
    for n in 1..=5 {
        let live = bob.expect("private").await;
        assert_eq!((&live["content"], &live["from"]), (&json!(format!("m{n}")), &json!(1)));
        assert_eq!(tablet.expect("private").await["id"], live["id"]);
        at_bob.push(live);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(ann.settle().await.is_empty(), "no echo");
    assert_eq!(servers.redis.number("XLEN chat:late"), 5);
    // Whom this node never saw talk to Ann, nobody can vouch for.
    ann.say(json!({ "type": "private", "to": 77, "content": "stranger" })).await;
    let error = ann.expect("error").await;
    assert_eq!((&error["code"], &error["retryable"]), (&json!("UNAVAILABLE"), &json!(true)));
    // A repetition is known, and another message under a used `temp_id` refused, without the store.
    ann.say(json!({ "type": "private", "to": 2, "content": "m1", "temp_id": "t1" })).await;
    ann.refused(json!({ "type": "private", "to": 2, "content": "other", "temp_id": "t1" }), "CONFLICT").await;
    assert_eq!((servers.redis.number("XLEN chat:late"), bob.settle().await.len()), (5, 0));
    // Other dialects get nothing that isn't stored.
    assert!(chat.settle().await.iter().all(|frame| frame["type"] != "message.new"));

    servers.postgres.thaw();
    for (n, live) in at_bob.iter().enumerate().skip(1) {
        let stored = chat.expect("message.new").await;
        let message = &stored["payload"]["message"];
        assert_eq!(message["content"], format!("m{n}"));
        assert_eq!(message["id"].as_str().and_then(|id| id.parse().ok()), live["id"].as_u64());
        assert!(stored["seq"].is_u64(), "an ordinary durable event");
    }
    servers.late_is_empty().await;
    servers.one.wait_ready(true).await;
    // Ordinary messages come again, after those that were kept.
    ann.say(json!({ "type": "private", "to": 2, "content": "after" })).await;
    at_bob.push(bob.expect("private").await);
    assert_eq!(at_bob[6]["content"], "after");
    assert_eq!(tablet.expect("private").await["content"], "after");
    for device in [&mut ann, &mut tablet, &mut bob] {
        assert_eq!(device.settle().await, Vec::<Value>::new(), "nothing comes a second time");
    }
    assert_eq!(ids(&servers.history("2", "1").await), ids(&at_bob), "nothing lost, nothing twice, in order");
    // A retry of what was kept meets the stored message, as soon as the sender's node asks the store again.
    let since = Instant::now();
    let again = loop {
        ann.say(json!({ "type": "private", "to": 2, "content": "m1", "temp_id": "t1" })).await;
        if let Some(frame) = ann.settle().await.pop() {
            break frame;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "the sender's node doesn't ask the store");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((&again["type"], &again["id"]), (&json!("private"), &at_bob[1]["id"]));
    assert!(bob.settle().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_kept_is_stored_by_another() {
    let servers = Servers::start().await;
    let mut ann = Social::join(servers.one.http, "1").await;
    let mut bob = Social::join(servers.two.http, "2").await;
    ann.say(json!({ "type": "private", "to": 2, "content": "before" })).await;
    let before = bob.expect("private").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;

    servers.postgres.kill();
    ann.say(json!({ "type": "private", "to": 2, "content": "meanwhile" })).await;
    let live = bob.expect("private").await;
    assert_eq!(live["content"], "meanwhile");
    // What somebody else put there is no message and holds up nothing.
    servers.redis.ask("XADD chat:late * d nonsense");
    servers.redis.ask("XADD chat:late * a b c d");
    // The node that kept it is gone, and another that died while it stored held the lease.
    let Servers { one, two, redis, postgres, database } = servers;
    redis.ask("SET chat:late:lease dead:1 PX 3000");
    drop(ann);
    drop(one);
    postgres.restart();
    let servers = Servers { one: Node::serve(&redis.url(), &database.url, &[]).await, two, redis, postgres, database };
    servers.late_is_empty().await;
    assert_eq!(ids(&servers.history("2", "1").await), ids(&[before, live]));
    assert!(bob.settle().await.is_empty(), "who had it live doesn't get it again");
    let mut new_device = Client::join(servers.two.http, "2").await;
    assert!(new_device.settle().await.is_empty());
}

/// The stream has its bound; over it the sender is told, and nothing that was delivered is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_is_an_answer() {
    let servers = Servers::start().await;
    let mut ann = Social::join(servers.one.http, "1").await;
    let mut bob = Social::join(servers.two.http, "2").await;
    ann.say(json!({ "type": "private", "to": 2, "content": "before" })).await;
    bob.expect("private").await;
    servers.postgres.freeze();
    let script = "for i = 1, 10000 do redis.call('XADD', 'chat:late', '*', 'd', 'x') end return 1";
    let client = redis::Client::open(servers.redis.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let _: i64 = redis::cmd("EVAL").arg(script).arg(0).query_async(&mut connection).await.expect("filled");
    ann.say(json!({ "type": "private", "to": 2, "content": "too much" })).await;
    let error = ann.expect("error").await;
    assert_eq!((&error["code"], error["retry_after_ms"].is_u64()), (&json!("UNAVAILABLE"), true), "{error}");
    assert!(bob.settle().await.is_empty(), "what can't be kept is not delivered");
    assert_eq!(servers.redis.number("XLEN chat:late"), 10_000);
    servers.postgres.thaw();
}

/// What stands in an entry, as another node may read it.
#[test]
fn an_entry_is_a_message_to_store() {
    let entry = gateway::store::NewMessage {
        id: MessageId::new(7).expect("an id"),
        target: Target::Conversation(ConversationId::parse("c").expect("an id")),
        sender: UserId::parse("u").expect("an id"),
        temp_id: Some("t".into()),
        kind: "text".into(),
        content: "x".into(),
        reply_to: None,
        data: None,
    };
    let json = serde_json::to_string(&entry).expect("JSON");
    let expected =
        r#"{"id":"7","conversation":"c","sender":"u","temp_id":"t","kind":"text","content":"x","reply_to":null}"#;
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_str::<gateway::store::NewMessage>(&json).expect("read back"), entry);
}
