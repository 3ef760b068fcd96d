//! Subscribes and unsubscribes on one connection, one command at a time. Changes that gather during one command make
//! the next.

use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::time::MissedTickBehavior;

use super::channel::Channel;
use super::receiving::PushConnection;
use super::subscriptions::Subscriptions;
use crate::backbone::redis::cluster::MasterId;
use crate::backbone::redis::link::Link;
use crate::backbone::redis::presence;

/// Channels per command.
const CHANNELS_MAX: usize = 1000;

/// How often unwanted channels are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// The pause after a server has refused a channel: its slot is on the way.
const PAUSE: Duration = Duration::from_millis(20);

/// Subscribes to everything that is wanted already. Whether the server took it all; what it refused is queued again, where
/// its slot is by now.
pub(in crate::backbone::redis) async fn resubscribe(
    connection: &PushConnection,
    subscriptions: &Subscriptions,
    lane: MasterId,
    link: &Link,
) -> RedisResult<bool> {
    loop {
        let channels = subscriptions.take_queued(lane, CHANNELS_MAX);
        if channels.is_empty() {
            return Ok(true);
        }
        let refused = connection.subscribe(channels).await?;
        if refused.is_empty() {
            continue;
        }
        for refused in refused {
            link.channel_refused(&refused.error);
            subscriptions.refused(&refused.channels);
        }
        return Ok(false);
    }
}

/// Serves until the connection fails; the error says why. Begins with channels that were `left` already.
pub(in crate::backbone::redis) async fn serve(
    connection: &PushConnection,
    subscriptions: &Subscriptions,
    lane: MasterId,
    link: &Link,
    left: Vec<Channel>,
) -> RedisError {
    depart(left, subscriptions, link).await;
    let queued = subscriptions.queued(lane);
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            () = queued.notified() => {
                // Lets every task that is about to subscribe do so before the command goes out.
                tokio::task::yield_now().await;
                match resubscribe(connection, subscriptions, lane, link).await {
                    Ok(true) => leave(connection, subscriptions, lane, link).await,
                    Ok(false) => {
                        tokio::time::sleep(PAUSE).await;
                        queued.notify_one();
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            _ = sweep.tick() => leave(connection, subscriptions, lane, link).await,
        };
        if let Err(error) = done {
            return error;
        }
    }
}

/// Leaves channels that have lingered long enough.
async fn leave(
    connection: &PushConnection,
    subscriptions: &Subscriptions,
    lane: MasterId,
    link: &Link,
) -> RedisResult<()> {
    loop {
        let channels = subscriptions.take_left(lane, CHANNELS_MAX);
        if channels.is_empty() {
            return Ok(());
        }
        connection.unsubscribe(&channels).await?;
        depart(channels, subscriptions, link).await;
    }
}

/// Users whose channel this node has left may be gone from every node now.
async fn depart(channels: Vec<Channel>, subscriptions: &Subscriptions, link: &Link) {
    let mut users = Channel::users(channels);
    users.retain(|user| !subscriptions.is_wanted(user));
    if let Err(error) = presence::mark_departed(link, &users, 0).await {
        // Their keys expire by themselves.
        tracing::debug!(%error, "users who left could not be marked offline");
    }
}
