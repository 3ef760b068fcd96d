//! Conversations: making them, and reading them as a viewer sees them.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use futures_util::future::try_join;
use shared::message::MemberView;
use shared::{Conversation, ConversationId, ConversationKind, Role, Timestamp, UserId, Visibility};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::blocks::blocked_with;
use super::call::{execute, on_connection, query, query_opt};
use super::outbox::{self, RowArguments};
use super::owed::Made;
use super::pool::PostgresStore;
use super::rows::{get, message, message_columns, number, parsed, system_time, time, unfit, word, word_or_null};
use crate::store::conversations::{Seen, check_not_direct, pair_key, sees_inside};
use crate::store::membership::State;
use crate::store::walk::{Active, PageEnd};
use crate::store::{
    ConversationPage, Conversations, MEMBERS_SHOWN_MAX, NewConversation, OpenedDirect, OutboxRow, Refusal, StoreError,
    WalkPart, WalkPlace,
};

#[async_trait]
impl Conversations for PostgresStore {
    async fn direct(&self, pair: (&UserId, &UserId)) -> Result<Option<ConversationId>, StoreError> {
        let key = pair_key(pair);
        on_connection!(self, client => direct(&*client, &key))
    }

    async fn open_direct(
        &self,
        by: Option<&UserId>,
        pair: (&UserId, &UserId),
        id: &ConversationId,
        outbox: OutboxRow<Conversation>,
    ) -> Result<(Conversation, bool), StoreError> {
        on_connection!(self, Change: client => open_direct(client, by, pair, id, &outbox))
    }

    async fn create_conversation(
        &self,
        new: &NewConversation,
        outbox: OutboxRow<Conversation>,
    ) -> Result<Conversation, StoreError> {
        on_connection!(self, Change: client => create(client, new, &outbox))
    }

    async fn conversation(&self, id: &ConversationId, viewer: Option<&UserId>) -> Result<Conversation, StoreError> {
        on_connection!(self, client => one(client, id, viewer))
    }

    async fn conversations(
        &self,
        user: &UserId,
        place: Option<&WalkPlace>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        on_connection!(self, client => of_user(&*client, user, place, limit))
    }
}

async fn open_direct(
    client: &Object,
    by: Option<&UserId>,
    pair: (&UserId, &UserId),
    id: &ConversationId,
    row: &OutboxRow<Conversation>,
) -> Result<(Conversation, bool), StoreError> {
    let key = pair_key(pair);
    if let Some(there) = direct(client, &key).await? {
        return Ok((view(client, &there, Some(pair.0)).await?, false));
    }
    let sql = "SELECT date_trunc('milliseconds', clock_timestamp()) AS now";
    let now = time(&query_opt(client, sql, &[]).await?.ok_or_else(|| unfit("now"))?, "now")?;
    let opened = OpenedDirect::with_key(id.clone(), &key, now).ok_or_else(|| unfit("pair_key"))?;
    let conversation = opened.conversation();
    let arguments = RowArguments::of(row, &conversation)?;
    let sql = "SELECT parley_open_direct($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS outcome";
    let (one, other) = &opened.pair;
    let own: [&(dyn ToSql + Sync); 6] =
        [&id.as_str(), &key, &one.as_str(), &other.as_str(), &by.is_none(), &system_time(now)];
    let made = Made { when: "done.outcome = 'opened'", rev: "NULL::bigint" };
    let answer = arguments.call(client, sql, &own, made).await?.ok_or_else(|| unfit("outcome"))?;
    match get::<&str>(&answer, "outcome")? {
        "opened" => Ok((conversation, true)),
        "there" => {
            let there = direct(client, &key).await?.ok_or(Refusal::NotFound)?;
            Ok((view(client, &there, Some(pair.0)).await?, false))
        }
        "blocked" => Err(Refusal::Blocked.into()),
        "taken" => Err(Refusal::Conflict.into()),
        _ => Err(unfit("outcome")),
    }
}

