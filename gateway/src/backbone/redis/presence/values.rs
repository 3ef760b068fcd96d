//! The values of presence keys, and the largest number of users per call.

use shared::Timestamp;

use crate::backbone::Presence;

/// Users per pipeline or command.
pub(super) const USERS_MAX: usize = 500;

/// The part of [`online_key`](shared::redis_keys::online_key) and
/// [`last_seen_key`](shared::redis_keys::last_seen_key) before the user's id.
pub(super) const ONLINE_PREFIX: &str = "online:";
pub(super) const LAST_SEEN_PREFIX: &str = "chat:last_seen:";

/// Reads the values of pairs of both keys.
pub(super) fn answered(values: &[Option<String>]) -> impl Iterator<Item = Presence> + '_ {
    values.chunks(2).map(|pair| {
        let online = matches!(pair.first(), Some(Some(_)));
        let seen = pair.get(1).and_then(|seen| seen.as_deref()?.parse().ok());
        Presence { online, last_seen: seen.map(Timestamp::from_unix_ms) }
    })
}

#[cfg(test)]
mod tests {
    use shared::UserId;
    use shared::redis_keys::{last_seen_key, online_key};

    use super::*;

    #[test]
    fn prefixes_are_those_of_the_schema() {
        let user = UserId::parse("u").expect("an id");
        assert_eq!(online_key(&user), format!("{ONLINE_PREFIX}u"));
        assert_eq!(last_seen_key(&user), format!("{LAST_SEEN_PREFIX}u"));
    }
}
