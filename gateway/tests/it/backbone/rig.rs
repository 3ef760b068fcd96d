//! The rig of the backbone's tests: nodes with an inbox that a test can wait on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway::backbone::{
    Backbone, BackboneError, BackboneHost, CarriedMessage, Control, Delivery, DeliveryKind, DeliveryOutcome, Durable,
    Inbox, LocalBackbone, RedisBackbone, Settings,
};
use parking_lot::Mutex;
use shared::redis_keys::Keys;
use shared::{ConversationId, MessageId, Timestamp, UserId};
use tokio::sync::mpsc;

use crate::support::cluster::RedisCluster;
use crate::support::redis::Redis;

/// Longer than anything that a test waits for.
const WAIT: Duration = Duration::from_secs(10);

/// Two nodes; on the local backbone both are the same one.
pub(crate) struct Rig {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) store: Arc<Store>,
    pub(crate) redis: Option<Redis>,
    pub(crate) cluster: Option<RedisCluster>,
    /// The names of the nodes' keys.
    keys: Keys,
}

/// One node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) backbone: Arc<dyn Backbone>,
    seen: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Seen>>>,
}

/// What came to an inbox.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    User(String, Bytes),
    Topic(String, Bytes),
    Broadcast(Bytes),
    Control(Control),
    Resubscribed,
    /// Of one user.
    Anew(String),
    /// The same, and [`Seen::Resubscribed`] follows.
    InDoubt(String),
    OrdersMissed,
}

pub(crate) struct Recorder(mpsc::UnboundedSender<Seen>);

impl Inbox for Recorder {
    fn user_event(&self, user: &str, payload: &[u8]) {
        let _ = self.0.send(Seen::User(user.to_owned(), Bytes::copy_from_slice(payload)));
    }
    fn topic_event(&self, conversation: &str, payload: &[u8]) {
        let _ = self.0.send(Seen::Topic(conversation.to_owned(), Bytes::copy_from_slice(payload)));
    }
    fn broadcast(&self, payload: &[u8]) {
        let _ = self.0.send(Seen::Broadcast(Bytes::copy_from_slice(payload)));
    }
    fn control(&self, control: Control) {
        let _ = self.0.send(Seen::Control(control));
    }
    fn resubscribed(&self) {
        let _ = self.0.send(Seen::Resubscribed);
    }
    fn user_in_doubt(&self, user: &str) {
        let _ = self.0.send(Seen::InDoubt(user.to_owned()));
    }
    fn user_resubscribed(&self, user: &str) {
        let _ = self.0.send(Seen::Anew(user.to_owned()));
    }
    fn topic_resubscribed(&self, conversation: &str) {
        let _ = self.0.send(Seen::Anew(conversation.to_owned()));
    }
    fn orders_missed(&self) {
        let _ = self.0.send(Seen::OrdersMissed);
    }
}

/// What the backbone asks a store.
#[derive(Default)]
pub(crate) struct Store {
    /// Servers that were left.
    pub(crate) left: Mutex<Vec<String>>,
}

#[async_trait]
impl BackboneHost for Store {
    async fn known_users(&self, users: &[UserId]) -> Result<Vec<UserId>, BackboneError> {
        Ok(users.iter().filter(|user| !user.as_str().starts_with("invented")).cloned().collect())
    }

    async fn server_left(&self, left: &str) -> Result<(), BackboneError> {
        self.left.lock().push(left.to_owned());
        Ok(())
    }
}

impl Rig {
    pub(crate) async fn redis(settings: Settings) -> Self {
        Self::on(Redis::start(), settings).await
    }

    pub(crate) async fn on(redis: Redis, settings: Settings) -> Self {
        let store = empty_store();
        let keys = settings.keys.clone();
        let (a, b) = Self::two_nodes(&redis.url(), settings, &store).await;
        Self { a, b, store, redis: Some(redis), cluster: None, keys }
    }

