//! The rig of the "no loss" tests: two nodes on real servers, a flood of messages, and a follower that checks the
//! order.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming};
use crate::support::http::request;
use crate::support::node::{API_KEY, Node, token};
use crate::support::postgres::{Database, Postgres};
use crate::support::redis::Redis;

/// Two nodes and the servers behind them.
pub(crate) struct TwoNodes {
    pub(crate) redis: Redis,
    pub(crate) database: Database,
    pub(crate) one: Node,
    pub(crate) two: Node,
}

impl TwoNodes {
    pub(crate) async fn start(settings: &[(&'static str, &str)]) -> Self {
        let (redis, database) = (Redis::start(), Postgres::database().await);
        let mut all = vec![("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")];
        all.extend_from_slice(settings);
        let one = Node::serve(&redis.url(), &database.url, &all).await;
        let two = Node::serve(&redis.url(), &database.url, &all).await;
        one.wait_ready(true).await;
        two.wait_ready(true).await;
        Self { redis, database, one, two }
    }

    /// Waits until every committed change is published.
    pub(crate) async fn everything_is_published(&self) {
        let client = self.database.client().await;
        let sql = "SELECT count(*) FROM outbox WHERE published_at IS NULL";
        let published = async {
            while client.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), published).await.expect("everything is published in time");
    }

    /// Ends the connection over which a node receives, so that it misses what is published until it is back.
    pub(crate) fn cut_off(&self, node: &Node) {
        let list: String = redis::from_redis_value(self.redis.ask("CLIENT LIST")).expect("text");
        let name = format!("-{}:", node.http.port());
        let receiving = list.lines().find(|line| line.contains(&name) && line.contains(":sub ")).expect("it receives");
        let id = receiving.split(' ').find_map(|field| field.strip_prefix("id=")).expect("a client has an id");
        assert_eq!(self.redis.number(&format!("CLIENT KILL ID {id}")), 1);
    }
}

/// Waits until a redo trusts the logs that were begun by now: before that it can't tell whether they had its events.
pub(crate) async fn logs_come_of_age() {
    tokio::time::sleep(Duration::from_millis(5_200)).await;
}

/// A device that sees every durable event, and insists on their order.
pub(crate) struct Follower {
    client: Client,
    user: String,
    pub(crate) epoch: String,
    /// The last `seq` that was seen.
    pub(crate) seq: u64,
    /// Durable events in the order of arrival, over all connections.
    pub(crate) events: Vec<Value>,
    /// `resync` and `position` frames, in the order of arrival.
    pub(crate) notices: Vec<Value>,
}

impl Follower {
    pub(crate) async fn join(to: SocketAddr, user: &str) -> Self {
        let (client, success) = open(to, user, "").await;
        let (epoch, seq) = position(&success);
        Self { client, user: user.to_owned(), epoch, seq, events: Vec::new(), notices: Vec::new() }
    }

    /// Drops the connection without a word and resumes on the node `to`.
    pub(crate) async fn resume(self, to: SocketAddr) -> Self {
        let Self { client, user, epoch, seq, events, notices } = self;
        drop(client);
        let (client, success) = open(to, &user, &format!("&resume={epoch}:{seq}")).await;
        assert_eq!(success["resumed"], true, "{success}");
        assert_eq!(position(&success), (epoch.clone(), seq), "a resume begins where the client was");
        Self { client, user, epoch, seq, events, notices }
    }

    /// The next frame, whatever it is.
    pub(crate) async fn step(&mut self) -> Value {
        let next = self.client.try_next().await;
        self.take(next)
    }

    /// The same, if it comes within this time.
    pub(crate) async fn step_within(&mut self, time: Duration) -> Value {
        let next = tokio::time::timeout(time, async {
            loop {
                if let Some(next) = self.client.try_next().await {
                    return next;
                }
            }
        });
        let next = next.await.ok();
        self.take(next)
    }

    fn take(&mut self, next: Option<Incoming>) -> Value {
        let Some(Incoming::Frame(frame)) = next else {
            panic!("{next:?} after {} events, notices {:?}", self.events.len(), self.notices);
        };
        self.see(&frame);
        frame
    }

