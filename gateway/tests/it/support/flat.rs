//! A client of a flat dialect: frames without envelope.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{Client, Incoming};
use super::http::post;
use super::node::{API_KEY, Node, token};

/// A connected client.
pub(crate) struct Flat(pub(crate) Client);

impl Flat {
    /// Connects as `user` and takes `connected`.
    pub(crate) async fn join(to: SocketAddr, path: &str, user: &str) -> Self {
        Self::join_with(to, path, &token(user), "").await.0
    }

    /// The same with a token and more of a query; also gives the `connected` frame.
    pub(crate) async fn join_with(to: SocketAddr, path: &str, token: &str, more: &str) -> (Self, Value) {
        let mut client = Client::open(to, &format!("{path}?token={token}{more}"), &[]).await.expect("an upgrade");
        let Incoming::Frame(first) = client.next().await else { panic!("connected comes first") };
        assert_eq!(first["type"], "connected", "{first}");
        (Self(client), first)
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: Value) {
        self.0.send_text(&frame.to_string()).await;
    }

    /// The next frame of this type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        self.0.expect(kind).await
    }

    /// The code of the error that comes next.
    pub(crate) async fn refused(&mut self, frame: Value) -> String {
        self.send(frame).await;
        let error = self.expect("error").await;
        assert!(error["message"].is_string(), "{error}");
        error["code"].as_str().expect("a code").to_owned()
    }

    /// Every frame up to the answer to a ping, without that: what was on its way has come.
    pub(crate) async fn settle(&mut self) -> Vec<Value> {
        settle(&mut self.0).await
    }
}

/// Every frame of a flat dialect up to the answer to a ping, without that.
pub(crate) async fn settle(client: &mut Client) -> Vec<Value> {
    client.send_text(&json!({ "type": "ping" }).to_string()).await;
    let mut frames = Vec::new();
    loop {
        match client.next().await {
            Incoming::Frame(frame) if frame["type"] == "pong" => return frames,
            Incoming::Frame(frame) => frames.push(frame),
            other => panic!("{other:?} instead of a pong"),
        }
    }
}

/// Holds a frame against a document's: every field that the document shows is there with its type and value. Of the fields
/// named in `own` only the type counts, and of times that they have the document's form.
pub(crate) fn assert_shows(document: &str, frame: &Value, own: &[&str]) {
    let shown: Value = serde_json::from_str(document).expect("the document's frame is JSON");
    assert_object(&shown, frame, own);
}

fn assert_object(shown: &Value, frame: &Value, own: &[&str]) {
    for (field, value) in shown.as_object().expect("a frame is an object") {
        let got = &frame[field];
        match value {
            Value::Object(_) => assert_object(value, got, own),
            Value::String(time) if time.ends_with('Z') && time.len() == "2025-11-21T13:00:00Z".len() => {
                assert!(got.as_str().is_some_and(is_time_with_seconds), "{field} in {frame}");
            }
            Value::Number(_) if own.contains(&field.as_str()) => assert!(got.is_i64(), "{field} in {frame}"),
            Value::String(_) if own.contains(&field.as_str()) => assert!(got.is_string(), "{field} in {frame}"),
            _ => assert_eq!(got, value, "{field} in {frame}"),
        }
    }
}

/// `2025-11-21T13:00:00Z`, with other digits.
fn is_time_with_seconds(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:ddZ";
    text.len() == form.len()
        && form.chars().zip(text.chars()).all(|(form, c)| if form == 'd' { c.is_ascii_digit() } else { c == form })
}

/// A chat with the id 3 between the users 5 and 6.
pub(crate) async fn open_chat(node: &Node) {
    let chat = json!({ "id": "3", "kind": "direct", "members": ["5", "6"] });
    let (status, made) = post(node.http, "/api/v1/conversations", &[("x-api-key", API_KEY)], chat).await;
    assert_eq!(status, 201, "{made}");
}
