//! The way to Redis as `commands` sees it: one server, or the masters of a Cluster.
//!
//! Commands are sent, batched and refused here, and the callers don't see the difference. There are two exceptions, by
//! [`Link::cluster`]: entering (`commands/entrance`) and presence (`presence/mod`) take one script on one server and
//! several steps in a Cluster. `connect`, `cluster` and `subscribe` lie below, and keep the connections of both.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use shared::UserId;
use shared::redis_keys::Keys;

use super::cluster::{Cluster, Slot, slot_of};
use super::connect::connection;
use super::connect::server::{Fault, Server, failed};
use super::scripts::Scripts;
use super::together::Together;
use crate::backbone::batches::Batches;
use crate::backbone::{BackboneError, Health, Settings};
use crate::switches;

/// How long after a change of server an append opens a log where none is (NOLOSS.md, A3).
const SERVER_NEW: Duration = Duration::from_secs(60);

/// How long after a change of server no user is marked offline, because their nodes are reconnecting too.
const SERVER_UNSETTLED: Duration = Duration::from_secs(10);

/// The parts that all tasks share.
pub(super) struct Link {
    pub(super) settings: Settings,
    pub(super) scripts: Scripts,
    route: Route,
    /// When the store knew another server.
    told_new: Mutex<Option<Instant>>,
    epochs: AtomicU64,
}

/// Where commands go.
pub(super) enum Route {
    One(Arc<Server>),
    Cluster(Arc<Cluster>),
}

/// The replies to a pipeline. Errors that Redis gave to single commands stand among the values.
#[derive(Default)]
pub(super) struct Replies {
    pub(super) values: Vec<Value>,
    /// Commands that have no reply, by their place.
    pub(super) lost: HashMap<usize, BackboneError>,
}

impl Link {
    pub(super) fn new(settings: Settings, route: Route) -> Self {
        let is_cluster = matches!(route, Route::Cluster(_));
        Self {
            scripts: Scripts::new(&settings, is_cluster),
            settings,
            route,
            told_new: Mutex::new(None),
            epochs: AtomicU64::new(0),
        }
    }

    /// The names of keys and channels.
    pub(super) fn keys(&self) -> &Keys {
        &self.settings.keys
    }

