//! When traffic rests, the unread counts that devices hold are those of `GET /api/v1/conversations`: after any sends, reads,
//! joins, leaves, kicks, edits, deletions, reconnects and losses, with a device of one user on each of two nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::client::{Client, Incoming};
use crate::support::node::{Node, token};
use crate::support::two_nodes::{TwoNodes, acting, position};

/// Steps of one walk.
const STEPS: usize = 50;
/// Longer than the check of the logs takes to find what no push has told.
const RESTED_WITHIN: Duration = Duration::from_secs(40);
const SETTINGS: [(&str, &str); 4] = [
    ("CONNECT_RATE_PER_USER", "0"),
    ("COMMANDS_PER_SECOND", "0"),
    ("USER_COMMANDS_PER_SECOND", "0"),
    ("MAX_CONNECTIONS_PER_USER", "0"),
];
const CONVERSATIONS: [&str; 5] = ["g0", "g1", "g2", "ann", "bob"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_counts_are_those_of_the_store_on_redis_and_postgres() {
    for seed in seeds(1) {
        let mut cluster = TwoNodes::start(&SETTINGS).await;
        let at = [cluster.one.http, cluster.two.http];
        let mut walk = Walk::begin(seed, at).await;
        for _ in 0..STEPS {
            match walk.random.random_range(0..30) {
                0 => walk.lose(&mut cluster).await,
                _ => walk.step().await,
            }
        }
        cluster.everything_is_published().await;
        walk.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_counts_are_those_of_the_store_on_one_node() {
    for seed in seeds(101) {
        let node = Node::embedded(&SETTINGS).await;
        let mut walk = Walk::begin(seed, [node.http; 2]).await;
        for _ in 0..STEPS {
            walk.step().await;
        }
        walk.rest().await;
    }
}

/// Three from `first` on, or the one that `PARLEY_SEED` names.
fn seeds(first: u64) -> std::ops::Range<u64> {
    let named = std::env::var("PARLEY_SEED").ok().and_then(|seed| seed.parse().ok());
    named.map_or(first..first + 3, |seed: u64| seed..seed + 1)
}

/// A walk through what may happen to a user's counts.
struct Walk {
    seed: u64,
    random: StdRng,
    nodes: [SocketAddr; 2],
    devices: Vec<Device>,
    /// Messages, each with its sender.
    messages: Vec<(String, String)>,
    /// What happened, for whoever reads a failure.
    told: Vec<String>,
}

/// A device of the user, which holds what it was told last.
struct Device {
    client: Client,
    at: SocketAddr,
    position: (String, u64),
    counts: BTreeMap<String, u64>,
    total: u64,
}

impl Walk {
    async fn begin(seed: u64, nodes: [SocketAddr; 2]) -> Self {
        for (id, members) in [("g0", json!(["reader", "bob"])), ("g1", json!(["bob"])), ("g2", json!(["reader"]))] {
            let group = json!({ "id": id, "kind": "channel", "visibility": "public", "members": members });
            let (status, made) = acting(nodes[0], "POST", "/api/v1/conversations", "ann", group).await;
            assert_eq!(status, 201, "{made}");
        }
        let devices = vec![Device::join(nodes[0]).await, Device::join(nodes[1]).await];
        let random = StdRng::seed_from_u64(seed);
        Self { seed, random, nodes, devices, messages: Vec::new(), told: Vec::new() }
    }

    async fn step(&mut self) {
        let at = *self.nodes.choose(&mut self.random).expect("a node");
        let to = *CONVERSATIONS.choose(&mut self.random).expect("a conversation");
        let other = if self.random.random() { "ann" } else { "bob" };
        match self.random.random_range(0..20) {
            0..7 => {
                let other = if to.starts_with('g') { other } else { to };
                let to = if to.starts_with('g') { to } else { "reader" };
                self.send(at, other, to).await;
            }
            7 => self.send(at, "reader", to).await,
            8..11 => {
                let id = self.id_of(at, to).await;
                self.ask(at, "POST", &format!("/api/v1/conversations/{id}/read"), "reader", json!({})).await;
            }
            11 => self.ask(at, "POST", &format!("/api/v1/conversations/{to}/join"), "reader", json!({})).await,
            12 => self.ask(at, "POST", &format!("/api/v1/conversations/{to}/leave"), "reader", json!({})).await,
            13 => {
                let path = format!("/api/v1/conversations/{to}/members/reader");
                self.ask(at, "DELETE", &path, "ann", Value::Null).await;
            }
            14 => {
                let (path, member) = (format!("/api/v1/conversations/{to}/members"), json!({ "userId": "reader" }));
                self.ask(at, "POST", &path, "ann", member).await;
            }
            15 => {
                let Some((message, sender)) = self.messages.choose(&mut self.random).cloned() else { return };
                let path = format!("/api/v1/messages/{message}");
                match self.random.random() {
                    true => self.ask(at, "PATCH", &path, &sender, json!({ "content": "edited" })).await,
                    false => self.ask(at, "DELETE", &path, &sender, Value::Null).await,
                }
            }
            16..18 => {
                let device = self.random.random_range(0..self.devices.len());
                self.devices[device].settle().await;
            }
            18 => {
                let device = self.random.random_range(0..self.devices.len());
                self.told.push(format!("device {device} resumes at {at}"));
                let (left, place) = (self.devices.swap_remove(device), self.devices.len());
                self.devices.push(left.resume(at).await);
                self.devices.swap(device, place);
            }
            _ => {
                let device = self.random.random_range(0..self.devices.len());
                self.told.push(format!("device {device} begins anew at {at}"));
                self.devices[device] = Device::join(at).await;
            }
        }
    }

    /// Redis loses something.
    async fn lose(&mut self, cluster: &mut TwoNodes) {
        match self.random.random_range(0..4) {
            0 => drop(cluster.redis.ask("FLUSHALL")),
            1 => drop(cluster.redis.ask("DEL chat:log:{chat:user:reader}")),
            2 => cluster.cut_off(&cluster.one),
            _ => {
                cluster.redis.kill();
                cluster.one.wait_ready(false).await;
                for sender in ["ann", "bob"] {
                    self.send(cluster.one.http, sender, "reader").await;
                }
                cluster.redis.restart();
                cluster.one.wait_ready(true).await;
                cluster.two.wait_ready(true).await;
            }
        }
        self.told.push("Redis loses something".to_owned());
    }

    async fn send(&mut self, at: SocketAddr, from: &str, to: &str) {
        let name = if to.starts_with('g') { "conversationId" } else { "to" };
        let body = json!({ name: to, "content": format!("{} {from} {to}", self.told.len()) });
        let (status, answer) = acting(at, "POST", "/api/v1/messages", from, body).await;
        self.told.push(format!("{from} says to {to}: {status}"));
        if let Some(id) = answer["message"]["id"].as_str() {
            self.messages.push((id.to_owned(), from.to_owned()));
        }
    }

    async fn ask(&mut self, at: SocketAddr, method: &str, path: &str, by: &str, body: Value) {
        let (status, _) = acting(at, method, path, by, body).await;
        self.told.push(format!("{method} {path} by {by}: {status}"));
    }

    /// The id of a conversation; that of a direct one is looked up.
    async fn id_of(&self, at: SocketAddr, name: &str) -> String {
        let of_other =
            |item: &Value| item["members"].as_array().is_some_and(|of| of.iter().any(|m| m["userId"] == name));
        let direct = conversations(at).await.into_iter().find(|item| item["kind"] == "direct" && of_other(item));
        direct.map_or(name.to_owned(), |item| item["id"].as_str().expect("an id").to_owned())
    }

    /// Both devices come to hold the counts of the store.
    async fn rest(&mut self) {
        let since = Instant::now();
        loop {
            for device in &mut self.devices {
                device.settle().await;
            }
            let expected = counts(self.nodes[0]).await;
            let total: u64 = expected.values().sum();
            let holds = |device: &Device| device.unread() == expected && device.total == total;
            if self.devices.iter().all(holds) {
                return;
            }
            let held: Vec<_> = self.devices.iter().map(|device| (device.unread(), device.total)).collect();
            let told = self.told.join("\n");
            assert!(since.elapsed() < RESTED_WITHIN, "seed {}: {held:?}, not {expected:?} after\n{told}", self.seed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Device {
    /// Connects without a position, and fetches what a client fetches.
    async fn join(at: SocketAddr) -> Self {
        let (client, success) = connect(at, "").await;
        let (position, counts, total) = (self::position(&success), BTreeMap::new(), 0);
        let mut device = Self { client, at, position, counts, total };
        device.fetch().await;
        device
    }

    async fn resume(self, at: SocketAddr) -> Self {
        let Self { client, position: (epoch, seq), counts, total, .. } = self;
        drop(client);
        let (client, success) = connect(at, &format!("&resume={epoch}:{seq}")).await;
        Self { client, at, position: position(&success), counts, total }
    }

    /// Reads what is there; comes back if the socket was closed.
    async fn settle(&mut self) {
        self.client.send_ref("ping", json!({}), json!("settled")).await;
        loop {
            match self.client.try_next().await.expect("a pong") {
                Incoming::Frame(frame) if frame["ref"] == "settled" => return,
                Incoming::Frame(frame) => self.see(&frame).await,
                closed => panic!("{closed:?}"),
            }
        }
    }

    async fn see(&mut self, frame: &Value) {
        let payload = &frame["payload"];
        match frame["type"].as_str().expect("a type") {
            "notification.unread" => {
                let conversation = payload["conversationId"].as_str().expect("an id").to_owned();
                self.counts.insert(conversation, payload["unread"].as_u64().expect("a count"));
                self.total = payload["totalUnread"].as_u64().expect("a count");
            }
            "resync" => {
                self.position = position(payload);
                self.fetch().await;
            }
            "position" => self.position = position(payload),
            _ => self.position.1 = frame["seq"].as_u64().unwrap_or(self.position.1),
        }
    }

    async fn fetch(&mut self) {
        self.counts = counts(self.at).await;
        self.total = self.counts.values().sum();
    }

    /// The conversations with something unread.
    fn unread(&self) -> BTreeMap<String, u64> {
        self.counts.clone().into_iter().filter(|(_, unread)| *unread > 0).collect()
    }
}

/// Opens a socket; what it is told of its position. Until Redis is well again nodes refuse.
async fn connect(at: SocketAddr, more: &str) -> (Client, Value) {
    let since = Instant::now();
    loop {
        if let Ok(mut client) = Client::open(at, &format!("/chat/ws?token={}{more}", token("reader")), &[]).await
            && let Incoming::Frame(first) = client.next().await
            && first["type"] == "auth_success"
        {
            return (client, first["payload"].clone());
        }
        assert!(since.elapsed() < RESTED_WITHIN, "a node lets nobody in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn conversations(at: SocketAddr) -> Vec<Value> {
    let (status, page) = acting(at, "GET", "/api/v1/conversations", "reader", Value::Null).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().expect("items").clone()
}

/// The store's counts of conversations with something unread.
async fn counts(at: SocketAddr) -> BTreeMap<String, u64> {
    let count =
        |item: &Value| Some((item["id"].as_str()?.to_owned(), item["unread"].as_u64().filter(|unread| *unread > 0)?));
    conversations(at).await.iter().filter_map(count).collect()
}
