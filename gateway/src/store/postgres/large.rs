//! Large conversations: look-ups, what somebody missed, and the crossing of the limit.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, Place, Role, UserId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::call::{on_connection, query, query_opt, until_it_holds};
use super::conversations;
use super::membership::{TRIES_MAX, members, standing};
use super::outbox::RowArguments;
use super::pool::PostgresStore;
use super::rows::{bigint, get, message, message_columns, number, parsed, placeholder, unfit, unsigned};
use crate::store::large::{Crossed, Head, MISSED_MAX, Missed, OwnLarge, turn};
use crate::store::membership::State;
use crate::store::{LargeConversations, OutboxRow, StoreError};

#[async_trait]
impl LargeConversations for PostgresStore {
    async fn large_of(
        &self,
        users: &[UserId],
        named: &[BTreeSet<ConversationId>],
    ) -> Result<Vec<Vec<OwnLarge>>, StoreError> {
        on_connection!(self, client => large_of(client, users, named))
    }

    async fn heads(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Head>, StoreError> {
        on_connection!(self, client => heads(client, ids))
    }

    async fn missed(&self, id: &ConversationId, after: u64) -> Result<Missed, StoreError> {
        on_connection!(self, client => missed(client, id, after))
    }

    async fn role_in(&self, id: &ConversationId, user: &UserId) -> Result<Option<Role>, StoreError> {
        let standing = on_connection!(self, client => standing(client, id, Some(user)))?;
        Ok(standing.filter(|standing| standing.state == State::Accepted).map(|standing| standing.role))
    }

    async fn blocked_in(&self, id: &ConversationId, user: &UserId) -> Result<Vec<UserId>, StoreError> {
        on_connection!(self, client => blocked_in(client, id, user))
    }

    async fn due_to_cross(&self, over: u32, limit: u32) -> Result<Vec<ConversationId>, StoreError> {
        on_connection!(self, client => due_to_cross(client, over, limit))
    }

    async fn cross(&self, id: &ConversationId, over: u32, outbox: OutboxRow<Crossed>) -> Result<bool, StoreError> {
        on_connection!(self, Change: client => cross(client, id, over, &outbox))
    }
}

async fn large_of(
    client: &impl GenericClient,
    users: &[UserId],
    named: &[BTreeSet<ConversationId>],
) -> Result<Vec<Vec<OwnLarge>>, StoreError> {
    let sql = "SELECT m.user_id, c.id, c.rev, c.last_seq, c.large FROM members m JOIN conversations c ON c.id = m.conversation_id \
        WHERE m.user_id = ANY ($1) AND m.state = 'accepted' AND (c.large OR c.id = ANY ($2))";
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let asked: BTreeSet<&str> = named.iter().flatten().map(ConversationId::as_str).collect();
    let rows = query(client, sql, &[&names, &asked.into_iter().collect::<Vec<_>>()]).await?;
    let mut found: HashMap<UserId, Vec<OwnLarge>> = HashMap::new();
    for row in &rows {
        let own = OwnLarge { conversation: parsed(row, "id", str::parse)?, head: head(row)? };
        found.entry(parsed(row, "user_id", str::parse)?).or_default().push(own);
    }
    let of = |(user, named): (&UserId, &BTreeSet<ConversationId>)| {
        let all = found.get(user).cloned().unwrap_or_default();
        all.into_iter().filter(|own| own.head.large || named.contains(&own.conversation)).collect()
    };
    Ok(users.iter().zip(named).map(of).collect())
}

async fn heads(
    client: &impl GenericClient,
    ids: &[ConversationId],
) -> Result<HashMap<ConversationId, Head>, StoreError> {
    let sql = "SELECT id, rev, last_seq, large FROM conversations WHERE id = ANY ($1) AND deleted_at IS NULL";
    let ids: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
    let rows = query(client, sql, &[&ids]).await?;
    rows.iter().map(|row| Ok((parsed(row, "id", str::parse)?, head(row)?))).collect()
}

fn head(row: &Row) -> Result<Head, StoreError> {
    let place = Place { rev: number(row, "rev")?, seq: number(row, "last_seq")? };
    Ok(Head { place, large: get(row, "large")? })
}

async fn missed(client: &impl GenericClient, id: &ConversationId, after: u64) -> Result<Missed, StoreError> {
    const SQL: &str = concat!(
        "SELECT c.rev, c.last_seq, c.large, m.id IS NOT NULL AS has_message, coalesce((SELECT x.large FROM crossings x \
            WHERE x.conversation_id = $1 AND x.last_seq < m.seq ORDER BY x.members_version DESC LIMIT 1), false) \
            AS was_large, ",
        message_columns!(),
        " FROM conversations c LEFT JOIN LATERAL (SELECT l.* FROM messages l WHERE l.conversation_id = $1 AND l.rev > $2 \
            ORDER BY l.rev DESC LIMIT $3) m ON true WHERE c.id = $1 AND c.deleted_at IS NULL ORDER BY m.rev DESC"
    );
    let rows = query(client, SQL, &[&id.as_str(), &bigint(after), &(i64::from(MISSED_MAX) + 1)]).await?;
    let mut newest = Vec::with_capacity(rows.len());
    for row in &rows {
        if get(row, "has_message")? {
            newest.push((message(row)?, get(row, "was_large")?));
        }
    }
    Ok(Missed::of(rows.first().map(head).transpose()?, after, newest))
}

async fn blocked_in(
    client: &impl GenericClient,
    id: &ConversationId,
    user: &UserId,
) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT b.other FROM (SELECT blocked AS other FROM blocks WHERE blocker = $2 \
            UNION SELECT blocker FROM blocks WHERE blocked = $2) b \
        JOIN members m ON m.conversation_id = $1 AND m.user_id = b.other AND m.state = 'accepted' \
        ORDER BY b.other COLLATE \"C\"";
    let rows = query(client, sql, &[&id.as_str(), &user.as_str()]).await?;
    rows.iter().map(|row| parsed(row, "other", str::parse)).collect()
}

