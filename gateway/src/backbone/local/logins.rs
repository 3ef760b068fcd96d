//! Session cookies, tickets and revocations in this process. Sessions are there only if this process wrote them.

use std::collections::HashMap;

use async_trait::async_trait;
use shared::UserId;

use super::LocalBackbone;
use super::time::now_ms;
use crate::backbone::{BackboneError, Logins, SessionId, Ticket};

/// What Redis would keep about who may come in.
#[derive(Default)]
pub(super) struct LocalLogins {
    sessions: HashMap<SessionId, String>,
    /// With the unix milliseconds at which each is worth nothing any more.
    tickets: HashMap<Ticket, (String, i64)>,
}

impl LocalLogins {
    /// Forgets tickets whose time is over.
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

    async fn revoked_at(&self, users: &[UserId]) -> Result<Vec<Option<i64>>, BackboneError> {
        let state = self.shared.state.lock();
        Ok(users.iter().map(|user| state.revoked_s.get(user).copied()).collect())
    }

    async fn restore_revocations(&self, revocations: &[(UserId, i64)]) -> Result<(), BackboneError> {
        let mut state = self.shared.state.lock();
        for (user, revoked_s) in revocations {
            let known = state.revoked_s.entry(user.clone()).or_insert(*revoked_s);
            *known = (*known).max(*revoked_s);
        }
        Ok(())
    }
}
