//! Moderation: mutes, and the messages of one user wherever they stand.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{ConversationId, ConversationKind, Timestamp, UserId};

use super::membership::standing;
use super::rows::{execute, get, integer, message, message_columns, now_ms, parsed, row, rows, word};
use super::thread::SqliteStore;
use crate::store::moderation::{AuthorPlace, Authored, AuthoredPage, LOOKED_AT_MAX, Moderation, may_mute};
use crate::store::{Refusal, StoreError};

#[async_trait]
impl Moderation for SqliteStore {
    async fn mute(
        &self,
        id: &ConversationId,
        user: &UserId,
        by: Option<&UserId>,
        time: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let (id, user, by) = (id.clone(), user.clone(), by.cloned());
        self.write(move |change| mute(change, &id, &user, by.as_ref(), time)).await
    }

    async fn muted_ms(&self, id: &ConversationId, user: &UserId) -> Result<u64, StoreError> {
        let (id, user) = (id.clone(), user.clone());
        self.read(move |read| muted_ms(read, &id, &user)).await
    }

    async fn authored(&self, of: &Authored, place: Option<&AuthorPlace>) -> Result<AuthoredPage, StoreError> {
        let (of, place) = (of.clone(), place.cloned());
        self.read(move |read| authored(read, &of, place)).await
    }
}

fn mute(
    change: &Connection,
    id: &ConversationId,
    user: &UserId,
    by: Option<&UserId>,
    time: Option<Duration>,
) -> Result<bool, StoreError> {
    let sql = "SELECT kind FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    let kind = row(change, sql, [id.as_str()], |row| word(row, "kind", ConversationKind::parse))?;
    let (actor, subject) = (standing(change, id, by)?, standing(change, id, Some(user))?);
    may_mute(kind.ok_or(Refusal::NotFound)?, actor, by, subject)?;
    let now = now_ms();
    let until = time.map(|time| now.saturating_add(integer(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))));
    let sql = "UPDATE members SET muted_until = ?3 WHERE conversation_id = ?1 AND user_id = ?2 \
        AND (?3 IS NOT NULL OR muted_until > ?4)";
    Ok(execute(change, sql, params![id.as_str(), user.as_str(), until, now])? > 0)
}

/// Whether a user may not write now.
pub(super) fn is_muted(read: &Connection, id: &ConversationId, user: Option<&UserId>) -> Result<bool, StoreError> {
    match user {
        Some(user) => Ok(muted_ms(read, id, user)? > 0),
        None => Ok(false),
    }
}

fn muted_ms(read: &Connection, id: &ConversationId, user: &UserId) -> Result<u64, StoreError> {
    let sql = "SELECT muted_until FROM members WHERE conversation_id = ?1 AND user_id = ?2";
    let until = row(read, sql, [id.as_str(), user.as_str()], |row| get::<Option<i64>>(row, "muted_until"))?;
    let left = until.flatten().map_or(0, |until| until.saturating_sub(now_ms()));
    Ok(u64::try_from(left).unwrap_or_default())
}

fn authored(read: &Connection, of: &Authored, place: Option<AuthorPlace>) -> Result<AuthoredPage, StoreError> {
    const FOUND: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = ?1 AND m.seq > ?2 AND m.seq <= ?3 AND m.sender_id = ?4 \
            AND m.deleted_at IS NULL AND (?5 IS NULL OR m.created_at >= ?5) ORDER BY m.seq"
    );
    let place = match place {
        Some(place) => place,
        None => match next_conversation(read, of, None)? {
            Some(conversation) => AuthorPlace { conversation, seq: 0 },
            None => return Ok(AuthoredPage { messages: Vec::new(), next: None }),
        },
    };
    let after = integer(place.seq);
    let sql = "SELECT max(seq) AS last FROM \
        (SELECT seq FROM messages WHERE conversation_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3)";
    let window = params![place.conversation.as_str(), after, LOOKED_AT_MAX];
    let last = row(read, sql, window, |row| get::<Option<i64>>(row, "last"))?.flatten();
    let Some(last) = last else {
        let next = next_conversation(read, of, Some(&place.conversation))?;
        let next = next.map(|conversation| AuthorPlace { conversation, seq: 0 });
        return Ok(AuthoredPage { messages: Vec::new(), next });
    };
    let since = of.since.map(Timestamp::unix_ms);
    let found = params![place.conversation.as_str(), after, last, of.user.as_str(), since];
    let messages = rows(read, FOUND, found, message)?;
    let seq = u64::try_from(last).unwrap_or_default();
    Ok(AuthoredPage { messages, next: Some(AuthorPlace { seq, ..place }) })
}

/// The conversation of the walk behind this one.
pub(super) fn next_conversation(
    read: &Connection,
    of: &Authored,
    after: Option<&ConversationId>,
) -> Result<Option<ConversationId>, StoreError> {
    if let Some(only) = &of.conversation {
        return Ok(after.is_none().then(|| only.clone()));
    }
    let sql = "SELECT id FROM (\
        SELECT * FROM (SELECT conversation_id AS id FROM members WHERE user_id = ?1 AND conversation_id > ?2 \
            AND state = 'accepted' ORDER BY conversation_id LIMIT 1) \
        UNION ALL SELECT * FROM (SELECT conversation_id FROM members WHERE user_id = ?1 AND conversation_id > ?2 \
            AND state <> 'accepted' ORDER BY conversation_id LIMIT 1)) ORDER BY id LIMIT 1";
    let after = after.map_or("", ConversationId::as_str);
    row(read, sql, params![of.user.as_str(), after], |row| parsed(row, "id", str::parse))
}
