//! Blocks, as what a user may do with another is judged by them. Blocking itself is in `people`.

use rusqlite::Connection;
use shared::UserId;

use super::rows::row;
use crate::store::StoreError;

/// Whether one of the two has blocked the other.
pub(super) fn is_blocked(read: &Connection, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM blocks WHERE (blocker = ?1 AND blocked = ?2) OR (blocker = ?2 AND blocked = ?1)";
    row(read, sql, [one.as_str(), other.as_str()], |_| Ok(())).map(|found| found.is_some())
}

/// Those of `others` between whom and `user` there is a block, ascending by id.
pub(super) fn blocked_with(read: &Connection, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, StoreError> {
    let mut blocked = Vec::new();
    for other in others {
        if is_blocked(read, user, other)? {
            blocked.push(other.clone());
        }
    }
    blocked.sort();
    Ok(blocked)
}
