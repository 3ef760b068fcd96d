//! People: blocks, names, partners, and when they were last online.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{Timestamp, UserId};
use tokio_postgres::types::ToSql;

use super::blocks::blocked_with;
use super::call::{execute, on_connection, query, query_opt};
use super::outbox::{self, RowArguments};
use super::pool::PostgresStore;
use super::rows::{get, index, parsed, system_time, unfit};
use crate::store::conversations::pair_key;
use crate::store::people::{newest_times, shown_names, usernames};
use crate::store::{Names, OutboxRow, Partner, People, Refusal, StoreError};

#[async_trait]
impl People for PostgresStore {
    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
        outbox: OutboxRow<bool>,
    ) -> Result<bool, StoreError> {
        on_connection!(self, Change: client => set_block(client, blocker, blocked, on, &outbox))
    }

    async fn blocked_with(&self, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        on_connection!(self, client => blocked_with(&*client, user, others))
    }

    async fn remember_names(&self, users: &[(UserId, Names)]) -> Result<(), StoreError> {
        on_connection!(self, Change: client => remember_names(client, users))
    }

    async fn user_by_name(&self, username: &str) -> Result<Option<UserId>, StoreError> {
        on_connection!(self, client => user_by_name(client, username))
    }

    async fn set_last_seen(&self, users: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        on_connection!(self, Change: client => set_last_seen(client, users))
    }

    async fn partners(&self, users: &[UserId], limit: u32) -> Result<Vec<Vec<Partner>>, StoreError> {
        on_connection!(self, client => partners(client, users, limit))
    }
}

/// Blocks or unblocks, and notes it at the direct conversation of the two, where sends check it.
async fn set_block(
    client: &Object,
    blocker: &UserId,
    blocked: &UserId,
    on: bool,
    row: &OutboxRow<bool>,
) -> Result<bool, StoreError> {
    if blocker == blocked {
        return Err(Refusal::Conflict.into());
    }
    let sql = "SELECT parley_set_block($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS changed";
    let (key, arguments) = (pair_key((blocker, blocked)), RowArguments::of(row, &true)?);
    let own: [&(dyn ToSql + Sync); 4] = [&key, &blocker.as_str(), &blocked.as_str(), &on];
    let answer = query_opt(client, sql, &arguments.behind(&own)).await?.ok_or_else(|| unfit("changed"))?;
    let changed: bool = get(&answer, "changed")?;
    if !changed {
        outbox::write(client, row, &changed).await?;
    }
    Ok(changed)
}

async fn remember_names(client: &mut Object, users: &[(UserId, Names)]) -> Result<(), StoreError> {
    let change = client.transaction().await?;
    let shown = shown_names(users);
    let ids: Vec<&str> = shown.keys().map(|user| user.as_str()).collect();
    let names: Vec<&str> = shown.into_values().collect();
    let sql = "INSERT INTO users (id, name) \
        SELECT * FROM unnest($1::text[], $2::text[]) AS i(id, name) ORDER BY i.id COLLATE \"C\" \
        ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE users.name IS DISTINCT FROM excluded.name";
    execute(&change, sql, &[&ids, &names]).await?;
    let usernames = usernames(users);
    let names: Vec<&str> = usernames.keys().copied().collect();
    let ids: Vec<&str> = usernames.into_values().map(UserId::as_str).collect();
    // Who comes with another name gives the earlier one up, whether or not the new one is free.
    let sql = "DELETE FROM usernames u USING unnest($1::text[], $2::text[]) AS i(name, id) \
        WHERE u.user_id = i.id AND u.username <> i.name";
    execute(&change, sql, &[&names, &ids]).await?;
    let sql = "INSERT INTO usernames (username, user_id) \
        SELECT * FROM unnest($1::text[], $2::text[]) AS i(name, id) ORDER BY i.name COLLATE \"C\" \
        ON CONFLICT DO NOTHING";
    execute(&change, sql, &[&names, &ids]).await?;
    Ok(change.commit().await?)
}

async fn user_by_name(client: &impl GenericClient, username: &str) -> Result<Option<UserId>, StoreError> {
    if username.contains('\0') {
        return Ok(None);
    }
    let row = query_opt(client, "SELECT user_id FROM usernames WHERE username = $1", &[&username]).await?;
    row.map(|row| parsed(&row, "user_id", str::parse)).transpose()
}

async fn set_last_seen(client: &impl GenericClient, users: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
    let newest = newest_times(users);
    let ids: Vec<&str> = newest.keys().map(|user| user.as_str()).collect();
    let times: Vec<_> = newest.values().map(|time| system_time(*time)).collect();
    let sql = "INSERT INTO users (id, last_seen) \
        SELECT * FROM unnest($1::text[], $2::timestamptz[]) AS i(id, at) ORDER BY i.id COLLATE \"C\" \
        ON CONFLICT (id) DO UPDATE SET last_seen = greatest(users.last_seen, excluded.last_seen)";
    execute(client, sql, &[&ids, &times]).await.map(drop)
}

/// Looks at no more than `limit` conversations of a user and one more than `limit` others in each, so that a large
/// channel costs no more.
async fn partners(client: &impl GenericClient, users: &[UserId], limit: u32) -> Result<Vec<Vec<Partner>>, StoreError> {
    let sql = "SELECT i.place, partner.user_id, \
            EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.user_id AND b.blocked = partner.user_id OFFSET 0) \
            OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = partner.user_id AND b.blocked = i.user_id OFFSET 0) \
            AS blocked \
        FROM unnest($1::text[]) WITH ORDINALITY AS i(user_id, place) CROSS JOIN LATERAL (\
            SELECT o.user_id, \
                row_number() OVER (ORDER BY bool_or(c.direct) DESC, max(c.last_activity) DESC, o.user_id) AS nth \
            FROM (\
                SELECT c.id, c.kind = 'direct' AS direct, c.last_activity FROM members p \
                JOIN conversations c ON c.id = p.conversation_id \
                WHERE p.user_id = i.user_id AND p.state = 'accepted' \
                ORDER BY c.kind = 'direct' DESC, c.last_activity DESC, c.id LIMIT $2\
            ) c CROSS JOIN LATERAL (\
                SELECT o.user_id, count(*) OVER () AS others FROM (\
                    SELECT o.user_id FROM members o \
                    WHERE o.conversation_id = c.id AND o.user_id <> i.user_id AND o.state = 'accepted' LIMIT $2 + 1\
                ) o\
            ) o WHERE o.others <= $2 GROUP BY o.user_id ORDER BY nth LIMIT $2\
        ) partner ORDER BY i.place, partner.nth";
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let mut partners = vec![Vec::new(); users.len()];
    for row in query(client, sql, &[&names, &i64::from(limit)]).await? {
        let partner = Partner { user: parsed(&row, "user_id", str::parse)?, blocked: get(&row, "blocked")? };
        if let Some(of_one) = partners.get_mut(index(&row, "place")?) {
            of_one.push(partner);
        }
    }
    Ok(partners)
}
