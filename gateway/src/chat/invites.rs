//! Invitations: the invited user is notified, live and in the store. Joining accepts an invitation, leaving declines
//! it.

use serde_json::value::to_raw_value;
use shared::{ConversationId, NotificationId, ProtocolError, UserId};

use super::Chat;
use super::notifications::{NotificationPayload, notification_event};
use crate::store::{Giver, MembershipChange, MembershipOutcome, OutboxEvent};

impl Chat {
    /// Invites `user`, in the name of the giver; the notification calls the conversation by its title. `name` stands for the
    /// title of one that has none, and else the id. A user who is invited already, or a member, is not notified again.
    pub async fn invite(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        giver: &Giver,
        name: Option<String>,
    ) -> Result<MembershipOutcome, ProtocolError> {
        let id = self.notification_id().await?;
        let (invited, inviter) = (user.clone(), giver.user.clone());
        let (row, built) = self
            .row(move |outcome: &MembershipOutcome| match outcome.changed {
                true => vec![invitation(&invited, id, inviter.as_ref(), name.as_deref(), outcome)],
                false => Vec::new(),
            })
            .await?;
        let change = MembershipChange::Invite { by: giver.user.clone() };
        let outcome = self.store.change_membership(conversation, user, &change, row).await?;
        if outcome.changed {
            self.audit.membership(user, conversation, &change, giver);
            self.tell_members_changed(conversation).await;
            self.publish_row(&built);
        }
        Ok(outcome)
    }
}

fn invitation(
    user: &UserId,
    id: NotificationId,
    by: Option<&UserId>,
    name: Option<&str>,
    outcome: &MembershipOutcome,
) -> OutboxEvent {
    let conversation = &outcome.conversation;
    let name = conversation.title.as_deref().or(name).unwrap_or(conversation.id.as_str());
    let message = format!("You were invited to join group '{name}'");
    let members = [
        ("subtype", to_raw_value("group_invite")),
        ("message", to_raw_value(&message)),
        ("conversationId", to_raw_value(&conversation.id)),
        ("title", to_raw_value(name)),
    ];
    let invited_by = by.map(|by| ("invitedBy", to_raw_value(by)));
    let payload: NotificationPayload = members
        .into_iter()
        .chain(invited_by)
        .filter_map(|(member, value)| Some((member.to_owned(), value.ok()?)))
        .collect();
    notification_event(vec![user.clone()], id, payload)
}
