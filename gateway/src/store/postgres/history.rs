//! Reading: pages of messages, unread counts, conversation partners.

use deadpool_postgres::GenericClient;
use shared::{ConversationId, Message, UserId};

use super::query;
use super::rows::{bigint, index, message, message_columns, number, parsed};
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

pub(super) async fn unread(client: &impl GenericClient, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError> {
    let sql = "SELECT i.place, count.id, count.last_seq, count.seen_seq \
        FROM unnest($1::text[]) WITH ORDINALITY AS i(user_id, place) CROSS JOIN LATERAL (\
            SELECT c.id, c.last_seq, p.seen_seq FROM members p JOIN conversations c ON c.id = p.conversation_id \
            WHERE p.user_id = i.user_id AND p.state = 'accepted'\
        ) count ORDER BY i.place, count.id";
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let mut counts = vec![Vec::new(); users.len()];
    for row in query(client, sql, &[&names]).await? {
        let count = UnreadCount {
            conversation: parsed(&row, "id", str::parse)?,
            last_seq: number(&row, "last_seq")?,
            seen_seq: number(&row, "seen_seq")?,
        };
        if let Some(of_one) = counts.get_mut(index(&row, "place")?) {
            of_one.push(count);
        }
    }
    Ok(counts)
}

/// Looks at no more than `limit` conversations of a user and one more than `limit` others in each, so that a large channel
/// costs no more.
pub(super) async fn partners(
    client: &impl GenericClient,
    users: &[UserId],
    limit: u32,
) -> Result<Vec<Vec<UserId>>, StoreError> {
    let sql = "SELECT i.place, partner.user_id \
        FROM unnest($1::text[]) WITH ORDINALITY AS i(user_id, place) CROSS JOIN LATERAL (\
            SELECT o.user_id, \
                row_number() OVER (ORDER BY bool_or(c.direct) DESC, max(c.last_activity) DESC, o.user_id) AS nth \
            FROM (\
                SELECT c.id, c.kind = 'direct' AS direct, c.last_activity FROM members p \
                JOIN conversations c ON c.id = p.conversation_id \
                WHERE p.user_id = i.user_id AND p.state = 'accepted' \
                ORDER BY c.kind = 'direct' DESC, c.last_activity DESC, c.id LIMIT $2\
            ) c CROSS JOIN LATERAL (\
                SELECT o.user_id, count(*) OVER () AS others FROM (\
                    SELECT o.user_id FROM members o \
                    WHERE o.conversation_id = c.id AND o.user_id <> i.user_id AND o.state = 'accepted' LIMIT $2 + 1\
                ) o\
            ) o WHERE o.others <= $2 GROUP BY o.user_id ORDER BY nth LIMIT $2\
        ) partner ORDER BY i.place, partner.nth";
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let mut partners = vec![Vec::new(); users.len()];
    for row in query(client, sql, &[&names, &i64::from(limit)]).await? {
        let partner = parsed(&row, "user_id", str::parse)?;
        if let Some(of_one) = partners.get_mut(index(&row, "place")?) {
            of_one.push(partner);
        }
    }
    Ok(partners)
}
