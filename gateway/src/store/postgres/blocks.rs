//! Blocks, as what a user may do with another is judged by them. Blocking itself is in `people`.

use deadpool_postgres::GenericClient;
use shared::UserId;

use super::call::query;
use super::rows::parsed;
use crate::store::StoreError;

/// Those of `others` between whom and `user` there is a block, ascending by id. OFFSET 0 keeps look-ups by key.
pub(super) async fn blocked_with(
    client: &impl GenericClient,
    user: &UserId,
    others: &[UserId],
) -> Result<Vec<UserId>, StoreError> {
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT o.id FROM unnest($2::text[]) AS o(id) \
        WHERE EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = $1 AND b.blocked = o.id OFFSET 0) \
            OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = o.id AND b.blocked = $1 OFFSET 0) \
        ORDER BY o.id COLLATE \"C\"";
    let others: Vec<&str> = others.iter().map(UserId::as_str).collect();
    query(client, sql, &[&user.as_str(), &others]).await?.iter().map(|row| parsed(row, "id", str::parse)).collect()
}
