//! Lists and single rows that clients ask for after a reload.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::message::{ListedChannel, ListedMember, MemberState};
use shared::{Conversation, ConversationId, Message, MessageId, Role, UserId};
use tokio_postgres::Row;

use super::call::{on_connection, query, query_opt};
use super::conversations::views;
use super::pool::PostgresStore;
use super::rows::{bigint, get, message, message_columns, number, parsed, word};
use crate::store::listings::{CHANNELS_READ_MAX, ChannelPage, Listings, channel_page};
use crate::store::{Refusal, StoreError};

#[async_trait]
impl Listings for PostgresStore {
    async fn listed_members(
        &self,
        id: &ConversationId,
        viewer: Option<&UserId>,
        outsiders: bool,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<ListedMember>, StoreError> {
        on_connection!(self, client => listed_members(client, id, viewer, outsiders, after, limit))
    }

    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        on_connection!(self, client => one_message(client, id))
    }

    async fn blocked_by(&self, user: &UserId, after: Option<&UserId>, limit: u32) -> Result<Vec<UserId>, StoreError> {
        on_connection!(self, client => blocked_by(client, user, after, limit))
    }

    async fn invitations(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError> {
        on_connection!(self, client => invitations(client, user, after, limit))
    }

    async fn public_channels(
        &self,
        wanted: Option<&str>,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<ChannelPage, StoreError> {
        on_connection!(self, client => public_channels(client, wanted, after, limit))
    }
}

// No id is empty: all come behind that.

async fn listed_members(
    client: &impl GenericClient,
    id: &ConversationId,
    viewer: Option<&UserId>,
    outsiders: bool,
    after: Option<&UserId>,
    limit: u32,
) -> Result<Vec<ListedMember>, StoreError> {
    let sql = "SELECT 1 FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    query_opt(client, sql, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    let sql = "SELECT m.user_id, m.role, m.state, m.read_seq, m.delivered_seq, \
            (SELECT u.name FROM users u WHERE u.id = m.user_id) AS username, \
            m.state <> 'accepted' \
                OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = $5 AND b.blocked = m.user_id OFFSET 0) \
                OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = m.user_id AND b.blocked = $5 OFFSET 0) \
                AS is_hidden \
        FROM members m WHERE m.conversation_id = $1 AND m.user_id > $2 \
            AND (m.state = 'accepted' OR ($3 AND m.state IN ('invited', 'banned'))) ORDER BY m.user_id LIMIT $4";
    let after = after.map_or("", UserId::as_str);
    let viewer = viewer.map(UserId::as_str);
    let rows = query(client, sql, &[&id.as_str(), &after, &outsiders, &i64::from(limit), &viewer]).await?;
    let member = |row: &Row| {
        let is_shown = !get::<bool>(row, "is_hidden")?;
        let position = |column| is_shown.then(|| number(row, column)).transpose();
        Ok(ListedMember {
            user_id: parsed(row, "user_id", str::parse)?,
            username: get(row, "username")?,
            role: word(row, "role", Role::parse)?,
            state: word(row, "state", MemberState::parse)?,
            read_seq: position("read_seq")?,
            delivered_seq: position("delivered_seq")?,
        })
    };
    rows.iter().map(member).collect()
}

async fn one_message(client: &impl GenericClient, id: MessageId) -> Result<Option<Message>, StoreError> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE m.id = $1 AND c.deleted_at IS NULL"
    );
    query_opt(client, SQL, &[&bigint(id.get())]).await?.map(|row| message(&row)).transpose()
}

async fn blocked_by(
    client: &impl GenericClient,
    user: &UserId,
    after: Option<&UserId>,
    limit: u32,
) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT blocked FROM blocks WHERE blocker = $1 AND blocked > $2 ORDER BY blocked LIMIT $3";
    let after = after.map_or("", UserId::as_str);
    let rows = query(client, sql, &[&user.as_str(), &after, &i64::from(limit)]).await?;
    rows.iter().map(|row| parsed(row, "blocked", str::parse)).collect()
}

async fn invitations(
    client: &impl GenericClient,
    user: &UserId,
    after: Option<&ConversationId>,
    limit: u32,
) -> Result<Vec<Conversation>, StoreError> {
    let sql = "SELECT conversation_id FROM members WHERE user_id = $1 AND conversation_id > $2 \
        AND state <> 'accepted' AND state = 'invited' ORDER BY conversation_id LIMIT $3";
    let after = after.map_or("", ConversationId::as_str);
    let rows = query(client, sql, &[&user.as_str(), &after, &i64::from(limit)]).await?;
    let ids = rows.iter().map(|row| get(row, "conversation_id")).collect::<Result<Vec<&str>, _>>()?;
    Ok(views(client, &ids, Some(user)).await?.into_iter().map(|seen| seen.conversation).collect())
}

async fn public_channels(
    client: &impl GenericClient,
    wanted: Option<&str>,
    after: Option<&ConversationId>,
    limit: u32,
) -> Result<ChannelPage, StoreError> {
    let sql = "SELECT id, title, password_hash IS NOT NULL AS has_password, member_count FROM conversations \
        WHERE kind = 'channel' AND visibility = 'public' AND deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2";
    let after = after.map_or("", ConversationId::as_str);
    let rows = query(client, sql, &[&after, &i64::from(CHANNELS_READ_MAX)]).await?;
    let channel = |row: &Row| {
        Ok(ListedChannel {
            id: parsed(row, "id", str::parse)?,
            title: get(row, "title")?,
            has_password: get(row, "has_password")?,
            member_count: number(row, "member_count")?,
        })
    };
    let read = rows.iter().map(channel).collect::<Result<_, StoreError>>()?;
    Ok(channel_page(read, wanted, limit))
}
