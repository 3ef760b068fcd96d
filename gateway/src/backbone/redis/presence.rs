//! Who is online: a key per user that expires, and a sorted set of those whose offline announcement may be due.

use redis::{Cmd, Pipeline, Value, cmd};
use shared::schema::{OFFLINE_DUE, last_seen_key, log_key, online_key, unread_key, user_channel};
use shared::{Timestamp, UserId};

use super::link::{Link, failed};
use super::scripts;
use crate::backbone::{BackboneError, Presence};

/// Users per pipeline or command.
const USERS_MAX: usize = 500;

/// Marks users online; for each, whether it is news.
pub(super) async fn arrived(link: &Link, users: &[UserId]) -> Result<Vec<bool>, BackboneError> {
    let mut news = Vec::with_capacity(users.len());
    for users in users.chunks(USERS_MAX) {
        let mut pipeline = Pipeline::with_capacity(users.len() * 2);
        for user in users {
            sign_of_life(link, user, &mut pipeline);
        }
        let replies = link.run_pipeline(&pipeline).await?;
        for pair in replies.chunks(2) {
            match pair {
                [Value::Okay, Value::Int(added)] => news.push(*added == 1),
                _ => return Err(BackboneError("Redis refused to mark users online".to_owned())),
            }
        }
    }
    Ok(news)
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
        let replies = link.run_pipeline(&pipeline).await?;
        if replies.iter().any(|reply| matches!(reply, Value::ServerError(_))) {
            return Err(BackboneError("Redis refused to keep users online".to_owned()));
        }
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
    let mut pipeline = Pipeline::with_capacity(users.len());
    for user in users {
        pipeline.add_command(departure(link, user, own));
    }
    for reply in link.run_pipeline(&pipeline).await? {
        if let Value::ServerError(error) = reply {
            return Err(failed(error.into()));
        }
    }
    Ok(())
}

/// The same for one user; whether nobody is subscribed for them.
pub(super) async fn departed(link: &Link, user: &UserId, own: u32) -> Result<bool, BackboneError> {
    link.run_script(&departure(link, user, own)).await
}

fn departure(link: &Link, user: &UserId, own: u32) -> Cmd {
    let keys = [&*online_key(user), &*last_seen_key(user), OFFLINE_DUE];
    let mut call = scripts::call(&link.scripts.departed, &keys);
    call.arg(user_channel(user)).arg(own).arg(user.as_str()).arg(link.now_ms()).arg(link.settings.grace_ms());
    call
}

/// The call that takes users whose offline check is due.
pub(super) fn taking_offline(link: &Link, limit: u32) -> Cmd {
    let mut call = scripts::call(&link.scripts.take_offline, &[OFFLINE_DUE]);
    call.arg(link.now_ms()).arg(limit).arg(link.settings.life_ms()).arg(ONLINE_PREFIX).arg(LAST_SEEN_PREFIX);
    call
}

/// Redis' answer to [`taking_offline`]; a member that is no user id was written by somebody else.
pub(super) fn taken_offline(gone: Vec<(String, i64)>) -> Vec<(UserId, Timestamp)> {
    gone.into_iter()
        .filter_map(|(user, seen_ms)| Some((UserId::parse(&user).ok()?, Timestamp::from_unix_ms(seen_ms))))
        .collect()
}

/// The commands that ask who is online, each with the users it asks about.
pub(super) fn asking(users: &[UserId]) -> impl Iterator<Item = (Cmd, usize)> + '_ {
    users.chunks(USERS_MAX).map(|users| {
        let mut command = cmd("MGET");
        for user in users {
            command.arg(online_key(user)).arg(last_seen_key(user));
        }
        (command, users.len())
    })
}

/// Redis' answer to one of [`asking`].
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
