//! Keeps the link: connects, watches both connections each second, gives them up when they don't answer, connects again,
//! for ever. Nothing else makes or drops these connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::{Manager, Pool, Runtime};
use metrics::Counter;
use rand::Rng;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, RedisError, RedisResult, Value, cmd, from_redis_value};
use shared::UserId;
use shared::schema::{ALL_CHANNEL, CONTROL_CHANNEL, node_key};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::inbound::Inbound;
use super::link::{Link, Live};
use super::sentinel::Named;
use super::servers::{Found, Servers};
use super::subscriber;
use super::subscriptions::Subscriptions;
use crate::backbone::{BackboneError, Inbox, UnreadSource};
use crate::off;

/// The first and the longest pause between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// For one attempt, with everything that has to be subscribed again.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);

/// For the connection itself.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// For any reply.
const RESPONSE_MAX: Duration = Duration::from_secs(2);

/// How often, and how long, and how many times in a row a connection may fail to answer: given up within 3 s.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_MAX: Duration = Duration::from_millis(900);
const PINGS_FAILED_MAX: u32 = 2;

/// Requests that wait inside of the crate for a socket that takes no more.
const PIPELINE_BUFFER: usize = 64;

/// How long a node waits before it goes to another master than the last: all nodes ask the Sentinels each second, so by
/// then the others have left the old one too, and little of what they published there has to be published again (NOLOSS A2).
const LEAVE_TOGETHER: Duration = Duration::from_secs(2);

/// How long the store may take to note that a server was left.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// Connections for what is not hot, and the longest wait for one.
const POOL_SIZE: usize = 4;
const POOL_WAIT: Duration = Duration::from_secs(2);

/// How long the node's key tells of its life.
const NODE_KEY_SECONDS: u32 = 10;

/// The task that keeps the link.
pub(super) struct Supervisor {
    pub(super) servers: Servers,
    pub(super) link: Arc<Link>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) source: Arc<dyn UnreadSource>,
    pub(super) stop: CancellationToken,
    pub(super) invalid: Counter,
}

struct Connections {
    live: Live,
    receiving: MultiplexedConnection,
    server: Found,
    /// Users who have left since the connection before; they may be gone from every node.
    left: Vec<UserId>,
}

