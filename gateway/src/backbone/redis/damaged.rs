//! Keys of ours in which another program has put something else. A value that can't be read is none, and a key of another
//! type is deleted: nothing of ours is in it, and otherwise no command on it would ever succeed again.

use redis::cmd;

use super::link::Link;
use crate::backbone::BackboneError;

/// Whether a key holds a list, a hash or the like in the place of what belongs there.
pub(super) fn is_other_type(error: &BackboneError) -> bool {
    error.0.contains("WRONGTYPE")
}

/// Deletes a key of another type.
pub(super) async fn begin_anew(link: &Link, key: &str) -> Result<(), BackboneError> {
    tracing::warn!(key, "another program has put another type into a key in Redis; it is deleted and begun anew");
    link.run(cmd("DEL").arg(key)).await
}
