//! Erasure of users.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, UserId};
use tokio_postgres::Row;

use super::call::{execute, on_connection, query, query_opt};
use super::moderation::next_conversation;
use super::pool::PostgresStore;
use super::rows::{bigint, get, number, parsed, unfit};
use crate::store::conversations::pair_key;
use crate::store::erasure::{ErasurePlace, Erasures, MEMBERS_EVER_PER_PAGE};
use crate::store::{Authored, StoreError};

#[async_trait]
impl Erasures for PostgresStore {
    async fn begin_erasure(&self, user: &UserId) -> Result<(), StoreError> {
        on_connection!(self, client => begin(client, user))
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

async fn begin(client: &mut Object, user: &UserId) -> Result<(), StoreError> {
    let id = user.as_str();
    let transaction = client.transaction().await?;
    let sql = "INSERT INTO erasures (user_id, phase, seq) VALUES ($1, 'messages', 0) ON CONFLICT DO NOTHING";
    execute(&transaction, sql, &[&id]).await?;
    let sql = "DELETE FROM blocks WHERE blocker = $1 OR blocked = $1 RETURNING \
        CASE WHEN blocker = $1 THEN blocked ELSE blocker END AS other";
    let others = query(&transaction, sql, &[&id]).await?;
    let others = others.iter().map(|row| parsed(row, "other", str::parse)).collect::<Result<Vec<UserId>, _>>()?;
    let pairs: Vec<String> = others.iter().map(|other| pair_key((user, other))).collect();
    // In order of id, as every other transaction locks them.
    let sql = "UPDATE conversations SET blocked = false, members_version = members_version + 1 WHERE id = ANY (ARRAY(\
        SELECT c.id FROM conversations c WHERE c.pair_key = ANY ($1) ORDER BY c.id FOR NO KEY UPDATE))";
    execute(&transaction, sql, &[&pairs]).await?;
    for sql in [
        "DELETE FROM usernames WHERE user_id = $1",
        "DELETE FROM notifications WHERE user_id = $1",
        "DELETE FROM users WHERE id = $1",
        "UPDATE members SET read_seq = 0, delivered_seq = 0, seen_seq = 0 WHERE user_id = $1 AND state = 'accepted'",
        "UPDATE members SET read_seq = 0, delivered_seq = 0, seen_seq = 0 WHERE user_id = $1 AND state <> 'accepted'",
    ] {
        execute(&transaction, sql, &[&id]).await?;
    }
    Ok(transaction.commit().await?)
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
    let sql = "UPDATE erasures SET phase = $2, conversation_id = $3, seq = $4 WHERE user_id = $1";
    execute(client, sql, &[&user.as_str(), &phase, &conversation, &bigint(seq)]).await.map(drop)
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
