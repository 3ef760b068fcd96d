//! Pages of lists in the order of ids. A cursor is the last id of the page before, in characters that a query takes as
//! they are.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::ProtocolError;
use shared::id::InvalidId;

/// Items of a list, unless the caller says otherwise, and the most.
const LIMIT_DEFAULT: u32 = 50;
pub(super) const LIMIT_MAX: u32 = 100;

/// The cursors that lists in order of ids take.
pub(super) const CURSOR_PATTERN: &str = "^[A-Za-z0-9_.:@!~-]{1,128}$";

/// A list of at most `limit` items; `next` goes into the next request.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl<T> List<T> {
    /// A page of at most `limit` items; there may be more if it is full.
    pub(super) fn by_id(items: Vec<T>, limit: u32, id: impl Fn(&T) -> &str) -> Self {
        let is_full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let next = items.last().filter(|_| is_full).map(|last| cursor(id(last)));
        Self { items, next }
    }
}

/// How many items the caller wants: 1 to 100, 50 by default.
pub(super) fn limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX)
}

/// A page of a list.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PageParams {
    /// The `next` of the page before.
    #[schemars(regex(pattern = CURSOR_PATTERN))]
    pub(super) cursor: Option<String>,
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    pub(super) limit: Option<u32>,
}

/// The cursor behind this id.
pub(super) fn cursor(id: &str) -> String {
    id.replace('+', "~").replace('|', "!")
}

/// The id behind which the page begins.
pub(super) fn after<T: FromStr<Err = InvalidId>>(cursor: Option<&str>) -> Result<Option<T>, ProtocolError> {
    let parse = |cursor: &str| {
        let is_one = !cursor.contains(['+', '|']);
        let id = cursor.replace('~', "+").replace('!', "|").parse().ok().filter(|_| is_one);
        id.ok_or_else(|| ProtocolError::field("cursor", "is not the next of a page"))
    };
    cursor.map(parse).transpose()
}
