//! Session cookies and tickets in Redis.

use async_trait::async_trait;
use redis::cmd;

use super::values::readable;
use crate::backbone::redis::RedisBackbone;
use crate::backbone::{BackboneError, Logins, SessionId, Ticket};

#[async_trait]
impl Logins for RedisBackbone {
    async fn session(&self, id: &SessionId) -> Result<Option<String>, BackboneError> {
        let value = self.link.run(cmd("GET").arg(self.link.keys().session(id.as_str()))).await;
        readable(value, "a session's value in Redis is no text of UTF-8, so the session counts as unknown")
    }

    async fn set_session(&self, id: &SessionId, value: Option<&str>) -> Result<(), BackboneError> {
        let key = self.link.keys().session(id.as_str());
        match value {
            Some(value) => self.link.run(cmd("SET").arg(key).arg(value)).await,
            None => self.link.run(cmd("DEL").arg(key)).await,
        }
    }

    async fn put_ticket(&self, ticket: &Ticket, value: &str, seconds: u32) -> Result<(), BackboneError> {
        self.link.run(cmd("SET").arg(self.link.keys().ticket(ticket.as_str())).arg(value).arg("EX").arg(seconds)).await
    }

    async fn take_ticket(&self, ticket: &Ticket) -> Result<Option<String>, BackboneError> {
        let value = self.link.run(cmd("GETDEL").arg(self.link.keys().ticket(ticket.as_str()))).await;
        readable(value, "a ticket's value in Redis is no text of UTF-8, so the ticket counts as unknown")
    }
}
