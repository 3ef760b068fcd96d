//! The backbone on Redis: per user a log and a channel, which scripts serve together.
//! It offers [`RedisBackbone`], on one server, on the master that Sentinels name, or on a Redis Cluster.
//! It never keeps a call for later: while Redis is away every call fails at once.

mod cluster;
mod commands;
mod connect;
mod damaged;
mod keep;
mod link;
mod log;
mod presence;
mod scripts;
mod subscribe;
mod together;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, cmd};
use shared::UserId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::commands::entrance;
use self::commands::publisher::PipelineWriter;
use self::commands::redo;
pub use self::connect::discovery::Address;
use self::connect::discovery::{self, Target};
use self::keep::KeptConnections;
use self::link::Link;
use self::subscribe::channel::Channel;
use self::subscribe::subscriptions::Subscriptions;
use self::together::Together;
use super::push_jobs::Dropped;
use super::queue::Queue;
use super::{
    Backbone, BackboneError, BackboneHost, Control, Delivery, DeliveryOutcome, Entrant, EntryOutcome, Health, Inbox,
    LogHead, LogPage, Settings, payload,
};

/// How long the first connection may take.
const START_WITHIN: Duration = Duration::from_secs(10);

/// The backbone on one Redis server, on the master that Sentinels name, or on the masters of a Redis Cluster.
pub struct RedisBackbone {
    link: Arc<Link>,
    subscriptions: Arc<Subscriptions>,
    /// Deliveries that wait for the publisher.
    queue: Queue,
    entrances: Together<Entrant, EntryOutcome>,
    arrivals: Together<UserId, bool>,
    departures: Together<UserId, bool>,
    /// Counts push jobs of large conversations that were not added.
    dropped: Dropped,
    /// Where Redis is, without a password.
    described: String,
    /// Ends the keeper.
    stop: CancellationToken,
    /// The task that publishes, until it is awaited by `close`.
    publisher: Mutex<Option<JoinHandle<()>>>,
    /// The task that keeps the connections, until it is awaited by `close`.
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// The store, as far as the backbone asks it.
    host: Arc<dyn BackboneHost>,
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
        host: Arc<dyn BackboneHost>,
    ) -> Result<Self, BackboneError> {
        for name in [&settings.node, &settings.boot_id] {
            shared::id::check_name(name).map_err(|why| BackboneError(format!("the node's name or boot id {why}")))?;
        }
        let target = Target::parse(address.into())?;
        let described = target.describe();
        let stop = CancellationToken::new();
        let kept = KeptConnections::start(target, settings, inbox, host.clone(), stop.clone());
        let KeptConnections { link, subscriptions, keeper } = kept;
        let (queue, jobs) = Queue::new();
        let (entering, arriving, departing) = (link.clone(), link.clone(), (link.clone(), subscriptions.clone()));
        let backbone = Self {
            entrances: link.together(move |entrants| enter(entering.clone(), entrants)),
            arrivals: link.together(move |users| arrive(arriving.clone(), users)),
            departures: link.together(move |users| depart(departing.clone(), users)),
            dropped: Dropped::new(),
            publisher: Mutex::new(Some(tokio::spawn(PipelineWriter::new(link.clone(), jobs, host.clone()).run()))),
            keeper: Mutex::new(Some(keeper)),
            host,
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

    /// Reads the address, and the file that it names. Connects to nothing.
    ///
    /// # Errors
    /// Says what is wrong with it, without its password.
    pub fn check<'a>(address: impl Into<Address<'a>>) -> Result<(), BackboneError> {
        Target::parse(address.into()).map(drop)
    }

    /// Runs an infrequent command, on a connection of the pool.
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

    async fn redo(
        &self,
        deliveries: Vec<Delivery>,
    ) -> Result<Vec<Result<DeliveryOutcome, BackboneError>>, BackboneError> {
        payload::check(&deliveries)?;
        self.link.check()?;
        redo::redo(&self.link, &self.queue, &self.host, &deliveries).await
    }

    async fn subscribe(&self, user: &UserId) -> Result<(), BackboneError> {
        self.subscriptions.subscribe(&Channel::User(user.clone())).await
    }

    fn unsubscribe(&self, user: &UserId) {
        self.subscriptions.unsubscribe(&Channel::User(user.clone()));
    }

    async fn open(&self, user: &UserId) -> Result<LogHead, BackboneError> {
        let keys = self.link.keys();
        let mut call = scripts::call(&self.link.scripts.open, &[keys.log(user)]);
        let reply: Vec<Bytes> = self.link.run_script(call.arg(self.link.epoch_nonce())).await?;
        log::head_and_rest(&reply).map(|(head, _)| head)
    }

    async fn enter(&self, entrant: Entrant) -> Result<EntryOutcome, BackboneError> {
        self.entrances.ask(entrant).await
    }

    async fn read(&self, user: &UserId, after: u64, limit: u32) -> Result<LogPage, BackboneError> {
        let keys = self.link.keys();
        let mut call = scripts::call(&self.link.scripts.read, &[keys.log(user)]);
        call.arg(self.link.epoch_nonce()).arg(after).arg(limit);
        log::page(&self.link.run_script::<Vec<Bytes>>(&call).await?)
    }

    async fn broadcast(&self, body: Bytes) -> Result<(), BackboneError> {
        self.link.run(cmd("PUBLISH").arg(self.link.keys().all_channel()).arg(&*body)).await
    }

    async fn control(&self, control: &Control) -> Result<(), BackboneError> {
        let text = serde_json::to_string(control).map_err(|error| BackboneError(error.to_string()))?;
        self.link.run(cmd("PUBLISH").arg(self.link.keys().control_channel()).arg(text)).await
    }

    async fn fence(&self, owner: &str) -> Result<(), BackboneError> {
        self.link.fence(owner).await
    }

    fn leave_server(&self) {
        self.link.leave();
    }

    fn note_new_server(&self) {
        self.link.note_new_server();
    }

    fn connected_since(&self) -> Option<Instant> {
        self.link.connected_since()
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
            tracing::error!("the publisher panicked");
        }
        self.stop.cancel();
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper
            && keeper.await.is_err()
        {
            tracing::error!("the task that keeps the connections to Redis panicked");
        }
    }
}

async fn enter(link: Arc<Link>, entrants: Vec<Entrant>) -> Vec<Result<EntryOutcome, BackboneError>> {
    entrance::enter(&link, &entrants).await
}

async fn arrive(link: Arc<Link>, users: Vec<UserId>) -> Vec<Result<bool, BackboneError>> {
    presence::arrived(&link, &users).await
}

async fn depart(
    (link, subscriptions): (Arc<Link>, Arc<Subscriptions>),
    users: Vec<UserId>,
) -> Vec<Result<bool, BackboneError>> {
    let users: Vec<_> = users.into_iter().map(|user| (own(&subscriptions, &user), user)).collect();
    presence::departed(&link, &users).await
}

/// How many subscriptions of this node there are for the user that no socket wants any more.
fn own(subscriptions: &Subscriptions, user: &UserId) -> u32 {
    u32::from(subscriptions.lingers(user))
}
