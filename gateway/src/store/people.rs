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

    /// Keeps the names with which users came, each user once. A username stays with the first who came with it, until that
    /// user comes with another. What a user didn't bring stays as it was.
    async fn remember_names(&self, users: &[(UserId, Names)]) -> Result<(), StoreError>;

    /// The user who has this username.
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

/// The names with which a user came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The name by which others look the user up.
    pub username: Option<String>,
    /// The name that others are shown.
    pub shown: Option<String>,
}

/// The longest user name that is kept, in bytes: an index row holds no more than some 2,700.
const USERNAME_BYTES_MAX: usize = 512;

/// Whether every store can hold the name.
fn is_storable(name: &str) -> bool {
    !name.is_empty() && name.len() <= USERNAME_BYTES_MAX && !name.contains('\0')
}

/// The usernames, in the order in which rows are locked. Names that no store can hold are left out.
pub(super) fn usernames(users: &[(UserId, Names)]) -> BTreeMap<&str, &UserId> {
    let mut usernames = BTreeMap::new();
    for (user, names) in users {
        if let Some(username) = names.username.as_deref().filter(|name| is_storable(name)) {
            usernames.entry(username).or_insert(user);
        }
    }
    usernames
}

/// The names to show, in the order in which rows are locked.
pub(super) fn shown_names(users: &[(UserId, Names)]) -> BTreeMap<&UserId, &str> {
    let shown = users.iter().filter_map(|(user, names)| Some((user, names.shown.as_deref()?)));
    shown.filter(|(_, name)| is_storable(name)).collect()
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
