//! Notifications: kept beside their outbox row, listed, marked as read.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{NotificationId, UserId};

use super::call::{execute, on_connection, query};
use super::outbox;
use super::pool::PostgresStore;
use super::rows::{bigint, get, number, time, time_or_null, unfit};
use crate::store::notifications::{KeptNotification, Notifications};
use crate::store::{OutboxRow, StoreError};

#[async_trait]
impl Notifications for PostgresStore {
    async fn notifications(&self, user: &UserId, offset: u64, limit: u32) -> Result<Vec<KeptNotification>, StoreError> {
        on_connection!(self, client => list(client, user, offset, limit))
    }

    async fn read_notifications(
        &self,
        user: &UserId,
        ids: Option<&[NotificationId]>,
        outbox: OutboxRow<u64>,
    ) -> Result<u64, StoreError> {
        on_connection!(self, Change: client => read(client, user, ids, &outbox))
    }
}

async fn list(
    client: &impl GenericClient,
    user: &UserId,
    offset: u64,
    limit: u32,
) -> Result<Vec<KeptNotification>, StoreError> {
    let sql = "SELECT id, payload, created_at, read_at FROM notifications WHERE user_id = $1 \
        ORDER BY created_at DESC, id DESC OFFSET $2 LIMIT $3";
    query(client, sql, &[&user.as_str(), &bigint(offset), &i64::from(limit)])
        .await?
        .iter()
        .map(|row| {
            Ok(KeptNotification {
                id: NotificationId::new(number(row, "id")?).ok_or_else(|| unfit("id"))?,
                payload: get(row, "payload")?,
                created_at: time(row, "created_at")?,
                read_at: time_or_null(row, "read_at")?,
            })
        })
        .collect()
}

async fn read(
    client: &mut Object,
    user: &UserId,
    ids: Option<&[NotificationId]>,
    row: &OutboxRow<u64>,
) -> Result<u64, StoreError> {
    let sql = "UPDATE notifications SET read_at = date_trunc('milliseconds', clock_timestamp()) \
        WHERE read_at IS NULL AND user_id = $1 AND id = ANY (ARRAY(SELECT n.id FROM notifications n \
            WHERE n.user_id = $1 AND n.read_at IS NULL AND ($2::bigint[] IS NULL OR n.id = ANY ($2)) \
            ORDER BY n.id FOR NO KEY UPDATE))";
    let ids: Option<Vec<i64>> = ids.map(|ids| ids.iter().map(|id| bigint(id.get())).collect());
    let change = client.transaction().await?;
    let count = execute(&change, sql, &[&user.as_str(), &ids]).await?;
    outbox::write(&change, row, &count).await?;
    change.commit().await?;
    Ok(count)
}
