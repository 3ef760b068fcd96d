//! Membership: read and decided without a lock, changed by one call that looks whether that still holds.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, ConversationKind, Role, UserId, Visibility};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::blocks::blocked_with;
use super::call::{on_connection, query, query_opt, until_it_holds};
use super::outbox::RowArguments;
use super::owed::Made;
use super::pool::PostgresStore;
use super::rows::{bigint, get, number, parsed, unfit, unsigned, word, word_or_null};
use super::{conversations, outbox};
use crate::store::membership::{Change, Facts, Standing, State, may_join};
use crate::store::{
    Crossing, Members, Membership, MembershipChange, MembershipOutcome, OutboxRow, Refusal, Route, StoreError,
};

#[async_trait]
impl Membership for PostgresStore {
    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError> {
        on_connection!(self, client => audience(client, id))
    }

    async fn members_of(&self, ids: &[ConversationId]) -> Result<Vec<(ConversationId, Members)>, StoreError> {
        on_connection!(self, client => members_of(client, ids, false))
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

/// All members, also of a large conversation.
pub(super) async fn members(client: &impl GenericClient, id: &ConversationId) -> Result<Members, StoreError> {
    one_of(members_of(client, std::slice::from_ref(id), true).await?)
}

/// Whom the events of a conversation go to: no list for a large one.
pub(super) async fn audience(client: &impl GenericClient, id: &ConversationId) -> Result<Members, StoreError> {
    one_of(members_of(client, std::slice::from_ref(id), false).await?)
}

fn one_of(found: Vec<(ConversationId, Members)>) -> Result<Members, StoreError> {
    Ok(found.into_iter().next().map(|(_, members)| members).ok_or(Refusal::NotFound)?)
}

/// One statement, so that each version and its list belong together. `whole`: the lists of large conversations too.
async fn members_of(
    client: &impl GenericClient,
    ids: &[ConversationId],
    whole: bool,
) -> Result<Vec<(ConversationId, Members)>, StoreError> {
    let sql = "SELECT c.id, c.kind, c.members_version, c.members_seq, c.blocked, c.large, c.member_count, \
            array_agg(m.user_id ORDER BY m.user_id) FILTER (WHERE m.user_id IS NOT NULL) AS users, \
            array_agg(m.role ORDER BY m.user_id) FILTER (WHERE m.user_id IS NOT NULL) AS roles, \
            (SELECT array_agg(x.last_seq ORDER BY x.members_version) FROM crossings x WHERE x.conversation_id = c.id) \
                AS crossed_seqs, \
            (SELECT array_agg(x.large ORDER BY x.members_version) FROM crossings x WHERE x.conversation_id = c.id) \
                AS crossed_ways \
        FROM conversations c LEFT JOIN members m \
            ON m.conversation_id = CASE WHEN $2 OR NOT c.large THEN c.id END AND m.state = 'accepted' \
        WHERE c.id = ANY ($1) GROUP BY c.id";
    let ids: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
    let rows = query(client, sql, &[&ids, &whole]).await?;
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
        route: route_in(row)?,
    })
}

