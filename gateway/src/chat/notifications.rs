//! What backends publish: any event to some users, or to everyone.

use bytes::Bytes;
use shared::{ProtocolError, UserId};

use super::Chat;
use crate::backbone::{Delivery, DeliveryKind};
use crate::store::OutboxEvent;

impl Chat {
    /// Sends an envelope (checked by the caller) to users: through their logs if `durable`, else to who is there.
    pub async fn publish(&self, users: Vec<UserId>, body: String, durable: bool) -> Result<(), ProtocolError> {
        if !durable {
            let body = Bytes::from(body);
            let delivery = |user| Delivery { user, body: body.clone(), kind: DeliveryKind::Ephemeral };
            self.backbone.publish(users.into_iter().map(delivery).collect()).await?;
            return Ok(());
        }
        let row = self.ids.next().await?;
        let events = vec![OutboxEvent { users, body, unread: None }];
        self.store.enqueue(row, &self.owner, &events).await?;
        self.publisher.publish_events(row, events);
        Ok(())
    }

    /// Sends an envelope (checked by the caller) to every socket of every node.
    pub async fn broadcast(&self, body: String) -> Result<(), ProtocolError> {
        Ok(self.backbone.broadcast(Bytes::from(body)).await?)
    }
}
