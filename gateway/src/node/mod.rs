//! [`Node`]: the parts that the sessions, the listeners and the clocks of one process share.
//! It also offers the node's own tasks: clocks, re-checks of connected users, readiness, drain.
//! It never carries out a command and never reads a socket.

pub mod clients;
pub mod clocks;
pub mod drain;
pub mod lobby;
pub mod presence_again;
pub mod readiness;
pub mod recheck;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::audit::AuditTrail;
use crate::auth::{Authenticator, LiveSessions};
use crate::backbone::Backbone;
use crate::chat::Chat;
use crate::config::{Limits, Timeouts};
use crate::delivery::fanout::Fanout;
use crate::delivery::registry::Registry;
use crate::delivery::topics::Topics;
use crate::limits::{BulkRequests, Polls, Rate, Slots, UserRates};
use crate::metrics::Metrics;
use crate::node::clients::Clients;
use crate::node::lobby::Lobby;
use crate::store::Store;

/// Connections that join at the same time; more wait for their turn.
pub const JOINS_MAX: usize = 512;

/// How many seconds' worth of connects a user may make at once: tabs that are restored, a phone in a tunnel.
const CONNECTS_BURST_S: u64 = 40;

/// The parts that every session of this node works with.
pub struct Node {
    /// The domain. It shares `store` and `backbone`.
    pub chat: Arc<Chat>,
    /// The store, for readiness, history and the operators' questions.
    pub store: Arc<dyn Store>,
    /// The backbone, for connections that join and leave it, and for orders to all nodes.
    pub backbone: Arc<dyn Backbone>,
    /// Users with sockets here.
    pub registry: Arc<Registry>,
    /// Large conversations of the sockets here.
    pub topics: Arc<Topics>,
    /// Sockets without a user yet.
    pub lobby: Lobby,
    /// Where sockets come from.
    pub clients: Clients,
    /// Where events come from, for the heal requests.
    pub fanout: Arc<Fanout>,
    /// Turns credentials into identities.
    pub authenticator: Arc<Authenticator>,
    /// Connections that stand on a session cookie.
    pub sessions: LiveSessions,
    /// Orders may have been missed since this was last looked at.
    pub doubtful: Arc<AtomicBool>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The audit trail of connections.
    pub audit: AuditTrail,
    /// Sizes and rates.
    pub limits: Limits,
    /// How many commands each user may send, over all nodes; shared with `chat`, which charges what it knows only afterwards.
    pub user_rates: Arc<UserRates>,
    /// Bulk requests of backends.
    pub bulk_of_backends: BulkRequests,
    /// Bulk requests of users: they don't take the turns of backends.
    pub bulk_of_users: BulkRequests,
    /// A socket's clocks.
    pub clocks: Timeouts,
    /// The name of this node: host and port.
    pub name: Arc<str>,
    /// The random name of this boot, part of every connection's id.
    pub boot: Arc<str>,
    /// The work that sessions leave behind them.
    pub tasks: TaskTracker,
    /// New connections are refused, so that they go to another node.
    pub draining: AtomicBool,
    /// Counts connections.
    pub connections: AtomicU64,
    /// Polls that wait for events.
    pub polls: Polls,
    /// How often users connect: each connect costs the cluster a subscription, a log and news of presence.
    pub connects: Slots,
    /// Places for connections that subscribe and read their log at the same time: a herd waits here.
    pub joining: Semaphore,
}

impl Node {
    /// The rate at which each user may connect, `per_second` and forty times that at once; 0: no limit.
    #[must_use]
    pub fn connects(per_second: u32) -> Slots {
        Slots::new(Rate::with_burst(per_second, CONNECTS_BURST_S))
    }

    /// A number for a new connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// A connection's id for clients and operators: unique over all nodes and boots.
    #[must_use]
    pub fn connection_id(&self, connection: u64) -> String {
        format!("{}-{connection}", self.boot)
    }
}
