//! Large conversations: look-ups, what somebody missed, and the crossing of the limit.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};
use shared::{ConversationId, ConversationKind, Place, Role, UserId};

use super::membership::{members, standing};
use super::rows::{execute, get, integer, message, message_columns, number, parsed, row, rows};
use super::thread::SqliteStore;
use super::{conversations, outbox};
use crate::store::large::{Crossed, Head, MISSED_MAX, Missed, OwnLarge, turn};
use crate::store::membership::State;
use crate::store::{LargeConversations, OutboxRow, StoreError};

#[async_trait]
impl LargeConversations for SqliteStore {
    async fn large_of(
        &self,
        users: &[UserId],
        named: &[BTreeSet<ConversationId>],
    ) -> Result<Vec<Vec<OwnLarge>>, StoreError> {
        let asked: Vec<(UserId, BTreeSet<ConversationId>)> = users.iter().cloned().zip(named.to_vec()).collect();
        self.read(move |read| asked.iter().map(|(user, named)| large_of(read, user, named)).collect()).await
    }

    async fn heads(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Head>, StoreError> {
        let ids = ids.to_vec();
        let found =
            |read: &Connection, id: ConversationId| head_of(read, &id).map(|head| Some((id, head?))).transpose();
        self.read(move |read| ids.into_iter().filter_map(|id| found(read, id)).collect()).await
    }

    async fn missed(&self, id: &ConversationId, after: u64) -> Result<Missed, StoreError> {
        let id = id.clone();
        self.read(move |read| missed(read, &id, after)).await
    }

    async fn role_in(&self, id: &ConversationId, user: &UserId) -> Result<Option<Role>, StoreError> {
        let (id, user) = (id.clone(), user.clone());
        let standing = self.read(move |read| standing(read, &id, Some(&user))).await?;
        Ok(standing.filter(|standing| standing.state == State::Accepted).map(|standing| standing.role))
    }

    async fn blocked_in(&self, id: &ConversationId, user: &UserId) -> Result<Vec<UserId>, StoreError> {
        let (id, user) = (id.clone(), user.clone());
        self.read(move |read| blocked_in(read, &id, &user)).await
    }

    async fn due_to_cross(&self, over: u32, limit: u32) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |read| due_to_cross(read, over, limit)).await
    }

    async fn cross(&self, id: &ConversationId, over: u32, outbox: OutboxRow<Crossed>) -> Result<bool, StoreError> {
        let id = id.clone();
        self.write(move |change| cross(change, &id, over, &outbox)).await
    }
}

fn large_of(read: &Connection, user: &UserId, named: &BTreeSet<ConversationId>) -> Result<Vec<OwnLarge>, StoreError> {
    let sql = "SELECT c.id, c.rev, c.last_seq, c.large FROM members m JOIN conversations c ON c.id = m.conversation_id \
        WHERE m.user_id = ?1 AND m.state = 'accepted'";
    let own = rows(read, sql, [user.as_str()], |row| {
        Ok(OwnLarge { conversation: parsed(row, "id", str::parse)?, head: head(row)? })
    })?;
    Ok(own.into_iter().filter(|own| own.head.large || named.contains(&own.conversation)).collect())
}

fn head_of(read: &Connection, id: &ConversationId) -> Result<Option<Head>, StoreError> {
    let sql = "SELECT rev, last_seq, large FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    row(read, sql, [id.as_str()], head)
}

fn head(row: &Row<'_>) -> Result<Head, StoreError> {
    let place = Place { rev: number(row, "rev")?, seq: number(row, "last_seq")? };
    Ok(Head { place, large: get(row, "large")? })
}

fn missed(read: &Connection, id: &ConversationId, after: u64) -> Result<Missed, StoreError> {
    const SQL: &str = concat!(
        "SELECT coalesce((SELECT x.large FROM crossings x WHERE x.conversation_id = ?1 AND x.last_seq < m.seq \
            ORDER BY x.members_version DESC LIMIT 1), 0) AS was_large, ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = ?1 AND m.rev > ?2 ORDER BY m.rev DESC LIMIT ?3"
    );
    let Some(head) = head_of(read, id)? else { return Ok(Missed::of(None, after, Vec::new())) };
    let limit = MISSED_MAX + 1;
    let newest = rows(read, SQL, params![id.as_str(), integer(after), limit], |row| {
        Ok((message(row)?, get(row, "was_large")?))
    })?;
    Ok(Missed::of(Some(head), after, newest))
}

fn blocked_in(read: &Connection, id: &ConversationId, user: &UserId) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT b.other FROM (SELECT blocked AS other FROM blocks WHERE blocker = ?2 \
            UNION SELECT blocker FROM blocks WHERE blocked = ?2) b \
        JOIN members m ON m.conversation_id = ?1 AND m.user_id = b.other AND m.state = 'accepted' ORDER BY b.other";
    rows(read, sql, [id.as_str(), user.as_str()], |row| parsed(row, "other", str::parse))
}

fn due_to_cross(read: &Connection, over: u32, limit: u32) -> Result<Vec<ConversationId>, StoreError> {
    let of = |sql: &str| rows(read, sql, params![over, limit], |row| parsed(row, "id", str::parse));
    let mut due = of("SELECT id FROM conversations WHERE large AND deleted_at IS NULL \
        AND (?1 = 0 OR 2 * member_count < ?1) LIMIT ?2")?;
    due.extend(of("SELECT id FROM conversations WHERE NOT large AND member_count > 2 AND deleted_at IS NULL \
        AND member_count > ?1 AND ?1 > 0 AND kind <> 'direct' LIMIT ?2")?);
    Ok(due)
}

fn cross(change: &Connection, id: &ConversationId, over: u32, outbox: &OutboxRow<Crossed>) -> Result<bool, StoreError> {
    if head_of(change, id)?.is_none() {
        return Ok(false);
    }
    let list = members(change, id)?;
    let is_direct = list.kind == ConversationKind::Direct;
    let Some(large) = turn(list.route.large, list.route.count, over, is_direct) else { return Ok(false) };
    let sql = "UPDATE conversations SET large = ?2, members_version = members_version + 1 WHERE id = ?1";
    execute(change, sql, params![id.as_str(), large])?;
    let sql = "INSERT INTO crossings (conversation_id, members_version, rev, last_seq, large) \
        SELECT id, members_version, rev, last_seq, large FROM conversations WHERE id = ?1";
    execute(change, sql, [id.as_str()])?;
    let mut conversation = conversations::view(change, id, None)?;
    conversation.last_message = None;
    let members = Arc::new(list.list.into_iter().map(|(user, _)| user).collect());
    outbox::write(change, outbox, &Crossed { conversation, members })?;
    Ok(true)
}