async fn direct(client: &impl GenericClient, key: &str) -> Result<Option<ConversationId>, StoreError> {
    let row = query_opt(client, "SELECT id FROM conversations WHERE pair_key = $1", &[&key]).await?;
    row.map(|row| parsed(&row, "id", str::parse)).transpose()
}

async fn create(
    client: &mut Object,
    new: &NewConversation,
    row: &OutboxRow<Conversation>,
) -> Result<Conversation, StoreError> {
    check_not_direct(new)?;
    let change = client.transaction().await?;
    insert(&change, new).await?;
    let conversation = view(&change, &new.id, new.owner.as_ref()).await?;
    outbox::write(&change, row, &conversation).await?;
    change.commit().await?;
    Ok(conversation)
}

/// The conversation and its members; `Conflict` if the id is taken.
async fn insert(change: &impl GenericClient, new: &NewConversation) -> Result<(), StoreError> {
    let members = new.roles();
    let sql = "INSERT INTO conversations \
        (id, kind, title, visibility, password_hash, member_count, created_at, last_activity) \
        SELECT $1, $2, $3, $4, $5, $6, now.at, now.at \
        FROM (SELECT date_trunc('milliseconds', clock_timestamp()) AS at) now ON CONFLICT (id) DO NOTHING";
    let count = i64::try_from(members.len()).unwrap_or(i64::MAX);
    let made = execute(
        change,
        sql,
        &[&new.id.as_str(), &new.kind.as_str(), &new.title, &new.visibility.as_str(), &new.password_hash, &count],
    )
    .await?;
    if made == 0 {
        return Err(Refusal::Conflict.into());
    }
    let users: Vec<&str> = members.keys().map(|user| user.as_str()).collect();
    let roles: Vec<&str> = members.values().map(|role| role.as_str()).collect();
    let sql = "INSERT INTO members (conversation_id, user_id, role, state) \
        SELECT $1, i.user_id, i.role, 'accepted' FROM unnest($2::text[], $3::text[]) AS i(user_id, role)";
    execute(change, sql, &[&new.id.as_str(), &users, &roles]).await.map(drop)
}

async fn one(
    client: &impl GenericClient,
    id: &ConversationId,
    viewer: Option<&UserId>,
) -> Result<Conversation, StoreError> {
    let seen = views(client, &[id.as_str()], viewer).await?.pop().ok_or(Refusal::NotFound)?;
    Ok(seen.checked(viewer)?)
}

/// As `viewer` sees it, without a check whether the viewer may.
pub(super) async fn view(
    client: &impl GenericClient,
    id: &ConversationId,
    viewer: Option<&UserId>,
) -> Result<Conversation, StoreError> {
    let seen = views(client, &[id.as_str()], viewer).await?.pop().ok_or(Refusal::NotFound)?;
    Ok(seen.conversation)
}

/// As `viewer` will see it, when `comers` have come in, each with this role, behind this message; `viewer` is one of them
/// if there are any.
pub(super) async fn view_with(
    client: &impl GenericClient,
    id: &ConversationId,
    viewer: &UserId,
    comers: &[UserId],
    (role, last_seq): (Role, u64),
) -> Result<Conversation, StoreError> {
    if comers.is_empty() {
        return view(client, id, Some(viewer)).await;
    }
    let seen = views_as(client, &[id.as_str()], Some(viewer), true).await?.pop().ok_or(Refusal::NotFound)?;
    let mut conversation = seen.conversation;
    let all = comers.iter().map(|user| MemberView { user_id: user.clone(), role, read_seq: last_seq });
    conversation.members.extend(all);
    conversation.members.sort_by(|one, other| one.user_id.cmp(&other.user_id));
    conversation.members.truncate(usize::try_from(MEMBERS_SHOWN_MAX).unwrap_or(usize::MAX));
    let shown: Vec<UserId> = conversation.members.iter().map(|member| member.user_id.clone()).collect();
    let hidden = blocked_with(client, viewer, &shown).await?;
    for member in &mut conversation.members {
        if hidden.binary_search(&member.user_id).is_ok() {
            member.read_seq = 0;
        }
    }
    conversation.member_count += u64::try_from(comers.len()).unwrap_or_default();
    conversation.unread = Some(0);
    Ok(conversation)
}

