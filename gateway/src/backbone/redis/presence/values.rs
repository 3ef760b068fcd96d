//! The values of presence keys, and the largest number of users per call.

use shared::Timestamp;

use crate::backbone::Presence;

/// Users per pipeline or command.
pub(super) const USERS_MAX: usize = 500;

/// Reads the values of pairs of [`Keys::online`](shared::redis_keys::Keys::online) and
/// [`Keys::last_seen`](shared::redis_keys::Keys::last_seen) hold.
pub(super) fn answered(values: &[Option<String>]) -> impl Iterator<Item = Presence> + '_ {
    values.chunks(2).map(|pair| {
        let online = matches!(pair.first(), Some(Some(_)));
        let seen = pair.get(1).and_then(|seen| seen.as_deref()?.parse().ok());
        Presence { online, last_seen: seen.map(Timestamp::from_unix_ms) }
    })
}