impl Supervisor {
    pub(super) async fn run(self) {
        let mut generation = 0;
        let mut backoff = BACKOFF_MIN;
        let mut away_since: Option<Instant> = None;
        let mut was_up = false;
        let mut last: Option<Named> = None;
        loop {
            generation += 1;
            let attempt = timeout(ATTEMPT_MAX, self.connect(generation, last.as_ref()));
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
                    self.inbox.interrupted();
                    self.subscriptions.close();
                    why
                }
                Err(error) => error.to_string(),
            };
            self.link.set_away(&why);
            if self.stop.is_cancelled() {
                break;
            }
            if away_since.is_none() {
                tracing::warn!(reason = why, "Redis is away");
                away_since = Some(Instant::now());
            }
            let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
        }
        self.link.set_away("this node is stopping");
        self.subscriptions.close();
    }

    /// Nothing counts as published any more on a server that is left for another (NOLOSS A2).
    async fn leave_last(&self, next: &Arc<str>) {
        let Some(last) = self.link.last_server().filter(|last| last != next && !off::is("retire")) else { return };
        let told = timeout(LEAVE_MAX, self.source.server_left(&last)).await;
        if let Err(why) = told.unwrap_or_else(|_| Err(BackboneError("it took too long".to_owned()))) {
            tracing::warn!(server = &*last, %why, "the store could not be told that this Redis server was left");
        }
    }

    fn up(&self, connections: &Connections, away_since: Option<Instant>, was_up: bool) {
        // In this order: whoever sees the link may subscribe.
        self.subscriptions.open();
        self.link.set_up(connections.live.clone());
        if let Some(since) = away_since {
            tracing::info!(away_ms = since.elapsed().as_millis(), "Redis is back");
        }
        if was_up {
            self.inbox.resubscribed();
        }
    }

    async fn connect(&self, generation: u64, last: Option<&Named>) -> RedisResult<Connections> {
        let lost = CancellationToken::new();
        let name = client_name(&format!("{}:{}", self.link.settings.node, self.link.settings.boot_id));

        let ended = lost.clone();
        let config = config().set_push_sender(move |push: PushInfo| {
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
        cmd("CLIENT").arg("SETNAME").arg(&name).exec_async(&mut commands).await?;
        let client_id: i64 = cmd("CLIENT").arg("ID").query_async(&mut commands).await?;
        let server = identity(&cmd("INFO").arg("replication").query_async::<String>(&mut commands).await?)?;
        // What an earlier connection of ours has left in Redis' buffers must not run after what comes now.
        kill_others(&mut commands, &name, client_id).await?;
        self.link.scripts.load(&mut commands).await?;
        if generation == 1 {
            check_memory_policy(&mut commands).await;
        }

        let inbound = Inbound {
            link: self.link.clone(),
            subscriptions: self.subscriptions.clone(),
            inbox: self.inbox.clone(),
            generation,
            probe_channel: node_key(&self.link.settings.node),
            probe: self.link.settings.boot_id.to_string(),
            lost: lost.clone(),
            invalid: self.invalid.clone(),
        };
        let config = config_for_receiving(inbound);
        let mut receiving = found.client.get_multiplexed_async_connection_with_config(&config).await?;
        cmd("CLIENT").arg("SETNAME").arg(format!("{name}:sub")).exec_async(&mut receiving).await?;
        let own = node_key(&self.link.settings.node);
        receiving.subscribe(&[ALL_CHANNEL, CONTROL_CHANNEL, own.as_str()]).await?;
        let left = self.subscriptions.begin(generation);
        subscriber::resubscribe(&mut receiving, &self.subscriptions).await?;
        let pool = pool(&found.client)?;
        Ok(Connections { live: Live { commands, client_id, server, pool, lost }, receiving, server: found, left })
    }

    /// Serves subscriptions and pings until a connection is lost or the master is another; says why.
    async fn watch(&self, connections: Connections) -> String {
        let Connections { live, receiving, server, left } = connections;
        let lost = live.lost.clone();
        let serve = subscriber::serve(receiving.clone(), &self.subscriptions, &self.link, left);
        tokio::select! {
            error = serve => error.to_string(),
            why = self.ping(live, receiving) => why,
            () = lost.cancelled() => "the connection was closed".to_owned(),
            () = self.servers.moved(server.named()) => "the Sentinels name another master".to_owned(),
            () = self.stop.cancelled() => "this node is stopping".to_owned(),
        }
    }

    async fn ping(&self, live: Live, mut receiving: MultiplexedConnection) -> String {
        let mut tick = tokio::time::interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = 0;
        loop {
            tick.tick().await;
            let ping = cmd("PING");
            let pings = async { tokio::join!(self.probe(live.commands.clone()), ping.exec_async(&mut receiving)) };
            let why = match timeout(PING_MAX, pings).await {
                Ok((Ok(server), Ok(()))) if server == live.server || off::is("server-watch") => {
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

    /// Publishes the probe, reads the clock, and says which server it is.
    async fn probe(&self, mut commands: MultiplexedConnection) -> RedisResult<Arc<str>> {
        let key = node_key(&self.link.settings.node);
        let probe = &*self.link.settings.boot_id;
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("INFO").arg("replication");
        pipeline.cmd("PUBLISH").arg(&key).arg(probe);
        pipeline.cmd("SET").arg(&key).arg(self.link.now_ms() / 1000).arg("EX").arg(NODE_KEY_SECONDS);
        self.link.probe_begins();
        let mut replies = commands.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
        // A server that is out of memory refuses the key: the connection is none the worse for it.
        replies.truncate(2);
        let ((seconds, micros), info): ((i64, i64), String) = from_redis_value(Value::Array(replies))?;
        self.link.set_clock(seconds.saturating_mul(1000).saturating_add(micros / 1000));
        identity(&info)
    }
}

fn pool(client: &Client) -> RedisResult<Pool> {
    let manager = Manager::new_with_config(client.get_connection_info().clone(), config())?;
    Pool::builder(manager)
        .max_size(POOL_SIZE)
        .wait_timeout(Some(POOL_WAIT))
        .create_timeout(Some(POOL_WAIT))
        .recycle_timeout(Some(POOL_WAIT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|_| fault("no pool of connections can be made"))
}

/// The time-outs and bounds of every connection.
pub(super) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_MAX))
        .set_response_timeout(Some(RESPONSE_MAX))
        .set_pipeline_buffer_size(PIPELINE_BUFFER)
}

fn config_for_receiving(inbound: Inbound) -> AsyncConnectionConfig {
    config().set_push_sender(move |push: PushInfo| {
        inbound.receive(push);
        Ok::<(), redis::aio::SendError>(())
    })
}

/// The name of the command connection of an owner (`<node>:<boot id>`).
pub(super) fn client_name(owner: &str) -> String {
    format!("parley:{owner}")
}

/// Ends every connection of that name except `keep`, with what it has sent and Redis has not read (NOLOSS M3).
pub(super) async fn kill_others(connection: &mut MultiplexedConnection, name: &str, keep: i64) -> RedisResult<()> {
    let list: String = cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal").query_async(connection).await?;
    for line in list.lines() {
        let field = |key: &str| line.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        if field("name") == Some(name)
            && let Some(id) = field("id").and_then(|id| id.parse::<i64>().ok())
            && id != keep
            && !off::is("fence")
        {
            cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec_async(connection).await?;
        }
    }
    Ok(())
}

/// The replication id; only a master's counts.
fn identity(info: &str) -> RedisResult<Arc<str>> {
    let field = |key: &str| info.lines().find_map(|line| line.strip_prefix(key));
    match (field("role:"), field("master_replid:")) {
        (Some("master"), Some(id)) if id.len() >= 8 => Ok(id.into()),
        _ => Err(fault("the server is no master")),
    }
}

async fn check_memory_policy(connection: &mut MultiplexedConnection) {
    let policy: RedisResult<HashMap<String, String>> =
        cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(connection).await;
    match policy {
        Ok(policy) if policy.values().all(|policy| policy == "noeviction") => {}
        Ok(policy) => tracing::warn!(?policy, "Redis may evict logs: set maxmemory-policy noeviction"),
        Err(_) => tracing::warn!("Redis won't tell its maxmemory-policy: it should be noeviction"),
    }
}

fn fault(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::Client, what))
}
