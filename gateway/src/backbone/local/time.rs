//! The clock of the embedded backbone.

use shared::Timestamp;

/// The time by which everything here goes.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().unix_ms()
}
