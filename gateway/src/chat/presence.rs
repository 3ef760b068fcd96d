//! Presence: the users who are notified when a user comes or goes, and the presence events of a new connection.

use std::collections::BTreeMap;

use shared::event::UserStatus;
use shared::{Event, ProtocolError, Timestamp, UserId};

use super::Chat;
use super::announcer::News;
use crate::backbone::BackboneError;

/// Users whose going is announced in one pass.
const OFFLINE_PER_PASS: u32 = 500;

impl Chat {
    /// Marks a user online who is subscribed now, and notifies the user's partners if the user was offline. With
    /// `status`, returns the partners' presence as `status.bulk`.
    pub async fn arrived(&self, user: &UserId, status: bool) -> Result<Option<Event>, ProtocolError> {
        let is_news = self.backbone.arrived(user).await?;
        if !is_news && !status {
            return Ok(None);
        }
        let partners = self.partners.of(user).await?;
        if is_news {
            let (user, at) = (user.clone(), Timestamp::now());
            self.announcer.tell(News { user, online: true, at, partners: partners.clone() });
        }
        if status { self.status(&partners).await.map(Some) } else { Ok(None) }
    }

    /// Refreshes the presence of users with a sign of life.
    pub async fn refresh(&self, users: &[UserId]) -> Result<(), BackboneError> {
        self.backbone.refresh(users).await
    }

    /// The user's last socket on this node has closed.
    pub async fn departed(&self, user: &UserId) {
        self.end_all_typing(user).await;
        if let Err(error) = self.backbone.departed(user).await {
            // Their key expires by itself, and the offline check is due then.
            tracing::debug!(%user, %error, "a departure could not be announced");
        }
    }

    /// Announces the users whose offline check was due and who are gone. While the announcer is full they stay in the
    /// backbone, for this node or another.
    pub async fn announce_departures(&self) -> Result<(), ProtocolError> {
        if !self.announcer.has_room() {
            return Ok(());
        }
        let gone = self.backbone.take_offline(OFFLINE_PER_PASS).await?;
        if gone.is_empty() {
            return Ok(());
        }
        let users: Vec<UserId> = gone.iter().map(|(user, _)| user.clone()).collect();
        let partners = self.store.partners(&users, self.presence_audience).await?;
        for ((user, at), partners) in gone.iter().cloned().zip(partners) {
            self.announcer.tell(News { user, online: false, at, partners });
        }
        self.store.set_last_seen(&gone).await?;
        Ok(())
    }

    /// `status.bulk` of these users.
    pub async fn status(&self, users: &[UserId]) -> Result<Event, ProtocolError> {
        let presence = self.backbone.presence(users).await?;
        let status = users.iter().zip(presence).map(|(user, presence)| {
            (user.clone(), UserStatus { online: presence.online, last_seen: presence.last_seen })
        });
        Ok(Event::StatusBulk { users: status.collect::<BTreeMap<_, _>>() })
    }
}