    /// Nodes that log in as the user of `deploy/README.md`, who may do what stands there and nothing else.
    pub(crate) async fn with_rights(settings: Settings) -> Self {
        let (redis, store, keys) = (Redis::start(), empty_store(), settings.keys.clone());
        let readme = include_str!("../../../../deploy/README.md");
        let rule = readme.lines().find_map(|line| line.strip_prefix("user parley on >PASSWORD ")).expect("the rule");
        redis.ask(&format!("ACL SETUSER parley on >PASSWORD {}", rule.trim()));
        let url = redis.url().replace("redis://", "redis://parley:PASSWORD@");
        let (a, b) = Self::two_nodes(&url, settings, &store).await;
        Self { a, b, store, redis: Some(redis), cluster: None, keys }
    }

    pub(crate) async fn cluster(settings: Settings) -> Self {
        Self::on_cluster(RedisCluster::start(), settings).await
    }

    pub(crate) async fn on_cluster(cluster: RedisCluster, settings: Settings) -> Self {
        let store = empty_store();
        let keys = settings.keys.clone();
        let (a, b) = Self::two_nodes(&cluster.url(), settings, &store).await;
        Self { a, b, store, redis: None, cluster: Some(cluster), keys }
    }

    async fn two_nodes(url: &str, settings: Settings, store: &Arc<Store>) -> (Node, Node) {
        let b = Settings { node: "b".into(), boot_id: "boot-b".into(), ..settings.clone() };
        (Node::at(url, settings, store).await, Node::at(url, b, store).await)
    }

    pub(crate) async fn local(settings: Settings) -> Self {
        let store = empty_store();
        let (inbox, seen) = recorder();
        let a = Node { backbone: Arc::new(LocalBackbone::start(settings, inbox, store.clone())), seen };
        Self { b: a.clone(), a, store, redis: None, cluster: None, keys: Keys::default() }
    }

    /// How many subscriptions a user has who is subscribed on both nodes.
    pub(crate) fn both(&self) -> u64 {
        if self.is_shared() { 2 } else { 1 }
    }

    /// Whether the nodes are two indeed.
    pub(crate) fn is_shared(&self) -> bool {
        self.redis.is_some() || self.cluster.is_some()
    }

    /// A command for Redis, with the namespace before each of the nodes' names that stand in it.
    pub(crate) fn named(&self, command: &str) -> String {
        command.replace("chat:", &self.keys.scoped("chat:")).replace("session:", &self.keys.scoped("session:"))
    }

    pub(crate) fn the_cluster(&mut self) -> &mut RedisCluster {
        self.cluster.as_mut().expect("this test is about a Cluster")
    }

    pub(crate) fn server(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("this test is about Redis")
    }
}

impl Node {
    pub(crate) async fn on_redis(redis: &Redis, settings: Settings, store: &Arc<Store>) -> Self {
        Self::at(&redis.url(), settings, store).await
    }

    pub(crate) async fn at(url: &str, settings: Settings, store: &Arc<Store>) -> Self {
        let (inbox, seen) = recorder();
        let backbone = RedisBackbone::start(url, settings, inbox, store.clone()).await.expect("Redis is there");
        Self { backbone: Arc::new(backbone), seen }
    }

    /// The next thing that came to the inbox.
    pub(crate) async fn next(&self) -> Seen {
        let mut seen = self.seen.lock().await;
        tokio::time::timeout(WAIT, seen.recv()).await.expect("something comes in time").expect("the inbox stays")
    }

    /// What comes until nothing has come for half a second.
    pub(crate) async fn until_quiet(&self) -> Vec<Seen> {
        let (mut all, mut seen) = (Vec::new(), self.seen.lock().await);
        while let Ok(Some(next)) = tokio::time::timeout(Duration::from_millis(500), seen.recv()).await {
            all.push(next);
        }
        all
    }

    /// The next payload for `user`; events for others are passed over.
    pub(crate) async fn payload(&self, user: &UserId) -> String {
        loop {
            if let Seen::User(to, payload) = self.next().await
                && to == user.as_str()
            {
                return String::from_utf8(payload.to_vec()).expect("text");
            }
        }
    }

    /// Waits until the user's subscription was made anew.
    pub(crate) async fn anew(&self, user: &UserId) {
        while self.next().await != Seen::Anew(user.to_string()) {}
    }

    /// Waits until the subscriptions were made anew.
    pub(crate) async fn resubscribed(&self) {
        while self.next().await != Seen::Resubscribed {}
    }

