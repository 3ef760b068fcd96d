//! Membership and its changes.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{ConversationId, ConversationKind, Role, UserId, Visibility};

use super::blocks::is_blocked;
use super::rows::{execute, get, integer, number, parsed, row, rows, word, word_or_null};
use super::thread::SqliteStore;
use super::{conversations, outbox};
use crate::store::membership::{Change, Facts, Standing, State, Step, may_join};
use crate::store::{
    Crossing, Members, Membership, MembershipChange, MembershipOutcome, OutboxRow, Refusal, Route, StoreError,
};

#[async_trait]
impl Membership for SqliteStore {
    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError> {
        let id = id.clone();
        self.read(move |read| audience(read, &id)).await
    }

    async fn members_of(&self, ids: &[ConversationId]) -> Result<Vec<(ConversationId, Members)>, StoreError> {
        let ids = ids.to_vec();
        let found = |read: &Connection, id: ConversationId| match audience(read, &id) {
            Err(StoreError::Refused(Refusal::NotFound)) => None,
            members => Some(members.map(|members| (id, members))),
        };
        self.read(move |read| ids.into_iter().filter_map(|id| found(read, id)).collect()).await
    }

    async fn members_at(&self, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError> {
        let id = id.clone();
        self.read(move |read| members_at(read, &id, seq)).await
    }

    async fn join_password(&self, id: &ConversationId, user: &UserId) -> Result<Option<String>, StoreError> {
        let (id, user) = (id.clone(), user.clone());
        self.read(move |read| join_password(read, &id, &user)).await
    }

    async fn change_membership(
        &self,
        id: &ConversationId,
        user: &UserId,
        change: &MembershipChange,
        outbox: OutboxRow<MembershipOutcome>,
    ) -> Result<MembershipOutcome, StoreError> {
        let (id, user, what) = (id.clone(), user.clone(), change.clone());
        self.write(move |transaction| change_membership(transaction, &id, &user, &what, &outbox)).await
    }
}

/// All members, also of a large conversation.
pub(super) fn members(read: &Connection, id: &ConversationId) -> Result<Members, StoreError> {
    members_as(read, id, true)
}

/// Whom the events of a conversation go to: no list for a large one.
pub(super) fn audience(read: &Connection, id: &ConversationId) -> Result<Members, StoreError> {
    members_as(read, id, false)
}

fn members_as(read: &Connection, id: &ConversationId, whole: bool) -> Result<Members, StoreError> {
    let sql =
        "SELECT kind, members_version, members_seq, blocked, large, member_count FROM conversations WHERE id = ?1";
    let head = row(read, sql, [id.as_str()], |row| {
        let (large, count) = (get(row, "large")?, number(row, "member_count")?);
        Ok(Members {
            kind: word(row, "kind", ConversationKind::parse)?,
            version: number(row, "members_version")?,
            since_seq: number(row, "members_seq")?,
            list: Vec::new(),
            blocked: get(row, "blocked")?,
            route: Route { large, count, crossings: Vec::new() },
        })
    })?;
    let mut members = head.ok_or(Refusal::NotFound)?;
    let sql = "SELECT last_seq, large FROM crossings WHERE conversation_id = ?1 ORDER BY members_version";
    members.route.crossings = rows(read, sql, [id.as_str()], |row| {
        Ok(Crossing { last_seq: number(row, "last_seq")?, large: get(row, "large")? })
    })?;
    if whole || !members.route.large {
        let sql =
            "SELECT user_id, role FROM members WHERE conversation_id = ?1 AND state = 'accepted' ORDER BY user_id";
        members.list = rows(read, sql, [id.as_str()], |row| {
            Ok((parsed(row, "user_id", str::parse)?, word(row, "role", Role::parse)?))
        })?;
    }
    Ok(members)
}

fn join_password(read: &Connection, id: &ConversationId, user: &UserId) -> Result<Option<String>, StoreError> {
    let sql = "SELECT c.kind, c.visibility, c.password_hash, m.state FROM conversations c \
        LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = ?2 WHERE c.id = ?1 AND c.deleted_at IS NULL";
    let found = row(read, sql, [id.as_str(), user.as_str()], |row| {
        let kind = word(row, "kind", ConversationKind::parse)?;
        let visibility = word(row, "visibility", Visibility::parse)?;
        let state = word_or_null(row, "state", State::parse)?;
        if may_join(kind, visibility, state)? { Ok(None) } else { get(row, "password_hash") }
    })?;
    Ok(found.ok_or(Refusal::NotFound)?)
}

fn change_membership(
    transaction: &Connection,
    id: &ConversationId,
    user: &UserId,
    change: &MembershipChange,
    outbox: &OutboxRow<MembershipOutcome>,
) -> Result<MembershipOutcome, StoreError> {
    let sql = "SELECT visibility, last_seq FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    let head = row(transaction, sql, [id.as_str()], |row| {
        Ok((word(row, "visibility", Visibility::parse)?, number(row, "last_seq")?))
    })?;
    let (visibility, last_seq) = head.ok_or(Refusal::NotFound)?;
    let list = members(transaction, id)?;
    let standing = standing(transaction, id, Some(user))?;
    let actor = self::standing(transaction, id, change.by())?;
    let blocked = match change.brought_in_by() {
        Some(by) => is_blocked(transaction, by, user)?,
        None => false,
    };
    let change = Change::decide(&Facts { visibility, user, standing, actor, members: &list, blocked }, change)?;
    if let Some(step) = change.step() {
        write(transaction, id, user, step, last_seq)?;
    }
    let conversation = conversations::view(transaction, id, Some(user))?;
    let outcome = change.outcome(user, list, last_seq, conversation);
    outbox::write(transaction, outbox, &outcome)?;
    Ok(outcome)
}

