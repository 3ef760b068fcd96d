//! From a credential to an identity. Tokens are checked with our own keys at once. The backbone and the authentication
//! service are called here and nowhere else.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::jwks::Jwks;
use super::remote::Remote;
use super::token::{Fault, KeyError, Verifier};
use super::{AuthError, Credential, Due, Identity, TokenRefusal, Unavailable, session, tickets};
use crate::backbone::{Backbone, SessionId, Ticket};
use crate::config::AuthConfig;
use crate::http_client::EndpointError;
use crate::limits::AddressKey;
use crate::switches;

/// A setting that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A URL.
    #[error("{name}: {source}")]
    Endpoint {
        /// The setting.
        name: &'static str,
        /// Why.
        source: EndpointError,
    },
}

/// Checks credentials.
pub struct Authenticator {
    verifier: Verifier,
    /// The issuer's keys, if the settings name a URL for them.
    published: Option<Arc<Jwks>>,
    /// The authentication service, if there is one.
    remote: Option<Remote>,
    backbone: Arc<dyn Backbone>,
    session_cookie: String,
}

/// What checks tokens, by the settings alone.
struct TokenChecks {
    verifier: Verifier,
    published: Option<Arc<Jwks>>,
    remote: Option<Remote>,
}

impl TokenChecks {
    fn read(config: &AuthConfig) -> Result<Self, SettingsError> {
        let error = |name| move |source| SettingsError::Endpoint { name, source };
        let published = config.jwks_url.clone().map(|url| Jwks::new(url).map(Arc::new)).transpose();
        let published = published.map_err(error("JWKS_URL"))?;
        let remote = config.service.as_ref().map(|service| Remote::new(service.url.clone(), service.timeout));
        Ok(Self {
            verifier: Verifier::new(config, published.clone())?,
            published,
            remote: remote.transpose().map_err(error("AUTH_SERVICE_URL"))?,
        })
    }
}

impl Authenticator {
    /// Checks tokens by the settings, sessions and tickets with `backbone`. Reads key files, and fetches nothing yet.
    pub fn new(config: &AuthConfig, backbone: Arc<dyn Backbone>) -> Result<Self, SettingsError> {
        let TokenChecks { verifier, published, remote } = TokenChecks::read(config)?;
        Ok(Self { verifier, published, remote, backbone, session_cookie: config.session_cookie.clone() })
    }

    /// Checks the settings, with the files that they name, and connects to nothing.
    ///
    /// # Errors
    /// The first setting that can't be used.
    pub fn check(config: &AuthConfig) -> Result<(), SettingsError> {
        TokenChecks::read(config).map(drop)
    }

    /// Keeps the issuer's keys fresh until `stop`; ends at once if there is no URL for them.
    pub async fn keep_keys(&self, stop: CancellationToken) {
        if let Some(published) = &self.published {
            published.keep(stop).await;
        }
    }

    /// The name of the session cookie.
    #[must_use]
    pub fn session_cookie(&self) -> &str {
        &self.session_cookie
    }

    /// The identity, if it follows from our own keys; `None` if a service has to be called.
    #[must_use]
    pub fn at_once(&self, credential: &Credential<'_>) -> Option<Result<Identity, TokenRefusal>> {
        match credential {
            Credential::Token(token) if Ticket::parse(token).is_some() => None,
            Credential::Token(token) => match self.verifier.verify(token) {
                Ok(identity) => Some(Ok(identity)),
                Err(Fault::Refused(refused)) => Some(Err(refused)),
                Err(Fault::NotOurs(refused)) if self.remote.is_none() => Some(Err(refused)),
                Err(Fault::NotOurs(_) | Fault::UnknownKey) => None,
            },
            Credential::Ticket(_) | Credential::Session(_) => None,
        }
    }

    /// The identity of a client at `from`. It doesn't check revocations: [`Authenticator::check_revoked`] does.
    pub async fn authenticate(&self, credential: Credential<'_>, from: AddressKey) -> Result<Identity, AuthError> {
        match self.at_once(&credential) {
            Some(known) => Ok(known?),
            // Boxed, so that credentials which need no request don't carry the room for it.
            None => Box::pin(self.ask(credential, from)).await,
        }
    }