    /// The Cluster, where it is one: a user's keys lie on different servers there.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match &self.route {
            Route::One(_) => None,
            Route::Cluster(cluster) => Some(cluster),
        }
    }

    /// Calls of `ask` made together, where one server has all keys. In a Cluster each is made by itself, so that nobody waits
    /// for another's master.
    pub(super) fn together<Q, A, F, C>(&self, ask: F) -> Together<Q, A>
    where
        Q: Send + 'static,
        A: Send + 'static,
        F: Fn(Vec<Q>) -> C + Send + Sync + 'static,
        C: Future<Output = Vec<Result<A, BackboneError>>> + Send + 'static,
    {
        match &self.route {
            Route::One(_) => Together::Batched(Batches::start(ask)),
            Route::Cluster(_) => Together::Alone(Box::new(move |question| ask(vec![question]).boxed())),
        }
    }

    /// Whether one call of the append script carries the events of one user, and not of everybody. In a Cluster users are in
    /// different slots. Of two users in one slot, one may already be on the new master while the slot migrates, and a call for
    /// both would be refused until all of it is there.
    pub(super) fn calls_are_by_user(&self) -> bool {
        self.cluster().is_some()
    }

    /// A server has refused to subscribe a user's channel: in a Cluster, because the channel's slot is another server's.
    pub(super) fn channel_refused(&self, error: &RedisError) {
        if let Some(cluster) = self.cluster() {
            cluster.channel_refused(error);
        }
    }

    /// Closes other connections of `owner`, so that nothing of theirs is carried out after this. In a Cluster they are
    /// closed on every master: it isn't known to which of them the owner's last commands went.
    pub(super) async fn fence(&self, owner: &str) -> Result<(), BackboneError> {
        let name = connection::client_name(self.keys(), owner);
        let servers = match &self.route {
            Route::One(server) => vec![server.live()?],
            Route::Cluster(cluster) => cluster.all_live()?,
        };
        for mut live in servers {
            connection::kill_others(&mut live.commands, &name, live.client_id).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Fails if nothing at all could be done now.
    pub(super) fn check(&self) -> Result<(), BackboneError> {
        match &self.route {
            Route::One(server) => server.live().map(drop),
            Route::Cluster(cluster) => cluster.any().map(drop),
        }
    }

    /// Waits until it was there once.
    pub(super) async fn first_connection(&self) {
        match &self.route {
            Route::One(server) => server.connected.cancelled().await,
            Route::Cluster(cluster) => cluster.first_connection().await,
        }
    }

    /// Why it can never work with these settings, if that is certain.
    pub(super) fn refused(&self) -> Option<String> {
        self.cluster().and_then(|cluster| cluster.refused())
    }

    /// Whether there is enough to begin with: most masters of a Cluster.
    pub(super) fn is_enough(&self) -> bool {
        self.cluster().is_some_and(|cluster| cluster.are_most_there())
    }

    /// Runs one command that isn't a script.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BackboneError> {
        match &self.route {
            Route::One(server) => server.run(command).await.map_err(Fault::told),
            Route::Cluster(cluster) => cluster.run(&self.scripts, command).await,
        }
    }

    /// Runs one script; loaded anew if Redis doesn't know it.
    pub(super) async fn run_script<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, BackboneError> {
        match &self.route {
            Route::One(server) => server.run_script(&self.scripts, call).await.map_err(Fault::told),
            Route::Cluster(cluster) => cluster.run(&self.scripts, call).await,
        }
    }

    /// Runs a command that isn't hot.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BackboneError> {
        match &self.route {
            Route::One(server) => server.ask(command).await.map_err(Fault::told),
            Route::Cluster(cluster) => cluster.run(&self.scripts, command).await,
        }
    }

    /// Runs a pipeline. In a Cluster the commands keep their order only as far as they have the same key.
    pub(super) async fn run_pipeline(&self, pipeline: &Pipeline) -> Result<Replies, BackboneError> {
        if pipeline.is_empty() {
            return Ok(Replies::default());
        }
        match &self.route {
            Route::One(server) => Ok(Replies { values: server.run_pipeline(pipeline).await?, lost: HashMap::new() }),
            Route::Cluster(cluster) => Ok(cluster.run_pipeline(pipeline).await),
        }
    }

    /// Runs calls of scripts in one pipeline, and gives the reply or error of each. Those that found no script, and so
    /// certainly did nothing, are repeated when it is loaded anew.
    pub(super) async fn run_calls(&self, calls: &Pipeline) -> Vec<Result<Value, BackboneError>> {
        let mut replies = self.attempt(calls).await;
        self.repeat_unloaded(calls, &mut replies).await;
        replies.into_iter().map(refusal_as_error).collect()
    }

    async fn repeat_unloaded(&self, calls: &Pipeline, replies: &mut [Result<Value, BackboneError>]) {
        let mut again = Pipeline::new();
        for (call, _) in calls.cmd_iter().zip(&*replies).filter(|(_, reply)| is_script_missing(reply)) {
            again.add_command(call.clone());
        }
        if again.is_empty() {
            return;
        }
        let new = match self.load_scripts().await {
            Ok(()) => self.attempt(&again).await,
            Err(fault) => again.cmd_iter().map(|_| Err(fault.clone())).collect(),
        };
        for (old, new) in replies.iter_mut().filter(|reply| is_script_missing(reply)).zip(new) {
            *old = if is_script_missing(&new) {
                Err(BackboneError("Redis does not keep scripts".to_owned()))
            } else {
                new
            };
        }
    }

    async fn attempt(&self, calls: &Pipeline) -> Vec<Result<Value, BackboneError>> {
        match self.run_pipeline(calls).await {
            Ok(replies) => replies.each().collect(),
            Err(fault) => calls.cmd_iter().map(|_| Err(fault.clone())).collect(),
        }
    }

    /// Loads the scripts again, after a `SCRIPT FLUSH`.
    pub(super) async fn load_scripts(&self) -> Result<(), BackboneError> {
        match &self.route {
            Route::One(server) => server.load_scripts(&self.scripts).await,
            Route::Cluster(cluster) => cluster.load_scripts(&self.scripts).await,
        }
    }

    /// The random part of an epoch that may have to be made: never the same twice, on any node.
    pub(super) fn epoch_nonce(&self) -> String {
        let count = self.epochs.fetch_add(1, Ordering::Relaxed);
        format!("{:x}{count:x}", rand::random::<u32>() | 0x8000_0000)
    }

    /// Redis' clock, in unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        match &self.route {
            Route::One(server) => server.now_ms(),
            Route::Cluster(cluster) => cluster.now_ms(),
        }
    }

    /// Since when the connection, or the youngest of the connections to masters, is there.
    pub(super) fn connected_since(&self) -> Option<Instant> {
        match &self.route {
            Route::One(server) => server.live().ok().map(|live| live.since),
            Route::Cluster(cluster) => cluster.youngest_since(),
        }
    }

    /// How many nodes are connected.
    pub(super) fn nodes(&self) -> u32 {
        let counted = match &self.route {
            Route::One(server) => server.nodes(),
            Route::Cluster(cluster) => cluster.nodes(),
        };
        counted.max(1)
    }

    /// Gives up all connections; the supervisors make others.
    pub(super) fn leave(&self) {
        match &self.route {
            Route::One(server) => server.leave(),
            Route::Cluster(cluster) => cluster.leave(),
        }
    }

    pub(super) fn note_new_server(&self) {
        *self.told_new.lock() = Some(Instant::now());
    }

    fn slot_of(&self, user: &UserId) -> Slot {
        slot_of(self.keys().user_channel(user).as_bytes())
    }

    fn was_told_within(&self, time: Duration) -> bool {
        self.told_new.lock().is_some_and(|at| at.elapsed() < time)
    }

    /// Whether appends for this user open a log where none is (NOLOSS.md, A3).
    pub(super) fn must_open_logs(&self, user: &UserId) -> bool {
        let is_new = || match &self.route {
            Route::One(server) => self.was_told_within(SERVER_NEW) || server.changed_within(SERVER_NEW),
            // The store tells only that some master is another.
            Route::Cluster(cluster) => cluster.moved_within(self.slot_of(user), SERVER_NEW),
        };
        !switches::off("open-logs") && is_new()
    }

    /// Whether other nodes may not have come back yet after a change of server.
    pub(super) fn is_unsettled(&self) -> bool {
        let changed = || match &self.route {
            Route::One(server) => server.changed_within(SERVER_UNSETTLED),
            Route::Cluster(cluster) => cluster.server_changed_within(SERVER_UNSETTLED),
        };
        self.was_told_within(SERVER_UNSETTLED) || changed()
    }

    /// Whether other nodes may not be subscribed yet where the user's channel is now.
    pub(super) fn is_unsettled_for(&self, user: &UserId) -> bool {
        match &self.route {
            Route::One(_) => false,
            Route::Cluster(cluster) => cluster.moved_within(self.slot_of(user), SERVER_UNSETTLED),
        }
    }

    pub(super) fn health(&self) -> Health {
        let (fault, server) = match &self.route {
            Route::One(server) => (server.fault(), server.identity()),
            Route::Cluster(cluster) => (cluster.fault(), cluster.identity()),
        };
        Health { ready: fault.is_none(), detail: fault.unwrap_or_else(|| "ready".to_owned()), server }
    }
}

