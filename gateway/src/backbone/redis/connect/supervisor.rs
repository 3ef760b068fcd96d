//! Keeps the two connections to one server until the node stops: opens them, probes them each second, closes them when
//! a probe fails, and opens them again. No other code opens or closes these connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::Counter;
use rand::Rng;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, RedisResult, Value, cmd, from_redis_value};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{self, fault};
use super::discovery::{Discovery, Servers};
use super::rights;
use super::sentinel::SentinelMaster;
use super::server::{Live, Server};
use crate::backbone::redis::cluster::{self, Cluster, MasterId, slot_of};
use crate::backbone::redis::link::Link;
use crate::backbone::redis::subscribe::channel::Channel;
use crate::backbone::redis::subscribe::inbound::Inbound;
use crate::backbone::redis::subscribe::receiving::{Channels, PushConnection};
use crate::backbone::redis::subscribe::subscriber;
use crate::backbone::redis::subscribe::subscriptions::Subscriptions;
use crate::backbone::{BackboneError, BackboneHost, Inbox};
use crate::switches;

/// The first and the longest pause between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// For one attempt, with everything that has to be subscribed again.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);

/// How often, and how long, and how many times in a row a connection may fail to answer: given up within 3 s.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_MAX: Duration = Duration::from_millis(900);
const PINGS_FAILED_MAX: u32 = 2;

/// How often it is looked whether the Redis user still has all rights.
const RIGHTS_EVERY: Duration = Duration::from_secs(15);

/// How long a node waits before it goes to another master than the last: all nodes ask the Sentinels each second, so by
/// then the others have left the old one too, and little of what they published there has to be published again
/// (NOLOSS.md, A2).
pub(in crate::backbone::redis) const LEAVE_TOGETHER: Duration = Duration::from_secs(2);

/// Within this time masters of a Cluster that came back together hear each other.
const MASTERS_MEET: Duration = Duration::from_secs(2);

/// How long the store may take to note that a server was left.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// How long the node's key tells of its life.
const NODE_KEY_SECONDS: u32 = 10;

/// The task that keeps the link to one server.
pub(in crate::backbone::redis) struct Supervisor {
    pub(in crate::backbone::redis) servers: Servers,
    pub(in crate::backbone::redis) server: Arc<Server>,
    /// Of which the server is a master.
    pub(in crate::backbone::redis) cluster: Option<ClusterPlace>,
    pub(in crate::backbone::redis) shared: Shared,
    pub(in crate::backbone::redis) stop: CancellationToken,
}

/// A master's place in its Cluster; one server alone has lane 0.
pub(in crate::backbone::redis) struct ClusterPlace {
    pub(in crate::backbone::redis) cluster: Arc<Cluster>,
    pub(in crate::backbone::redis) lane: MasterId,
}

/// The parts that all supervisors share.
#[derive(Clone)]
pub(in crate::backbone::redis) struct Shared {
    pub(in crate::backbone::redis) link: Arc<Link>,
    pub(in crate::backbone::redis) subscriptions: Arc<Subscriptions>,
    pub(in crate::backbone::redis) inbox: Arc<dyn Inbox>,
    pub(in crate::backbone::redis) source: Arc<dyn BackboneHost>,
    pub(in crate::backbone::redis) invalid: Counter,
}

struct Connections {
    live: Live,
    receiving: PushConnection,
    server: Discovery,
    /// Channels that were left since the connection before; their users may be gone from every node.
    left: Vec<Channel>,
}