    fn see(&mut self, frame: &Value) {
        if let Some(seq) = frame["seq"].as_u64() {
            assert_eq!(seq, self.seq + 1, "a gapless order, not {frame}");
            self.seq = seq;
            self.events.push(frame.clone());
        } else if frame["type"] == "resync" || frame["type"] == "position" {
            (self.epoch, self.seq) = position(&frame["payload"]);
            self.notices.push(frame.clone());
        }
    }

    /// Reads until a frame of this type has come.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.step().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Reads what is left on a connection that the server has closed.
    pub(crate) async fn until_closed(&mut self) {
        while let Incoming::Frame(frame) = self.client.next().await {
            self.see(&frame);
        }
    }

    /// Reads until the message with this content has come.
    pub(crate) async fn until_message(&mut self, content: &str) -> Value {
        loop {
            let frame = self.step().await;
            if frame["payload"]["message"]["content"] == content && frame["seq"].is_u64() {
                return frame;
            }
        }
    }

    /// Reads what is there, again and again, until `enough`; panics when that takes longer than `within`.
    pub(crate) async fn settle_until(&mut self, within: Duration, enough: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !enough(self) {
            assert!(since.elapsed() < within, "not within {within:?}: {:?} {:?}", self.events, self.notices);
            self.settle().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads what is there.
    pub(crate) async fn settle(&mut self) {
        self.client.send_ref("ping", json!({}), json!("settled")).await;
        while self.step().await["ref"] != "settled" {}
    }

    /// The contents of the messages that came as new.
    pub(crate) fn contents(&self) -> Vec<String> {
        let new = self.events.iter().filter(|event| event["type"] == "message.new");
        new.map(|event| event["payload"]["message"]["content"].as_str().expect("text").to_owned()).collect()
    }
}

/// Connects, with more in the query; the payload of `auth_success`.
pub(crate) async fn open(to: SocketAddr, user: &str, more: &str) -> (Client, Value) {
    let path = format!("/chat/ws?token={}{more}", token(user));
    let mut client = Client::open(to, &path, &[]).await.expect("an upgrade");
    let Incoming::Frame(first) = client.next().await else { panic!("auth_success comes first") };
    assert_eq!(first["type"], "auth_success", "{first}");
    (client, first["payload"].clone())
}

/// `epoch` and `seq` of a payload.
pub(crate) fn position(payload: &Value) -> (String, u64) {
    (payload["epoch"].as_str().expect("an epoch").to_owned(), payload["seq"].as_u64().expect("a seq"))
}

/// Sends `count` messages `m0`, `m1`… over one socket, each when the one before it is acknowledged: so a reader can follow,
/// and a log of 256 events reaches back far enough for it.
pub(crate) async fn flood(at: SocketAddr, from: &str, to: &str, count: usize) {
    let mut sender = Client::join(at, from).await;
    for n in 0..count {
        sender.send("message.send", json!({ "to": to, "content": format!("m{n}"), "tempId": format!("t{n}") })).await;
        sender.expect("message.sent").await;
    }
}

/// What [`flood`] sends.
pub(crate) fn flooded(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n}")).collect()
}

/// Sends a message over REST; returns it once it is acknowledged.
pub(crate) async fn say(at: SocketAddr, from: &str, to: &str, content: &str) -> Value {
    let body = json!({ "to": to, "content": content });
    let (status, answer) = acting(at, "POST", "/api/v1/messages", from, body).await;
    assert_eq!(status, 201, "{answer}");
    answer["message"].clone()
}

/// A backend's request in the name of `user`.
pub(crate) async fn acting(at: SocketAddr, method: &str, path: &str, user: &str, body: Value) -> (u16, Value) {
    let headers = [("x-api-key", API_KEY), ("x-user-id", user), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(at, method, path, &headers, body).await
}

/// Runs a test that must end.
pub(crate) async fn bounded(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(180), test).await.expect("the test ends");
}
