//! Subscribes and unsubscribes on one connection, one command at a time: what gathers while one is under way makes the next.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use shared::UserId;
use shared::schema::user_channel;
use tokio::time::MissedTickBehavior;

use super::link::Link;
use super::presence;
use super::subscriptions::Subscriptions;

/// Channels per command.
const CHANNELS_MAX: usize = 1000;

/// How often channels that nobody wants any more are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// Subscribes to everything that is wanted already.
pub(super) async fn resubscribe(
    connection: &mut MultiplexedConnection,
    subscriptions: &Subscriptions,
) -> RedisResult<()> {
    loop {
        let users = subscriptions.take_queued(CHANNELS_MAX);
        if users.is_empty() {
            return Ok(());
        }
        connection.subscribe(channels(&users)).await?;
    }
}

/// Serves until the connection fails; the error says why. Begins with users who have `left` already.
pub(super) async fn serve(
    mut connection: MultiplexedConnection,
    subscriptions: &Subscriptions,
    link: &Link,
    left: Vec<UserId>,
) -> RedisError {
    depart(left, subscriptions, link).await;
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            () = subscriptions.queued.notified() => match resubscribe(&mut connection, subscriptions).await {
                Ok(()) => leave(&mut connection, subscriptions, link).await,
                Err(error) => Err(error),
            },
            _ = sweep.tick() => leave(&mut connection, subscriptions, link).await,
        };
        if let Err(error) = done {
            return error;
        }
    }
}

/// Leaves channels that have lingered long enough.
async fn leave(connection: &mut MultiplexedConnection, subscriptions: &Subscriptions, link: &Link) -> RedisResult<()> {
    loop {
        let users = subscriptions.take_left(CHANNELS_MAX);
        if users.is_empty() {
            return Ok(());
        }
        connection.unsubscribe(channels(&users)).await?;
        depart(users, subscriptions, link).await;
    }
}

/// Users whose channel this node has left may be gone from every node now.
async fn depart(mut users: Vec<UserId>, subscriptions: &Subscriptions, link: &Link) {
    users.retain(|user| !subscriptions.is_wanted(user));
    if let Err(error) = presence::mark_departed(link, &users, 0).await {
        // Their keys expire by themselves.
        tracing::debug!(%error, "could not check who is offline");
    }
}

fn channels(users: &[UserId]) -> Vec<String> {
    users.iter().map(user_channel).collect()
}
