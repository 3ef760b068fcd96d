//! The webhook of events, with real receivers: everything that is committed arrives, in order, whatever dies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use gateway::config::EventsConfig;
use gateway::metrics::Metrics;
use gateway::store::Store;
use gateway::webhooks::EventsWebhook;
use gateway::webhooks::events::Round;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::push::verify;
use crate::store::{World, batch, contract, new_group, owner, settled};
use crate::support::client::Client;
use crate::support::http::request;
use crate::support::node::{API_KEY, Node};
use crate::support::ports::free_address;
use crate::support::process::Process;
use crate::support::two_nodes::{TwoNodes, acting, bounded};

const SECRET: &str = "a-secret-of-the-webhook";

/// The status for a batch.
type Decide = Box<dyn Fn(&[Value]) -> u16 + Send + Sync>;

/// A backend that keeps the events it takes.
struct Receiver {
    url: String,
    state: Arc<Received>,
    server: JoinHandle<()>,
}

struct Received {
    taken: Mutex<Vec<Value>>,
    posts: Mutex<Vec<usize>>,
    decide: Decide,
}

impl Receiver {
    async fn start(decide: impl Fn(&[Value]) -> u16 + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let state = Arc::new(Received { taken: Mutex::default(), posts: Mutex::default(), decide: Box::new(decide) });
        let routes = Router::new().route("/events", post(receive)).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { url: format!("http://{address}/events"), state, server }
    }

