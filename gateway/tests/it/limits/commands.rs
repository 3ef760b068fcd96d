//! The rate of a user's commands: over all sockets on all nodes, over REST, and while Redis is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gateway::backbone::{Backbone, BackboneError, Draw, Grant, LocalBackbone, Rates};
use gateway::limits::{Allowance, UserRates};
use serde_json::{Value, json};
use shared::UserId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backbone::rig::{deaf, empty_store, settings, user};
use crate::limits::addresses::{exchange, upgrade};
use crate::support::client::{Client, Incoming};
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::TwoNodes;

/// How many of `count` pings, sent at once, are answered.
async fn answered(client: &mut Client, count: usize) -> usize {
    for _ in 0..count {
        client.send("ping", json!({})).await;
    }
    let (mut pongs, mut errors) = (0, 0);
    while pongs + errors < count {
        match client.next().await {
            Incoming::Frame(frame) if frame["type"] == "pong" => pongs += 1,
            Incoming::Frame(frame) if frame["type"] == "error" => {
                assert_eq!(frame["payload"]["code"], "RATE_LIMITED");
                assert_eq!(frame["payload"]["retryable"], true);
                let wait_ms = frame["payload"]["retryAfterMs"].as_u64().expect("when to come again");
                assert!((1..=2_000).contains(&wait_ms), "{wait_ms}");
                errors += 1;
            }
            Incoming::Frame(_) => {}
            other => panic!("{other:?}"),
        }
    }
    pongs
}

