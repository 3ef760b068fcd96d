//! Reading: pages of messages, unread counts, conversation partners.

use deadpool_postgres::GenericClient;
use shared::{ConversationId, Message, UserId};

use super::query;
use super::rows::{bigint, message, message_columns, number, parsed};
use crate::store::{Page, StoreError, UnreadCount};

pub(super) async fn messages(
    client: &impl GenericClient,
    id: &ConversationId,
    page: Page,
    limit: u32,
) -> Result<Vec<Message>, StoreError> {
    const NEWEST: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = $1 AND m.seq < $2 ORDER BY m.seq DESC LIMIT $3"
    );
    const AFTER: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = $1 AND m.seq > $2 ORDER BY m.seq LIMIT $3"
    );
    const CHANGED: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = $1 AND m.rev > $2 ORDER BY m.rev LIMIT $3"
    );
    let (sql, bound, backwards) = match page {
        Page::Newest => (NEWEST, i64::MAX, true),
        Page::Before(seq) => (NEWEST, bigint(seq), true),
        Page::After(seq) => (AFTER, bigint(seq), false),
        Page::ChangedSince(rev) => (CHANGED, bigint(rev), false),
    };
    let rows = query(client, sql, &[&id.as_str(), &bound, &i64::from(limit)]).await?;
    let mut page = rows.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    if backwards {
        page.reverse();
    }
    Ok(page)
}

pub(super) async fn unread(client: &impl GenericClient, user: &UserId) -> Result<Vec<UnreadCount>, StoreError> {
    let sql = "SELECT c.id, c.last_seq, p.seen_seq FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = $1 AND p.state = 'accepted' ORDER BY c.id";
    query(client, sql, &[&user.as_str()])
        .await?
        .iter()
        .map(|row| {
            Ok(UnreadCount {
                conversation: parsed(row, "id", str::parse)?,
                last_seq: number(row, "last_seq")?,
                seen_seq: number(row, "seen_seq")?,
            })
        })
        .collect()
}

/// Looks at no more than `limit` conversations and `limit` members of each, so that a large channel costs no more.
pub(super) async fn partners(
    client: &impl GenericClient,
    user: &UserId,
    limit: u32,
) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT o.user_id FROM (\
            SELECT c.id, c.kind = 'direct' AS direct, c.last_activity FROM members p \
            JOIN conversations c ON c.id = p.conversation_id \
            WHERE p.user_id = $1 AND p.state = 'accepted' \
            ORDER BY c.kind = 'direct' DESC, c.last_activity DESC, c.id LIMIT $2\
        ) c CROSS JOIN LATERAL (\
            SELECT o.user_id FROM members o \
            WHERE o.conversation_id = c.id AND o.user_id <> $1 AND o.state = 'accepted' ORDER BY o.user_id LIMIT $2\
        ) o GROUP BY o.user_id ORDER BY bool_or(c.direct) DESC, max(c.last_activity) DESC, o.user_id LIMIT $2";
    query(client, sql, &[&user.as_str(), &i64::from(limit)])
        .await?
        .iter()
        .map(|row| parsed(row, "user_id", str::parse))
        .collect()
}
