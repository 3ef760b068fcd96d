//! Many members added at once.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use shared::{ConversationId, UserId, Visibility};

use super::blocks::blocked_with;
use super::membership::{members, standing, write};
use super::rows::{number, row, word};
use super::thread::SqliteStore;
use super::{conversations, outbox};
use crate::store::bulk::{BulkFacts, Decided, decide_all};
use crate::store::membership::{Standing, Step};
use crate::store::{BulkMembers, MembersAdded, OutboxRow, Refusal, StoreError};

#[async_trait]
impl BulkMembers for SqliteStore {
    async fn add_members(
        &self,
        id: &ConversationId,
        users: &[UserId],
        by: Option<&UserId>,
        outbox: OutboxRow<MembersAdded>,
    ) -> Result<MembersAdded, StoreError> {
        let (id, users, by) = (id.clone(), users.to_vec(), by.cloned());
        self.write(move |change| add(change, &id, &users, by.as_ref(), &outbox)).await
    }
}

fn add(
    change: &Connection,
    id: &ConversationId,
    users: &[UserId],
    by: Option<&UserId>,
    outbox: &OutboxRow<MembersAdded>,
) -> Result<MembersAdded, StoreError> {
    let sql = "SELECT visibility, last_seq FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    let head = row(change, sql, [id.as_str()], |row| {
        Ok((word(row, "visibility", Visibility::parse)?, number(row, "last_seq")?))
    })?;
    let (visibility, last_seq) = head.ok_or(Refusal::NotFound)?;
    let mut list = members(change, id)?;
    let shared_blocks = match by {
        Some(by) => blocked_with(change, by, users)?,
        None => Vec::new(),
    };
    let facts = BulkFacts { visibility, by, actor: standing(change, id, by)?, last_seq, blocked: &shared_blocks };
    let mut known = HashMap::with_capacity(users.len());
    for user in users {
        known.insert(user, standing(change, id, Some(user))?);
    }
    let of = |user: &UserId| known.get(user).copied().flatten();
    let asked = users.iter().map(|user| (user.clone(), of(user)));
    let Decided { added, banned, blocked } = decide_all(&mut list, &facts, asked)?;
    for user in &added {
        write(change, id, user, Step { before: of(user), next: Standing::MEMBER }, last_seq)?;
    }
    let conversation = conversations::view(change, id, added.first())?;
    let outcome = MembersAdded { added, banned, blocked, conversation, members: Arc::new(list) };
    outbox::write(change, outbox, &outcome)?;
    Ok(outcome)
}