    /// Whether nothing has come that wasn't looked at.
    pub(crate) async fn is_quiet(&self) -> bool {
        self.seen.lock().await.try_recv().is_err()
    }
}

pub(crate) fn recorder() -> (Arc<Recorder>, Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Seen>>>) {
    #[expect(clippy::disallowed_methods, reason = "a test ends before it can grow")]
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(Recorder(sender)), Arc::new(tokio::sync::Mutex::new(receiver)))
}

/// An inbox that nobody looks at.
pub(crate) fn deaf() -> Arc<dyn Inbox> {
    recorder().0
}

/// A store that was asked nothing yet.
pub(crate) fn empty_store() -> Arc<Store> {
    Arc::default()
}

/// Short times for presence, so that tests can wait for them, and logs that are trimmed however young their events are.
pub(crate) fn settings() -> Settings {
    let settings = Settings { push_jobs_max: 900, push_is_posted: true, ..Settings::new("a", "boot-a") };
    Settings { online_ttl_seconds: 2, offline_grace_seconds: 1, hot_seconds: 0, ..settings }
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).expect("an id")
}

pub(crate) fn conversation(name: &str) -> ConversationId {
    ConversationId::parse(name).expect("an id")
}

/// The envelope of a test's event number `n`.
pub(crate) fn envelope(n: u64) -> String {
    format!("{{\"type\":\"message.new\",\"payload\":{{\"n\":{n}}}}}")
}

/// The same as it is published: with its `seq`.
pub(crate) fn numbered(seq: u64, n: u64) -> String {
    format!("{{\"seq\":{seq},\"type\":\"message.new\",\"payload\":{{\"n\":{n}}}}}")
}

/// Event number `n` for a user.
pub(crate) fn event(user: &UserId, n: u64) -> Delivery {
    Delivery { user: user.clone(), body: envelope(n).into(), kind: DeliveryKind::Durable(facts(n)) }
}

/// The same as a message that was committed so many milliseconds ago.
pub(crate) fn said(user: &UserId, n: u64, ago_ms: i64) -> Delivery {
    with(event(user, n), |durable| {
        durable.message = Some(CarriedMessage { id: message(n), conversation: conversation("c"), seq: n });
        durable.committed_at = Timestamp::from_unix_ms(Timestamp::now().unix_ms() - ago_ms);
    })
}

/// The outcomes of a redo, each of which has to be one.
pub(crate) async fn redone(node: &Node, deliveries: Vec<Delivery>) -> Vec<DeliveryOutcome> {
    let outcomes = node.backbone.redo(deliveries).await.expect("redone");
    outcomes.into_iter().map(|outcome| outcome.expect("an outcome")).collect()
}

/// An event without a log.
pub(crate) fn ephemeral(user: &UserId, body: &str) -> Delivery {
    Delivery { user: user.clone(), body: body.to_owned().into(), kind: DeliveryKind::Ephemeral }
}

/// Changes what a durable event carries.
pub(crate) fn with(mut delivery: Delivery, change: impl FnOnce(&mut Durable)) -> Delivery {
    if let DeliveryKind::Durable(durable) = &mut delivery.kind {
        change(durable);
    }
    delivery
}

/// The same with message `n` of a conversation, for which somebody is to be woken.
pub(crate) fn pushed(delivery: Delivery, name: &str, n: u64, sender: &str) -> Delivery {
    with(delivery, |durable| {
        durable.message = Some(CarriedMessage { id: message(n), conversation: conversation(name), seq: n });
        durable.push = Some(user(sender));
    })
}

fn facts(n: u64) -> Durable {
    let committed_at = Timestamp::from_unix_ms(1_763_730_000_000 + i64::try_from(n).expect("small") * 100);
    Durable {
        event_id: format!("m{n}").into(),
        committed_at,
        message: None,
        push: None,
        mentions: None,
        notification: None,
    }
}

/// The message of event `n`.
pub(crate) fn message(n: u64) -> MessageId {
    MessageId::new(n).expect("a message id")
}

/// Asks until the answer is there.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(within: Duration, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(within, asking).await.expect("it came about in time")
}

/// Runs a test that must end.
pub(crate) async fn bounded(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends");
}
