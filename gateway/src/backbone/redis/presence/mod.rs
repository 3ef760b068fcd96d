//! Presence in Redis: a key per user that expires, and a sorted set of those whose offline announcement may be due.
//! It offers each step once, and chooses how: one script (`one_server`), or steps on several masters (`scattered`).
//! It never announces a change: the domain does.

mod one_server;
mod scattered;
mod values;

use redis::{Pipeline, Value};
use shared::{Timestamp, UserId};

use self::values::USERS_MAX;
use crate::backbone::redis::link::Link;
use crate::backbone::{BackboneError, Presence};

/// Marks users online; for each, whether it is news.
pub(in crate::backbone::redis) async fn arrived(link: &Link, users: &[UserId]) -> Vec<Result<bool, BackboneError>> {
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

/// Keeps users online, and their logs alive.
pub(in crate::backbone::redis) async fn refresh(link: &Link, users: &[UserId]) -> Result<(), BackboneError> {
    let ttl = link.settings.resume_seconds;
    for users in users.chunks(USERS_MAX) {
        let mut pipeline = Pipeline::with_capacity(users.len() * 3);
        for user in users {
            sign_of_life(link, user, &mut pipeline);
            pipeline.cmd("EXPIRE").arg(link.keys().log(user)).arg(ttl);
        }
        link.run_pipeline(&pipeline).await?.whole()?;
    }
    Ok(())
}

fn sign_of_life(link: &Link, user: &UserId, pipeline: &mut Pipeline) {
    let (settings, now_ms) = (&link.settings, link.now_ms());
    pipeline.cmd("SET").arg(link.keys().online(user)).arg(now_ms / 1000).arg("EX").arg(settings.online_ttl_seconds);
    pipeline.cmd("ZADD").arg(link.keys().offline_due()).arg(now_ms + settings.life_ms()).arg(user.as_str());
}

/// Makes users offline for whom no other node is subscribed; for each, whether none is. The number with each user is how many
/// subscriptions are this node's own, and don't count.
pub(in crate::backbone::redis) async fn departed(
    link: &Link,
    users: &[(u32, UserId)],
) -> Vec<Result<bool, BackboneError>> {
    match link.cluster() {
        Some(cluster) => scattered::departed(link, cluster, users).await,
        None => one_server::departed(link, users).await,
    }
}

/// The same with the same number of `own` subscriptions for each user, and one result for all.
pub(in crate::backbone::redis) async fn mark_departed(
    link: &Link,
    users: &[UserId],
    own: u32,
) -> Result<(), BackboneError> {
    match link.cluster() {
        Some(cluster) => scattered::mark_departed(link, cluster, users, own).await,
        None => one_server::mark_departed(link, users, own).await,
    }
}

/// Takes users whose offline check is due.
pub(in crate::backbone::redis) async fn take_offline(
    link: &Link,
    limit: u32,
) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
    match link.cluster() {
        Some(_) => scattered::take_offline(link, limit).await,
        None => one_server::take_offline(link, limit).await,
    }
}

/// The users' presence, in the given order.
pub(in crate::backbone::redis) async fn presence(
    link: &Link,
    users: &[UserId],
) -> Result<Vec<Presence>, BackboneError> {
    match link.cluster() {
        Some(_) => scattered::presence(link, users).await,
        None => one_server::presence(link, users).await,
    }
}
