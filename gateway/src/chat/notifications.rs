//! Events that backends publish, to some users or to everyone. Durable notifications are stored, so that a client can
//! fetch them after a `resync`, and mark them as read.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use shared::{ConversationId, ErrorCode, Event, NotificationId, ProtocolError, Timestamp, UserId};

use super::{Chat, events};
use crate::backbone::{Delivery, DeliveryKind, TopicEvent};
use crate::store::{AuditOrder, CommittedEvents, Giver, KeptNotification, OutboxEvent};

/// The members of a notification's payload, each as its sender wrote it.
pub type NotificationPayload = BTreeMap<String, Box<RawValue>>;

impl Chat {
    /// Sends an envelope (checked by the caller) to users: through their logs if `durable`, else to their live sockets.
    pub async fn publish(&self, users: Vec<UserId>, body: String, durable: bool) -> Result<(), ProtocolError> {
        if !durable {
            let body = Bytes::from(body);
            let delivery = |user| Delivery { user, body: body.clone(), kind: DeliveryKind::Ephemeral };
            self.backbone.publish(users.into_iter().map(delivery).collect()).await?;
            return Ok(());
        }
        self.enqueue(OutboxEvent { users, body, topic: None }).await
    }

    /// The members of a conversation; `None` for those of a large one, who are told together.
    pub async fn audience(&self, conversation: &ConversationId) -> Result<Option<Vec<UserId>>, ProtocolError> {
        let members = self.members.get(conversation).await?;
        let list = members.list.iter().map(|(member, _)| member.clone());
        Ok((!members.route.large).then(|| list.collect()))
    }

    /// Sends an envelope (checked by the caller) to the live sockets of all members of a large conversation.
    pub async fn publish_to_all(&self, conversation: &ConversationId, body: String) -> Result<(), ProtocolError> {
        let event = TopicEvent { conversation: conversation.clone(), body: body.into(), push: None };
        Ok(self.backbone.publish_topics(&[event]).await?)
    }

    /// Sends a durable notification to users, and keeps it for each of them.
    pub async fn notify(&self, users: Vec<UserId>, payload: NotificationPayload) -> Result<(), ProtocolError> {
        let id = self.notification_id().await?;
        self.enqueue(notification_event(users, id, payload)).await
    }

    /// Sends an envelope (checked by the caller) to every socket of every node.
    pub async fn broadcast(&self, kind: String, body: String, by: Giver) -> Result<(), ProtocolError> {
        self.audit.ordered(None, AuditOrder::Broadcast { kind }, by);
        Ok(self.backbone.broadcast(Bytes::from(body)).await?)
    }

    /// The notifications kept for `user`, newest first, after the first `offset`.
    pub async fn notifications(
        &self,
        user: &UserId,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<KeptNotification>, ProtocolError> {
        Ok(self.store.notifications(user, offset, limit).await?)
    }

    /// Marks these notifications as read, or all; returns how many were not. If any, the user's devices are notified.
    pub async fn read_notifications(
        &self,
        user: &UserId,
        ids: Option<Vec<NotificationId>>,
    ) -> Result<u64, ProtocolError> {
        let (told, devices) = (ids.clone(), user.clone());
        let (row, built) = self
            .row(move |count: &u64| match count {
                0 => Vec::new(),
                _ => {
                    let read = Event::NotificationRead { notification_ids: told.clone() };
                    vec![events::outbox_event(vec![devices.clone()], &read)]
                }
            })
            .await?;
        let count = self.store.read_notifications(user, ids.as_deref(), row).await?;
        self.publish_row(&built);
        Ok(count)
    }

    pub(super) async fn notification_id(&self) -> Result<NotificationId, ProtocolError> {
        NotificationId::new(self.ids.next().await?)
            .ok_or_else(|| ProtocolError::new(ErrorCode::InternalError, "the store has no ids left"))
    }

    async fn enqueue(&self, event: OutboxEvent) -> Result<(), ProtocolError> {
        self.enqueue_events(vec![event]).await
    }

    /// Stores events in a row of their own, and publishes them.
    pub(super) async fn enqueue_events(&self, events: Vec<OutboxEvent>) -> Result<(), ProtocolError> {
        let committed = CommittedEvents { row: self.ids.next().await?, events, begun: Instant::now() };
        self.store.enqueue(committed.row, &self.owner, &committed.events).await?;
        self.publisher.publish_events(committed);
        Ok(())
    }
}

/// The event of a notification that the store keeps: its payload says by which id, and when it was sent.
pub(super) fn notification_event(
    users: Vec<UserId>,
    id: NotificationId,
    mut payload: NotificationPayload,
) -> OutboxEvent {
    let stamps = [("notificationId", to_raw_value(&id)), ("createdAt", to_raw_value(&Timestamp::now()))];
    payload.extend(stamps.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.ok()?))));
    // String keys and values that were JSON before: writing can't fail.
    let payload = serde_json::to_string(&payload).unwrap_or_default();
    // White space between tokens may hold line ends, which separate envelopes on the channel.
    let payload = payload.replace(['\n', '\r'], " ");
    OutboxEvent { users, body: format!(r#"{{"type":"notification","payload":{payload}}}"#), topic: None }
}
