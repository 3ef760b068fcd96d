//! Erasure of users.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{ConversationId, UserId};
use tokio_postgres::Row;

use super::call::{execute, on_connection, query, query_opt};
use super::moderation::next_conversation;
use super::pool::PostgresStore;
use super::rows::{bigint, get, number, parsed, unfit};
use crate::store::erasure::{ErasurePlace, Erasures, MEMBERS_EVER_PER_PAGE};
use crate::store::{Authored, StoreError};

#[async_trait]
impl Erasures for PostgresStore {
    async fn begin_erasure(&self, user: &UserId) -> Result<(), StoreError> {
        on_connection!(self, Change: client => begin(client, user))
    }

    async fn next_erasure(&self) -> Result<Option<(UserId, ErasurePlace)>, StoreError> {
        on_connection!(self, client => next(client))
    }

    async fn erasure_of(&self, user: &UserId) -> Result<Option<ErasurePlace>, StoreError> {
        on_connection!(self, client => of_user(client, user))
    }

    async fn keep_erasure(&self, user: &UserId, place: Option<&ErasurePlace>) -> Result<(), StoreError> {
        on_connection!(self, client => keep(client, user, place))
    }

    async fn erasure_may_go_on(&self, user: &UserId, settled_ms: u64) -> Result<bool, StoreError> {
        on_connection!(self, client => may_go_on(client, user, settled_ms))
    }

    async fn place_of(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
    ) -> Result<Option<ConversationId>, StoreError> {
        let of = Authored { user: user.clone(), conversation: None, since: None };
        on_connection!(self, client => next_conversation(client, &of, after))
    }

    async fn members_ever(&self, id: &ConversationId, after: Option<&UserId>) -> Result<Vec<UserId>, StoreError> {
        on_connection!(self, client => members_ever(client, id, after))
    }
}

/// Pairs of users between whom one call ends the blocks. Each takes a lock of the server's, which has room for thousands.
const PAIRS_PER_CALL: i64 = 500;

/// Goes on until no block is left, or the call's time is over: then the caller asks again.
async fn begin(client: &impl GenericClient, user: &UserId) -> Result<(), StoreError> {
    let sql = "SELECT parley_begin_erasure($1, $2) AS begun";
    loop {
        let answer = query_opt(client, sql, &[&user.as_str(), &PAIRS_PER_CALL]).await?;
        if get(&answer.ok_or_else(|| unfit("begun"))?, "begun")? {
            return Ok(());
        }
    }
}

async fn next(client: &impl GenericClient) -> Result<Option<(UserId, ErasurePlace)>, StoreError> {
    let sql = "SELECT user_id, phase, conversation_id, seq FROM erasures ORDER BY user_id LIMIT 1";
    let row = query_opt(client, sql, &[]).await?;
    row.map(|row| Ok((parsed(&row, "user_id", str::parse)?, place(&row)?))).transpose()
}

async fn of_user(client: &impl GenericClient, user: &UserId) -> Result<Option<ErasurePlace>, StoreError> {
    let sql = "SELECT phase, conversation_id, seq FROM erasures WHERE user_id = $1";
    query_opt(client, sql, &[&user.as_str()]).await?.map(|row| place(&row)).transpose()
}

fn place(row: &Row) -> Result<ErasurePlace, StoreError> {
    let conversation = get::<Option<&str>>(row, "conversation_id")?.map(str::parse).transpose();
    let conversation = conversation.map_err(|_| unfit("conversation_id"))?;
    ErasurePlace::of(get(row, "phase")?, conversation, number(row, "seq")?).ok_or_else(|| unfit("phase"))
}

async fn keep(client: &impl GenericClient, user: &UserId, place: Option<&ErasurePlace>) -> Result<(), StoreError> {
    let Some(place) = place else {
        return execute(client, "DELETE FROM erasures WHERE user_id = $1", &[&user.as_str()]).await.map(drop);
    };
    let (phase, conversation, seq) = place.columns();
    let sql = "UPDATE erasures SET phase = $2, conversation_id = $3, seq = $4, \
        emptied_at = CASE WHEN $2 = 'logs' THEN coalesce(emptied_at, clock_timestamp()) END WHERE user_id = $1";
    execute(client, sql, &[&user.as_str(), &phase, &conversation, &bigint(seq)]).await.map(drop)
}

async fn may_go_on(client: &impl GenericClient, user: &UserId, settled_ms: u64) -> Result<bool, StoreError> {
    let sql = "SELECT coalesce(e.begun_at <= clock_timestamp() - $2::bigint * interval '1 millisecond', true) \
            AND (e.emptied_at IS NULL OR NOT EXISTS (\
                SELECT 1 FROM outbox o WHERE o.published_at IS NULL AND o.committed_at <= e.emptied_at)) AS may \
        FROM erasures e WHERE e.user_id = $1";
    let row = query_opt(client, sql, &[&user.as_str(), &bigint(settled_ms)]).await?;
    Ok(row.map(|row| get(&row, "may")).transpose()?.unwrap_or(true))
}

async fn members_ever(
    client: &impl GenericClient,
    id: &ConversationId,
    after: Option<&UserId>,
) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT user_id FROM members WHERE conversation_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3";
    // No id is empty: all come behind that.
    let after = after.map_or("", UserId::as_str);
    let rows = query(client, sql, &[&id.as_str(), &after, &i64::from(MEMBERS_EVER_PER_PAGE)]).await?;
    rows.iter().map(|row| parsed(row, "user_id", str::parse)).collect()
}
