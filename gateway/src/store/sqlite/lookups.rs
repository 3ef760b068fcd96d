//! Single values by their key.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{ConversationId, MessageId, UserId};

use super::rows::{get, integer, parsed, row};
use super::thread::SqliteStore;
use crate::store::lookups::outsider;
use crate::store::{Lookups, Names, Refusal, StoreError};

#[async_trait]
impl Lookups for SqliteStore {
    async fn username(&self, user: &UserId) -> Result<Option<String>, StoreError> {
        let user = user.clone();
        let sql = "SELECT name FROM users WHERE id = ?1 AND name IS NOT NULL";
        self.read(move |read| row(read, sql, [user.as_str()], |row| get(row, "name"))).await
    }

    async fn usernames(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        let users = users.to_vec();
        let sql = "SELECT name FROM users WHERE id = ?1 AND name IS NOT NULL";
        let named = |read: &Connection, user: UserId| {
            row(read, sql, [user.as_str()], |row| get(row, "name"))
                .map(|name| name.map(|name| (user, name)))
                .transpose()
        };
        self.read(move |read| users.into_iter().filter_map(|user| named(read, user)).collect()).await
    }

    async fn names_of(&self, users: &[UserId]) -> Result<Vec<(UserId, Names)>, StoreError> {
        let users = users.to_vec();
        let sql = "SELECT (SELECT username FROM usernames WHERE user_id = ?1) AS username, \
            (SELECT name FROM users WHERE id = ?1) AS name";
        let names = |read: &Connection, user: &UserId| {
            row(read, sql, [user.as_str()], |row| {
                Ok(Names { username: get(row, "username")?, shown: get(row, "name")? })
            })
        };
        self.read(move |read| {
            let mut named = Vec::new();
            for user in users {
                named.extend(names(read, &user)?.filter(|names| *names != Names::default()).map(|names| (user, names)));
            }
            Ok(named)
        })
        .await
    }

    async fn known_users(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let users = users.to_vec();
        let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE id = ?1) \
            OR EXISTS (SELECT 1 FROM usernames WHERE user_id = ?1) AS is_known";
        let known =
            |read: &Connection, user: UserId| match row(read, sql, [user.as_str()], |row| get::<bool>(row, "is_known"))
            {
                Ok(is_known) => is_known.unwrap_or(false).then_some(Ok(user)),
                Err(error) => Some(Err(error)),
            };
        self.read(move |read| users.into_iter().filter_map(|user| known(read, user)).collect()).await
    }

    async fn conversation_of(&self, message: MessageId) -> Result<Option<ConversationId>, StoreError> {
        let sql = "SELECT conversation_id FROM messages WHERE id = ?1";
        let id = integer(message.get());
        self.read(move |read| row(read, sql, [id], |row| parsed(row, "conversation_id", str::parse))).await
    }

    async fn outside(&self, conversation: &ConversationId, user: Option<&UserId>) -> Result<Refusal, StoreError> {
        let (conversation, user) = (conversation.clone(), user.cloned());
        let sql = "SELECT coalesce(m.state = 'banned', 0) AS is_banned FROM conversations c \
            LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = ?2 \
            WHERE c.id = ?1 AND c.deleted_at IS NULL";
        let found = self.read(move |read| {
            let user = user.as_ref().map(UserId::as_str);
            row(read, sql, params![conversation.as_str(), user], |row| get::<bool>(row, "is_banned"))
        });
        Ok(outsider(found.await?))
    }
}
