//! Who is in a conversation, and changing it under the conversation's lock.

use std::sync::Arc;

use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, ConversationKind, Role, UserId, Visibility};
use tokio_postgres::Row;

use super::rows::{bigint, get, number, parsed, unfit, word, word_or_null};
use super::{conversations, execute, outbox, query, query_opt};
use crate::store::membership::{Facts, Standing, State, decide, may_join};
use crate::store::{Members, MembershipChange, MembershipOutcome, OutboxRow, Refusal, StoreError};

/// One statement, so that the version and the list belong together.
pub(super) async fn members(client: &impl GenericClient, id: &ConversationId) -> Result<Members, StoreError> {
    let sql = "SELECT c.kind, c.members_version, c.members_seq, c.blocked, \
            array_agg(m.user_id ORDER BY m.user_id) FILTER (WHERE m.user_id IS NOT NULL) AS users, \
            array_agg(m.role ORDER BY m.user_id) FILTER (WHERE m.user_id IS NOT NULL) AS roles \
        FROM conversations c LEFT JOIN members m ON m.conversation_id = c.id AND m.state = 'accepted' \
        WHERE c.id = $1 GROUP BY c.id";
    let row = query_opt(client, sql, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let users: Vec<&str> = get::<Option<_>>(&row, "users")?.unwrap_or_default();
    let roles: Vec<&str> = get::<Option<_>>(&row, "roles")?.unwrap_or_default();
    let list = users
        .into_iter()
        .zip(roles)
        .map(|(user, role)| {
            let user = user.parse().map_err(|_| unfit("user_id"))?;
            Ok((user, Role::parse(role).ok_or_else(|| unfit("role"))?))
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(Members {
        kind: word(&row, "kind", ConversationKind::parse)?,
        version: number(&row, "members_version")?,
        since_seq: number(&row, "members_seq")?,
        list,
        blocked: get(&row, "blocked")?,
    })
}

pub(super) async fn join_password(
    client: &impl GenericClient,
    id: &ConversationId,
    user: &UserId,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT c.kind, c.visibility, c.password_hash, m.state FROM conversations c \
        LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = $2 WHERE c.id = $1";
    let row = query_opt(client, sql, &[&id.as_str(), &user.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let kind = word(&row, "kind", ConversationKind::parse)?;
    let visibility = word(&row, "visibility", Visibility::parse)?;
    let state = word_or_null(&row, "state", State::parse)?;
    if may_join(kind, visibility, state)? { Ok(None) } else { get(&row, "password_hash") }
}

pub(super) async fn change(
    client: &mut Object,
    id: &ConversationId,
    user: &UserId,
    change: &MembershipChange,
    row: &OutboxRow<MembershipOutcome>,
) -> Result<MembershipOutcome, StoreError> {
    let transaction = client.transaction().await?;
    let lock = "SELECT visibility, last_seq FROM conversations WHERE id = $1 FOR NO KEY UPDATE";
    let head = query_opt(&transaction, lock, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let mut list = members(&transaction, id).await?;
    let standing = standing(&transaction, id, Some(user)).await?;
    let facts = Facts {
        visibility: word(&head, "visibility", Visibility::parse)?,
        user,
        standing,
        actor: self::standing(&transaction, id, change.by()).await?,
        members: &list,
    };
    let next = decide(&facts, change)?;
    if let Some(next) = next {
        let last_seq = number(&head, "last_seq")?;
        write(&transaction, id, user, (standing, next), last_seq).await?;
        list.set(user, (next.state == State::Accepted).then_some(next.role));
        if is_accepted(standing) != (next.state == State::Accepted) {
            list.since_seq = last_seq;
        }
    }
    let outcome = MembershipOutcome {
        changed: next.is_some(),
        was_member: is_accepted(standing),
        is_member: is_accepted(next.or(standing)),
        conversation: conversations::view(&transaction, id, Some(user)).await?,
        members: Arc::new(list),
    };
    outbox::write(&transaction, row, &outcome).await?;
    transaction.commit().await?;
    Ok(outcome)
}

fn is_accepted(standing: Option<Standing>) -> bool {
    standing.is_some_and(|standing| standing.state == State::Accepted)
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

/// Who was in when the message `seq` was committed, now or in an earlier stay.
pub(super) async fn members_at(
    client: &impl GenericClient,
    id: &ConversationId,
    seq: u64,
) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT user_id FROM members \
            WHERE conversation_id = $1 AND joined_seq < $2 AND (state = 'accepted' OR left_seq >= $2) \
        UNION SELECT user_id FROM past_members WHERE conversation_id = $1 AND joined_seq < $2 AND left_seq >= $2 \
        ORDER BY user_id";
    let rows = query(client, sql, &[&id.as_str(), &bigint(seq)]).await?;
    rows.iter().map(|row| parsed(row, "user_id", str::parse)).collect()
}

/// Who comes in begins at the newest message; who goes keeps where they left. An earlier stay is remembered, unless it goes
/// on because nothing was said in between.
async fn write(
    client: &impl GenericClient,
    id: &ConversationId,
    user: &UserId,
    (before, next): (Option<Standing>, Standing),
    last_seq: u64,
) -> Result<(), StoreError> {
    let comes = !is_accepted(before) && next.state == State::Accepted;
    let goes = is_accepted(before) && next.state != State::Accepted;
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
    let (role, state) = (next.role.as_str(), next.state.as_str());
    execute(client, sql, &[&id.as_str(), &user.as_str(), &role, &state, &bigint(last_seq), &comes, &goes]).await?;
    let sql = "UPDATE conversations SET members_version = members_version + 1, member_count = member_count + $2, \
        members_seq = CASE WHEN $3 THEN last_seq ELSE members_seq END WHERE id = $1";
    let difference = i64::from(comes) - i64::from(goes);
    execute(client, sql, &[&id.as_str(), &difference, &(comes || goes)]).await.map(drop)
}
