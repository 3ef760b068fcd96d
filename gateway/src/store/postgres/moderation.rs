//! Moderation: mutes, and the messages of one user wherever they stand.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, ConversationKind, UserId};

use super::call::{on_connection, query, query_opt, until_it_holds};
use super::membership::{TRIES_MAX, standing};
use super::pool::PostgresStore;
use super::rows::{bigint, get, message, message_columns, number, parsed, system_time, unfit, unsigned, word};
use crate::store::moderation::{AuthorPlace, Authored, AuthoredPage, LOOKED_AT_MAX, Moderation, may_mute};
use crate::store::{Refusal, StoreError};

#[async_trait]
impl Moderation for PostgresStore {
    async fn mute(
        &self,
        id: &ConversationId,
        user: &UserId,
        by: Option<&UserId>,
        time: Option<Duration>,
    ) -> Result<bool, StoreError> {
        on_connection!(self, Change: client => mute(client, id, user, by, time))
    }

    async fn muted_ms(&self, id: &ConversationId, user: &UserId) -> Result<u64, StoreError> {
        on_connection!(self, client => muted_ms(client, id, user))
    }

    async fn authored(&self, of: &Authored, place: Option<&AuthorPlace>) -> Result<AuthoredPage, StoreError> {
        on_connection!(self, client => authored(client, of, place))
    }
}

async fn mute(
    client: &Object,
    id: &ConversationId,
    user: &UserId,
    by: Option<&UserId>,
    time: Option<Duration>,
) -> Result<bool, StoreError> {
    until_it_holds("conversation", TRIES_MAX, |_| try_mute(client, id, user, by, time)).await
}

/// Reads, decides, and has it written by one call; `None` if the members changed in between.
async fn try_mute(
    client: &Object,
    id: &ConversationId,
    user: &UserId,
    by: Option<&UserId>,
    time: Option<Duration>,
) -> Result<Option<bool>, StoreError> {
    let sql = "SELECT kind, members_version FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    let head = query_opt(client, sql, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let (actor, subject) = (standing(client, id, by).await?, standing(client, id, Some(user)).await?);
    may_mute(word(&head, "kind", ConversationKind::parse)?, actor, by, subject)?;
    let ms = time.map(|time| bigint(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    let sql = "SELECT parley_mute($1, $2, $3, $4) AS changed";
    let version: i64 = get(&head, "members_version")?;
    let answer = query_opt(client, sql, &[&id.as_str(), &version, &user.as_str(), &ms]).await?;
    get(&answer.ok_or_else(|| unfit("changed"))?, "changed")
}

/// Whether a user may not write now.
pub(super) async fn is_muted(
    client: &impl GenericClient,
    id: &ConversationId,
    user: Option<&UserId>,
) -> Result<bool, StoreError> {
    match user {
        Some(user) => Ok(muted_ms(client, id, user).await? > 0),
        None => Ok(false),
    }
}

async fn muted_ms(client: &impl GenericClient, id: &ConversationId, user: &UserId) -> Result<u64, StoreError> {
    let sql = "SELECT greatest(0, ceil(extract(epoch FROM muted_until - clock_timestamp()) * 1000)::bigint) AS ms \
        FROM members WHERE conversation_id = $1 AND user_id = $2 AND muted_until IS NOT NULL";
    match query_opt(client, sql, &[&id.as_str(), &user.as_str()]).await? {
        Some(row) => number(&row, "ms"),
        None => Ok(0),
    }
}

async fn authored(
    client: &impl GenericClient,
    of: &Authored,
    place: Option<&AuthorPlace>,
) -> Result<AuthoredPage, StoreError> {
    const WINDOW: &str = concat!(
        "SELECT w.last, m.id IS NOT NULL AS is_found, ",
        message_columns!(),
        " FROM (SELECT max(w.seq) AS last FROM (SELECT seq FROM messages \
                WHERE conversation_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) w) w \
            LEFT JOIN messages m ON m.conversation_id = $1 AND m.seq > $2 AND m.seq <= w.last AND m.sender_id = $4 \
                AND m.deleted_at IS NULL AND ($5::timestamptz IS NULL OR m.created_at >= $5) ORDER BY m.seq"
    );
    let place = match place {
        Some(place) => place.clone(),
        None => match next_conversation(client, of, None).await? {
            Some(conversation) => AuthorPlace { conversation, seq: 0 },
            None => return Ok(AuthoredPage { messages: Vec::new(), next: None }),
        },
    };
    let (conversation, after) = (place.conversation.as_str(), bigint(place.seq));
    let since = of.since.map(system_time);
    let rows =
        query(client, WINDOW, &[&conversation, &after, &i64::from(LOOKED_AT_MAX), &of.user.as_str(), &since]).await?;
    let last: Option<i64> = rows.first().map(|row| get(row, "last")).transpose()?.flatten();
    let mut messages = Vec::new();
    for row in &rows {
        if get(row, "is_found")? {
            messages.push(message(row)?);
        }
    }
    let next = match last {
        Some(last) => Some(AuthorPlace { seq: unsigned(last, "last")?, ..place }),
        None => next_conversation(client, of, Some(&place.conversation))
            .await?
            .map(|conversation| AuthorPlace { conversation, seq: 0 }),
    };
    Ok(AuthoredPage { messages, next })
}

/// The conversation of the walk behind this one.
pub(super) async fn next_conversation(
    client: &impl GenericClient,
    of: &Authored,
    after: Option<&ConversationId>,
) -> Result<Option<ConversationId>, StoreError> {
    if let Some(only) = &of.conversation {
        return Ok(after.is_none().then(|| only.clone()));
    }
    let sql = "SELECT min(id) AS id FROM (\
        (SELECT conversation_id AS id FROM members WHERE user_id = $1 AND conversation_id > $2 AND state = 'accepted' \
            ORDER BY conversation_id LIMIT 1) \
        UNION ALL (SELECT conversation_id FROM members WHERE user_id = $1 AND conversation_id > $2 \
            AND state <> 'accepted' ORDER BY conversation_id LIMIT 1)) f HAVING count(*) > 0";
    let after = after.map_or("", ConversationId::as_str);
    let row = query_opt(client, sql, &[&of.user.as_str(), &after]).await?;
    row.map(|row| parsed(&row, "id", str::parse)).transpose()
}