impl Supervisor {
    pub(in crate::backbone::redis) async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        let mut away_since: Option<Instant> = None;
        let mut was_up = false;
        let mut last: Option<SentinelMaster> = None;
        loop {
            let attempt = timeout(ATTEMPT_MAX, self.connect(was_up, last.as_ref()));
            let attempt = tokio::select! {
                attempt = attempt => attempt.unwrap_or_else(|_| Err(fault("connecting took too long"))),
                () = self.stop.cancelled() => break,
            };
            let why = match attempt {
                Ok(connections) => {
                    backoff = BACKOFF_MIN;
                    self.leave_last(&connections.live.server).await;
                    self.up(&connections, away_since.take(), std::mem::replace(&mut was_up, true));
                    last = connections.server.named().cloned();
                    let why = self.watch(connections).await;
                    self.shared.subscriptions.close(self.lane());
                    why
                }
                Err(error) => {
                    // While a replica is promoted, each moment counts: what is published for its users waits.
                    if connection::is_no_master(&error) {
                        backoff = BACKOFF_MIN;
                    }
                    error.to_string()
                }
            };
            self.away(&why);
            if self.stop.is_cancelled() {
                break;
            }
            if away_since.is_none() {
                tracing::warn!(server = self.servers.describe(), reason = why, "Redis is away");
                away_since = Some(Instant::now());
            }
            let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
        }
        self.shared.subscriptions.close(self.lane());
        self.away("this node has left it");
    }

    fn lane(&self) -> MasterId {
        self.cluster.as_ref().map_or(0, |membership| membership.lane)
    }

    /// Nothing counts as published any more on a server that is left for another (NOLOSS.md, A2).
    async fn leave_last(&self, next: &Arc<str>) {
        if let Some(last) = self.server.last_identity().filter(|last| last != next) {
            let last = if self.cluster.is_some() { cluster::short(&last) } else { &last };
            retire(&*self.shared.source, last).await;
        }
    }

    fn up(&self, connections: &Connections, away_since: Option<Instant>, was_up: bool) {
        // In this order, because a caller that sees the link may subscribe.
        self.shared.subscriptions.open(self.lane());
        let is_another = self.server.set_up(connections.live.clone());
        if let Some(since) = away_since {
            tracing::info!(server = self.servers.describe(), away_ms = since.elapsed().as_millis(), "Redis is back");
        }
        match &self.cluster {
            Some(ClusterPlace { cluster, lane, .. }) => {
                if is_another {
                    cluster.server_changed(*lane);
                }
                if cluster.member_up(*lane) && was_up {
                    self.shared.inbox.orders_missed();
                    // And once more when they hear each other: until then some nodes' orders reach only some masters.
                    let inbox = Arc::clone(&self.shared.inbox);
                    tokio::spawn(async move {
                        tokio::time::sleep(MASTERS_MEET).await;
                        inbox.orders_missed();
                    });
                }
            }
            None if was_up => self.shared.inbox.resubscribed(),
            None => {}
        }
    }

    fn away(&self, why: &str) {
        self.server.set_away(why);
        if let Some(ClusterPlace { cluster, lane, .. }) = &self.cluster
            && cluster.member_away(*lane)
        {
            self.shared.inbox.orders_missed();
        }
    }

    async fn connect(&self, was_up: bool, last: Option<&SentinelMaster>) -> RedisResult<Connections> {
        let Shared { link, subscriptions, .. } = &self.shared;
        let lost = CancellationToken::new();
        let name = connection::client_name(link.keys(), &format!("{}:{}", link.settings.node, link.settings.boot_id));

        let ended = lost.clone();
        let config = connection::config().set_push_sender(move |push: PushInfo| {
            if push.kind == redis::PushKind::Disconnection {
                ended.cancel();
            }
            Ok::<(), redis::aio::SendError>(())
        });
        let found = self.servers.find().await?;
        if let (Some(last), Some(named)) = (last, found.named())
            && !named.is_at(last)
        {
            tokio::time::sleep(LEAVE_TOGETHER).await;
        }
        let mut commands = found.client.get_multiplexed_async_connection_with_config(&config).await?;
        rights::check_version(&cmd("INFO").arg("server").query_async::<String>(&mut commands).await?)?;
        self.check_rights(&mut commands).await?;
        cmd("CLIENT").arg("SETNAME").arg(&name).exec_async(&mut commands).await?;
        let client_id: i64 = cmd("CLIENT").arg("ID").query_async(&mut commands).await?;
        let server = connection::identity(&cmd("INFO").arg("replication").query_async::<String>(&mut commands).await?)?;
        // Commands of an earlier connection that are still in Redis' buffers must not run after later ones.
        connection::kill_others(&mut commands, &name, client_id).await?;
        link.scripts.load(&mut commands).await?;
        if !was_up {
            if self.cluster.is_none() {
                connection::check_mode(&mut commands).await?;
            }
            connection::check_memory_policy(&mut commands).await;
        }

        let generation = subscriptions.next_generation();
        let receiving = self.receiving(&found, &format!("{name}:sub"), self.inbound(generation, lost.clone())).await?;
        let keys = link.keys();
        let plain = [keys.all_channel(), keys.control_channel(), keys.node(&link.settings.node)];
        receiving.subscribe_plain(&plain).await?;
        receiving.try_leaving(rights::nobodys_channel(keys)?).await?;
        let left = subscriptions.begin(self.lane(), generation);
        subscriber::resubscribe(&receiving, subscriptions, self.lane(), link).await?;
        let pool = connection::pool(&found.client)?;
        let live = Live { commands, client_id, server, pool, since: Instant::now(), lost };
        Ok(Connections { live, receiving, server: found, left })
    }

    async fn check_rights(&self, commands: &mut MultiplexedConnection) -> RedisResult<()> {
        let link = &self.shared.link;
        rights::check(commands, link.keys(), &link.settings.node, self.cluster.is_some()).await
    }

    fn inbound(&self, generation: u64, lost: CancellationToken) -> Inbound {
        let Shared { link, subscriptions, inbox, invalid, source: _ } = &self.shared;
        Inbound {
            server: self.server.clone(),
            cluster: self.cluster.as_ref().map(|membership| membership.cluster.clone()),
            lane: self.lane(),
            subscriptions: subscriptions.clone(),
            inbox: inbox.clone(),
            generation,
            probe_channel: link.keys().node(&link.settings.node),
            keys: link.keys().clone(),
            probe: self.probe_text(),
            lost,
            invalid: invalid.clone(),
        }
    }

    /// A master of a Cluster passes probes on to all the others, so each has a text of its own.
    fn probe_text(&self) -> String {
        let boot_id = &self.shared.link.settings.boot_id;
        self.cluster.as_ref().map_or_else(|| boot_id.to_string(), |own| format!("{boot_id}:{}", own.lane))
    }

    async fn receiving(&self, found: &Discovery, name: &str, inbound: Inbound) -> RedisResult<PushConnection> {
        let channels = if self.cluster.is_some() { Channels::Sharded } else { Channels::Plain };
        let server = (found.client.get_connection_info(), self.servers.tls());
        PushConnection::connect(server, name, channels, inbound).await
    }

    /// Serves subscriptions and pings until a connection is lost or the master is another; says why.
    async fn watch(&self, connections: Connections) -> String {
        let Connections { live, receiving, server, left } = connections;
        let lost = live.lost.clone();
        let Shared { link, subscriptions, .. } = &self.shared;
        tokio::select! {
            error = subscriber::serve(&receiving, subscriptions, self.lane(), link, left) => error.to_string(),
            why = self.ping(live, &receiving) => why,
            () = lost.cancelled() => "the connection was closed".to_owned(),
            () = self.servers.moved(server.named()) => "the Sentinels name another master".to_owned(),
            () = self.stop.cancelled() => "this node is stopping".to_owned(),
        }
    }

    async fn ping(&self, live: Live, receiving: &PushConnection) -> String {
        let mut tick = tokio::time::interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = 0;
        let mut rights_checked = Instant::now();
        loop {
            tick.tick().await;
            if rights_checked.elapsed() >= RIGHTS_EVERY {
                rights_checked = Instant::now();
                if let Ok(Err(error)) = timeout(PING_MAX, self.check_rights(&mut live.commands.clone())).await {
                    return error.to_string();
                }
            }
            let pings = async { tokio::join!(self.probe(live.commands.clone()), receiving.ping()) };
            let why = match timeout(PING_MAX, pings).await {
                Ok((Ok(server), Ok(()))) if server == live.server || switches::off("server-watch") => {
                    failed = 0;
                    continue;
                }
                Ok((Ok(_), Ok(()))) => return "another server answers".to_owned(),
                Ok((Err(error), _) | (_, Err(error))) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            failed += 1;
            if failed >= PINGS_FAILED_MAX {
                return why;
            }
        }
    }

    /// Publishes the probe, reads the clock, counts the nodes, and says which server it is.
    async fn probe(&self, mut commands: MultiplexedConnection) -> RedisResult<Arc<str>> {
        let keys = self.shared.link.keys();
        let key = keys.node(&self.shared.link.settings.node);
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("INFO").arg("replication");
        pipeline.cmd("PUBSUB").arg("NUMSUB").arg(keys.control_channel());
        pipeline.cmd("PUBLISH").arg(&key).arg(self.probe_text());
        let keeps_key = |own: &ClusterPlace| own.cluster.lane_of(slot_of(key.as_bytes())) == Some(own.lane);
        if self.cluster.as_ref().is_none_or(keeps_key) {
            pipeline.cmd("SET").arg(&key).arg(self.server.now_ms() / 1000).arg("EX").arg(NODE_KEY_SECONDS);
        }
        self.server.probe_begins();
        let mut replies = commands.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
        // A server that is out of memory refuses the key: the connection is none the worse for it.
        replies.truncate(3);
        let ((seconds, micros), info, (_, nodes)): ((i64, i64), String, (String, u32)) =
            from_redis_value(Value::Array(replies))?;
        self.server.set_nodes(nodes);
        self.server.set_clock(seconds.saturating_mul(1000).saturating_add(micros / 1000));
        connection::identity(&info)
    }
}

/// Tells the store that this node leaves a server.
pub(in crate::backbone::redis) async fn retire(source: &dyn BackboneHost, server: &str) {
    if switches::off("retire") {
        return;
    }
    let told = timeout(LEAVE_MAX, source.server_left(server)).await;
    if let Err(why) = told.unwrap_or_else(|_| Err(BackboneError("it did not answer in time".to_owned()))) {
        tracing::warn!(server, %why, "the store could not record that this node left the Redis server");
    }
}
