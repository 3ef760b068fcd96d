//! A client of `social.v1`.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::Client;
use super::flat::settle;
use super::node::token;

/// A client of `social.v1`.
pub(crate) struct Social(pub(crate) Client);

impl Social {
    pub(crate) async fn join(to: SocketAddr, user: &str) -> Self {
        Self::join_with(to, &token(user)).await
    }

    pub(crate) async fn join_with(to: SocketAddr, token: &str) -> Self {
        let client = Client::open(to, &format!("/ws?token={token}"), &[]).await.expect("an upgrade");
        let mut social = Self(client);
        social.0.expect("connected").await;
        social
    }

    pub(crate) async fn say(&mut self, frame: Value) {
        self.0.send_text(&frame.to_string()).await;
    }

    /// Everything that was on its way.
    pub(crate) async fn settle(&mut self) -> Vec<Value> {
        settle(&mut self.0).await
    }

    /// The next frame of a type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        self.0.expect(kind).await
    }

    pub(crate) async fn refused(&mut self, frame: Value, code: &str) {
        self.say(frame.clone()).await;
        assert_eq!(self.expect("error").await["code"], code, "{frame}");
    }
}
