//! The subscribing connection: to one server by the crate, to a master of a Cluster by hand.

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, cmd};
use shared::UserId;
use shared::schema::user_channel;

use super::cluster::{Refused, Sharded};

/// The connection.
pub(super) enum Receiving {
    Plain(MultiplexedConnection),
    Sharded(Sharded),
}

impl Receiving {
    /// Subscribes to channels that aren't users'.
    pub(super) async fn subscribe_plain(&self, channels: &[&str]) -> RedisResult<()> {
        match self {
            Self::Plain(connection) => connection.clone().subscribe(channels).await,
            Self::Sharded(connection) => connection.subscribe_plain(channels).await,
        }
    }

    /// Subscribes to users' channels and waits for all confirmations; whom the server refused, because their slot is
    /// another's.
    pub(super) async fn subscribe(&self, users: Vec<UserId>) -> RedisResult<Vec<Refused>> {
        match self {
            Self::Plain(connection) => connection.clone().subscribe(channels(&users)).await.map(|()| Vec::new()),
            Self::Sharded(connection) => connection.subscribe(users).await,
        }
    }

    /// Leaves users' channels.
    pub(super) async fn unsubscribe(&self, users: &[UserId]) -> RedisResult<()> {
        match self {
            Self::Plain(connection) => connection.clone().unsubscribe(channels(users)).await,
            Self::Sharded(connection) => connection.unsubscribe(users).await,
        }
    }

    /// Whether the server answers.
    pub(super) async fn ping(&self) -> RedisResult<()> {
        match self {
            Self::Plain(connection) => cmd("PING").exec_async(&mut connection.clone()).await,
            Self::Sharded(connection) => connection.ping().await,
        }
    }
}

fn channels(users: &[UserId]) -> Vec<String> {
    users.iter().map(user_channel).collect()
}
