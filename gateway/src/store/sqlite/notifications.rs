//! Notifications: kept beside their outbox row, listed, marked as read.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{NotificationId, Timestamp, UserId};

use super::outbox;
use super::rows::{execute, get, integer, now_ms, number, rows, time, unfit};
use super::thread::SqliteStore;
use crate::store::notifications::{KeptNotification, Notifications};
use crate::store::{OutboxRow, StoreError};

#[async_trait]
impl Notifications for SqliteStore {
    async fn notifications(&self, user: &UserId, offset: u64, limit: u32) -> Result<Vec<KeptNotification>, StoreError> {
        let user = user.clone();
        self.read(move |read| list(read, &user, offset, limit)).await
    }

    async fn read_notifications(
        &self,
        user: &UserId,
        ids: Option<&[NotificationId]>,
        outbox: OutboxRow<u64>,
    ) -> Result<u64, StoreError> {
        let (user, ids) = (user.clone(), ids.map(<[_]>::to_vec));
        self.write(move |change| mark_read(change, &user, ids.as_deref(), &outbox)).await
    }
}

fn list(read: &Connection, user: &UserId, offset: u64, limit: u32) -> Result<Vec<KeptNotification>, StoreError> {
    let sql = "SELECT id, payload, created_at, read_at FROM notifications WHERE user_id = ?1 \
        ORDER BY created_at DESC, id DESC LIMIT ?3 OFFSET ?2";
    rows(read, sql, params![user.as_str(), integer(offset), limit], |row| {
        Ok(KeptNotification {
            id: NotificationId::new(number(row, "id")?).ok_or_else(|| unfit("id"))?,
            payload: get(row, "payload")?,
            created_at: time(row, "created_at")?,
            read_at: get::<Option<i64>>(row, "read_at")?.map(Timestamp::from_unix_ms),
        })
    })
}

fn mark_read(
    change: &Connection,
    user: &UserId,
    ids: Option<&[NotificationId]>,
    row: &OutboxRow<u64>,
) -> Result<u64, StoreError> {
    let now = now_ms();
    let touched = match ids {
        None => {
            let sql = "UPDATE notifications SET read_at = ?2 WHERE user_id = ?1 AND read_at IS NULL";
            execute(change, sql, params![user.as_str(), now])?
        }
        Some(ids) => {
            let sql = "UPDATE notifications SET read_at = ?2 WHERE user_id = ?1 AND id = ?3 AND read_at IS NULL";
            ids.iter().try_fold(0, |touched, id| {
                Ok::<_, StoreError>(touched + execute(change, sql, params![user.as_str(), now, integer(id.get())])?)
            })?
        }
    };
    let count = u64::try_from(touched).unwrap_or(u64::MAX);
    outbox::write(change, row, &count)?;
    Ok(count)
}
