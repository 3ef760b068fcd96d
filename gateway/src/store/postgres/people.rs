//! Blocks between users, their names, and when they were last there.

use deadpool_postgres::{GenericClient, Object};
use shared::{Timestamp, UserId};

use super::conversations::{lock_pair, pair_key};
use super::rows::{parsed, system_time};
use super::{execute, outbox, query_opt};
use crate::store::people::{newest_names, newest_times};
use crate::store::{OutboxRow, Refusal, StoreError};

/// Blocks or unblocks, and tells the direct conversation of the two, whose sends look there.
pub(super) async fn set_block(
    client: &mut Object,
    blocker: &UserId,
    blocked: &UserId,
    on: bool,
    row: &OutboxRow<bool>,
) -> Result<bool, StoreError> {
    if blocker == blocked {
        return Err(Refusal::Conflict.into());
    }
    let key = pair_key((blocker, blocked));
    let change = client.transaction().await?;
    lock_pair(&change, &key).await?;
    // The conversation's lock before anything else of it, as a send takes it.
    query_opt(&change, "SELECT 1 FROM conversations WHERE pair_key = $1 FOR NO KEY UPDATE", &[&key]).await?;
    let sql = if on {
        "INSERT INTO blocks (blocker, blocked, created_at) VALUES ($1, $2, clock_timestamp()) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM blocks WHERE blocker = $1 AND blocked = $2"
    };
    let changed = execute(&change, sql, &[&blocker.as_str(), &blocked.as_str()]).await? > 0;
    if changed {
        let sql = "UPDATE conversations SET members_version = members_version + 1, blocked = EXISTS (\
            SELECT 1 FROM blocks b WHERE (b.blocker = $2 AND b.blocked = $3) OR (b.blocker = $3 AND b.blocked = $2)) \
            WHERE pair_key = $1";
        execute(&change, sql, &[&key, &blocker.as_str(), &blocked.as_str()]).await?;
    }
    outbox::write(&change, row, &changed).await?;
    change.commit().await?;
    Ok(changed)
}

pub(super) async fn remember_usernames(
    client: &impl GenericClient,
    users: &[(UserId, String)],
) -> Result<(), StoreError> {
    let newest = newest_names(users);
    let names: Vec<&str> = newest.keys().copied().collect();
    let ids: Vec<&str> = newest.values().map(|user| user.as_str()).collect();
    let sql = "INSERT INTO usernames (username, user_id) \
        SELECT * FROM unnest($1::text[], $2::text[]) AS i(name, id) ORDER BY i.name COLLATE \"C\" \
        ON CONFLICT (username) DO UPDATE SET user_id = excluded.user_id WHERE usernames.user_id <> excluded.user_id";
    execute(client, sql, &[&names, &ids]).await.map(drop)
}

pub(super) async fn user_by_name(client: &impl GenericClient, username: &str) -> Result<Option<UserId>, StoreError> {
    if username.contains('\0') {
        return Ok(None);
    }
    let row = query_opt(client, "SELECT user_id FROM usernames WHERE username = $1", &[&username]).await?;
    row.map(|row| parsed(&row, "user_id", str::parse)).transpose()
}

pub(super) async fn set_last_seen(
    client: &impl GenericClient,
    users: &[(UserId, Timestamp)],
) -> Result<(), StoreError> {
    let newest = newest_times(users);
    let ids: Vec<&str> = newest.keys().map(|user| user.as_str()).collect();
    let times: Vec<_> = newest.values().map(|time| system_time(*time)).collect();
    let sql = "INSERT INTO users (id, last_seen) \
        SELECT * FROM unnest($1::text[], $2::timestamptz[]) AS i(id, at) ORDER BY i.id COLLATE \"C\" \
        ON CONFLICT (id) DO UPDATE SET last_seen = greatest(users.last_seen, excluded.last_seen)";
    execute(client, sql, &[&ids, &times]).await.map(drop)
}
