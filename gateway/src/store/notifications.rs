//! Kept notifications: after a `resync`, a client fetches those that it missed.
//!
//! Every durable `notification` event that names a `notificationId` is kept for each of its users by the transaction
//! that writes its outbox row, so no path to the outbox can leave it out. A row that is published again is not kept
//! again.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{NotificationId, Timestamp, UserId};

use super::{OutboxEvent, OutboxRow, StoreError};

/// A notification as it was kept for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptNotification {
    /// The same for all users of one publication.
    pub id: NotificationId,
    /// The payload of its event: a JSON object.
    pub payload: String,
    /// The store's time of commit.
    pub created_at: Timestamp,
    /// When its user marked it as read.
    pub read_at: Option<Timestamp>,
}

/// Kept notifications.
#[async_trait]
pub trait Notifications: Send + Sync + 'static {
    /// The notifications of `user`, newest first, after the first `offset`.
    async fn notifications(&self, user: &UserId, offset: u64, limit: u32) -> Result<Vec<KeptNotification>, StoreError>;

    /// Marks these notifications of `user` as read, or all of them; how many were unread until then. Ids of other
    /// users' notifications are skipped.
    async fn read_notifications(
        &self,
        user: &UserId,
        ids: Option<&[NotificationId]>,
        outbox: OutboxRow<u64>,
    ) -> Result<u64, StoreError>;
}

/// A notification that stands in an outbox event.
#[derive(Debug)]
pub(super) struct Keep<'a> {
    pub(super) id: NotificationId,
    pub(super) payload: &'a str,
    pub(super) users: &'a [UserId],
}

/// The notifications among `events`.
pub(super) fn to_keep(events: &[OutboxEvent]) -> Vec<Keep<'_>> {
    events.iter().filter_map(keep).collect()
}

/// The id of the notification that an event is, if it is one that is kept.
#[must_use]
pub fn kept_id(event: &OutboxEvent) -> Option<NotificationId> {
    keep(event).map(|keep| keep.id)
}

fn keep(event: &OutboxEvent) -> Option<Keep<'_>> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct IdField {
        notification_id: NotificationId,
    }
    if !event.body.starts_with(r#"{"type":"notification","#) {
        return None;
    }
    let line = event.body.lines().next()?;
    let payload = serde_json::from_str::<Envelope<'_>>(line).ok()?.payload.get();
    let id = serde_json::from_str::<IdField>(payload).ok()?.notification_id;
    Some(Keep { id, payload, users: &event.users })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &str) -> OutboxEvent {
        OutboxEvent { users: Vec::new(), body: body.to_owned(), topic: None }
    }

    #[test]
    fn a_notification_with_an_id_is_kept_and_nothing_else() {
        let kept = event(r#"{"type":"notification","payload":{"a":[1.50],"notificationId":"7"}}"#);
        let kept = keep(&kept).map(|keep| (keep.id.get(), keep.payload.to_owned()));
        assert_eq!(kept, Some((7, r#"{"a":[1.50],"notificationId":"7"}"#.to_owned())));
        for other in [
            r#"{"type":"notification","payload":{}}"#,
            r#"{"type":"notification","payload":{"notificationId":"x"}}"#,
            r#"{"type":"notification.read","payload":{"notificationId":"7"}}"#,
            r#"{"type":"message.new","payload":{"notificationId":"7"}}"#,
            r#"{"type":"notification","payload":"#,
        ] {
            assert!(keep(&event(other)).is_none(), "{other}");
        }
    }
}
