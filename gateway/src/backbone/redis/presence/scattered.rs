//! Presence in a Cluster, where a user's keys lie on different servers, so that one script can't see them all.
//!
//! Each change takes several steps here. If a step fails, the next sign of life, or the expiry of a key, corrects the
//! rest.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{Pipeline, cmd, from_redis_value};
use shared::{Timestamp, UserId};

use super::values::{USERS_MAX, answered, user_named};
use crate::backbone::redis::cluster::Cluster;
use crate::backbone::redis::connect::server::failed;
use crate::backbone::redis::damaged::{begin_anew, is_other_type};
use crate::backbone::redis::link::{Link, refusal_as_error};
use crate::backbone::redis::scripts;
use crate::backbone::{BackboneError, Presence};

/// Users that are checked at the same time.
const AT_ONCE: usize = 64;

/// Marks users offline who have no subscription; `own` subscriptions of each don't count.
pub(super) async fn mark_departed(
    link: &Link,
    cluster: &Cluster,
    users: &[UserId],
    own: u32,
) -> Result<(), BackboneError> {
    let each: Vec<_> = users.iter().map(|user| depart(link, cluster, user, own)).collect();
    stream::iter(each).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await
}

/// The same, with the number of own subscriptions of each; returns whether each has no other.
pub(super) async fn departed(
    link: &Link,
    cluster: &Cluster,
    users: &[(u32, UserId)],
) -> Vec<Result<bool, BackboneError>> {
    let each: Vec<_> = users.iter().map(|(own, user)| depart(link, cluster, user, *own)).collect();
    stream::iter(each).buffered(AT_ONCE).collect().await
}

async fn depart(link: &Link, cluster: &Cluster, user: &UserId, own: u32) -> Result<bool, BackboneError> {
    if !is_alone(link, cluster, user, own).await? {
        return Ok(false);
    }
    let keys = link.keys();
    let online = keys.online(user);
    if link.run::<u32>(cmd("DEL").arg(&online)).await? == 0 {
        return Ok(true);
    }
    let now_ms = link.now_ms();
    if !is_alone(link, cluster, user, own).await? {
        // Another node subscribed in between, and its sign of life may be the one that was just deleted.
        let life_s = link.settings.online_ttl_seconds;
        link.run::<()>(cmd("SET").arg(&online).arg(now_ms / 1000).arg("EX").arg(life_s)).await?;
        return Ok(false);
    }
    link.run::<()>(cmd("SET").arg(keys.last_seen(user)).arg(now_ms)).await?;
    let due_ms = now_ms + link.settings.grace_ms();
    link.run::<()>(cmd("ZADD").arg(keys.offline_due()).arg("XX").arg(due_ms).arg(user.as_str())).await?;
    Ok(true)
}

/// Whether certainly no other node is subscribed. It isn't certain while a slot migrates, and until other nodes follow.
async fn is_alone(link: &Link, cluster: &Cluster, user: &UserId, own: u32) -> Result<bool, BackboneError> {
    let keys = link.keys();
    let mut call = scripts::call(&link.scripts.subscribed, &[keys.log(user)]);
    let subscribed: Option<u32> = cluster.run_in_place(&link.scripts, call.arg(keys.user_channel(user))).await?;
    Ok(subscribed.is_some_and(|subscribed| subscribed <= own) && !link.is_unsettled_for(user))
}

/// A user whose check is due.
struct Due {
    /// `None` if the entry is not a user's id, so written by another program.
    user: Option<UserId>,
    due_ms: i64,
    is_online: bool,
    last_seen_ms: Option<i64>,
}

/// Takes users whose offline check is due and who are offline.
pub(super) async fn take_offline(link: &Link, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
    let (now_ms, life_ms) = (link.now_ms(), link.settings.life_ms());
    let mut range = cmd("ZRANGEBYSCORE");
    range.arg(link.keys().offline_due()).arg("-inf").arg(now_ms).arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
    let due: Vec<(Bytes, f64)> = match link.run(&range).await {
        Err(error) if is_other_type(&error) => {
            begin_anew(link, &link.keys().offline_due()).await?;
            return Ok(Vec::new());
        }
        due => due?,
    };
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let looked_at = look(link, &due).await?;
    let mut settle = scripts::call(&link.scripts.settle_offline, &[link.keys().offline_due()]);
    for ((name, score), due) in due.iter().zip(&looked_at) {
        let again = if due.is_online { (now_ms + life_ms).to_string() } else { String::new() };
        settle.arg(&**name).arg(score.to_string()).arg(again);
    }
    let taken: Vec<u8> = link.run_script(&settle).await?;
    let taken: Vec<Due> =
        looked_at.into_iter().zip(taken).filter(|(_, taken)| *taken == 1).map(|(due, _)| due).collect();
    gone(link, taken).await
}

/// Asks whether they are online, and when they were seen.
async fn look(link: &Link, due: &[(Bytes, f64)]) -> Result<Vec<Due>, BackboneError> {
    let users: Vec<UserId> = due.iter().filter_map(|(name, _)| user_named(name)).collect();
    let mut presence = presence(link, &users).await?.into_iter();
    let each = due.iter().map(|(name, score)| {
        let user = user_named(name);
        let presence = user.as_ref().and_then(|_| presence.next());
        #[expect(clippy::cast_possible_truncation, reason = "unix milliseconds, whole and below 2^53")]
        Due {
            user,
            due_ms: *score as i64,
            is_online: presence.as_ref().is_some_and(|presence| presence.online),
            last_seen_ms: presence.and_then(|presence| presence.last_seen).map(|seen| seen.unix_ms()),
        }
    });
    Ok(each.collect())
}

/// When each of them was seen last; kept with them.
async fn gone(link: &Link, taken: Vec<Due>) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
    let mut keep = Pipeline::new();
    let mut gone = Vec::with_capacity(taken.len());
    for Due { user, due_ms, last_seen_ms, .. } in taken {
        let Some(user) = user else { continue };
        // A node that died gave no departure: only the last sign of life is known.
        let last_sign_ms = due_ms.saturating_sub(link.settings.life_ms()).max(0);
        let seen_ms = last_seen_ms.filter(|seen| *seen >= last_sign_ms).unwrap_or_else(|| {
            keep.cmd("SET").arg(link.keys().last_seen(&user)).arg(last_sign_ms);
            last_sign_ms
        });
        gone.push((user, Timestamp::from_unix_ms(seen_ms)));
    }
    // If this fails they are announced all the same, with the time of the store.
    drop(link.run_pipeline(&keep).await?);
    Ok(gone)
}

/// The users' presence, in the given order.
pub(super) async fn presence(link: &Link, users: &[UserId]) -> Result<Vec<Presence>, BackboneError> {
    let mut all = Vec::with_capacity(users.len());
    for users in users.chunks(USERS_MAX) {
        let mut pipeline = Pipeline::with_capacity(users.len() * 2);
        for user in users {
            pipeline.cmd("GET").arg(link.keys().online(user));
            pipeline.cmd("GET").arg(link.keys().last_seen(user));
        }
        let mut values: Vec<Option<Bytes>> = Vec::with_capacity(users.len() * 2);
        for value in link.run_pipeline(&pipeline).await?.each().map(refusal_as_error) {
            values.push(match value {
                Ok(value) => from_redis_value(value).map_err(|error| failed(error.into()))?,
                Err(error) if is_other_type(&error) => None,
                Err(error) => return Err(error),
            });
        }
        all.extend(answered(&values));
    }
    Ok(all)
}
