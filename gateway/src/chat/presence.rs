//! Presence: the users who are notified when a user comes or goes, and the presence events of a new connection.

use std::collections::BTreeMap;

use shared::event::UserStatus;
use shared::{Event, ProtocolError, Timestamp, UserId};

use super::Chat;
use super::announcer::News;
use crate::backbone::BackboneError;
use crate::store::Partner;

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
        if is_news {
            self.post_presence(user, true, Timestamp::now());
        }
        let partners = self.partners.of(user).await?;
        if is_news {
            let (user, at) = (user.clone(), Timestamp::now());
            self.announcer.tell(News { user, online: true, at, partners: told(&partners) });
        }
        if !status {
            return Ok(None);
        }
        self.status_among(partners).await.map(Some)
    }

    /// `status.bulk` of the user's partners, as on connect.
    pub async fn status_of_partners(&self, user: &UserId) -> Result<Event, ProtocolError> {
        self.status_among(self.partners.of(user).await?).await
    }

    async fn status_among(&self, partners: Vec<Partner>) -> Result<Event, ProtocolError> {
        let (hidden, shown): (Vec<Partner>, Vec<Partner>) = partners.into_iter().partition(|partner| partner.blocked);
        let users = |partners: Vec<Partner>| partners.into_iter().map(|partner| partner.user).collect::<Vec<_>>();
        self.status_of(&users(shown), &users(hidden)).await
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
        gone.iter().for_each(|(user, at)| self.post_presence(user, false, *at));
        let users: Vec<UserId> = gone.iter().map(|(user, _)| user.clone()).collect();
        let partners = self.store.partners(&users, self.presence_audience).await?;
        for ((user, at), partners) in gone.iter().cloned().zip(partners) {
            self.announcer.tell(News { user, online: false, at, partners: told(&partners) });
        }
        self.store.set_last_seen(&gone).await?;
        Ok(())
    }

    fn post_presence(&self, user: &UserId, online: bool, at: Timestamp) {
        if let Some(posts) = &self.presence_posts {
            posts.tell(user, online, at);
        }
    }

    /// `status.bulk` of these users for `asker` (`None`: a backend in its own name). Users with whom the asker shares a
    /// block look offline. The store is asked each time: a remembered answer would show users who have blocked since.
    pub async fn status(&self, asker: Option<&UserId>, users: &[UserId]) -> Result<Event, ProtocolError> {
        let hidden = match asker {
            Some(asker) => self.store.blocked_with(asker, users).await?,
            None => Vec::new(),
        };
        let shown: Vec<UserId> = users.iter().filter(|user| hidden.binary_search(user).is_err()).cloned().collect();
        self.status_of(&shown, &hidden).await
    }

    /// `status.bulk` of the `shown` and the `hidden`, who look offline.
    async fn status_of(&self, shown: &[UserId], hidden: &[UserId]) -> Result<Event, ProtocolError> {
        let presence = self.backbone.presence(shown).await?;
        let shown = shown.iter().zip(presence).map(|(user, presence)| {
            (user.clone(), UserStatus { online: presence.online, last_seen: presence.last_seen })
        });
        let hidden = hidden.iter().map(|user| (user.clone(), UserStatus { online: false, last_seen: None }));
        Ok(Event::StatusBulk { users: shown.chain(hidden).collect::<BTreeMap<_, _>>() })
    }
}

/// The partners who are told of a coming or going.
fn told(partners: &[Partner]) -> Vec<UserId> {
    partners.iter().filter(|partner| !partner.blocked).map(|partner| partner.user.clone()).collect()
}
