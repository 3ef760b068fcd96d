//! From what somebody shows to who they are. Local tokens are checked at once; whoever else has to be asked is asked here
//! and nowhere else.

use std::sync::Arc;

use super::token::{Fault, Verifier};
use super::{AuthError, Credential, Identity, Refused, Unavailable, session, tickets};
use crate::backbone::{Backbone, SessionId, Ticket};
use crate::config::AuthConfig;

/// Says who somebody is.
pub struct Authenticator {
    verifier: Verifier,
    backbone: Arc<dyn Backbone>,
    session_cookie: String,
}

impl Authenticator {
    /// Checks tokens with `verifier`, sessions and tickets with `backbone`.
    #[must_use]
    pub fn new(config: &AuthConfig, verifier: Verifier, backbone: Arc<dyn Backbone>) -> Self {
        Self { verifier, backbone, session_cookie: config.session_cookie.clone() }
    }

    /// The name of the session cookie.
    #[must_use]
    pub fn session_cookie(&self) -> &str {
        &self.session_cookie
    }

    /// Who it is, if that can be said without asking anybody; `None` otherwise.
    #[must_use]
    pub fn at_once(&self, credential: &Credential<'_>) -> Option<Result<Identity, Refused>> {
        match credential {
            Credential::Token(token) if Ticket::parse(token).is_some() => None,
            Credential::Token(token) => match self.verifier.verify(token) {
                Ok(identity) => Some(Ok(identity)),
                Err(Fault::Refused(refused)) => Some(Err(refused)),
                Err(Fault::NotOurs) => Some(Err(Refused::Invalid)),
            },
            Credential::Ticket(_) | Credential::Session(_) => None,
        }
    }

    /// Who it is. Whether they were revoked is another question: [`Authenticator::check_revoked`].
    pub async fn authenticate(&self, credential: Credential<'_>) -> Result<Identity, AuthError> {
        match self.at_once(&credential) {
            Some(known) => Ok(known?),
            // Boxed, so that whoever needs to ask nobody doesn't carry the room for it.
            None => Box::pin(self.ask(credential)).await,
        }
    }

    /// The same for a request that connects nothing: there a ticket is worth nothing, or one could be had for another.
    pub async fn authenticate_request(&self, credential: Credential<'_>) -> Result<Identity, AuthError> {
        let is_ticket = match &credential {
            Credential::Token(text) => Ticket::parse(text).is_some(),
            Credential::Ticket(_) => true,
            Credential::Session(_) => false,
        };
        if is_ticket { Err(Refused::Invalid.into()) } else { self.authenticate(credential).await }
    }

    /// Refuses those whose tokens of that age were revoked.
    pub async fn check_revoked(&self, identity: &Identity) -> Result<(), AuthError> {
        match self.backbone.is_revoked(&identity.user, identity.issued_at_s).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(Refused::Revoked.into()),
            Err(error) => Err(Unavailable::backbone(&error).into()),
        }
    }

    async fn ask(&self, credential: Credential<'_>) -> Result<Identity, AuthError> {
        match credential {
            Credential::Token(text) | Credential::Ticket(text) => match Ticket::parse(&text) {
                Some(ticket) => tickets::redeem(&*self.backbone, &ticket).await,
                None => Err(Refused::Invalid.into()),
            },
            Credential::Session(id) => self.session(&id).await,
        }
    }

    async fn session(&self, id: &str) -> Result<Identity, AuthError> {
        // What is no id can't be the name of a session, and must not become part of a key.
        let id = SessionId::parse(id).map_err(|_| Refused::Invalid)?;
        let value = self.backbone.session(&id).await.map_err(|error| Unavailable::backbone(&error))?;
        Ok(session::identity(id, &value.ok_or(Refused::Invalid)?)?)
    }
}