/// R = 20 a second: 2R + R·t + N·R/10·(t + 2), as `limits/users.rs` promises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_on_two_nodes_has_one_rate() {
    let cluster = TwoNodes::start(&[("USER_COMMANDS_PER_SECOND", "20"), ("RESUME_SECONDS", "60")]).await;
    let started = Instant::now();
    let mut one = Client::join(cluster.one.http, "a").await;
    let mut two = Client::join(cluster.two.http, "a").await;
    assert_eq!(answered(&mut one, 2).await, 2);
    assert_eq!(cluster.redis.number("EXISTS chat:rate:a"), 0, "below the share nobody asks Redis");

    let mut pongs = 2;
    for _ in 0..3 {
        let (at_one, at_two) = tokio::join!(answered(&mut one, 30), answered(&mut two, 30));
        pongs += at_one + at_two;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (rate, nodes) = (20.0, 2.0);
    let most = 2.0 * rate + rate * seconds + nodes * rate / 10.0 * (seconds + 2.0);
    assert!(pongs >= 40, "the burst of {} passes at least, not {pongs}", 2.0 * rate);
    assert!(f64::from(u32::try_from(pongs).expect("few")) <= most, "{pongs} in {seconds} s, at most {most}");
    assert_eq!(cluster.redis.number("EXISTS chat:rate:a"), 1);
    let log_life_s = cluster.redis.number("TTL chat:log:{chat:user:a}");
    assert!((1..=60).contains(&log_life_s), "RESUME_SECONDS, not {log_life_s}");
    // Another user of the same nodes is not concerned.
    let mut other = Client::join(cluster.one.http, "b").await;
    assert_eq!(answered(&mut other, 30).await, 30);

    // REST draws on the same allowance.
    let (name, value) = bearer(&token("a"));
    let mut refused = None;
    for _ in 0..200 {
        let (status, body) = get(cluster.two.http, "/api/v1/conversations", &[(name, &value)]).await;
        if status == 429 {
            refused = Some(body);
            break;
        }
        assert_eq!(status, 200, "{body}");
    }
    let refused = refused.expect("too many requests");
    assert_eq!(refused["error"]["code"], "RATE_LIMITED");
    assert!(refused["error"]["retryAfterMs"].as_u64().is_some_and(|wait_ms| wait_ms > 0), "{refused}");
    let body = json!({ "to": "b", "content": "a backend answers for itself" });
    let backend = [("x-api-key", API_KEY), ("x-user-id", "a")];
    for _ in 0..5 {
        assert_eq!(post(cluster.two.http, "/api/v1/messages", &backend, body.clone()).await.0, 201);
    }

    // Redis away: the limit of the connection alone holds, which is off here.
    cluster.redis.freeze();
    cluster.one.wait_ready(false).await;
    let free: usize = answered(&mut other, 200).await;
    cluster.redis.thaw();
    assert_eq!(free, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_on_over_its_users_rate_is_closed() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "10")]).await;
    let mut client = Client::join(node.http, "a").await;
    assert!((20..=40).contains(&answered(&mut client, 80).await));
    for _ in 0..200 {
        client.send("ping", json!({})).await;
    }
    assert_eq!(client.expect_close().await, 4101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_turns_the_rates_off_and_rest_says_when_to_come_again() {
    let off = [("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")];
    let node = Node::embedded(&off).await;
    let mut client = Client::join(node.http, "a").await;
    assert_eq!(answered(&mut client, 1_000).await, 1_000);

    let node = Node::embedded(&[("USER_COMMANDS_PER_SECOND", "1")]).await;
    let request = format!(
        "GET /api/v1/conversations HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
        token("a")
    );
    let mut answer = String::new();
    for _ in 0..20 {
        answer = exchange(node.http, request.as_bytes()).await;
        if answer.starts_with("HTTP/1.1 429") {
            break;
        }
    }
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
}

/// A backbone that counts how often it is asked.
struct Counting {
    real: LocalBackbone,
    draws: AtomicUsize,
    away: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Rates for Counting {
    async fn draw(&self, user: &UserId, draw: Draw) -> Result<Grant, BackboneError> {
        self.draws.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(BackboneError("away".to_owned()));
        }
        self.real.draw(user, draw).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backbone_is_asked_once_for_many_commands() {
    let real = LocalBackbone::start(settings(), deaf(), empty_store());
    let counting = Arc::new(Counting { real, draws: AtomicUsize::new(0), away: false.into() });
    let rates = Arc::new(UserRates::new(1_000, Arc::clone(&counting) as _));
    let ann = user("ann");
    for _ in 0..90 {
        assert_eq!(rates.check(&ann, 1), Some(Allowance::Granted));
    }
    assert_eq!(counting.draws.load(Ordering::SeqCst), 0, "below a tenth of the rate");

    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (rates, ann) = (Arc::clone(&rates), ann.clone());
        tasks.spawn(async move {
            let mut granted = 0_u32;
            for _ in 0..500 {
                granted += u32::from(rates.admit(&ann, 1).await == Allowance::Granted);
                tokio::task::yield_now().await;
            }
            granted
        });
    }
    let granted: u32 = tasks.join_all().await.into_iter().sum();
    let seconds = started.elapsed().as_secs_f64();
    assert!(granted >= 1_800, "the burst, less what is owed, not {granted}");
    assert!(f64::from(granted) <= 2_000.0 + 1_000.0 * seconds + 100.0 * (seconds + 2.0), "{granted} in {seconds} s");
    let draws = counting.draws.load(Ordering::SeqCst);
    assert!(draws <= granted as usize / 50 + (seconds * 25.0) as usize + 5, "{draws} draws for {granted} commands");

    // Away: nobody is limited, and it isn't asked again and again.
    counting.away.store(true, Ordering::SeqCst);
    counting.draws.store(0, Ordering::SeqCst);
    let bob = user("bob");
    let started = Instant::now();
    for _ in 0..5_000 {
        assert_eq!(rates.admit(&bob, 1).await, Allowance::Granted);
    }
    let draws = counting.draws.load(Ordering::SeqCst);
    assert!(draws >= 1 && draws <= 2 + started.elapsed().as_secs() as usize, "{draws}");
    rates.sweep();
    counting.real.close().await;
}

/// Every limit stands in gateway/LIMITS.md, with a test that is there.
#[test]
fn the_page_of_limits_names_every_limit_and_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("LIMITS.md")).expect("the page");
    for setting in [
        "HEARTBEAT_SECONDS",
        "HEARTBEAT_TIMEOUT_SECONDS",
        "AUTH_DEADLINE_SECONDS",
        "WRITE_TIMEOUT_SECONDS",
        "MAX_FRAME_BYTES",
        "COMPRESS_MIN_BYTES",
        "MAX_CONTENT_CHARS",
        "SEND_QUEUE_BYTES",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_USER",
        "MAX_CONNECTIONS_PER_IP",
        "CONNECT_RATE_PER_IP",
        "CONNECT_RATE_PER_USER",
        "COMMANDS_PER_SECOND",
        "USER_COMMANDS_PER_SECOND",
        "LARGE_CONVERSATION_MEMBERS",
        "LARGE_EVENTS_PER_SECOND",
        "RESUME_EVENTS",
        "RESUME_SECONDS",
        "PRESENCE_AUDIENCE",
        "MESSAGE_RETENTION_DAYS",
        "AUDIT_RETENTION_DAYS",
        "DRAIN_SECONDS",
    ] {
        assert!(page.contains(&format!("| `{setting}`")), "{setting} has no row");
    }
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    sources += &std::fs::read_to_string(path).expect("a source");
                }
            }
        }
    }
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().expect("a cell");
        let tests: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test in {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_content_counts_characters_not_bytes() {
    let node = Node::embedded(&[("MAX_CONTENT_CHARS", "10")]).await;
    let mut client = Client::join(node.http, "a").await;
    let send = |content: &str| json!({ "to": "b", "content": content });
    client.send("message.send", send("ääääääääää")).await;
    client.expect("message.sent").await;
    client.send("message.send", send("ääääääääääx")).await;
    let error: Value = client.expect("error").await;
    assert_eq!(
        (&error["payload"]["code"], &error["payload"]["field"]),
        (&json!("VALIDATION_ERROR"), &json!("content"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_audience_is_told_of_presence() {
    let node = Node::embedded(&[("PRESENCE_AUDIENCE", "0")]).await;
    let mut a = Client::join(node.http, "a").await;
    a.send("message.send", json!({ "to": "b", "content": "partners now" })).await;
    a.expect("message.sent").await;
    let mut b = Client::join(node.http, "b").await;
    // What is told of b's coming goes out before this.
    b.send("message.send", json!({ "to": "a", "content": "here" })).await;
    a.expect("message.new").await;
    assert!(a.kept().iter().all(|frame| frame["type"] != "user.online"), "{:?}", a.kept());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_conversation_over_the_audience_are_not_told() {
    let node = Node::embedded(&[("PRESENCE_AUDIENCE", "2")]).await;
    let backend = [("x-api-key", API_KEY)];
    for (id, members) in [("small", vec!["a", "b", "c"]), ("large", vec!["a", "x", "y", "z"])] {
        let body = json!({ "kind": "group", "id": id, "members": members });
        assert_eq!(post(node.http, "/api/v1/conversations", &backend, body).await.0, 201);
    }
    let path = format!("/chat/ws?token={}", token("a"));
    let mut a = Client::open(node.http, &path, &[]).await.expect("an upgrade");
    let status = a.expect("status.bulk").await;
    let known: Vec<&String> = status["payload"]["users"].as_object().expect("users").keys().collect();
    assert_eq!(known, ["b", "c"]);
    let mut x = Client::join(node.http, "x").await;
    let mut b = Client::join(node.http, "b").await;
    assert_eq!(a.expect("user.online").await["payload"]["userId"], "b", "x would have come first");
    for conversation in ["large", "small"] {
        a.send("typing", json!({ "conversationId": conversation, "isTyping": true })).await;
    }
    assert_eq!(b.expect("typing").await["payload"]["conversationId"], "small");
    assert!(x.settle().await.iter().all(|frame| frame["type"] != "typing" && frame["type"] != "user.online"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_no_ping_is_closed_and_who_takes_no_bytes_is_cut_off() {
    let node = Node::embedded(&[("HEARTBEAT_SECONDS", "1"), ("HEARTBEAT_TIMEOUT_SECONDS", "2")]).await;
    let mut silent = TcpStream::connect(node.http).await.expect("the node accepts");
    silent.write_all(&upgrade("", "")).await.expect("sent");
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut bytes)).await.expect("an end");
    end.expect("a close in order");
    let close = [&4201_u16.to_be_bytes()[..], b"heartbeat_timeout"].concat();
    assert!(bytes.windows(close.len()).any(|part| part == close), "{}", String::from_utf8_lossy(&bytes));

    // With room for all of it in the queue, and no ping for long: only the time without progress counts.
    let node = Node::embedded(&[("WRITE_TIMEOUT_SECONDS", "1"), ("SEND_QUEUE_BYTES", "1000000000")]).await;
    let mut stuck = TcpStream::connect(node.http).await.expect("the node accepts");
    stuck.write_all(&upgrade("", "")).await.expect("sent");
    let registry = &node.app.node().registry;
    let is = async |sockets: usize| {
        let reached = async {
            while registry.socket_count() != sockets {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("so many sockets in time");
    };
    is(1).await;
    let event = json!({ "type": "notification", "payload": { "filler": "x".repeat(60_000) } });
    for _ in 0..400 {
        let publish = json!({ "users": ["a"], "event": event, "durable": false });
        assert_eq!(post(node.http, "/api/v1/publish", &[("x-api-key", API_KEY)], publish).await.0, 202);
    }
    is(0).await;
}
