//! Requests as a user or a backend.

use serde_json::Value;

use super::http::{bearer, get, post, request};
use super::node::{API_KEY, Node, token};

/// Headers of a request.
pub(crate) struct Caller(pub(crate) Vec<(&'static str, String)>);

impl Caller {
    /// A user with a token.
    pub(crate) fn user(user: &str) -> Self {
        Self(vec![bearer(&token(user))])
    }
    /// A backend in its own name.
    pub(crate) fn backend() -> Self {
        Self(vec![("x-api-key", API_KEY.to_owned())])
    }
    /// A backend that acts for a user.
    pub(crate) fn acting_for(user: &str) -> Self {
        Self(vec![("x-api-key", API_KEY.to_owned()), ("x-user-id", user.to_owned())])
    }
    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    pub(crate) async fn post(&self, node: &Node, path: &str, body: Value) -> (u16, Value) {
        post(node.http, path, &self.headers(), body).await
    }

    pub(crate) async fn get(&self, node: &Node, path: &str) -> (u16, Value) {
        get(node.http, path, &self.headers()).await
    }

    pub(crate) async fn delete(&self, node: &Node, path: &str) -> (u16, Value) {
        request(node.http, "DELETE", path, &self.headers(), "").await
    }

    pub(crate) async fn patch(&self, node: &Node, path: &str, body: Value) -> (u16, Value) {
        request(node.http, "PATCH", path, &self.headers(), body.to_string()).await
    }
}

/// The status and the code of an answer's error.
pub(crate) fn code((status, body): (u16, Value)) -> (u16, String) {
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// What [`code`] makes of an error.
pub(crate) fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