fn route_in(row: &Row) -> Result<Route, StoreError> {
    let seqs: Vec<i64> = get::<Option<_>>(row, "crossed_seqs")?.unwrap_or_default();
    let ways: Vec<bool> = get::<Option<_>>(row, "crossed_ways")?.unwrap_or_default();
    let crossing = |(seq, large)| Ok(Crossing { last_seq: unsigned(seq, "crossed_seqs")?, large });
    let crossings = seqs.into_iter().zip(ways).map(crossing).collect::<Result<_, StoreError>>()?;
    Ok(Route { large: get(row, "large")?, count: number(row, "member_count")?, crossings })
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

/// How often a change of members is tried again because another one, or a message, came in between.
pub(super) const TRIES_MAX: u32 = 100;
/// After so many tries a message may come in between: then the event of who comes in tells of the conversation as it was just
/// before.
pub(super) const STRICT_TRIES: u32 = 8;

async fn change_membership(
    client: &Object,
    id: &ConversationId,
    user: &UserId,
    change: &MembershipChange,
    row: &OutboxRow<MembershipOutcome>,
) -> Result<MembershipOutcome, StoreError> {
    let attempt = |tried| try_once(client, id, user, change, row, tried < STRICT_TRIES);
    until_it_holds("conversation", TRIES_MAX, attempt).await
}

/// Reads, decides, and has it written by one call; `None` if something was changed in between.
async fn try_once(
    client: &Object,
    id: &ConversationId,
    user: &UserId,
    change: &MembershipChange,
    row: &OutboxRow<MembershipOutcome>,
    strict: bool,
) -> Result<Option<MembershipOutcome>, StoreError> {
    // First of all: whatever is read behind it is as new as this version, if that is still the one under the lock.
    let list = members(client, id).await?;
    let head = "SELECT visibility, last_seq FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    let head = query_opt(client, head, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let facts = Facts {
        visibility: word(&head, "visibility", Visibility::parse)?,
        user,
        standing: standing(client, id, Some(user)).await?,
        actor: standing(client, id, change.by()).await?,
        members: &list,
        blocked: match change.brought_in_by() {
            Some(by) => !blocked_with(client, by, std::slice::from_ref(user)).await?.is_empty(),
            None => false,
        },
    };
    let change = Change::decide(&facts, change)?;
    let last_seq = number(&head, "last_seq")?;
    let Some(step) = change.step() else {
        let conversation = conversations::view(client, id, Some(user)).await?;
        let outcome = change.outcome(user, list, last_seq, conversation);
        outbox::write(client, row, &outcome).await?;
        return Ok(Some(outcome));
    };
    let version = list.version;
    let comers = if step.comes() { std::slice::from_ref(user) } else { &[] };
    let foreseen = conversations::view_with(client, id, user, comers, (step.next.role, last_seq)).await?;
    let foreseen = change.outcome(user, list.clone(), last_seq, foreseen);
    let written = MembersWritten {
        version,
        last_seq: (strict && step.comes()).then_some(last_seq),
        users: std::slice::from_ref(user),
        next: step.next,
        comes: step.comes(),
        goes: step.goes(),
    };
    let Some(last_seq) = write(client, id, &written, &RowArguments::of(row, &foreseen)?).await? else {
        return Ok(None);
    };
    let conversation = conversations::view(client, id, Some(user)).await?;
    Ok(Some(change.outcome(user, list, last_seq, conversation)))
}

/// What a change makes of members.
pub(super) struct MembersWritten<'a> {
    /// The members' version that it was decided by.
    pub(super) version: u64,
    /// The newest message that it was decided by, if that matters.
    pub(super) last_seq: Option<u64>,
    /// Whom it concerns, ascending by id.
    pub(super) users: &'a [UserId],
    pub(super) next: Standing,
    pub(super) comes: bool,
    pub(super) goes: bool,
}

/// The newest message when it was written; `None` if something was changed since it was read.
pub(super) async fn write(
    client: &impl GenericClient,
    id: &ConversationId,
    written: &MembersWritten<'_>,
    row: &RowArguments,
) -> Result<Option<u64>, StoreError> {
    let sql =
        "SELECT parley_change_members($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) AS last_seq";
    let MembersWritten { version, last_seq, users, next, comes, goes } = written;
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let own: [&(dyn ToSql + Sync); 8] = [
        &id.as_str(),
        &bigint(*version),
        &last_seq.map(bigint),
        &users,
        &next.role.as_str(),
        &next.state.as_str(),
        comes,
        goes,
    ];
    let made = Made { when: "done.last_seq IS NOT NULL", rev: "NULL::bigint" };
    let answer = row.call(client, sql, &own, made).await?.ok_or_else(|| unfit("last_seq"))?;
    get::<Option<i64>>(&answer, "last_seq")?.map(|seq| unsigned(seq, "last_seq")).transpose()
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
