//! The meaning of the fields of a token, of a session and of the authentication service's answer: the same in all
//! three.

use serde_json::Value;
use shared::UserId;
use shared::title::cleaned_name;

use super::Names;

/// A user id: a string, or an integer.
pub(super) fn user_id(claim: &Value) -> Option<UserId> {
    match claim {
        Value::String(text) => UserId::parse(text).ok(),
        Value::Number(number) if number.is_u64() || number.is_i64() => UserId::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// The claim of sessions and of the authentication service with the name that others look the user up by.
pub(super) const USERNAME: &str = "username";

/// The names of a user; `username_claim` alone holds the one that others look up, because the issuer keeps it unique.
pub(super) fn names(claims: &Value, username_claim: &str) -> Names {
    let named = |claim: &str| cleaned_name(claims.get(claim)?.as_str()?);
    let username = named(username_claim);
    let shown = ["username", "preferred_username", "name"].into_iter().find_map(named);
    Names { shown: shown.or_else(|| username.clone()), username }
}

/// Whether the words of `scope` or `role` hold `admin`.
pub(super) fn is_admin(claims: &Value) -> bool {
    let words = |claim: &Value| match claim {
        Value::String(text) => text.split_whitespace().any(|word| word == "admin"),
        Value::Array(words) => words.iter().any(|word| word == "admin"),
        _ => false,
    };
    ["scope", "role"].iter().filter_map(|name| claims.get(name)).any(words)
}

/// A numeric date; fractions are cut off.
pub(super) fn seconds(claim: Option<&Value>) -> Option<i64> {
    let claim = claim?;
    #[expect(clippy::cast_possible_truncation, reason = "a date beyond 2^63 saturates, which is far in the future")]
    claim.as_i64().or_else(|| claim.as_f64().filter(|seconds| seconds.is_finite()).map(|seconds| seconds as i64))
}
