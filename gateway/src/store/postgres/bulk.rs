//! Many members added at once.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, Role, UserId, Visibility};

use super::blocks::blocked_with;
use super::call::{on_connection, query, query_opt, until_it_holds};
use super::membership::{MembersWritten, STRICT_TRIES, TRIES_MAX, members, standing, write};
use super::outbox::RowArguments;
use super::pool::PostgresStore;
use super::rows::{number, parsed, word};
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
    client: &Object,
    id: &ConversationId,
    users: &[UserId],
    by: Option<&UserId>,
    row: &OutboxRow<MembersAdded>,
) -> Result<MembersAdded, StoreError> {
    let attempt = |tried| try_once(client, id, users, by, row, tried < STRICT_TRIES);
    until_it_holds("conversation", TRIES_MAX, attempt).await
}

/// Reads, decides, and has it written by one call; `None` if something was changed in between.
async fn try_once(
    client: &Object,
    id: &ConversationId,
    users: &[UserId],
    by: Option<&UserId>,
    row: &OutboxRow<MembersAdded>,
    strict: bool,
) -> Result<Option<MembersAdded>, StoreError> {
    // First of all: whatever is read behind it is as new as this version, if that is still the one under the lock.
    let mut list = members(client, id).await?;
    let version = list.version;
    let head = "SELECT visibility, last_seq FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    let head = query_opt(client, head, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let shared_blocks = match by {
        Some(by) => blocked_with(client, by, users).await?,
        None => Vec::new(),
    };
    let facts = BulkFacts {
        visibility: word(&head, "visibility", Visibility::parse)?,
        by,
        actor: standing(client, id, by).await?,
        last_seq: number(&head, "last_seq")?,
        blocked: &shared_blocks,
    };
    let known = standings(client, id, users).await?;
    let asked = users.iter().map(|user| (user.clone(), known.get(user).copied()));
    let Decided { added, banned, blocked } = decide_all(&mut list, &facts, asked)?;
    let last_seq = facts.last_seq;
    let Some(first) = added.first() else {
        let conversation = conversations::view(client, id, None).await?;
        let outcome = MembersAdded { added, banned, blocked, conversation, members: Arc::new(list) };
        outbox::write(client, row, &outcome).await?;
        return Ok(Some(outcome));
    };
    let first = first.clone();
    let conversation = conversations::view_with(client, id, &first, &added, (Role::Member, last_seq)).await?;
    let mut outcome = MembersAdded { added, banned, blocked, conversation, members: Arc::new(list) };
    let mut users = outcome.added.clone();
    users.sort();
    let written = MembersWritten {
        version,
        last_seq: strict.then_some(last_seq),
        users: &users,
        next: Standing::MEMBER,
        comes: true,
        goes: false,
    };
    let Some(last_seq) = write(client, id, &written, &RowArguments::of(row, &outcome)?).await? else { return Ok(None) };
    Arc::make_mut(&mut outcome.members).since_seq = last_seq;
    outcome.conversation = conversations::view(client, id, Some(&first)).await?;
    Ok(Some(outcome))
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
