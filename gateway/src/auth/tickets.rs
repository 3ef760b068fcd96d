//! Single-use tickets: a token that may stand in a URL, because it is invalid half a minute later.

use serde::{Deserialize, Serialize};
use shared::UserId;

use super::{AuthError, Identity, Names, TokenRefusal, Unavailable};
use crate::backbone::{Backbone, SessionId, Ticket};

/// How long a ticket is good for, in seconds.
pub const TICKET_S: u32 = 30;

/// The identity behind a ticket, with the expiry of the user's token.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TicketValue {
    user_id: UserId,
    username: Option<String>,
    /// Missing in tickets of earlier versions.
    #[serde(default)]
    name: Option<String>,
    admin: bool,
    expires_at_s: i64,
    issued_at_s: Option<i64>,
    session: Option<String>,
}

/// Makes a ticket for an authenticated user.
pub async fn issue(backbone: &dyn Backbone, identity: &Identity) -> Result<Ticket, Unavailable> {
    let ticket = Ticket::random();
    let kept = TicketValue {
        user_id: identity.user.clone(),
        username: identity.names.username.clone(),
        name: identity.names.shown.clone(),
        admin: identity.admin,
        expires_at_s: identity.expires_at_s,
        issued_at_s: identity.issued_at_s,
        session: identity.session.as_ref().map(|session| session.as_str().to_owned()),
    };
    let value = serde_json::to_string(&kept).map_err(|error| {
        tracing::error!(%error, "a ticket could not be stored");
        Unavailable { service: "backbone", retry_after_ms: 1000 }
    })?;
    backbone.put_ticket(&ticket, &value, TICKET_S).await.map_err(|error| Unavailable::backbone(&error))?;
    Ok(ticket)
}

/// Takes a ticket, which is then invalid.
pub(super) async fn redeem(backbone: &dyn Backbone, ticket: &Ticket) -> Result<Identity, AuthError> {
    let value = backbone.take_ticket(ticket).await.map_err(|error| Unavailable::backbone(&error))?;
    let kept: TicketValue = value.and_then(|value| serde_json::from_str(&value).ok()).ok_or(TokenRefusal::Ticket)?;
    let session = match &kept.session {
        None => None,
        Some(session) => Some(SessionId::parse(session).map_err(|_| TokenRefusal::Ticket)?),
    };
    if kept.expires_at_s <= shared::Timestamp::now().unix_seconds() {
        return Err(TokenRefusal::Expired.into());
    }
    Ok(Identity {
        user: kept.user_id,
        names: Names { username: kept.username, shown: kept.name },
        admin: kept.admin,
        expires_at_s: kept.expires_at_s,
        issued_at_s: kept.issued_at_s,
        session,
    })
}
