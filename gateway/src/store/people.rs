//! What a batch of names or times comes down to: one per key, in the order in which rows are locked. No SQL.

use std::collections::BTreeMap;

use shared::{Timestamp, UserId};

/// The longest user name that is kept, in bytes: an index row holds no more than some 2,700.
const USERNAME_BYTES_MAX: usize = 512;

/// The last user of each name; names that no store can hold are left out.
pub(super) fn newest_names(users: &[(UserId, String)]) -> BTreeMap<&str, &UserId> {
    let storable = |name: &str| !name.is_empty() && name.len() <= USERNAME_BYTES_MAX && !name.contains('\0');
    users.iter().filter(|(_, name)| storable(name)).map(|(user, name)| (name.as_str(), user)).collect()
}

/// The latest time of each user.
pub(super) fn newest_times(users: &[(UserId, Timestamp)]) -> BTreeMap<&UserId, Timestamp> {
    let mut newest = BTreeMap::new();
    for (user, at) in users {
        let latest = newest.entry(user).or_insert(*at);
        *latest = (*latest).max(*at);
    }
    newest
}
