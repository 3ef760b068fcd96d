//! Lists and single rows that clients ask for after a reload.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::message::{ListedChannel, ListedMember, MemberState};
use shared::{Conversation, ConversationId, Message, MessageId, Role, UserId};

use super::conversations::view;
use super::rows::{get, integer, message, message_columns, number, parsed, row, rows, word};
use super::thread::SqliteStore;
use crate::store::listings::{CHANNELS_READ_MAX, ChannelPage, Listings, channel_page};
use crate::store::{Refusal, StoreError};

#[async_trait]
impl Listings for SqliteStore {
    async fn listed_members(
        &self,
        id: &ConversationId,
        viewer: Option<&UserId>,
        outsiders: bool,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<ListedMember>, StoreError> {
        let (id, viewer, after) = (id.clone(), viewer.cloned(), after.cloned());
        self.read(move |read| listed_members(read, &id, viewer.as_ref(), outsiders, after.as_ref(), limit)).await
    }

    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            message_columns!(),
            " FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE m.id = ?1 AND c.deleted_at IS NULL"
        );
        self.read(move |read| row(read, SQL, [integer(id.get())], message)).await
    }

    async fn blocked_by(&self, user: &UserId, after: Option<&UserId>, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let (user, after) = (user.clone(), after.cloned());
        let sql = "SELECT blocked FROM blocks WHERE blocker = ?1 AND blocked > ?2 ORDER BY blocked LIMIT ?3";
        self.read(move |read| {
            let after = after.as_ref().map_or("", UserId::as_str);
            rows(read, sql, params![user.as_str(), after, limit], |row| parsed(row, "blocked", str::parse))
        })
        .await
    }

    async fn invitations(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError> {
        let (user, after) = (user.clone(), after.cloned());
        self.read(move |read| invitations(read, &user, after.as_ref(), limit)).await
    }

    async fn public_channels(
        &self,
        wanted: Option<&str>,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<ChannelPage, StoreError> {
        let (wanted, after) = (wanted.map(str::to_owned), after.cloned());
        self.read(move |read| public_channels(read, wanted.as_deref(), after.as_ref(), limit)).await
    }
}

// No id is empty: all come behind that.

fn listed_members(
    read: &Connection,
    id: &ConversationId,
    viewer: Option<&UserId>,
    outsiders: bool,
    after: Option<&UserId>,
    limit: u32,
) -> Result<Vec<ListedMember>, StoreError> {
    let sql = "SELECT 1 FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    row(read, sql, [id.as_str()], |_| Ok(()))?.ok_or(Refusal::NotFound)?;
    let sql = "SELECT m.user_id, m.role, m.state, m.read_seq, m.delivered_seq, \
            (SELECT u.name FROM users u WHERE u.id = m.user_id) AS username, \
            m.state <> 'accepted' OR EXISTS (SELECT 1 FROM blocks b WHERE (b.blocker = ?5 AND b.blocked = m.user_id) \
                OR (b.blocker = m.user_id AND b.blocked = ?5)) AS is_hidden \
        FROM members m WHERE m.conversation_id = ?1 AND m.user_id > ?2 \
            AND (m.state = 'accepted' OR (?3 AND m.state IN ('invited', 'banned'))) ORDER BY m.user_id LIMIT ?4";
    let after = after.map_or("", UserId::as_str);
    rows(read, sql, params![id.as_str(), after, outsiders, limit, viewer.map(UserId::as_str)], |row| {
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
    })
}

fn invitations(
    read: &Connection,
    user: &UserId,
    after: Option<&ConversationId>,
    limit: u32,
) -> Result<Vec<Conversation>, StoreError> {
    let sql = "SELECT conversation_id FROM members WHERE user_id = ?1 AND conversation_id > ?2 \
        AND state <> 'accepted' AND state = 'invited' ORDER BY conversation_id LIMIT ?3";
    let after = after.map_or("", ConversationId::as_str);
    let ids: Vec<ConversationId> =
        rows(read, sql, params![user.as_str(), after, limit], |row| parsed(row, "conversation_id", str::parse))?;
    ids.iter().map(|id| view(read, id, Some(user))).collect()
}

fn public_channels(
    read: &Connection,
    wanted: Option<&str>,
    after: Option<&ConversationId>,
    limit: u32,
) -> Result<ChannelPage, StoreError> {
    let sql = "SELECT id, title, password_hash IS NOT NULL AS has_password, member_count FROM conversations \
        WHERE kind = 'channel' AND visibility = 'public' AND deleted_at IS NULL AND id > ?1 ORDER BY id LIMIT ?2";
    let after = after.map_or("", ConversationId::as_str);
    let read = rows(read, sql, params![after, CHANNELS_READ_MAX], |row| {
        Ok(ListedChannel {
            id: parsed(row, "id", str::parse)?,
            title: get(row, "title")?,
            has_password: get(row, "has_password")?,
            member_count: number(row, "member_count")?,
        })
    })?;
    Ok(channel_page(read, wanted, limit))
}