pub(super) fn standing(
    read: &Connection,
    id: &ConversationId,
    user: Option<&UserId>,
) -> Result<Option<Standing>, StoreError> {
    let Some(user) = user else { return Ok(None) };
    let sql = "SELECT state, role FROM members WHERE conversation_id = ?1 AND user_id = ?2";
    row(read, sql, [id.as_str(), user.as_str()], |row| {
        Ok(Standing { state: word(row, "state", State::parse)?, role: word(row, "role", Role::parse)? })
    })
}

/// The members when the message `seq` was committed, in their present or an earlier stay.
fn members_at(read: &Connection, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT user_id FROM members \
            WHERE conversation_id = ?1 AND joined_seq < ?2 AND (state = 'accepted' OR left_seq >= ?2) \
        UNION SELECT user_id FROM past_members WHERE conversation_id = ?1 AND joined_seq < ?2 AND left_seq >= ?2 \
        ORDER BY user_id";
    rows(read, sql, params![id.as_str(), integer(seq)], |row| parsed(row, "user_id", str::parse))
}

/// A user who comes in begins at the newest message. A user who leaves keeps the message after which they left. An
/// earlier stay is kept apart, unless it goes on because no message was sent in between.
pub(super) fn write(
    change: &Connection,
    id: &ConversationId,
    user: &UserId,
    step: Step,
    last_seq: u64,
) -> Result<(), StoreError> {
    let (comes, goes) = (step.comes(), step.goes());
    if comes {
        let sql = "INSERT INTO past_members SELECT conversation_id, user_id, joined_seq, left_seq FROM members \
            WHERE conversation_id = ?1 AND user_id = ?2 AND left_seq > joined_seq AND left_seq < ?3";
        execute(change, sql, params![id.as_str(), user.as_str(), integer(last_seq)])?;
    }
    let sql = "INSERT INTO members \
            (conversation_id, user_id, role, state, read_seq, seen_seq, delivered_seq, joined_seq) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?5, ?5) \
        ON CONFLICT (conversation_id, user_id) DO UPDATE SET role = ?3, state = ?4, \
            read_seq = CASE WHEN ?6 THEN ?5 ELSE read_seq END, \
            seen_seq = CASE WHEN ?6 THEN ?5 ELSE seen_seq END, \
            delivered_seq = CASE WHEN ?6 THEN ?5 ELSE delivered_seq END, \
            joined_seq = CASE WHEN ?6 AND left_seq IS NOT ?5 THEN ?5 ELSE joined_seq END, \
            left_seq = CASE WHEN ?7 THEN ?5 WHEN ?6 THEN NULL ELSE left_seq END";
    let (role, state) = (step.next.role.as_str(), step.next.state.as_str());
    execute(change, sql, params![id.as_str(), user.as_str(), role, state, integer(last_seq), comes, goes])?;
    let sql = "UPDATE conversations SET members_version = members_version + 1, member_count = member_count + ?2, \
        members_seq = CASE WHEN ?3 THEN last_seq ELSE members_seq END WHERE id = ?1";
    execute(change, sql, params![id.as_str(), i64::from(comes) - i64::from(goes), comes || goes]).map(drop)
}