    fn settings(&self) -> [(&'static str, &str); 2] {
        [("EVENTS_WEBHOOK_URL", self.url.as_str()), ("WEBHOOK_SECRET", SECRET)]
    }

    /// What was taken of committed changes, in the order of arrival.
    fn committed(&self) -> Vec<Value> {
        let taken = self.state.taken.lock();
        taken.iter().filter(|event| event["conversationId"].is_string()).cloned().collect()
    }

    /// Waits until so many different events of committed changes have come.
    async fn wait_for(&self, count: usize) {
        let came = async {
            while ids(&self.committed()).len() < count {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let result = tokio::time::timeout(Duration::from_secs(60), came).await;
        assert!(result.is_ok(), "{} of {count}: {:?}", ids(&self.committed()).len(), self.committed());
    }

    fn webhook(&self, store: &Arc<dyn Store>, name: &str) -> EventsWebhook {
        let config = EventsConfig { url: self.url.parse().expect("a URL"), secret: SECRET.into() };
        EventsWebhook::new(&config, Arc::clone(store), owner(name), Arc::new(Metrics::new())).expect("no certificates")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(state): State<Arc<Received>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().expect("visible text").to_owned();
    verify(&header("x-parley-signature"), &body);
    let batch: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(header("x-parley-webhook"), "events");
    assert_eq!(json!(header("x-parley-delivery")), batch["id"]);
    let events = batch["events"].as_array().expect("events");
    assert!((1..=100).contains(&events.len()), "{} events", events.len());
    state.posts.lock().push(events.len());
    let status = (state.decide)(events);
    if status < 300 {
        state.taken.lock().extend(events.iter().cloned());
    }
    StatusCode::from_u16(status).expect("a status")
}

fn id_of(event: &Value) -> u64 {
    event["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{event}"))
}

/// The events by id, as the receiver of `gateway/WEBHOOKS.md` keeps them. A repetition tells of the same.
fn ids(events: &[Value]) -> BTreeMap<u64, Value> {
    let mut all: BTreeMap<u64, Value> = BTreeMap::new();
    for event in events {
        let earlier = all.insert(id_of(event), event.clone());
        if let Some(earlier) = earlier {
            for field in ["type", "conversationId", "rev", "messageId", "at"] {
                assert_eq!(earlier[field], event[field], "the same id, the same event");
            }
        }
    }
    all
}

/// Panics unless each conversation's events came in order, the first time each.
fn assert_in_order(events: &[Value]) {
    let mut newest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for event in events.iter().filter(|event| seen.insert(id_of(event))) {
        let conversation = event["conversationId"].as_str().expect("a conversation");
        let (id, rev) = newest.entry(conversation).or_default();
        assert!(id_of(event) > *id, "{event} after {id}");
        *id = id_of(event);
        if let Some(next) = event["rev"].as_u64() {
            assert!(next > *rev, "{event} after rev {rev}");
            *rev = next;
        }
    }
}

async fn send(store: &Arc<dyn Store>, conversation: &str, content: &str) {
    let batch = batch(store, &[(conversation, "u", "", content)]).await;
    settled(store, &gateway::store::SendBatch { owes_events: true, ..batch }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_arrives() {
    let receiver = Receiver::start(|_| 204).await;
    let node = Node::embedded(&receiver.settings()).await;
    let at = node.http;
    let ask = async |method: &str, path: &str, user: &str, body: Value| {
        let (status, answer) = acting(at, method, path, user, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    };
    let mut five = Client::join(at, "5").await;
    let lounge = json!({ "kind": "channel", "id": "lounge", "title": "Lounge", "visibility": "public" });
    ask("POST", "/api/v1/conversations", "5", lounge).await;
    ask("POST", "/api/v1/conversations/lounge/join", "6", json!({})).await;
    let role = json!({ "role": "admin" });
    ask("PATCH", "/api/v1/conversations/lounge/members/6", "5", role).await;
    five.send("message.send", json!({ "conversationId": "lounge", "content": "one", "tempId": "t1" })).await;
    let message = five.expect("message.sent").await["payload"]["message"].clone();
    let id = message["id"].as_str().expect("an id").to_owned();
    ask("PATCH", &format!("/api/v1/messages/{id}"), "5", json!({ "content": "two" })).await;
    five.send("reaction.add", json!({ "messageId": id, "emoji": "🦜" })).await;
    five.expect("reaction.updated").await;
    ask("DELETE", &format!("/api/v1/messages/{id}"), "5", Value::Null).await;
    ask("PATCH", "/api/v1/conversations/lounge", "5", json!({ "title": "Bar" })).await;
    ask("POST", "/api/v1/conversations/lounge/leave", "6", json!({})).await;
    ask("POST", "/api/v1/conversations/lounge/bans", "5", json!({ "userId": "7" })).await;
    ask("DELETE", "/api/v1/conversations/lounge", "5", Value::Null).await;
    let hello = json!({ "to": "6", "content": "hello" });
    ask("POST", "/api/v1/messages", "5", hello).await;
    receiver.wait_for(13).await;
    let events = receiver.committed();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    let expected = [
        "conversation.created",
        "member.joined",
        "member.role",
        "message.created",
        "message.edited",
        "reaction.updated",
        "message.deleted",
        "conversation.changed",
        "member.left",
        "member.banned",
        "conversation.deleted",
        "conversation.created",
        "message.created",
    ];
    assert_eq!(kinds, expected);
    assert_in_order(&events);
    let joined = &events[1];
    assert_eq!((&joined["userId"], &joined["role"], &joined["by"]), (&json!("6"), &json!("member"), &Value::Null));
    assert_eq!((&events[2]["role"], &events[2]["by"]), (&json!("admin"), &json!("5")));
    assert_eq!((&events[3]["messageId"], &events[3]["rev"]), (&json!(id), &json!(1)));
    assert_eq!(
        (&events[5]["emoji"], &events[5]["added"], &events[5]["userId"]),
        (&json!("🦜"), &json!(true), &json!("5"))
    );
    assert_eq!(events[12]["message"]["content"], "hello");
    // An operator has the last two posted once more.
    let (key, ops) = (("x-api-key", API_KEY), node.ops);
    let from = json!({ "fromId": events[11]["id"] });
    let (status, answer) = request(ops, "POST", "/api/v1/admin/webhook/repeat", &[key], from.to_string()).await;
    assert_eq!((status, &answer["repeated"], &answer["lastId"]), (200, &json!(2), &events[12]["id"]), "{answer}");
    let again = async {
        while receiver.committed().len() < 15 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("both once more");
    assert_eq!(receiver.committed()[13..], events[11..]);
    let (status, lag) = request(ops, "GET", "/api/v1/admin/webhook", &[key], "").await;
    assert_eq!((status, &lag["dead"]), (200, &json!(0)));
    for wrong in [json!({}), json!({ "fromId": "1", "from": "2025-11-21T13:00:00.000Z" }), json!({ "fromId": "x" })] {
        let (status, answer) = request(ops, "POST", "/api/v1/admin/webhook/repeat", &[key], wrong.to_string()).await;
        assert_eq!((status, &answer["error"]["field"]), (400, &json!("fromId")), "{answer}");
    }
    // Comings and goings come in posts of their own.
    drop(five);
    let gone = async {
        while !receiver.state.taken.lock().iter().any(|event| event["type"] == "user.offline") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("user.offline");
    let taken = receiver.state.taken.lock();
    let online = taken.iter().find(|event| event["type"] == "user.online").expect("user.online");
    assert_eq!((&online["userId"], online["at"].is_string()), (&json!("5"), true));
}

contract!(
    a_receiver_that_fails_for_an_hour_gets_everything_afterwards,
    a_conversation_at_which_the_receiver_fails_holds_up_itself_alone,
    a_refused_batch_is_halved_down_to_the_event_at_fault,
);

async fn a_receiver_that_fails_for_an_hour_gets_everything_afterwards(world: World) {
    let store = &world.store;
    let is_back = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let receiver =
        Receiver::start(move |_| if back.load(std::sync::atomic::Ordering::Relaxed) { 200 } else { 503 }).await;
    let mut webhook = receiver.webhook(store, "n:1");
    for id in ["a", "b", "c"] {
        new_group(store, id, &["u"]).await;
    }
    let (begun, mut now) = (Instant::now(), Instant::now());
    let hour = Duration::from_secs(3_600);
    let (mut sent, mut tries) = (0, Vec::new());
    while now < begun + hour {
        if sent < 60 {
            send(store, ["a", "b", "c"][sent % 3], "x").await;
            sent += 1;
        }
        match webhook.round(now).await.expect("the store answers") {
            Round::Worked => tries.push(now),
            Round::Idle => now += Duration::from_secs(1),
            Round::Wait(until) => now = until.max(now + Duration::from_millis(250)),
        }
    }
    assert!(receiver.committed().is_empty());
    assert!(tries.len() < 150, "it is not asked all the time: {}", tries.len());
    is_back.store(true, std::sync::atomic::Ordering::Relaxed);
    let back_at = now;
    while ids(&receiver.committed()).len() < 60 {
        match webhook.round(now).await.expect("the store answers") {
            Round::Worked => {}
            Round::Idle => now += Duration::from_secs(1),
            Round::Wait(until) => now = until.max(now + Duration::from_millis(250)),
        }
        assert!(now <= back_at + Duration::from_secs(301), "within five minutes");
    }
    assert_in_order(&receiver.committed());
    assert_eq!(receiver.committed().len(), 60, "each once");
    assert_eq!(store.events_lag().await.expect("a lag").owed, 0);
}

async fn a_conversation_at_which_the_receiver_fails_holds_up_itself_alone(world: World) {
    let store = &world.store;
    let is_bad = |event: &Value| event["conversationId"] == "bad";
    let receiver = Receiver::start(move |events| if events.iter().any(is_bad) { 500 } else { 200 }).await;
    let mut webhook = receiver.webhook(store, "n:1");
    for id in ["bad", "good", "fine"] {
        new_group(store, id, &["u"]).await;
    }
    let mut now = Instant::now();
    for _ in 0..20 {
        for id in ["bad", "good", "fine"] {
            send(store, id, "x").await;
        }
        webhook.round(now).await.expect("the store answers");
        now += Duration::from_secs(2);
    }
    webhook.round(now).await.expect("the store answers");
    let taken = receiver.committed();
    assert_eq!(taken.len(), 40, "{taken:?}");
    assert_in_order(&taken);
    assert_eq!(store.events_lag().await.expect("a lag").owed, 20);
}

async fn a_refused_batch_is_halved_down_to_the_event_at_fault(world: World) {
    let store = &world.store;
    let receiver = Receiver::start(|events| {
        let is_refused = |event: &Value| event["message"]["content"] == "refused";
        if events.iter().any(is_refused) { 422 } else { 200 }
    })
    .await;
    let mut webhook = receiver.webhook(store, "n:1");
    for id in ["a", "b"] {
        new_group(store, id, &["u"]).await;
    }
    for n in 0..50 {
        send(store, "a", if n == 20 { "refused" } else { "x" }).await;
        send(store, "b", "x").await;
    }
    assert_eq!(webhook.round(Instant::now()).await.expect("the store answers"), Round::Worked);
    assert_eq!(webhook.round(Instant::now()).await.expect("the store answers"), Round::Idle);
    let taken = receiver.committed();
    assert_eq!(taken.len(), 99);
    assert_in_order(&taken);
    let posts = receiver.state.posts.lock().len();
    assert!(posts < 20, "{posts} posts");
    let lag = store.events_lag().await.expect("a lag");
    assert_eq!((lag.owed, lag.dead), (0, 1));
}

/// The node that delivers dies as by `kill -9`: the other one goes on, and what was under way comes again under its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_killed_node_arrive_all_the_same() {
    bounded(async {
        let receiver = Receiver::start(|_| 200).await;
        let cluster = TwoNodes::start(&[]).await;
        let serve = |settings: [(&'static str, String); 2]| {
            let (redis, database) = (cluster.redis.url(), cluster.database.url.clone());
            async move {
                let mut all: Vec<(&'static str, &str)> =
                    settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
                all.extend([("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")]);
                Node::serve(&redis, &database, &all).await
            }
        };
        let settings = || receiver.settings().map(|(name, value)| (name, value.to_owned()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let doomed = runtime.spawn(serve(settings())).await.expect("it starts");
        doomed.wait_ready(true).await;
        let client = cluster.database.client().await;
        let sql = "SELECT count(*) FROM webhook_lease WHERE until > clock_timestamp()";
        while client.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let heir = serve(settings()).await;
        heir.wait_ready(true).await;
        let mut sent = 0;
        let mut say = async |at: SocketAddr, rounds: usize| {
            for _ in 0..rounds {
                for to in ["b", "c", "d"] {
                    let body = json!({ "to": to, "content": sent.to_string() });
                    let (status, answer) = acting(at, "POST", "/api/v1/messages", "a", body).await;
                    assert_eq!(status, 201, "{answer}");
                    sent += 1;
                }
            }
            sent
        };
        say(doomed.http, 10).await;
        say(heir.http, 10).await;
        runtime.shutdown_background();
        drop(doomed);
        let sent = say(heir.http, 10).await;
        // Three conversations were opened.
        receiver.wait_for(sent + 3).await;
        let events = receiver.committed();
        assert_in_order(&events);
        let messages: std::collections::BTreeSet<String> =
            ids(&events).into_values().filter_map(|event| event["messageId"].as_str().map(str::to_owned)).collect();
        let stored = client.query("SELECT id FROM messages", &[]).await.expect("messages");
        let stored: std::collections::BTreeSet<String> =
            stored.iter().map(|row| row.get::<_, i64>(0).to_string()).collect();
        assert_eq!(messages, stored);
    })
    .await;
}

/// The receivers of `gateway/WEBHOOKS.md`, as they stand there: each prints an event once, and takes nothing unsigned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receivers_of_the_page_take_each_event_once() {
    let page = include_str!("../../WEBHOOKS.md");
    for (language, file, program) in [("python", "receiver.py", "python3"), ("javascript", "receiver.mjs", "node")] {
        let begin = format!("```{language}\n");
        let code = page.split(&begin).nth(1).and_then(|rest| rest.split("```").next()).expect("a receiver");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(file), code).expect("written");
        let (at, log) = (free_address(), folder.path().join("log"));
        let mut command = std::process::Command::new(program);
        command.arg(folder.path().join(file)).env("PORT", at.port().to_string()).env("WEBHOOK_SECRET", SECRET);
        let _process = Process::start(&mut command, &log);
        let said = || std::fs::read_to_string(&log).expect("a log");
        let up = async {
            while tokio::net::TcpStream::connect(at).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), up).await.is_ok(), "{program}: {}", said());
        let url = format!("http://{at}/");
        let node = Node::embedded(&[("EVENTS_WEBHOOK_URL", &url), ("WEBHOOK_SECRET", SECRET)]).await;
        for content in ["one", "two"] {
            let body = json!({ "to": "b", "content": content });
            assert_eq!(acting(node.http, "POST", "/api/v1/messages", "a", body).await.0, 201);
        }
        let repeat = async |from: Value| {
            let path = "/api/v1/admin/webhook/repeat";
            request(node.ops, "POST", path, &[("x-api-key", API_KEY)], from.to_string()).await.1["repeated"].clone()
        };
        let taken = async {
            while said().lines().count() < 3 || repeat(json!({ "fromId": "0" })).await != json!(3) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Once more: nothing of it is new.
            while repeat(json!({ "fromId": "0" })).await != json!(3) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), taken).await.is_ok(), "{program}: {}", said());
        let lines = said();
        let kinds: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(kinds, ["conversation.created", "message.created", "message.created"], "{program}");
        for signature in ["", "t=1763730000,v1=00", "nonsense"] {
            let event = json!({ "id": "1", "events": [{ "id": "99", "type": "message.created" }] }).to_string();
            let (status, _) = request(at, "POST", "/", &[("x-parley-signature", signature)], event).await;
            assert_eq!(status, 503, "{program}: {signature}");
        }
        assert_eq!(said(), lines, "{program}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_without_a_secret_stops_the_start() {
    let layers = gateway::config::Layers::from_pairs(&[
        ("EVENTS_WEBHOOK_URL", "https://backend.example/events"),
        ("API_KEY", API_KEY),
    ]);
    let error = gateway::config::Config::load(gateway::config::Mode::Dev, &layers).expect_err("no secret");
    assert!(error.to_string().starts_with("WEBHOOK_SECRET"), "{error}");
}
