//! The backbone on Redis: a log, a channel and unread counts per user, kept together by scripts.
//!
//! One supervised pair of connections carries what is hot, a small pool the rest. While Redis is away everything is an
//! error at once; nothing is kept for later.

mod inbound;
mod late;
mod link;
mod logins;
mod presence;
mod publisher;
mod push_jobs;
mod rates;
mod scripts;
mod sentinel;
mod servers;
mod subscriber;
mod subscriptions;
mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, cmd};
use shared::schema::{ALL_CHANNEL, CONTROL_CHANNEL, log_key, revoked_key, unread_key};
use shared::{Epoch, Timestamp, UserId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::link::Link;
use self::publisher::Publisher;
pub use self::servers::Address;
use self::servers::Servers;
use self::subscriptions::Subscriptions;
use self::supervisor::Supervisor;
use super::queue::Queue;
use super::{
    Backbone, BackboneError, Control, Delivered, Delivery, Health, Inbox, LogHead, LogPage, Presence, Settings,
    UnreadSource, payload,
};

/// How long the first connection may take.
const START_WITHIN: Duration = Duration::from_secs(10);

/// How long a revocation is kept: longer than any token should live.
const REVOKED_SECONDS: u32 = 30 * 24 * 3600;

/// The backbone on one Redis server, or on the master that Sentinels name.
pub struct RedisBackbone {
    link: Arc<Link>,
    subscriptions: Arc<Subscriptions>,
    queue: Queue,
    described: String,
    stop: CancellationToken,
    publisher: Mutex<Option<JoinHandle<()>>>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl RedisBackbone {
    /// Connects to the server at `address` (`redis://[user:password@]host:port[/db]`, `rediss:` for TLS, or
    /// `redis-sentinel://[user:password@]host:port,host:port/name[/db]`, `rediss-sentinel:` for TLS) and starts the tasks.
    ///
    /// # Errors
    /// The URL or the node's name is invalid, or no connection came about within 10 s.
    pub async fn start(
        address: impl Into<Address<'_>>,
        settings: Settings,
        inbox: Arc<dyn Inbox>,
        unread: Arc<dyn UnreadSource>,
    ) -> Result<Self, BackboneError> {
        for name in [&settings.node, &settings.boot_id] {
            shared::id::check_id(name).map_err(|why| BackboneError(format!("the node's name or boot id {why}")))?;
        }
        let servers = Servers::parse(address.into())?;
        let described = servers.describe();
        let link = Arc::new(Link::new(settings));
        let subscriptions = Arc::new(Subscriptions::new());
        let stop = CancellationToken::new();
        let (queue, jobs) = Queue::new();
        let supervisor = Supervisor {
            servers,
            link: link.clone(),
            subscriptions: subscriptions.clone(),
            inbox,
            source: unread.clone(),
            stop: stop.clone(),
            invalid: metrics::counter!("parley_backbone_invalid_payloads_total"),
        };
        let backbone = Self {
            publisher: Mutex::new(Some(tokio::spawn(Publisher::new(link.clone(), jobs, unread).run()))),
            supervisor: Mutex::new(Some(tokio::spawn(supervisor.run()))),
            link,
            subscriptions,
            queue,
            described,
            stop,
        };
        match tokio::time::timeout(START_WITHIN, backbone.link.first_connection()).await {
            Ok(()) => Ok(backbone),
            Err(_) => {
                let why = backbone.health().detail;
                let why = servers::explain(why);
                backbone.close().await;
                Err(BackboneError(why))
            }
        }
    }

    /// Runs a command that isn't hot on a connection of the pool.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BackboneError> {
        let live = self.link.live()?;
        let ask = async {
            let mut connection = live.pool.get().await.map_err(|error| BackboneError(error.to_string()))?;
            command.query_async(&mut connection).await.map_err(link::failed)
        };
        tokio::select! {
            reply = ask => reply,
            () = live.lost.cancelled() => Err(link::lost()),
        }
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

    async fn publish(&self, deliveries: Vec<Delivery>) -> Result<Vec<Delivered>, BackboneError> {
        payload::check(&deliveries)?;
        self.link.live()?;
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
        let (epoch, floor, last) = self.link.run_script(call.arg(self.link.epoch_nonce())).await?;
        head(epoch, floor, last)
    }

    async fn read(&self, user: &UserId, after: u64, limit: u32) -> Result<LogPage, BackboneError> {
        let mut call = scripts::call(&self.link.scripts.read, &[&log_key(user), &unread_key(user)]);
        call.arg(self.link.epoch_nonce()).arg(after).arg(limit);
        page(self.link.run_script(&call).await?)
    }

    async fn arrived(&self, users: &[UserId]) -> Result<Vec<bool>, BackboneError> {
        presence::arrived(&self.link, users).await
    }

    async fn refresh(&self, users: &[UserId]) -> Result<(), BackboneError> {
        // A user who has left meanwhile must not come back to life.
        let wanted: Vec<UserId> = users.iter().filter(|user| self.subscriptions.is_wanted(user)).cloned().collect();
        presence::refresh(&self.link, &wanted).await
    }

    async fn departed(&self, user: &UserId) -> Result<(), BackboneError> {
        if presence::departed(&self.link, user, u32::from(self.subscriptions.lingers(user))).await? {
            self.subscriptions.stop_lingering(user);
        }
        Ok(())
    }

    async fn take_offline(&self, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
        if self.link.is_unsettled() {
            return Ok(Vec::new());
        }
        let call = presence::taking_offline(&self.link, limit);
        Ok(presence::taken_offline(self.link.run_script(&call).await?))
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, BackboneError> {
        let mut all = Vec::with_capacity(users.len());
        for (command, count) in presence::asking(users) {
            let values: Vec<Option<String>> = self.ask(&command).await?;
            all.extend(presence::answered(&values).take(count));
        }
        Ok(all)
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
        let revoked: Option<i64> = self.ask(cmd("GET").arg(revoked_key(user))).await?;
        Ok(revoked.is_some_and(|revoked| issued_at.is_none_or(|issued| issued <= revoked)))
    }

    async fn fence(&self, owner: &str) -> Result<(), BackboneError> {
        let mut live = self.link.live()?;
        let name = supervisor::client_name(owner);
        supervisor::kill_others(&mut live.commands, &name, live.client_id).await.map_err(link::failed)
    }

    fn server_is_old(&self) {
        self.link.leave();
    }

    fn server_is_new(&self) {
        self.link.server_is_new();
    }

    fn health(&self) -> Health {
        self.link.health()
    }

    async fn close(&self) {
        self.queue.close();
        let publisher = self.publisher.lock().take();
        if let Some(publisher) = publisher
            && publisher.await.is_err()
        {
            tracing::error!("the publisher ended by a panic");
        }
        self.stop.cancel();
        let supervisor = self.supervisor.lock().take();
        if let Some(supervisor) = supervisor
            && supervisor.await.is_err()
        {
            tracing::error!("the supervisor of Redis ended by a panic");
        }
    }
}

fn head(epoch: String, floor: u64, last: u64) -> Result<LogHead, BackboneError> {
    let epoch = Epoch::parse(&epoch).ok_or_else(|| BackboneError("a log has no valid epoch".to_owned()))?;
    Ok(LogHead { epoch, floor, last })
}

/// Reads epoch, floor and last, then seq and body in turn.
fn page(reply: Vec<Bytes>) -> Result<LogPage, BackboneError> {
    let invalid = || BackboneError("a log could not be read".to_owned());
    let number = |bytes: &Bytes| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u64>().ok());
    let [epoch, floor, last, entries @ ..] = &*reply else { return Err(invalid()) };
    let epoch = String::from_utf8(epoch.to_vec()).map_err(|_| invalid())?;
    let head = head(epoch, number(floor).ok_or_else(invalid)?, number(last).ok_or_else(invalid)?)?;
    let entries = entries
        .chunks(2)
        .map(|entry| match entry {
            [seq, body] => number(seq).map(|seq| (seq, payload::with_seq(seq, body))).ok_or_else(invalid),
            _ => Err(invalid()),
        })
        .collect::<Result<_, _>>()?;
    Ok(LogPage { head, entries })
}
