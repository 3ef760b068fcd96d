//! Reading: pages of messages, unread counts, conversation partners.

use rusqlite::{Connection, params};
use shared::{ConversationId, Message, UserId};

use super::rows::{integer, message, message_columns, number, parsed, rows};
use crate::store::{Page, StoreError, UnreadCount};

const BEFORE: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m WHERE m.conversation_id = ?1 AND m.seq < ?2 ORDER BY m.seq DESC LIMIT ?3"
);
const AFTER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m WHERE m.conversation_id = ?1 AND m.seq > ?2 ORDER BY m.seq LIMIT ?3"
);
const CHANGED: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m WHERE m.conversation_id = ?1 AND m.rev > ?2 ORDER BY m.rev LIMIT ?3"
);

pub(super) fn messages(
    read: &Connection,
    id: &ConversationId,
    page: Page,
    limit: u32,
) -> Result<Vec<Message>, StoreError> {
    let (sql, bound, backwards) = match page {
        Page::Newest => (BEFORE, i64::MAX, true),
        Page::Before(seq) => (BEFORE, integer(seq), true),
        Page::After(seq) => (AFTER, integer(seq), false),
        Page::ChangedSince(rev) => (CHANGED, integer(rev), false),
    };
    let mut page = rows(read, sql, params![id.as_str(), bound, limit], message)?;
    if backwards {
        page.reverse();
    }
    Ok(page)
}

pub(super) fn unread(read: &Connection, user: &UserId) -> Result<Vec<UnreadCount>, StoreError> {
    let sql = "SELECT c.id, c.last_seq, p.seen_seq FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.state = 'accepted' ORDER BY c.id";
    rows(read, sql, [user.as_str()], |row| {
        Ok(UnreadCount {
            conversation: parsed(row, "id", str::parse)?,
            last_seq: number(row, "last_seq")?,
            seen_seq: number(row, "seen_seq")?,
        })
    })
}

/// Looks at no more than `limit` conversations and one more than `limit` others in each, so that a large channel costs no
/// more.
pub(super) fn partners(read: &Connection, user: &UserId, limit: u32) -> Result<Vec<UserId>, StoreError> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let sql = "SELECT c.id FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.state = 'accepted' \
        ORDER BY c.kind = 'direct' DESC, c.last_activity DESC, c.id LIMIT ?2";
    let conversations: Vec<ConversationId> =
        rows(read, sql, params![user.as_str(), limit], |row| parsed(row, "id", str::parse))?;
    let sql = "SELECT user_id FROM members \
        WHERE conversation_id = ?1 AND user_id <> ?2 AND state = 'accepted' ORDER BY user_id LIMIT ?3";
    let mut partners: Vec<UserId> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for id in conversations {
        if partners.len() >= most {
            break;
        }
        let members: Vec<UserId> = rows(read, sql, params![id.as_str(), user.as_str(), i64::from(limit) + 1], |row| {
            parsed(row, "user_id", str::parse)
        })?;
        if members.len() > most {
            continue;
        }
        partners.extend(members.into_iter().filter(|member| known.insert(member.clone())));
    }
    partners.truncate(most);
    Ok(partners)
}
