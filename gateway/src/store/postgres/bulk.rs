//! Many members added at once.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, Role, UserId, Visibility};

use super::blocks::blocked_with;
use super::call::{execute, on_connection, query, query_opt};
use super::membership::{members, standing};
use super::pool::PostgresStore;
use super::rows::{bigint, number, parsed, word};
use super::{conversations, outbox};
use crate::store::bulk::{BulkFacts, Decided, decide_all};
use crate::store::membership::{Standing, State};
use crate::store::{BulkMembers, MembersAdded, OutboxRow, Refusal, StoreError};

#[async_trait]
impl BulkMembers for PostgresStore {
    async fn add_members(
        &self,
        id: &ConversationId,
        users: &[UserId],
        by: Option<&UserId>,
        outbox: OutboxRow<MembersAdded>,
    ) -> Result<MembersAdded, StoreError> {
        on_connection!(self, Change: client => add(client, id, users, by, &outbox))
    }
}

async fn add(
    client: &mut Object,
    id: &ConversationId,
    users: &[UserId],
    by: Option<&UserId>,
    row: &OutboxRow<MembersAdded>,
) -> Result<MembersAdded, StoreError> {
    let change = client.transaction().await?;
    let lock = "SELECT visibility, last_seq FROM conversations WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    let head = query_opt(&change, lock, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let mut list = members(&change, id).await?;
    let shared_blocks = match by {
        Some(by) => blocked_with(&change, by, users).await?,
        None => Vec::new(),
    };
    let facts = BulkFacts {
        visibility: word(&head, "visibility", Visibility::parse)?,
        by,
        actor: standing(&change, id, by).await?,
        last_seq: number(&head, "last_seq")?,
        blocked: &shared_blocks,
    };
    let known = standings(&change, id, users).await?;
    let asked = users.iter().map(|user| (user.clone(), known.get(user).copied()));
    let Decided { added, banned, blocked } = decide_all(&mut list, &facts, asked)?;
    write(&change, id, &added, facts.last_seq).await?;
    let conversation = conversations::view(&change, id, added.first()).await?;
    let outcome = MembersAdded { added, banned, blocked, conversation, members: Arc::new(list) };
    outbox::write(&change, row, &outcome).await?;
    change.commit().await?;
    Ok(outcome)
}

async fn standings(
    client: &impl GenericClient,
    id: &ConversationId,
    users: &[UserId],
) -> Result<HashMap<UserId, Standing>, StoreError> {
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let sql = "SELECT user_id, state, role FROM members WHERE conversation_id = $1 AND user_id = ANY ($2)";
    query(client, sql, &[&id.as_str(), &users])
        .await?
        .iter()
        .map(|row| {
            let standing = Standing { state: word(row, "state", State::parse)?, role: word(row, "role", Role::parse)? };
            Ok((parsed(row, "user_id", str::parse)?, standing))
        })
        .collect()
}

/// The users who come in begin at the newest message. An earlier stay is kept apart, unless it goes on because no
/// message was sent in between.
async fn write(
    client: &impl GenericClient,
    id: &ConversationId,
    added: &[UserId],
    last_seq: u64,
) -> Result<(), StoreError> {
    if added.is_empty() {
        return Ok(());
    }
    let users: Vec<&str> = added.iter().map(UserId::as_str).collect();
    let sql = "INSERT INTO past_members SELECT conversation_id, user_id, joined_seq, left_seq FROM members \
        WHERE conversation_id = $1 AND user_id = ANY ($2) AND left_seq > joined_seq AND left_seq < $3";
    execute(client, sql, &[&id.as_str(), &users, &bigint(last_seq)]).await?;
    let sql = "INSERT INTO members AS m \
            (conversation_id, user_id, role, state, read_seq, seen_seq, delivered_seq, joined_seq) \
        SELECT $1, i.user_id, 'member', 'accepted', $3, $3, $3, $3 FROM unnest($2::text[]) AS i(user_id) \
        ORDER BY i.user_id COLLATE \"C\" \
        ON CONFLICT (conversation_id, user_id) DO UPDATE SET role = 'member', state = 'accepted', \
            read_seq = $3, seen_seq = $3, delivered_seq = $3, left_seq = NULL, \
            joined_seq = CASE WHEN m.left_seq IS DISTINCT FROM $3 THEN $3 ELSE m.joined_seq END";
    execute(client, sql, &[&id.as_str(), &users, &bigint(last_seq)]).await?;
    let count = i64::try_from(added.len()).unwrap_or(i64::MAX);
    let sql = "UPDATE conversations SET members_version = members_version + $2, member_count = member_count + $2, \
        members_seq = last_seq WHERE id = $1";
    execute(client, sql, &[&id.as_str(), &count]).await.map(drop)
}
