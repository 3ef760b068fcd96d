//! Conversations: making them, and reading them as a viewer sees them.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};
use shared::message::MemberView;
use shared::{Conversation, ConversationId, ConversationKind, Role, Timestamp, UserId, Visibility};

use super::blocks::is_blocked;
use super::outbox;
use super::rows::{
    execute, get, message, message_columns, now_ms, number, parsed, row, rows, time, word, word_or_null,
};
use super::thread::SqliteStore;
use crate::store::conversations::{Seen, check_not_direct, new_direct, pair_key, sees_inside};
use crate::store::membership::State;
use crate::store::walk::{Active, PageEnd};
use crate::store::{
    ConversationPage, Conversations, MEMBERS_SHOWN_MAX, NewConversation, OutboxRow, Refusal, StoreError, WalkPart,
    WalkPlace,
};

#[async_trait]
impl Conversations for SqliteStore {
    async fn direct(&self, pair: (&UserId, &UserId)) -> Result<Option<ConversationId>, StoreError> {
        let key = pair_key(pair);
        self.read(move |read| direct(read, &key)).await
    }

    async fn open_direct(
        &self,
        by: Option<&UserId>,
        pair: (&UserId, &UserId),
        id: &ConversationId,
        outbox: OutboxRow<Conversation>,
    ) -> Result<(Conversation, bool), StoreError> {
        let (one, other, id) = (pair.0.clone(), pair.1.clone(), id.clone());
        let by_user = by.is_some();
        self.write(move |change| open_direct(change, by_user, (&one, &other), &id, &outbox)).await
    }

    async fn create_conversation(
        &self,
        new: &NewConversation,
        outbox: OutboxRow<Conversation>,
    ) -> Result<Conversation, StoreError> {
        let new = new.clone();
        self.write(move |change| create(change, &new, &outbox)).await
    }

    async fn conversation(&self, id: &ConversationId, viewer: Option<&UserId>) -> Result<Conversation, StoreError> {
        let (id, viewer) = (id.clone(), viewer.cloned());
        self.read(move |read| one(read, &id, viewer.as_ref())).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        place: Option<&WalkPlace>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        let (user, place) = (user.clone(), place.cloned());
        self.read(move |read| of_user(read, &user, place.as_ref(), limit)).await
    }
}

fn open_direct(
    change: &Connection,
    by_user: bool,
    pair: (&UserId, &UserId),
    id: &ConversationId,
    outbox: &OutboxRow<Conversation>,
) -> Result<(Conversation, bool), StoreError> {
    let key = pair_key(pair);
    if let Some(there) = direct(change, &key)? {
        return Ok((view(change, &there, Some(pair.0))?, false));
    }
    let blocked = is_blocked(change, pair.0, pair.1)?;
    if blocked && by_user {
        return Err(Refusal::Blocked.into());
    }
    let made = new_direct(id, pair);
    insert(change, &made, Some(&key), Timestamp::from_unix_ms(now_ms()))?;
    if blocked {
        execute(change, "UPDATE conversations SET blocked = true WHERE id = ?1", [id.as_str()])?;
    }
    let conversation = view(change, id, Some(pair.0))?;
    outbox::write(change, outbox, &conversation)?;
    Ok((conversation, true))
}

pub(super) fn direct(read: &Connection, key: &str) -> Result<Option<ConversationId>, StoreError> {
    row(read, "SELECT id FROM conversations WHERE pair_key = ?1", [key], |row| parsed(row, "id", str::parse))
}

fn create(
    change: &Connection,
    new: &NewConversation,
    outbox: &OutboxRow<Conversation>,
) -> Result<Conversation, StoreError> {
    check_not_direct(new)?;
    insert(change, new, None, Timestamp::from_unix_ms(now_ms()))?;
    let conversation = view(change, &new.id, new.owner.as_ref())?;
    outbox::write(change, outbox, &conversation)?;
    Ok(conversation)
}

/// The conversation and its members; `Conflict` if the id is taken.
pub(super) fn insert(
    change: &Connection,
    new: &NewConversation,
    pair_key: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let members = new.roles();
    let sql = "INSERT INTO conversations \
        (id, kind, pair_key, title, visibility, password_hash, member_count, created_at, last_activity) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) ON CONFLICT (id) DO NOTHING";
    let count = i64::try_from(members.len()).unwrap_or(i64::MAX);
    let (kind, visibility) = (new.kind.as_str(), new.visibility.as_str());
    let made = execute(
        change,
        sql,
        params![new.id.as_str(), kind, pair_key, new.title, visibility, new.password_hash, count, now.unix_ms()],
    )?;
    if made == 0 {
        return Err(Refusal::Conflict.into());
    }
    for (user, role) in members {
        let sql = "INSERT INTO members (conversation_id, user_id, role, state) VALUES (?1, ?2, ?3, 'accepted')";
        execute(change, sql, [new.id.as_str(), user.as_str(), role.as_str()])?;
    }
    Ok(())
}

