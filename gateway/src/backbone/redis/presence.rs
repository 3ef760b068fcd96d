//! Who is online: a key per user that expires, and a sorted set of those whose offline announcement may be due.

use redis::{Cmd, Pipeline, Value, cmd, from_redis_value};
use shared::redis_keys::{OFFLINE_DUE, last_seen_key, log_key, online_key, unread_key, user_channel};
use shared::{Timestamp, UserId};

use super::link::Link;
use super::server::failed;
use super::{scattered, scripts};
use crate::backbone::{BackboneError, Presence};

/// Users per pipeline or command.
pub(super) const USERS_MAX: usize = 500;

/// Marks users online; for each, whether it is news.
pub(super) async fn arrived(link: &Link, users: &[UserId]) -> Vec<Result<bool, BackboneError>> {
    let mut pipeline = Pipeline::with_capacity(users.len() * 2);
    for user in users {
        sign_of_life(link, user, &mut pipeline);
    }
    let replies = match link.run_pipeline(&pipeline).await {
        Ok(replies) => replies,
        Err(fault) => return users.iter().map(|_| Err(fault.clone())).collect(),
    };
    let mut replies = replies.each();
    let mut next = || replies.next().unwrap_or(Ok(Value::Nil));
    let marked = users.iter().map(|_| (next(), next()));
    marked
        .map(|(set, added)| match (set?, added?) {
            (Value::Okay, Value::Int(added)) => Ok(added == 1),
            _ => Err(BackboneError("Redis refused to mark a user online".to_owned())),
        })
        .collect()
}

/// Keeps users online, and their logs and counts alive.
pub(super) async fn refresh(link: &Link, users: &[UserId]) -> Result<(), BackboneError> {
    let ttl = link.settings.resume_seconds;
    for users in users.chunks(USERS_MAX) {
        let mut pipeline = Pipeline::with_capacity(users.len() * 4);
        for user in users {
            sign_of_life(link, user, &mut pipeline);
            pipeline.cmd("EXPIRE").arg(log_key(user)).arg(ttl);
            pipeline.cmd("EXPIRE").arg(unread_key(user)).arg(ttl);
        }
        link.run_pipeline(&pipeline).await?.whole()?;
    }
    Ok(())
}

fn sign_of_life(link: &Link, user: &UserId, pipeline: &mut Pipeline) {
    let (settings, now_ms) = (&link.settings, link.now_ms());
    pipeline.cmd("SET").arg(online_key(user)).arg(now_ms / 1000).arg("EX").arg(settings.online_ttl_seconds);
    pipeline.cmd("ZADD").arg(OFFLINE_DUE).arg(now_ms + settings.life_ms()).arg(user.as_str());
}

/// Makes users offline for whom nobody is subscribed; `own` subscriptions of each don't count.
pub(super) async fn mark_departed(link: &Link, users: &[UserId], own: u32) -> Result<(), BackboneError> {
    if let Some(cluster) = link.cluster() {
        return scattered::mark_departed(link, cluster, users, own).await;
    }
    let mut pipeline = Pipeline::with_capacity(users.len());
    for user in users {
        pipeline.add_command(departure(link, user, own));
    }
    link.run_pipeline(&pipeline).await?.whole().map(drop)
}

/// The same for users of one server, with their own subscriptions; whether nobody is subscribed for each.
pub(super) async fn departed(link: &Link, users: &[(u32, UserId)]) -> Vec<Result<bool, BackboneError>> {
    let mut calls = Pipeline::with_capacity(users.len());
    for (own, user) in users {
        calls.add_command(departure(link, user, *own));
    }
    let is_gone = |reply| from_redis_value(reply).map_err(|error| failed(error.into()));
    link.run_calls(&calls).await.into_iter().map(|reply| reply.and_then(is_gone)).collect()
}

fn departure(link: &Link, user: &UserId, own: u32) -> Cmd {
    let keys = [&*online_key(user), &*last_seen_key(user), OFFLINE_DUE];
    let mut call = scripts::call(&link.scripts.departed, &keys);
    call.arg(user_channel(user)).arg(own).arg(user.as_str()).arg(link.now_ms()).arg(link.settings.grace_ms());
    call
}

/// Takes users whose offline check is due.
pub(super) async fn take_offline(link: &Link, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
    if link.cluster().is_some() {
        return scattered::take_offline(link, limit).await;
    }
    let mut call = scripts::call(&link.scripts.take_offline, &[OFFLINE_DUE]);
    call.arg(link.now_ms()).arg(limit).arg(link.settings.life_ms()).arg(ONLINE_PREFIX).arg(LAST_SEEN_PREFIX);
    let gone: Vec<(String, i64)> = link.run_script(&call).await?;
    // A member that is no user id was written by somebody else.
    let gone = gone.into_iter();
    Ok(gone
        .filter_map(|(user, seen_ms)| Some((UserId::parse(&user).ok()?, Timestamp::from_unix_ms(seen_ms))))
        .collect())
}

/// Who is online, in the order asked.
pub(super) async fn presence(link: &Link, users: &[UserId]) -> Result<Vec<Presence>, BackboneError> {
    if link.cluster().is_some() {
        return scattered::presence(link, users).await;
    }
    let mut all = Vec::with_capacity(users.len());
    for users in users.chunks(USERS_MAX) {
        let mut command = cmd("MGET");
        for user in users {
            command.arg(online_key(user)).arg(last_seen_key(user));
        }
        let values: Vec<Option<String>> = link.run(&command).await?;
        all.extend(answered(&values));
    }
    Ok(all)
}

/// What pairs of [`online_key`] and [`last_seen_key`] hold.
pub(super) fn answered(values: &[Option<String>]) -> impl Iterator<Item = Presence> + '_ {
    values.chunks(2).map(|pair| {
        let online = matches!(pair.first(), Some(Some(_)));
        let seen = pair.get(1).and_then(|seen| seen.as_deref()?.parse().ok());
        Presence { online, last_seen: seen.map(Timestamp::from_unix_ms) }
    })
}

/// The part of [`online_key`] and [`last_seen_key`] before the user's id.
const ONLINE_PREFIX: &str = "online:";
const LAST_SEEN_PREFIX: &str = "chat:last_seen:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_those_of_the_schema() {
        let user = UserId::parse("u").expect("an id");
        assert_eq!(online_key(&user), format!("{ONLINE_PREFIX}u"));
        assert_eq!(last_seen_key(&user), format!("{LAST_SEEN_PREFIX}u"));
    }
}
