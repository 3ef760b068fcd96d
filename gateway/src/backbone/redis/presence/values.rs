//! The values of presence keys, and the largest number of users per call.

use bytes::Bytes;
use shared::{Timestamp, UserId};

use crate::backbone::Presence;

/// Users per pipeline or command.
pub(super) const USERS_MAX: usize = 500;

/// Reads the values of pairs of [`Keys::online`](shared::redis_keys::Keys::online) and
/// [`Keys::last_seen`](shared::redis_keys::Keys::last_seen) hold.
/// Another program may have written anything there: what is no time is none.
pub(super) fn answered(values: &[Option<Bytes>]) -> impl Iterator<Item = Presence> + '_ {
    values.chunks(2).map(|pair| {
        let online = matches!(pair.first(), Some(Some(_)));
        let seen = pair.get(1).and_then(|seen| std::str::from_utf8(seen.as_deref()?).ok()?.parse().ok());
        Presence { online, last_seen: seen.map(Timestamp::from_unix_ms) }
    })
}

/// The user with this id; `None` for a member of the list that another program has put there.
pub(super) fn user_named(id: &[u8]) -> Option<UserId> {
    UserId::parse(std::str::from_utf8(id).ok()?).ok()
}
