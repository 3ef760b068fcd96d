//! Inflates a compressed message of a server (RFC 7692), with one inflater for each thread.

use std::cell::RefCell;

use bytes::Bytes;
use zlib_rs::{Inflate, InflateFlush};

/// The largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The end of each message, which isn't sent (RFC 7692 §7.2.2).
const FLUSHED: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

thread_local! {
    static INFLATER: RefCell<Inflate> = RefCell::new(Inflate::new(false, 15));
}

/// The message of a payload; `None` if it is damaged or too large.
pub(super) fn inflate(payload: &[u8]) -> Option<Bytes> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let mut message = Vec::new();
        let mut room = [0; 4096];
        for input in [payload, &FLUSHED] {
            let mut rest = input;
            loop {
                let (taken, made) = (inflater.total_in(), inflater.total_out());
                inflater.decompress(rest, &mut room, InflateFlush::SyncFlush).ok()?;
                let since = |before: u64, now: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
                rest = rest.get(since(taken, inflater.total_in())..).unwrap_or_default();
                let made = since(made, inflater.total_out());
                message.extend_from_slice(room.get(..made).unwrap_or_default());
                if message.len() > MESSAGE_BYTES_MAX {
                    return None;
                }
                // Room that is left means that nothing more comes of this input.
                if made < room.len() {
                    break;
                }
            }
        }
        Some(message.into())
    })
}
