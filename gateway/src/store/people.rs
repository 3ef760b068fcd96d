//! People: their names, their blocks, their partners, when they were last online. The rules that both stores share, and
//! the trait. No SQL.

use std::collections::BTreeMap;

use async_trait::async_trait;
use shared::{Timestamp, UserId};

use super::{OutboxRow, StoreError};

/// Users, apart from their conversations.
#[async_trait]
pub trait People: Send + Sync + 'static {
    /// Blocks or unblocks; `true` if that changed something.
    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
        outbox: OutboxRow<bool>,
    ) -> Result<bool, StoreError>;

    /// Those of `others` between whom and `user` there is a block, whichever of the two made it; ascending by id.
    async fn blocked_with(&self, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, StoreError>;

    /// Keeps the names that tokens gave for users; a name that another user had goes to the newest.
    async fn remember_usernames(&self, users: &[(UserId, String)]) -> Result<(), StoreError>;

    /// The user who last came with this user name.
    async fn user_by_name(&self, username: &str) -> Result<Option<UserId>, StoreError>;

    /// Keeps when users' last connections closed.
    async fn set_last_seen(&self, users: &[(UserId, Timestamp)]) -> Result<(), StoreError>;

    /// For each of `users`, in their order, the users that share a conversation with them: direct ones first, then by
    /// newest activity, at most `limit` of each. Conversations of more than `limit` others don't count.
    async fn partners(&self, users: &[UserId], limit: u32) -> Result<Vec<Vec<Partner>>, StoreError>;
}

/// A user that shares a conversation with another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// The user.
    pub user: UserId,
    /// Whether one of the two has blocked the other.
    pub blocked: bool,
}

/// The longest user name that is kept, in bytes: an index row holds no more than some 2,700.
const USERNAME_BYTES_MAX: usize = 512;

/// The last user of each name, in the order in which rows are locked. Names that no store can hold are left out.
pub(super) fn newest_names(users: &[(UserId, String)]) -> BTreeMap<&str, &UserId> {
    let storable = |name: &str| !name.is_empty() && name.len() <= USERNAME_BYTES_MAX && !name.contains('\0');
    users.iter().filter(|(_, name)| storable(name)).map(|(user, name)| (name.as_str(), user)).collect()
}

/// The latest time of each user, in the order in which rows are locked.
pub(super) fn newest_times(users: &[(UserId, Timestamp)]) -> BTreeMap<&UserId, Timestamp> {
    let mut newest = BTreeMap::new();
    for (user, at) in users {
        let latest = newest.entry(user).or_insert(*at);
        *latest = (*latest).max(*at);
    }
    newest
}
