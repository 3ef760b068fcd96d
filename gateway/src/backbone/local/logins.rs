//! Session cookies and tickets in this process. Sessions exist only if this process wrote them.

use std::collections::HashMap;

use async_trait::async_trait;

use super::LocalBackbone;
use super::time::now_ms;
use crate::backbone::{BackboneError, Logins, SessionId, Ticket};

/// Sessions and tickets.
#[derive(Default)]
pub(super) struct LocalLogins {
    sessions: HashMap<SessionId, String>,
    /// Each with the unix milliseconds at which it expires.
    tickets: HashMap<Ticket, (String, i64)>,
}

impl LocalLogins {
    /// Forgets tickets that have expired.
    pub(super) fn sweep(&mut self, now_ms: i64) {
        self.tickets.retain(|_, (_, until_ms)| *until_ms > now_ms);
    }
}

#[async_trait]
impl Logins for LocalBackbone {
    async fn session(&self, id: &SessionId) -> Result<Option<String>, BackboneError> {
        Ok(self.shared.state.lock().doors.sessions.get(id).cloned())
    }

    async fn set_session(&self, id: &SessionId, value: Option<&str>) -> Result<(), BackboneError> {
        let sessions = &mut self.shared.state.lock().doors.sessions;
        match value {
            Some(value) => drop(sessions.insert(id.clone(), value.to_owned())),
            None => drop(sessions.remove(id)),
        }
        Ok(())
    }

    async fn put_ticket(&self, ticket: &Ticket, value: &str, seconds: u32) -> Result<(), BackboneError> {
        let until_ms = now_ms() + i64::from(seconds) * 1000;
        self.shared.state.lock().doors.tickets.insert(ticket.clone(), (value.to_owned(), until_ms));
        Ok(())
    }

    async fn take_ticket(&self, ticket: &Ticket) -> Result<Option<String>, BackboneError> {
        let taken = self.shared.state.lock().doors.tickets.remove(ticket);
        Ok(taken.filter(|(_, until_ms)| *until_ms > now_ms()).map(|(value, _)| value))
    }
}
