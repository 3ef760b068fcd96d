//! Session cookies and single-use tickets, which the backbone keeps.

use std::sync::Arc;

use async_trait::async_trait;
use shared::id::{InvalidId, check_id};

use super::BackboneError;

/// The value of a session cookie; valid by construction, so that it can stand in a key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Arc<str>);

/// A ticket to connect with: it looks like nothing else that may stand in its place.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ticket(Arc<str>);

/// The prefix of every ticket.
const TICKET_PREFIX: &str = "ticket-";
/// How many hexadecimal digits follow.
const TICKET_DIGITS: usize = 64;

impl SessionId {
    /// Takes the text as a session's id, if it is one (by the rule for every id).
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_id(text)?;
        Ok(Self(text.into()))
    }

    /// The id, for a key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ticket {
    /// A new one that can't be guessed.
    #[must_use]
    pub fn random() -> Self {
        let bytes: [u8; TICKET_DIGITS / 2] = rand::random();
        let mut text = TICKET_PREFIX.to_owned();
        bytes.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        Self(text.into())
    }

    /// Takes the text as a ticket, if it looks like one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(TICKET_PREFIX)?;
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == TICKET_DIGITS && digits.bytes().all(hexadecimal)).then(|| Self(text.into()))
    }

    /// The ticket, for the client and for a key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Both are credentials: neither is ever logged.
macro_rules! unshown {
    ($($name:ident),+) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        })+
    };
}
unshown!(SessionId, Ticket);

/// The part of the backbone that authentication uses.
#[async_trait]
pub trait Logins: Send + Sync + 'static {
    /// The value of `session:<id>`; `None` if there is no such session (any more).
    async fn session(&self, id: &SessionId) -> Result<Option<String>, BackboneError>;

    /// Writes a session, or deletes it. Applications do that on Redis by themselves; this is for the embedded backbone,
    /// which nobody else can write to.
    async fn set_session(&self, id: &SessionId, value: Option<&str>) -> Result<(), BackboneError>;

    /// Keeps what a ticket stands for, for `seconds`.
    async fn put_ticket(&self, ticket: &Ticket, value: &str, seconds: u32) -> Result<(), BackboneError>;

    /// Takes it once: a second call gets nothing, on any node.
    async fn take_ticket(&self, ticket: &Ticket) -> Result<Option<String>, BackboneError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_look_like_nothing_else() {
        let ticket = Ticket::random();
        assert_eq!(Ticket::parse(ticket.as_str()), Some(ticket.clone()));
        assert_ne!(Ticket::random(), ticket);
        for other in ["", "ticket-", "a.b.c", &ticket.as_str().to_uppercase(), &format!("{}0", ticket.as_str())] {
            assert_eq!(Ticket::parse(other), None, "{other}");
        }
        assert_eq!(format!("{ticket:?}"), "Ticket(…)");
        assert!(SessionId::parse("a*").is_err() && SessionId::parse(&"a".repeat(129)).is_err());
    }
}