fn one(read: &Connection, id: &ConversationId, viewer: Option<&UserId>) -> Result<Conversation, StoreError> {
    Ok(seen(read, id, viewer)?.checked(viewer)?)
}

/// As `viewer` sees it, without a check whether the viewer may.
pub(super) fn view(
    read: &Connection,
    id: &ConversationId,
    viewer: Option<&UserId>,
) -> Result<Conversation, StoreError> {
    seen(read, id, viewer).map(|seen| seen.conversation)
}

fn of_user(
    read: &Connection,
    user: &UserId,
    place: Option<&WalkPlace>,
    limit: u32,
) -> Result<ConversationPage, StoreError> {
    // Before the page is read: what is active from then on comes again.
    let now = Timestamp::from_unix_ms(now_ms());
    let page = page_of(read, user, place, limit)?;
    let end = PageEnd { place, page: &page, limit, now };
    let next = if end.may_come_again() {
        let again = end.again();
        (!page_of(read, user, Some(&again), 1)?.is_empty()).then_some(again)
    } else {
        end.if_full()
    };
    let items = page.iter().map(|(id, _)| view(read, id, Some(user))).collect::<Result<_, _>>()?;
    Ok(ConversationPage { items, next })
}

fn page_of(read: &Connection, user: &UserId, place: Option<&WalkPlace>, limit: u32) -> Result<Vec<Active>, StoreError> {
    const FIRST: &str = "SELECT c.id, c.last_activity FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.state = 'accepted' ORDER BY c.last_activity DESC, c.id LIMIT ?2";
    const BEHIND: &str = "SELECT c.id, c.last_activity FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.state = 'accepted' AND (c.last_activity, ?4) < (?3, c.id) \
        ORDER BY c.last_activity DESC, c.id LIMIT ?2";
    const AGAIN: &str = "SELECT c.id, c.last_activity FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.state = 'accepted' AND c.last_activity > ?3 AND c.id > ?4 ORDER BY c.id LIMIT ?2";
    let active = |row: &Row<'_>| Ok((parsed(row, "id", str::parse)?, time(row, "last_activity")?));
    let user = user.as_str();
    match place.map(|place| (&place.part, place.since)) {
        None => rows(read, FIRST, params![user, limit], active),
        Some((WalkPart::ByActivity { activity, id }, _)) => {
            rows(read, BEHIND, params![user, limit, activity.unix_ms(), id.as_str()], active)
        }
        Some((WalkPart::Again(id), since)) => {
            // No id is empty: all come behind that.
            let id = id.as_ref().map_or("", ConversationId::as_str);
            rows(read, AGAIN, params![user, limit, since.unix_ms(), id], active)
        }
    }
}

/// A viewer who is no member sees neither the members nor the last message.
fn seen(read: &Connection, id: &ConversationId, viewer: Option<&UserId>) -> Result<Seen, StoreError> {
    const HEAD: &str = concat!(
        "SELECT c.kind, c.title, c.visibility, c.password_hash IS NOT NULL AS has_password, c.created_at, c.last_seq, \
            c.rev, c.member_count, c.large, v.state AS viewer_state, v.seen_seq AS viewer_seen, \
            m.id IS NOT NULL AS has_message, ",
        message_columns!(),
        " FROM conversations c LEFT JOIN members v ON v.conversation_id = c.id AND v.user_id = ?2 \
            LEFT JOIN messages m ON m.conversation_id = c.id AND m.seq = c.last_seq \
            WHERE c.id = ?1 AND c.deleted_at IS NULL"
    );
    let head = row(read, HEAD, params![id.as_str(), viewer.map(UserId::as_str)], |row| {
        let state = word_or_null(row, "viewer_state", State::parse)?;
        let inside = state == Some(State::Accepted);
        let shown = sees_inside(state, viewer.is_some());
        let last_seq = number(row, "last_seq")?;
        let conversation = Conversation {
            id: id.clone(),
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
            members: Vec::new(),
            unread: if inside { Some(last_seq.saturating_sub(number(row, "viewer_seen")?)) } else { None },
        };
        Ok((conversation, state, shown))
    })?;
    let (mut conversation, state, shown) = head.ok_or(Refusal::NotFound)?;
    if shown {
        let sql = "SELECT user_id, role, read_seq FROM members WHERE conversation_id = ?1 AND state = 'accepted' \
            ORDER BY user_id LIMIT ?2";
        conversation.members = rows(read, sql, params![id.as_str(), MEMBERS_SHOWN_MAX], |row| {
            Ok(MemberView {
                user_id: parsed(row, "user_id", str::parse)?,
                role: word(row, "role", Role::parse)?,
                read_seq: number(row, "read_seq")?,
            })
        })?;
        if let Some(viewer) = viewer {
            // Receipts don't pass a block, and so the position that they would tell doesn't either.
            for member in &mut conversation.members {
                if is_blocked(read, viewer, &member.user_id)? {
                    member.read_seq = 0;
                }
            }
        }
    }
    Ok(Seen { conversation, state })
}
