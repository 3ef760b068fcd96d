//! The value that an application stored for a session: a user id alone, or JSON.

use serde_json::Value;
use shared::UserId;

use super::claims::{USERNAME, is_admin, names, seconds, user_id};
use super::{Identity, Names, TokenRefusal};
use crate::backbone::SessionId;

/// The longest value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 4096;

/// Reads the identity. A session ends when its key does, so the connection has no expiry of its own; without an `iat` it
/// counts as older than any revocation, like a token without one.
pub(super) fn identity(id: SessionId, value: &str) -> Result<Identity, TokenRefusal> {
    let value = value.trim();
    if value.len() > VALUE_BYTES_MAX {
        return Err(TokenRefusal::Session);
    }
    let plain = |user| Identity {
        user,
        names: Names::default(),
        admin: false,
        expires_at_s: i64::MAX,
        issued_at_s: None,
        session: Some(id.clone()),
    };
    match UserId::parse(value) {
        Ok(user) => Ok(plain(user)),
        Err(_) => {
            let claims: Value = serde_json::from_str(value).map_err(|_| TokenRefusal::Session)?;
            let user = user_id(claims.get("userId").unwrap_or(&claims)).ok_or(TokenRefusal::Session)?;
            Ok(Identity {
                names: names(&claims, USERNAME),
                admin: is_admin(&claims),
                issued_at_s: seconds(claims.get("iat")),
                ..plain(user)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Identity, TokenRefusal> {
        identity(SessionId::parse("s").expect("an id"), value)
    }

    #[test]
    fn an_id_or_json() {
        for value in ["42", " 42\n", r#""42""#, r#"{"userId": "42"}"#, r#"{"userId": 42}"#] {
            let identity = read(value).expect("a session");
            assert_eq!((identity.user.as_str(), identity.admin), ("42", false), "{value}");
        }
        let full = read(r#"{"userId": "a", "username": "Ann", "scope": "chat admin", "iat": 7}"#).expect("a session");
        assert_eq!((full.names.username.as_deref(), full.admin, full.issued_at_s), (Some("Ann"), true, Some(7)));
        let large = format!(r#"{{"userId": "a", "x": "{}"}}"#, "x".repeat(VALUE_BYTES_MAX));
        for bad in ["", "a b", "{", "{}", "[]", r#"{"userId": "a b"}"#, r#"{"userId": null}"#, &large] {
            assert_eq!(read(bad), Err(TokenRefusal::Session), "{bad}");
        }
    }
}
