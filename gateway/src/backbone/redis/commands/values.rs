//! Values that other programs may have written: one that can't be read has a definite answer, and a line in the log.

use crate::backbone::BackboneError;
use crate::backbone::redis::damaged::is_other_type;

/// A revocation that can't be read covers every token. Another answer would let in who was meant to be kept out, and asking
/// again would not help; a new revocation, or deleting the key, does.
pub(super) fn read_revocation(value: Result<Option<Vec<u8>>, BackboneError>) -> Result<Option<i64>, BackboneError> {
    let number = match value {
        Ok(None) => return Ok(None),
        Ok(Some(value)) => std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()),
        Err(error) if is_other_type(&error) => None,
        Err(error) => return Err(error),
    };
    if number.is_none() {
        tracing::warn!("a user's revocation in Redis is no number, so all of the user's tokens count as revoked");
    }
    Ok(Some(number.unwrap_or(i64::MAX)))
}

/// Other programs write there too. A value that nobody can read is none, and asking again would not help.
pub(super) fn readable(
    value: Result<Option<Vec<u8>>, BackboneError>,
    otherwise: &str,
) -> Result<Option<String>, BackboneError> {
    let text = match value {
        Ok(value) => value.map(String::from_utf8).transpose().ok(),
        Err(error) if is_other_type(&error) => None,
        Err(error) => return Err(error),
    };
    if text.is_none() {
        tracing::warn!("{otherwise}");
    }
    Ok(text.flatten())
}
