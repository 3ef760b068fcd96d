//! Presence on one server, where one script sees all keys of a user.

use bytes::Bytes;
use redis::{Cmd, Pipeline, cmd, from_redis_value};
use shared::{Timestamp, UserId};

use super::values::{USERS_MAX, answered, user_named};
use crate::backbone::redis::connect::server::failed;
use crate::backbone::redis::damaged::{begin_anew, is_other_type};
use crate::backbone::redis::link::Link;
use crate::backbone::redis::scripts;
use crate::backbone::{BackboneError, Presence};

/// Marks users offline who have no subscription; `own` subscriptions of each don't count.
pub(super) async fn mark_departed(link: &Link, users: &[UserId], own: u32) -> Result<(), BackboneError> {
    let mut pipeline = Pipeline::with_capacity(users.len());
    for user in users {
        pipeline.add_command(departure(link, user, own));
    }
    link.run_pipeline(&pipeline).await?.whole().map(drop)
}

/// The same, with the number of own subscriptions of each; returns whether each has no other.
pub(super) async fn departed(link: &Link, users: &[(u32, UserId)]) -> Vec<Result<bool, BackboneError>> {
    let mut calls = Pipeline::with_capacity(users.len());
    for (own, user) in users {
        calls.add_command(departure(link, user, *own));
    }
    let is_gone = |reply| from_redis_value(reply).map_err(|error| failed(error.into()));
    link.run_calls(&calls).await.into_iter().map(|reply| reply.and_then(is_gone)).collect()
}

fn departure(link: &Link, user: &UserId, own: u32) -> Cmd {
    let keys = link.keys();
    let own_keys = [keys.online(user), keys.last_seen(user), keys.offline_due()];
    let mut call = scripts::call(&link.scripts.departed, &own_keys);
    call.arg(keys.user_channel(user)).arg(own).arg(user.as_str()).arg(link.now_ms()).arg(link.settings.grace_ms());
    call
}

/// Takes users whose offline check is due.
pub(super) async fn take_offline(link: &Link, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
    let keys = link.keys();
    let mut call = scripts::call(&link.scripts.take_offline, &[keys.offline_due()]);
    call.arg(link.now_ms()).arg(limit).arg(link.settings.life_ms());
    call.arg(keys.online_prefix()).arg(keys.last_seen_prefix());
    let gone: Vec<(Bytes, i64)> = match link.run_script(&call).await {
        Err(error) if is_other_type(&error) => {
            begin_anew(link, &keys.offline_due()).await?;
            return Ok(Vec::new());
        }
        gone => gone?,
    };
    // A member that is not a user's id was written by another program.
    let gone = gone.into_iter();
    Ok(gone.filter_map(|(user, seen_ms)| Some((user_named(&user)?, Timestamp::from_unix_ms(seen_ms)))).collect())
}

/// The users' presence, in the given order.
pub(super) async fn presence(link: &Link, users: &[UserId]) -> Result<Vec<Presence>, BackboneError> {
    let mut all = Vec::with_capacity(users.len());
    for users in users.chunks(USERS_MAX) {
        let mut command = cmd("MGET");
        for user in users {
            command.arg(link.keys().online(user)).arg(link.keys().last_seen(user));
        }
        let values: Vec<Option<Bytes>> = link.run(&command).await?;
        all.extend(answered(&values));
    }
    Ok(all)
}