async fn of_user(
    client: &impl GenericClient,
    user: &UserId,
    place: Option<&WalkPlace>,
    limit: u32,
) -> Result<ConversationPage, StoreError> {
    let (page, now) = page_of(client, user, place, limit).await?;
    let end = PageEnd { place, page: &page, limit, now };
    let next = if end.may_come_again() {
        let again = end.again();
        let is_any = !page_of(client, user, Some(&again), 1).await?.0.is_empty();
        is_any.then_some(again)
    } else {
        end.if_full()
    };
    let ids: Vec<&str> = page.iter().map(|(id, _)| id.as_str()).collect();
    let items = views(client, &ids, Some(user)).await?.into_iter().map(|seen| seen.conversation).collect();
    Ok(ConversationPage { items, next })
}

/// The conversations of a page, and the store's time; the time is the oldest if there are none.
async fn page_of(
    client: &impl GenericClient,
    user: &UserId,
    place: Option<&WalkPlace>,
    limit: u32,
) -> Result<(Vec<Active>, Timestamp), StoreError> {
    const FIRST: &str = "SELECT c.id, c.last_activity, statement_timestamp() AS now FROM members p \
        JOIN conversations c ON c.id = p.conversation_id WHERE p.user_id = $1 AND p.state = 'accepted' \
        ORDER BY c.last_activity DESC, c.id LIMIT $2";
    const BEHIND: &str = "SELECT c.id, c.last_activity, statement_timestamp() AS now FROM members p \
        JOIN conversations c ON c.id = p.conversation_id WHERE p.user_id = $1 AND p.state = 'accepted' \
            AND (c.last_activity < $3 OR (c.last_activity = $3 AND c.id > $4)) \
        ORDER BY c.last_activity DESC, c.id LIMIT $2";
    const AGAIN: &str = "SELECT c.id, c.last_activity, statement_timestamp() AS now FROM members p \
        JOIN conversations c ON c.id = p.conversation_id WHERE p.user_id = $1 AND p.state = 'accepted' \
            AND c.last_activity > $3 AND c.id > $4 ORDER BY c.id LIMIT $2";
    let (user, limit) = (user.as_str(), i64::from(limit));
    let rows = match place.map(|place| (&place.part, place.since)) {
        None => query(client, FIRST, &[&user, &limit]).await?,
        Some((WalkPart::ByActivity { activity, id }, _)) => {
            query(client, BEHIND, &[&user, &limit, &system_time(*activity), &id.as_str()]).await?
        }
        Some((WalkPart::Again(id), since)) => {
            // No id is empty: all come behind that.
            let id = id.as_ref().map_or("", ConversationId::as_str);
            query(client, AGAIN, &[&user, &limit, &system_time(since), &id]).await?
        }
    };
    let active = |row: &Row| Ok((parsed(row, "id", str::parse)?, time(row, "last_activity")?));
    let page = rows.iter().map(active).collect::<Result<Vec<Active>, StoreError>>()?;
    let now = rows.first().map(|row| time(row, "now")).transpose()?;
    Ok((page, now.unwrap_or_default()))
}

/// The conversations in the order of `ids`; one that isn't there is left out.
pub(super) async fn views(
    client: &impl GenericClient,
    ids: &[&str],
    viewer: Option<&UserId>,
) -> Result<Vec<Seen>, StoreError> {
    views_as(client, ids, viewer, viewer.is_none()).await
}

