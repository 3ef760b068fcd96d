//! Erasure of users.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};
use shared::{ConversationId, UserId};

use super::moderation::next_conversation;
use super::rows::{execute, get, integer, now_ms, number, parsed, row, rows, unfit};
use super::thread::SqliteStore;
use crate::store::conversations::pair_key;
use crate::store::erasure::{ErasurePlace, Erasures, MEMBERS_EVER_PER_PAGE};
use crate::store::{Authored, StoreError};

#[async_trait]
impl Erasures for SqliteStore {
    async fn begin_erasure(&self, user: &UserId) -> Result<(), StoreError> {
        let user = user.clone();
        self.write(move |change| begin(change, &user)).await
    }

    async fn next_erasure(&self) -> Result<Option<(UserId, ErasurePlace)>, StoreError> {
        let sql = "SELECT user_id, phase, conversation_id, seq FROM erasures ORDER BY user_id LIMIT 1";
        self.read(move |read| row(read, sql, [], |row| Ok((parsed(row, "user_id", str::parse)?, place(row)?)))).await
    }

    async fn erasure_of(&self, user: &UserId) -> Result<Option<ErasurePlace>, StoreError> {
        let user = user.clone();
        let sql = "SELECT phase, conversation_id, seq FROM erasures WHERE user_id = ?1";
        self.read(move |read| row(read, sql, [user.as_str()], place)).await
    }

    async fn keep_erasure(&self, user: &UserId, place: Option<&ErasurePlace>) -> Result<(), StoreError> {
        let (user, place) = (user.clone(), place.cloned());
        self.write(move |change| keep(change, &user, place.as_ref())).await
    }

    async fn erasure_may_go_on(&self, user: &UserId, settled_ms: u64) -> Result<bool, StoreError> {
        let user = user.clone();
        let sql = "SELECT coalesce(e.begun_at <= ?2, 1) AND (e.emptied_at IS NULL OR NOT EXISTS (\
            SELECT 1 FROM outbox o WHERE o.published_at IS NULL AND o.committed_at <= e.emptied_at)) AS may \
            FROM erasures e WHERE e.user_id = ?1";
        let of = move |read: &Connection| {
            let begun_by = now_ms().saturating_sub(integer(settled_ms));
            row(read, sql, params![user.as_str(), begun_by], |row| get::<bool>(row, "may"))
        };
        self.read(move |read| Ok(of(read)?.unwrap_or(true))).await
    }

    async fn place_of(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
    ) -> Result<Option<ConversationId>, StoreError> {
        let (of, after) = (Authored { user: user.clone(), conversation: None, since: None }, after.cloned());
        self.read(move |read| next_conversation(read, &of, after.as_ref())).await
    }

    async fn members_ever(&self, id: &ConversationId, after: Option<&UserId>) -> Result<Vec<UserId>, StoreError> {
        let (id, after) = (id.clone(), after.cloned());
        let sql = "SELECT user_id FROM members WHERE conversation_id = ?1 AND user_id > ?2 ORDER BY user_id LIMIT ?3";
        self.read(move |read| {
            // No id is empty: all come behind that.
            let after = after.as_ref().map_or("", UserId::as_str);
            rows(read, sql, params![id.as_str(), after, MEMBERS_EVER_PER_PAGE], |row| {
                parsed(row, "user_id", str::parse)
            })
        })
        .await
    }
}

fn begin(change: &Connection, user: &UserId) -> Result<(), StoreError> {
    let id = user.as_str();
    let sql =
        "INSERT INTO erasures (user_id, phase, seq, begun_at) VALUES (?1, 'messages', 0, ?2) ON CONFLICT DO NOTHING";
    execute(change, sql, params![id, now_ms()])?;
    let sql =
        "SELECT blocked AS other FROM blocks WHERE blocker = ?1 UNION SELECT blocker FROM blocks WHERE blocked = ?1";
    let others: Vec<UserId> = rows(change, sql, [id], |row| parsed(row, "other", str::parse))?;
    for other in others {
        let sql = "UPDATE conversations SET blocked = 0, members_version = members_version + 1 WHERE pair_key = ?1";
        execute(change, sql, [pair_key((user, &other))])?;
    }
    for sql in [
        "DELETE FROM blocks WHERE blocker = ?1 OR blocked = ?1",
        "DELETE FROM usernames WHERE user_id = ?1",
        "DELETE FROM notifications WHERE user_id = ?1",
        "DELETE FROM users WHERE id = ?1",
        "UPDATE members SET read_seq = 0, delivered_seq = 0, seen_seq = 0 WHERE user_id = ?1 AND state = 'accepted'",
        "UPDATE members SET read_seq = 0, delivered_seq = 0, seen_seq = 0 WHERE user_id = ?1 AND state <> 'accepted'",
    ] {
        execute(change, sql, [id])?;
    }
    Ok(())
}

fn place(row: &Row<'_>) -> Result<ErasurePlace, StoreError> {
    let conversation = get::<Option<String>>(row, "conversation_id")?.map(|id| id.parse()).transpose();
    let conversation = conversation.map_err(|_| unfit("conversation_id"))?;
    let phase: String = get(row, "phase")?;
    ErasurePlace::of(&phase, conversation, number(row, "seq")?).ok_or_else(|| unfit("phase"))
}

fn keep(change: &Connection, user: &UserId, place: Option<&ErasurePlace>) -> Result<(), StoreError> {
    let Some(place) = place else {
        return execute(change, "DELETE FROM erasures WHERE user_id = ?1", [user.as_str()]).map(drop);
    };
    let (phase, conversation, seq) = place.columns();
    let sql = "UPDATE erasures SET phase = ?2, conversation_id = ?3, seq = ?4, \
        emptied_at = CASE WHEN ?2 = 'logs' THEN coalesce(emptied_at, ?5) END WHERE user_id = ?1";
    execute(change, sql, params![user.as_str(), phase, conversation, integer(seq), now_ms()]).map(drop)
}
