//! A durable event on its way to sockets: framed once for all of them.

use std::cell::OnceCell;

use shared::Epoch;

use crate::envelope::{companions, message_id};
use crate::ws::frame::{frame_lines, frame_text};

/// A durable event on its way to sockets.
#[derive(Debug)]
pub struct LogEvent<'a> {
    pub(super) seq: u64,
    /// Its envelopes as they came, `seq` first.
    envelopes: &'a [u8],
    pub(super) framed: bytes::Bytes,
    message: OnceCell<Option<u64>>,
}

impl<'a> LogEvent<'a> {
    /// Frames the event, once for all sockets.
    #[must_use]
    pub fn new(seq: u64, envelopes: &'a [u8]) -> Self {
        Self { seq, envelopes, framed: frame_lines(envelopes), message: OnceCell::new() }
    }

    /// What a socket gets that had the message directly: its position in the event's place, then the companions.
    pub(super) fn instead(&self, direct: &[u64], epoch: &Epoch) -> Option<(u64, bytes::Bytes)> {
        let message = (*self.message.get_or_init(|| message_id(self.envelopes)))?;
        if !direct.contains(&message) {
            return None;
        }
        let seq = self.seq;
        let position = format!(r#"{{"seq":{seq},"type":"position","payload":{{"epoch":"{epoch}","seq":{seq}}}}}"#);
        let mut frames = frame_text(position.as_bytes()).to_vec();
        frames.extend_from_slice(&frame_lines(companions(self.envelopes)));
        Some((message, frames.into()))
    }
}