/// The same, with what only members see if `sees_all`.
async fn views_as(
    client: &impl GenericClient,
    ids: &[&str],
    viewer: Option<&UserId>,
    sees_all: bool,
) -> Result<Vec<Seen>, StoreError> {
    const HEADS: &str = concat!(
        "SELECT c.id, c.kind, c.title, c.visibility, c.password_hash IS NOT NULL AS has_password, c.created_at, \
            c.last_seq, c.rev, c.member_count, c.large, v.state AS viewer_state, v.seen_seq AS viewer_seen, m.id IS NOT NULL \
            AS has_message, ",
        message_columns!(),
        " FROM unnest($1::text[]) WITH ORDINALITY AS i(id, place) \
            JOIN conversations c ON c.id = i.id AND c.deleted_at IS NULL \
            LEFT JOIN members v ON v.conversation_id = c.id AND v.user_id = $2 \
            LEFT JOIN messages m ON m.conversation_id = c.id AND m.seq = c.last_seq ORDER BY i.place"
    );
    const MEMBERS: &str = "SELECT i.id, o.user_id, o.role, o.read_seq FROM unnest($1::text[]) AS i(id) \
        CROSS JOIN LATERAL (SELECT o.user_id, o.role, o.read_seq FROM members o \
            WHERE o.conversation_id = i.id AND o.state = 'accepted' ORDER BY o.user_id LIMIT $2) o \
        ORDER BY i.id, o.user_id";
    let viewer_id = viewer.map(UserId::as_str);
    let (heads, members) = (client.prepare_cached(HEADS).await?, client.prepare_cached(MEMBERS).await?);
    let shown = i64::from(MEMBERS_SHOWN_MAX);
    let (heads, members) = try_join(async { client.query(&heads, &[&ids, &viewer_id]).await }, async {
        client.query(&members, &[&ids, &shown]).await
    })
    .await?;
    let hidden = match viewer {
        Some(viewer) => {
            let users: BTreeSet<UserId> = members.iter().map(of_member).collect::<Result<_, _>>()?;
            blocked_with(client, viewer, &users.into_iter().collect::<Vec<_>>()).await?
        }
        None => Vec::new(),
    };
    let mut lists: HashMap<&str, Vec<MemberView>> = HashMap::new();
    for row in &members {
        let user_id = of_member(row)?;
        // Receipts don't pass a block, and so the position that they would tell doesn't either.
        let read_seq = if hidden.binary_search(&user_id).is_ok() { 0 } else { number(row, "read_seq")? };
        let member = MemberView { user_id, role: word(row, "role", Role::parse)?, read_seq };
        lists.entry(get(row, "id")?).or_default().push(member);
    }
    heads
        .iter()
        .map(|row| {
            let list = lists.remove(get::<&str>(row, "id")?).unwrap_or_default();
            seen(row, list, !sees_all)
        })
        .collect()
}

fn of_member(row: &Row) -> Result<UserId, StoreError> {
    parsed(row, "user_id", str::parse)
}

/// A viewer who is no member sees neither the members nor the last message.
fn seen(row: &Row, list: Vec<MemberView>, has_viewer: bool) -> Result<Seen, StoreError> {
    let state = word_or_null(row, "viewer_state", State::parse)?;
    let inside = state == Some(State::Accepted);
    let last_seq = number(row, "last_seq")?;
    let shown = sees_inside(state, has_viewer);
    let conversation = Conversation {
        id: parsed(row, "id", str::parse)?,
        kind: word(row, "kind", ConversationKind::parse)?,
        title: get(row, "title")?,
        visibility: word(row, "visibility", Visibility::parse)?,
        has_password: get(row, "has_password")?,
        created_at: time(row, "created_at")?,
        last_seq,
        rev: number(row, "rev")?,
        last_message: if shown && get(row, "has_message")? { Some(message(row)?) } else { None },
        member_count: number(row, "member_count")?,
        large: get(row, "large")?,
        members: if shown { list } else { Vec::new() },
        unread: if inside { Some(last_seq.saturating_sub(number(row, "viewer_seen")?)) } else { None },
    };
    Ok(Seen { conversation, state })
}
