//! The replies of scripts about a user's log: its head, then entries.

use std::borrow::Cow;

use bytes::Bytes;
use shared::Epoch;

use super::commands::repeated;
use crate::backbone::{BackboneError, LogHead, LogPage, payload};

/// Reads epoch, floor and last, and what follows them.
pub(super) fn head_and_rest(reply: &[Bytes]) -> Result<(LogHead, &[Bytes]), BackboneError> {
    let [epoch, floor, last, rest @ ..] = reply else { return Err(unreadable()) };
    let epoch = std::str::from_utf8(epoch).ok().and_then(Epoch::parse).ok_or_else(unreadable)?;
    Ok((LogHead { epoch, floor: number(floor)?, last: number(last)? }, rest))
}

/// The same, then seq and body in turn.
pub(super) fn page(reply: &[Bytes]) -> Result<LogPage, BackboneError> {
    let (head, entries) = head_and_rest(reply)?;
    let entries = entries
        .chunks(2)
        .map(|entry| match entry {
            [seq, body] => number(seq).map(|seq| (seq, logged(seq, body))),
            _ => Err(unreadable()),
        })
        .collect::<Result<_, _>>()?;
    Ok(LogPage { head, entries })
}

pub(super) fn number(bytes: &[u8]) -> Result<u64, BackboneError> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(unreadable)
}

/// An entry of a log as it was published.
pub(super) fn logged(seq: u64, body: &[u8]) -> Bytes {
    let payload = payload::with_seq(seq, body);
    match repeated::whole(&payload) {
        Cow::Borrowed(_) => payload,
        Cow::Owned(whole) => whole.into(),
    }
}

pub(super) fn unreadable() -> BackboneError {
    BackboneError("a log could not be read".to_owned())
}
