//! The backbone on Redis: a log, a channel and unread counts per user, kept together by scripts.
//!
//! One supervised pair of connections carries what is hot, a small pool the rest. While Redis is away everything is an
//! error at once; nothing is kept for later.

mod cluster;
mod commands;
mod connect;
mod link;
mod log;
mod presence;
mod scripts;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, cmd};
use shared::redis_keys::{ALL_CHANNEL, CONTROL_CHANNEL, log_key, revoked_key, unread_key};
use shared::{Timestamp, UserId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::cluster::{Cluster, Keeper};
use self::commands::entrance;
use self::connect::{connection, discovery, server};
use self::link::{Link, Route};
use super::batches::Batches;
use super::queue::Queue;
use super::{
    Backbone, BackboneError, BackboneHost, Control, Delivery, DeliveryOutcome, Entrant, EntryOutcome, Health, Inbox,
    LogHead, LogPage, Presence, Settings, payload,
};
use crate::backbone::redis::commands::publisher::PipelineWriter;
pub use crate::backbone::redis::connect::discovery::Address;
use crate::backbone::redis::connect::discovery::Target;
use crate::backbone::redis::connect::server::Server;
use crate::backbone::redis::connect::supervisor::{Shared, Supervisor};
use crate::backbone::redis::subscribe::subscriptions::Subscriptions;

/// How long the first connection may take.
const START_WITHIN: Duration = Duration::from_secs(10);

/// How long a revocation is kept: longer than any token should live.
const REVOKED_SECONDS: u32 = 30 * 24 * 3600;

/// The backbone on one Redis server, on the master that Sentinels name, or on the masters of a Redis Cluster.
pub struct RedisBackbone {
    link: Arc<Link>,
    subscriptions: Arc<Subscriptions>,
    queue: Queue,
    // Where one server has all keys. In a Cluster everybody asks alone, so that nobody waits for another's master.
    entrances: Batches<Entrant, EntryOutcome>,
    arrivals: Batches<UserId, bool>,
    departures: Batches<UserId, bool>,
    described: String,
    stop: CancellationToken,
    publisher: Mutex<Option<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl RedisBackbone {
    /// Connects to the server at `address` (`redis://[user:password@]host:port[/db]`, `rediss:` for TLS; several of them,
    /// separated by commas, for a Redis Cluster; or `redis-sentinel://[user:password@]host:port,host:port/name[/db]`,
    /// `rediss-sentinel:` for TLS) and starts the tasks.
    ///
    /// # Errors
    /// The URL or the node's name is invalid, or no connection came about within 10 s.
    pub async fn start(
        address: impl Into<Address<'_>>,
        settings: Settings,
        inbox: Arc<dyn Inbox>,
        unread: Arc<dyn BackboneHost>,
    ) -> Result<Self, BackboneError> {
        for name in [&settings.node, &settings.boot_id] {
            shared::id::check_name(name).map_err(|why| BackboneError(format!("the node's name or boot id {why}")))?;
        }
        let target = Target::parse(address.into())?;
        let described = target.describe();
        let cluster = match &target {
            Target::One(_) => None,
            Target::Cluster(_) => Some(Arc::new(Cluster::new())),
        };
        let subscriptions = Arc::new(Subscriptions::new(cluster.clone()));
        let route = cluster.map_or_else(|| Route::One(Arc::new(Server::new())), Route::Cluster);
        let link = Arc::new(Link::new(settings, route));
        let stop = CancellationToken::new();
        let (queue, jobs) = Queue::new();
        let shared = Shared {
            link: link.clone(),
            subscriptions: subscriptions.clone(),
            inbox,
            source: unread.clone(),
            invalid: metrics::counter!("parley_backbone_invalid_payloads_total"),
        };
        let (entering, arriving) = (link.clone(), link.clone());
        let departing = (link.clone(), subscriptions.clone());
        let backbone = Self {
            entrances: Batches::start(move |entrants| enter_together(entering.clone(), entrants)),
            arrivals: Batches::start(move |users| arrive_together(arriving.clone(), users)),
            departures: Batches::start(move |users| depart_together(departing.clone(), users)),
            publisher: Mutex::new(Some(tokio::spawn(PipelineWriter::new(link.clone(), jobs, unread).run()))),
            keeper: Mutex::new(Some(tokio::spawn(keep(target, shared, stop.clone())))),
            link,
            subscriptions,
            queue,
            described,
            stop,
        };
        match tokio::time::timeout(START_WITHIN, backbone.link.first_connection()).await {
            Ok(()) if backbone.link.refused().is_none() => Ok(backbone),
            // A node may start while a master is being replaced.
            Err(_) if backbone.link.is_enough() => Ok(backbone),
            Ok(()) | Err(_) => {
                let why = backbone.link.refused().unwrap_or_else(|| backbone.health().detail);
                let why = discovery::explain(why);
                backbone.close().await;
                Err(BackboneError(why))
            }
        }
    }

    /// Runs a command that isn't hot.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BackboneError> {
        self.link.ask(command).await
    }
}

impl Drop for RedisBackbone {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Backbone for RedisBackbone {
    fn describe(&self) -> String {
        self.described.clone()
    }

    async fn publish(&self, deliveries: Vec<Delivery>) -> Result<Vec<DeliveryOutcome>, BackboneError> {
        payload::check(&deliveries)?;
        self.link.check()?;
        self.queue.publish(deliveries).await
    }

    async fn subscribe(&self, user: &UserId) -> Result<(), BackboneError> {
        self.subscriptions.subscribe(user).await
    }

    fn unsubscribe(&self, user: &UserId) {
        self.subscriptions.unsubscribe(user);
    }

    async fn open(&self, user: &UserId) -> Result<LogHead, BackboneError> {
        let mut call = scripts::call(&self.link.scripts.open, &[&log_key(user), &unread_key(user)]);
        let reply: Vec<Bytes> = self.link.run_script(call.arg(self.link.epoch_nonce())).await?;
        log::head_and_rest(&reply).map(|(head, _)| head)
    }

    async fn enter(&self, entrant: Entrant) -> Result<EntryOutcome, BackboneError> {
        match &self.link.route {
            Route::One(_) => self.entrances.ask(entrant).await,
            Route::Cluster(_) => {
                let is_revoked = self.is_revoked(&entrant.user, entrant.issued_at);
                entrance::enter_scattered(&self.link, &entrant, is_revoked).await
            }
        }
    }

    async fn read(&self, user: &UserId, after: u64, limit: u32) -> Result<LogPage, BackboneError> {
        let mut call = scripts::call(&self.link.scripts.read, &[&log_key(user), &unread_key(user)]);
        call.arg(self.link.epoch_nonce()).arg(after).arg(limit);
        log::page(&self.link.run_script::<Vec<Bytes>>(&call).await?)
    }

    async fn arrived(&self, user: &UserId) -> Result<bool, BackboneError> {
        match &self.link.route {
            Route::One(_) => self.arrivals.ask(user.clone()).await,
            Route::Cluster(_) => {
                let told = presence::arrived(&self.link, std::slice::from_ref(user)).await.pop();
                told.unwrap_or_else(|| Err(BackboneError("Redis gave no answer".to_owned())))
            }
        }
    }

    async fn refresh(&self, users: &[UserId]) -> Result<(), BackboneError> {
        // A user who has left meanwhile must not come back to life.
        let wanted: Vec<UserId> = users.iter().filter(|user| self.subscriptions.is_wanted(user)).cloned().collect();
        presence::refresh(&self.link, &wanted).await
    }

    async fn departed(&self, user: &UserId) -> Result<(), BackboneError> {
        let is_gone = match &self.link.route {
            Route::One(_) => self.departures.ask(user.clone()).await?,
            Route::Cluster(cluster) => {
                presence::departed_scattered(&self.link, cluster, user, own(&self.subscriptions, user)).await?
            }
        };
        if is_gone {
            self.subscriptions.stop_lingering(user);
        }
        Ok(())
    }

    async fn take_offline(&self, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
        if self.link.is_unsettled() {
            return Ok(Vec::new());
        }
        presence::take_offline(&self.link, limit).await
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, BackboneError> {
        presence::presence(&self.link, users).await
    }

    async fn broadcast(&self, body: Bytes) -> Result<(), BackboneError> {
        self.link.run(cmd("PUBLISH").arg(ALL_CHANNEL).arg(&*body)).await
    }

    async fn control(&self, control: &Control) -> Result<(), BackboneError> {
        let text = serde_json::to_string(control).map_err(|error| BackboneError(error.to_string()))?;
        self.link.run(cmd("PUBLISH").arg(CONTROL_CHANNEL).arg(text)).await
    }

    async fn revoke(&self, user: &UserId) -> Result<i64, BackboneError> {
        let (now_s, _): (i64, i64) = self.ask(&cmd("TIME")).await?;
        let mut set = cmd("SET");
        self.ask::<()>(set.arg(revoked_key(user)).arg(now_s).arg("EX").arg(REVOKED_SECONDS)).await?;
        Ok(now_s)
    }

    async fn is_revoked(&self, user: &UserId, issued_at: Option<i64>) -> Result<bool, BackboneError> {
        let revoked: Option<i64> = self.link.run(cmd("GET").arg(revoked_key(user))).await?;
        Ok(revoked.is_some_and(|revoked| issued_at.is_none_or(|issued| issued <= revoked)))
    }

    async fn fence(&self, owner: &str) -> Result<(), BackboneError> {
        let name = connection::client_name(owner);
        let servers = match &self.link.route {
            Route::One(server) => vec![server.live()?],
            // On every master: which of them the owner's last commands are for is not known.
            Route::Cluster(cluster) => cluster.all_live()?,
        };
        for mut live in servers {
            connection::kill_others(&mut live.commands, &name, live.client_id).await.map_err(server::failed)?;
        }
        Ok(())
    }

    fn leave_server(&self) {
        self.link.leave();
    }

    fn note_new_server(&self) {
        self.link.note_new_server();
    }

    fn nodes(&self) -> u32 {
        self.link.nodes()
    }

    fn health(&self) -> Health {
        self.link.health()
    }

    async fn close(&self) {
        self.entrances.close().await;
        self.arrivals.close().await;
        self.departures.close().await;
        self.queue.close();
        let publisher = self.publisher.lock().take();
        if let Some(publisher) = publisher
            && publisher.await.is_err()
        {
            tracing::error!("the publisher ended by a panic");
        }
        self.stop.cancel();
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper
            && keeper.await.is_err()
        {
            tracing::error!("the keeper of the connections to Redis ended by a panic");
        }
    }
}

/// Keeps the connections until `stop`.
async fn keep(target: Target, shared: Shared, stop: CancellationToken) {
    match (target, &shared.link.route) {
        (Target::One(servers), Route::One(server)) => {
            let server = server.clone();
            Supervisor { servers: *servers, server, cluster: None, shared, stop }.run().await;
        }
        (Target::Cluster(seeds), Route::Cluster(cluster)) => {
            let cluster = cluster.clone();
            Keeper::new(cluster, seeds, shared, stop).run().await;
        }
        (Target::One(_), Route::Cluster(_)) | (Target::Cluster(_), Route::One(_)) => {}
    }
}

async fn enter_together(link: Arc<Link>, entrants: Vec<Entrant>) -> Vec<Result<EntryOutcome, BackboneError>> {
    entrance::enter(&link, &entrants).await
}

async fn arrive_together(link: Arc<Link>, users: Vec<UserId>) -> Vec<Result<bool, BackboneError>> {
    presence::arrived(&link, &users).await
}

async fn depart_together(
    (link, subscriptions): (Arc<Link>, Arc<Subscriptions>),
    users: Vec<UserId>,
) -> Vec<Result<bool, BackboneError>> {
    let users: Vec<_> = users.into_iter().map(|user| (own(&subscriptions, &user), user)).collect();
    presence::departed(&link, &users).await
}

/// How many subscriptions for the user are this node's, and wanted by nobody.
fn own(subscriptions: &Subscriptions, user: &UserId) -> u32 {
    u32::from(subscriptions.lingers(user))
}
