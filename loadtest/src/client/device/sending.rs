//! The sends of a device: over its socket, or over REST beside its stream, each until it is acknowledged or refused for good.

use std::io;
use std::time::{Duration, Instant};

use super::super::pending::OutgoingMessage;
use super::super::posts::PostAnswer;
use super::{Connection, Device};
use crate::oracle::Sighting;
use crate::rest::{MessageView, Posted, SendError};

impl Device {
    pub(super) fn queue(&mut self, send: OutgoingMessage) {
        self.pending.push(send);
        self.note_unsettled();
    }

    fn note_unsettled(&self) {
        let unsettled = self.pending.unsettled();
        self.setup.recorder.with(|log| log.unsettled = unsettled);
    }

    pub(super) fn pump(&mut self, connection: &Connection) -> io::Result<()> {
        if connection.authenticated {
            for send in self.pending.due(Instant::now()) {
                match connection.link.writer() {
                    Some(writer) => writer.send_text(&send.frame())?,
                    None => self.posts.send(&self.token, send),
                }
            }
        }
        Ok(())
    }

    /// A send was refused, for good or for a while.
    pub(super) fn refused_send(&mut self, temp_id: &str, code: &str, retryable: bool, retry_after_ms: Option<u64>) {
        if retryable {
            let wait = self.backoff.at_least(Duration::from_millis(retry_after_ms.unwrap_or(500)));
            self.pending.postpone(temp_id, Instant::now() + wait);
        } else if self.pending.settle(temp_id) {
            self.setup.recorder.with(|log| *log.refused.entry(code.to_owned()).or_default() += 1);
            self.note_unsettled();
        }
    }

    /// Takes the answer to a send over REST.
    pub(super) fn posted(&mut self, PostAnswer { temp_id, result }: PostAnswer) {
        match result {
            Ok(Posted { message, duplicate }) => self.acknowledge(Some(&temp_id), &message, duplicate),
            Err(SendError::Refused { code, retryable, retry_after_ms }) => {
                self.refused_send(&temp_id, &code, retryable, retry_after_ms);
            }
            Err(SendError::NoAnswer) => self.refused_send(&temp_id, "", true, None),
        }
    }

    pub(super) fn acknowledge(&mut self, temp_id: Option<&str>, message: &MessageView, duplicate: bool) {
        let Some(temp_id) = temp_id.or(message.temp_id.as_deref()) else { return };
        if duplicate {
            self.setup.recorder.duplicate(temp_id, Sighting::from(message));
        }
        // Every device of the user gets `message.sent`; only the one that sent it waits for it.
        if self.pending.settle(temp_id) {
            self.setup.recorder.acknowledged(temp_id, Sighting::from(message));
            self.note_unsettled();
        }
    }
}