    /// The same for a request that connects nothing: there a ticket is worth nothing, or one could be had for another.
    pub async fn authenticate_request(
        &self,
        credential: Credential<'_>,
        from: AddressKey,
    ) -> Result<Identity, AuthError> {
        let is_ticket = match &credential {
            Credential::Token(text) => Ticket::parse(text).is_some(),
            Credential::Ticket(_) => true,
            Credential::Session(_) => false,
        };
        if is_ticket { Err(TokenRefusal::Ticket.into()) } else { self.authenticate(credential, from).await }
    }

    /// Refuses users whose tokens of that age were revoked.
    pub async fn check_revoked(&self, identity: &Identity) -> Result<(), AuthError> {
        if switches::off("revocation") {
            return Ok(());
        }
        match self.backbone.is_revoked(&identity.user, identity.issued_at_s).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.why_revoked(identity).await?.into()),
            Err(error) => Err(Unavailable::backbone(&error).into()),
        }
    }

    /// How a token is refused that a revocation covers. Times are in seconds, so a token of the very second may have been
    /// issued after it: its client is told to fetch another, which is good if it may have one.
    pub async fn why_revoked(&self, identity: &Identity) -> Result<TokenRefusal, Unavailable> {
        let Some(issued_s) = identity.issued_at_s else { return Ok(TokenRefusal::Revoked) };
        let asked = self.backbone.revoked_at(std::slice::from_ref(&identity.user)).await;
        let revoked_s = asked.map_err(|error| Unavailable::backbone(&error))?.first().copied().flatten();
        Ok(if revoked_s == Some(issued_s) { TokenRefusal::Expired } else { TokenRefusal::Revoked })
    }

    /// Whether the session is still the user's.
    pub async fn still_there(&self, due: &Due) -> Result<bool, Unavailable> {
        let value = self.backbone.session(&due.session).await.map_err(|error| Unavailable::backbone(&error))?;
        let identity = value.and_then(|value| session::identity(due.session.clone(), &value).ok());
        Ok(identity.is_some_and(|identity| identity.user == due.user))
    }

    async fn ask(&self, credential: Credential<'_>, from: AddressKey) -> Result<Identity, AuthError> {
        match &credential {
            Credential::Token(text) | Credential::Ticket(text) => match Ticket::parse(text) {
                Some(ticket) => tickets::redeem(&*self.backbone, &ticket).await,
                None if matches!(credential, Credential::Token(_)) => self.foreign(text, from).await,
                None => Err(TokenRefusal::Ticket.into()),
            },
            Credential::Session(id) => self.session(id).await,
        }
    }

    /// A token that none of our keys has signed: by a key that the issuer has published since, or the service knows it.
    async fn foreign(&self, token: &str, from: AddressKey) -> Result<Identity, AuthError> {
        let mut verified = self.verifier.verify(token);
        if let (Err(Fault::UnknownKey), Some(published)) = (&verified, &self.published) {
            published.fetch_anew().await?;
            verified = self.verifier.verify(token);
        }
        match (verified, &self.remote) {
            (Ok(identity), _) => Ok(identity),
            (Err(Fault::Refused(refused)), _) => Err(refused.into()),
            (Err(Fault::NotOurs(_) | Fault::UnknownKey), Some(remote)) => remote.ask(token, from).await,
            (Err(Fault::NotOurs(refused)), None) => Err(refused.into()),
            (Err(Fault::UnknownKey), None) => Err(TokenRefusal::Signature.into()),
        }
    }

    async fn session(&self, id: &str) -> Result<Identity, AuthError> {
        // A value that isn't an id can't be a session's name, and must not become part of a key.
        let id = SessionId::parse(id).map_err(|_| TokenRefusal::Session)?;
        let value = self.backbone.session(&id).await.map_err(|error| Unavailable::backbone(&error))?;
        Ok(session::identity(id, &value.ok_or(TokenRefusal::Session)?)?)
    }
}
