//! Membership, changed under the conversation's lock.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, ConversationKind, Role, UserId, Visibility};
use tokio_postgres::Row;

use super::blocks::blocked_with;
use super::call::{execute, on_connection, query, query_opt};
use super::pool::PostgresStore;
use super::rows::{bigint, get, number, parsed, unfit, word, word_or_null};
use super::{conversations, outbox};
use crate::store::membership::{Change, Facts, Standing, State, Step, may_join};
use crate::store::{Members, Membership, MembershipChange, MembershipOutcome, OutboxRow, Refusal, StoreError};

#[async_trait]
impl Membership for PostgresStore {
    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError> {
        on_connection!(self, client => members(client, id))
    }

    async fn members_of(&self, ids: &[ConversationId]) -> Result<Vec<(ConversationId, Members)>, StoreError> {
        on_connection!(self, client => members_of(client, ids))
    }

    async fn members_at(&self, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError> {
        on_connection!(self, client => members_at(client, id, seq))
    }

    async fn join_password(&self, id: &ConversationId, user: &UserId) -> Result<Option<String>, StoreError> {
        on_connection!(self, client => join_password(client, id, user))
    }

    async fn change_membership(
        &self,
        id: &ConversationId,
        user: &UserId,
        change: &MembershipChange,
        outbox: OutboxRow<MembershipOutcome>,
    ) -> Result<MembershipOutcome, StoreError> {
        on_connection!(self, Change: client => change_membership(client, id, user, change, &outbox))
    }
}

pub(super) async fn members(client: &impl GenericClient, id: &ConversationId) -> Result<Members, StoreError> {
    let found = members_of(client, std::slice::from_ref(id)).await?;
    Ok(found.into_iter().next().map(|(_, members)| members).ok_or(Refusal::NotFound)?)
}

/// One statement, so that each version and its list belong together.
async fn members_of(
    client: &impl GenericClient,
    ids: &[ConversationId],
) -> Result<Vec<(ConversationId, Members)>, StoreError> {
    let sql = "SELECT c.id, c.kind, c.members_version, c.members_seq, c.blocked, \
            array_agg(m.user_id ORDER BY m.user_id) FILTER (WHERE m.user_id IS NOT NULL) AS users, \
            array_agg(m.role ORDER BY m.user_id) FILTER (WHERE m.user_id IS NOT NULL) AS roles \
        FROM conversations c LEFT JOIN members m ON m.conversation_id = c.id AND m.state = 'accepted' \
        WHERE c.id = ANY ($1) GROUP BY c.id";
    let ids: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
    let rows = query(client, sql, &[&ids]).await?;
    rows.iter().map(|row| Ok((get::<&str>(row, "id")?.parse().map_err(|_| unfit("id"))?, members_in(row)?))).collect()
}

fn members_in(row: &Row) -> Result<Members, StoreError> {
    let users: Vec<&str> = get::<Option<_>>(row, "users")?.unwrap_or_default();
    let roles: Vec<&str> = get::<Option<_>>(row, "roles")?.unwrap_or_default();
    let list = users
        .into_iter()
        .zip(roles)
        .map(|(user, role)| {
            let user = user.parse().map_err(|_| unfit("user_id"))?;
            Ok((user, Role::parse(role).ok_or_else(|| unfit("role"))?))
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(Members {
        kind: word(row, "kind", ConversationKind::parse)?,
        version: number(row, "members_version")?,
        since_seq: number(row, "members_seq")?,
        list,
        blocked: get(row, "blocked")?,
    })
}

async fn join_password(
    client: &impl GenericClient,
    id: &ConversationId,
    user: &UserId,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT c.kind, c.visibility, c.password_hash, m.state FROM conversations c \
        LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = $2 WHERE c.id = $1 AND c.deleted_at IS NULL";
    let row = query_opt(client, sql, &[&id.as_str(), &user.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let kind = word(&row, "kind", ConversationKind::parse)?;
    let visibility = word(&row, "visibility", Visibility::parse)?;
    let state = word_or_null(&row, "state", State::parse)?;
    if may_join(kind, visibility, state)? { Ok(None) } else { get(&row, "password_hash") }
}

async fn change_membership(
    client: &mut Object,
    id: &ConversationId,
    user: &UserId,
    change: &MembershipChange,
    row: &OutboxRow<MembershipOutcome>,
) -> Result<MembershipOutcome, StoreError> {
    let transaction = client.transaction().await?;
    let lock = "SELECT visibility, last_seq FROM conversations WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    let head = query_opt(&transaction, lock, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let list = members(&transaction, id).await?;
    let standing = standing(&transaction, id, Some(user)).await?;
    let facts = Facts {
        visibility: word(&head, "visibility", Visibility::parse)?,
        user,
        standing,
        actor: self::standing(&transaction, id, change.by()).await?,
        members: &list,
        blocked: match change.brought_in_by() {
            Some(by) => !blocked_with(&transaction, by, std::slice::from_ref(user)).await?.is_empty(),
            None => false,
        },
    };
    let change = Change::decide(&facts, change)?;
    let last_seq = number(&head, "last_seq")?;
    if let Some(step) = change.step() {
        write(&transaction, id, user, step, last_seq).await?;
    }
    let conversation = conversations::view(&transaction, id, Some(user)).await?;
    let outcome = change.outcome(user, list, last_seq, conversation);
    outbox::write(&transaction, row, &outcome).await?;
    transaction.commit().await?;
    Ok(outcome)
}

pub(super) async fn standing(
    client: &impl GenericClient,
    id: &ConversationId,
    user: Option<&UserId>,
) -> Result<Option<Standing>, StoreError> {
    let Some(user) = user else { return Ok(None) };
    let sql = "SELECT state, role FROM members WHERE conversation_id = $1 AND user_id = $2";
    let rows: Vec<Row> = query(client, sql, &[&id.as_str(), &user.as_str()]).await?;
    rows.first()
        .map(|row| Ok(Standing { state: word(row, "state", State::parse)?, role: word(row, "role", Role::parse)? }))
        .transpose()
}

/// The members when the message `seq` was committed, in their present or an earlier stay.
async fn members_at(client: &impl GenericClient, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT user_id FROM members \
            WHERE conversation_id = $1 AND joined_seq < $2 AND (state = 'accepted' OR left_seq >= $2) \
        UNION SELECT user_id FROM past_members WHERE conversation_id = $1 AND joined_seq < $2 AND left_seq >= $2 \
        ORDER BY user_id";
    let rows = query(client, sql, &[&id.as_str(), &bigint(seq)]).await?;
    rows.iter().map(|row| parsed(row, "user_id", str::parse)).collect()
}

/// A user who comes in begins at the newest message. A user who leaves keeps the message after which they left. An
/// earlier stay is kept apart, unless it goes on because no message was sent in between.
async fn write(
    client: &impl GenericClient,
    id: &ConversationId,
    user: &UserId,
    step: Step,
    last_seq: u64,
) -> Result<(), StoreError> {
    let (comes, goes) = (step.comes(), step.goes());
    if comes {
        let sql = "INSERT INTO past_members SELECT conversation_id, user_id, joined_seq, left_seq FROM members \
            WHERE conversation_id = $1 AND user_id = $2 AND left_seq > joined_seq AND left_seq < $3";
        execute(client, sql, &[&id.as_str(), &user.as_str(), &bigint(last_seq)]).await?;
    }
    let sql = "INSERT INTO members AS m \
            (conversation_id, user_id, role, state, read_seq, seen_seq, delivered_seq, joined_seq) \
        VALUES ($1, $2, $3, $4, $5, $5, $5, $5) \
        ON CONFLICT (conversation_id, user_id) DO UPDATE SET role = $3, state = $4, \
            read_seq = CASE WHEN $6 THEN $5 ELSE m.read_seq END, \
            seen_seq = CASE WHEN $6 THEN $5 ELSE m.seen_seq END, \
            delivered_seq = CASE WHEN $6 THEN $5 ELSE m.delivered_seq END, \
            joined_seq = CASE WHEN $6 AND m.left_seq IS DISTINCT FROM $5 THEN $5 ELSE m.joined_seq END, \
            left_seq = CASE WHEN $7 THEN $5 WHEN $6 THEN NULL ELSE m.left_seq END";
    let (role, state) = (step.next.role.as_str(), step.next.state.as_str());
    execute(client, sql, &[&id.as_str(), &user.as_str(), &role, &state, &bigint(last_seq), &comes, &goes]).await?;
    let sql = "UPDATE conversations SET members_version = members_version + 1, member_count = member_count + $2, \
        members_seq = CASE WHEN $3 THEN last_seq ELSE members_seq END WHERE id = $1";
    let difference = i64::from(comes) - i64::from(goes);
    execute(client, sql, &[&id.as_str(), &difference, &(comes || goes)]).await.map(drop)
}