fn is_script_missing(reply: &Result<Value, BackboneError>) -> bool {
    matches!(reply, Ok(Value::ServerError(error)) if error.kind() == Some(ServerErrorKind::NoScript))
}

impl Replies {
    /// Puts a command's reply in its place.
    pub(super) fn set(&mut self, place: usize, reply: Value) {
        if let Some(value) = self.values.get_mut(place) {
            *value = reply;
        }
    }

    /// Each command's reply.
    pub(super) fn each(mut self) -> impl Iterator<Item = Result<Value, BackboneError>> {
        let is_whole = self.lost.is_empty();
        let values = self.values.into_iter().enumerate();
        values.map(move |(place, value)| match if is_whole { None } else { self.lost.remove(&place) } {
            None => Ok(value),
            Some(fault) => Err(fault),
        })
    }

    /// All replies, or the first error among them.
    pub(super) fn whole(self) -> Result<Vec<Value>, BackboneError> {
        self.each().map(refusal_as_error).collect()
    }
}

/// A refusal that stands among the values as an error.
pub(super) fn refusal_as_error(reply: Result<Value, BackboneError>) -> Result<Value, BackboneError> {
    match reply {
        Ok(Value::ServerError(error)) => Err(failed(error.into())),
        reply => reply,
    }
}