async fn due_to_cross(client: &impl GenericClient, over: u32, limit: u32) -> Result<Vec<ConversationId>, StoreError> {
    let sql = "(SELECT id FROM conversations WHERE large AND deleted_at IS NULL \
            AND ($1::bigint = 0 OR 2 * member_count < $1) LIMIT $2::bigint) \
        UNION ALL (SELECT id FROM conversations WHERE NOT large AND member_count > 2 AND deleted_at IS NULL \
            AND member_count > $1 AND $1 > 0 AND kind <> 'direct' LIMIT $2)";
    let rows = query(client, sql, &[&i64::from(over), &i64::from(limit)]).await?;
    rows.iter().map(|row| parsed(row, "id", str::parse)).collect()
}

async fn cross(client: &Object, id: &ConversationId, over: u32, row: &OutboxRow<Crossed>) -> Result<bool, StoreError> {
    until_it_holds("conversation", TRIES_MAX, |_| try_cross(client, id, over, row)).await
}

/// Reads, decides, and has it written by one call; `None` if something was changed in between.
async fn try_cross(
    client: &Object,
    id: &ConversationId,
    over: u32,
    row: &OutboxRow<Crossed>,
) -> Result<Option<bool>, StoreError> {
    let list = members(client, id).await?;
    let sql = "SELECT kind = 'direct' AS is_direct FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    let Some(found) = query_opt(client, sql, &[&id.as_str()]).await? else { return Ok(Some(false)) };
    let Some(large) = turn(list.route.large, list.route.count, over, get(&found, "is_direct")?) else {
        return Ok(Some(false));
    };
    let mut conversation = conversations::view(client, id, None).await?;
    (conversation.rev, conversation.last_seq, conversation.large) = (placeholder(), placeholder(), large);
    conversation.last_message = None;
    let members = Arc::new(list.list.into_iter().map(|(user, _)| user).collect());
    let mut crossed = Crossed { conversation, members };
    let arguments = RowArguments::of(row, &crossed)?;
    let sql = "SELECT out_rev, out_last_seq FROM parley_cross($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let conversation = &mut crossed.conversation;
    let placeholders = [conversation.rev.to_string(), conversation.last_seq.to_string()];
    let [rev, seq] = &placeholders;
    let own: [&(dyn ToSql + Sync); 5] = [&id.as_str(), &bigint(list.version), &large, rev, seq];
    let answer = query_opt(client, sql, &arguments.behind(&own)).await?.ok_or_else(|| unfit("out_rev"))?;
    let Some(rev) = get::<Option<i64>>(&answer, "out_rev")? else { return Ok(None) };
    (conversation.rev, conversation.last_seq) = (unsigned(rev, "out_rev")?, number(&answer, "out_last_seq")?);
    // Once more, with the numbers in place of the placeholders: these are the events that are published.
    drop((row.events)(&crossed));
    Ok(Some(true))
}
