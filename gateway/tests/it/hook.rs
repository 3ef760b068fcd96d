//! The hook that is asked before something is stored, with a real receiver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::push::verify;
use crate::support::client::Client;
use crate::support::flat::{Flat, open_chat};
use crate::support::http::{bearer, request};
use crate::support::node::{Node, token};
use crate::support::two_nodes::{TwoNodes, acting, bounded};

const SECRET: &str = "a-secret-of-the-webhook";

/// A backend that decides by the first word of a content: `refuse`, `censor`, `slow`, `slower`, `silent`, `long` or `broken`; and by the emoji.
struct Backend {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
    server: JoinHandle<()>,
}

impl Backend {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let asked = Arc::default();
        let routes = Router::new().route("/hook", post(decide)).with_state(Arc::clone(&asked));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { url: format!("http://{address}/hook"), asked, server }
    }

    fn settings<'a>(&'a self, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let mut settings = vec![("HOOK_URL", self.url.as_str()), ("WEBHOOK_SECRET", SECRET)];
        settings.extend_from_slice(more);
        settings
    }

    /// The questions since the last time.
    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn decide(State(asked): State<Arc<Mutex<Vec<Value>>>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers[name].to_str().expect("visible text").to_owned();
    verify(&header("x-parley-signature"), &body);
    let question: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((header("x-parley-webhook"), &json!(header("x-parley-delivery"))), ("hook".into(), &question["id"]));
    let content = question["content"].as_str().unwrap_or_default().to_owned();
    asked.lock().push(question.clone());
    let answer = match content.split(' ').next() {
        _ if question["emoji"] == "🦠" => json!({ "allow": false }),
        Some("refuse") => json!({ "allow": false, "message": "not here" }),
        Some("censor") => json!({ "allow": true, "content": "***" }),
        Some("broken") => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some("long") => json!({ "allow": true, "content": "x".repeat(5_000) }),
        Some("silent") => std::future::pending().await,
        Some("slower") => {
            sleep(Duration::from_millis(3_500)).await;
            json!({ "allow": true })
        }
        Some("slow") => {
            sleep(Duration::from_millis(1_500)).await;
            json!({ "allow": true })
        }
        _ => json!({ "allow": true }),
    };
    axum::Json(answer).into_response()
}

async fn as_user(at: SocketAddr, user: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (name, value) = bearer(&token(user));
    let headers = [(name, value.as_str()), ("content-type", "application/json")];
    request(at, method, path, &headers, body.to_string()).await
}

async fn send(at: SocketAddr, body: Value) -> (u16, Value) {
    as_user(at, "5", "POST", "/api/v1/messages", body).await
}

/// The features that a gateway names when a socket is let in.
async fn features(node: &Node) -> Value {
    let path = format!("/chat/ws?token={}", token("9"));
    let mut client = Client::open(node.http, &path, &[]).await.expect("an upgrade");
    client.expect("auth_success").await["payload"]["features"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_of_a_hook() {
    let backend = Backend::start().await;
    assert_eq!(features(&Node::embedded(&backend.settings(&[])).await).await, json!(["stream", "large", "hooks"]));
    assert_eq!(features(&Node::embedded(&[]).await).await, json!(["stream", "large"]));
}

/// What is stored of the conversation 3.
async fn contents(node: &Node) -> Vec<String> {
    let path = "/api/v1/conversations/3/messages?limit=100";
    let (status, list) = acting(node.http, "GET", path, "5", Value::Null).await;
    assert_eq!(status, 200, "{list}");
    let items = list["items"].as_array().expect("items").clone();
    items.iter().map(|item| item["content"].as_str().expect("content").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_decides_over_every_socket_and_rest() {
    let backend = Backend::start().await;
    let node = Node::embedded(&backend.settings(&[])).await;
    open_chat(&node).await;
    let lounge = json!({ "kind": "channel", "id": "lounge" });
    assert_eq!(acting(node.http, "POST", "/api/v1/conversations", "5", lounge).await.0, 201);
    let mut six = Client::join(node.http, "6").await;

    let mut five = Client::join(node.http, "5").await;
    let refused = json!({ "conversationId": "3", "content": "refuse this", "tempId": "t1" });
    five.send_ref("message.send", refused, json!("r")).await;
    let error = five.expect("error").await;
    let expected = json!({ "code": "REFUSED", "message": "not here", "retryable": false });
    assert_eq!(error["payload"], expected);
    let question = backend.asked().pop().expect("asked");
    let expected = json!({
        "id": question["id"], "at": question["at"], "type": "message.send", "via": "socket", "dialect": "chat.v1",
        "conversationId": "3", "conversationKind": "direct", "to": "6", "senderId": "5", "senderName": "name-of-5",
        "kind": "text",
        "content": "refuse this", "tempId": "t1",
    });
    assert_eq!(question, expected);
    five.send("message.send", json!({ "conversationId": "3", "content": "censor this", "tempId": "t1" })).await;
    assert_eq!(five.expect("message.sent").await["payload"]["message"]["content"], "***", "a refused tempId is free");
    assert_eq!(six.expect("message.new").await["payload"]["message"]["content"], "***");

    for (path, frame) in [
        ("/ws/chat", json!({ "type": "send_message", "chat_id": 3, "content": "refuse" })),
        ("/ws", json!({ "type": "private", "to": 6, "content": "refuse" })),
        ("/ws/channels", json!({ "type": "chat_message", "channel_id": "lounge", "content": "refuse" })),
    ] {
        let mut flat = Flat::join(node.http, path, "5").await;
        flat.send(frame).await;
        let error = flat.expect("error").await;
        assert!(error.to_string().contains("not here"), "{path}: {error}");
        assert_eq!(backend.asked().pop().expect("asked")["via"], "socket");
    }

    let (status, error) = send(node.http, json!({ "conversationId": "3", "content": "refuse" })).await;
    assert_eq!((status, &error["error"]["code"]), (403, &json!("REFUSED")));
    assert_eq!(backend.asked().pop().expect("asked")["via"], "rest");
    let body = json!({ "to": "6", "content": "fine", "data": { "mentions": ["6"] } });
    let (status, sent) = acting(node.http, "POST", "/api/v1/messages", "5", body).await;
    assert_eq!(status, 201, "{sent}");
    let question = backend.asked().pop().expect("asked");
    assert_eq!((&question["via"], &question["data"]), (&json!("backend"), &json!({ "mentions": ["6"] })));

    let message = format!("/api/v1/messages/{}", sent["message"]["id"].as_str().expect("an id"));
    let (status, error) = as_user(node.http, "5", "PATCH", &message, json!({ "content": "refuse it" })).await;
    assert_eq!((status, &error["error"]["code"]), (403, &json!("REFUSED")));
    let question = backend.asked().pop().expect("asked");
    assert_eq!((&question["type"], &question["previous"]), (&json!("message.edit"), &json!("fine")));
    let (status, edited) = as_user(node.http, "5", "PATCH", &message, json!({ "content": "censor it" })).await;
    assert_eq!((status, &edited["content"]), (200, &json!("***")));
    five.send("reaction.add", json!({ "messageId": sent["message"]["id"], "emoji": "🦠" })).await;
    assert_eq!(five.expect("error").await["payload"]["code"], "REFUSED");
    five.send("reaction.add", json!({ "messageId": sent["message"]["id"], "emoji": "🦜" })).await;
    assert_eq!(five.expect("reaction.updated").await["payload"]["emoji"], "🦜");
    assert_eq!(contents(&node).await, ["***", "***"]);

    // Nobody is asked about what is refused anyhow.
    backend.asked();
    let (status, _) =
        as_user(node.http, "7", "POST", "/api/v1/messages", json!({ "conversationId": "3", "content": "x" })).await;
    assert_eq!(status, 403);
    let (status, _) = as_user(node.http, "6", "PATCH", &message, json!({ "content": "x" })).await;
    assert_eq!(status, 403);
    five.send("block.add", json!({ "userId": "6" })).await;
    five.expect("block.added").await;
    let (status, error) = send(node.http, json!({ "conversationId": "3", "content": "x" })).await;
    assert_eq!((status, &error["error"]["code"]), (403, &json!("BLOCKED")));
    assert_eq!(backend.asked(), Vec::<Value>::new());
}

/// A repetition isn't compared with the hook's content, and what is stored outweighs a refusal.
async fn repetitions(node: &Node, backend: &Backend) {
    open_chat(node).await;
    let replaced = json!({ "conversationId": "3", "content": "censor", "tempId": "t1" });
    let (status, first) = send(node.http, replaced.clone()).await;
    assert_eq!((status, &first["message"]["content"]), (201, &json!("***")));
    backend.asked();
    for by in [json!({ "conversationId": "3" }), json!({ "to": "6" })] {
        let again =
            json!({ "conversationId": by["conversationId"], "to": by["to"], "content": "censor", "tempId": "t1" });
        let again: serde_json::Map<_, _> =
            again.as_object().expect("an object").clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        let (status, again) = send(node.http, Value::Object(again)).await;
        assert_eq!((status, &again["message"], &again["duplicate"]), (200, &first["message"], &json!(true)), "{again}");
    }
    assert_eq!(backend.asked(), Vec::<Value>::new(), "nobody is asked about what is stored");
    // Without a replacement another content is another message.
    assert_eq!(send(node.http, json!({ "conversationId": "3", "content": "as it is", "tempId": "t2" })).await.0, 201);
    let (status, conflict) =
        send(node.http, json!({ "conversationId": "3", "content": "other", "tempId": "t2" })).await;
    assert_eq!((status, &conflict["error"]["field"]), (409, &json!("tempId")));

    // Two tries at once, of which the first is stored while the second is refused.
    let body = |content: &str| json!({ "conversationId": "3", "content": content, "tempId": "t3" });
    let allowed = send(node.http, body("slow"));
    let late = async {
        sleep(Duration::from_millis(200)).await;
        send(node.http, body("slow")).await
    };
    let (allowed, late) = tokio::join!(allowed, late);
    assert_eq!((allowed.0, late.0), (201, 200), "{late:?}");
    assert_eq!(contents(node).await, ["***", "as it is", "slow"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_of_a_replaced_message_is_recognised() {
    bounded(async {
        let backend = Backend::start().await;
        repetitions(&Node::embedded(&backend.settings(&[])).await, &backend).await;
        let cluster = TwoNodes::start(&backend.settings(&[])).await;
        repetitions(&cluster.one, &backend).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_holds_up_its_own_conversation_alone_and_keeps_its_order() {
    let backend = Backend::start().await;
    let node = Node::embedded(&backend.settings(&[("HOOK_TIMEOUT", "4s")])).await;
    open_chat(&node).await;
    let mut five = Client::join(node.http, "5").await;
    let begun = Instant::now();
    five.send("message.send", json!({ "conversationId": "3", "content": "slower one", "tempId": "t1" })).await;
    for n in 0..10 {
        let content = format!("quick {n}");
        five.send("message.send", json!({ "conversationId": "3", "content": content, "tempId": content })).await;
    }
    let (status, _) =
        acting(node.http, "POST", "/api/v1/messages", "7", json!({ "to": "8", "content": "others" })).await;
    assert_eq!(status, 201);
    assert!(begun.elapsed() < Duration::from_millis(3_400), "{:?}", begun.elapsed());
    for _ in 0..11 {
        five.expect("message.sent").await;
    }
    let expected: Vec<String> =
        std::iter::once("slower one".to_owned()).chain((0..10).map(|n| format!("quick {n}"))).collect();
    assert_eq!(contents(&node).await, expected);
    // The line of a conversation is bounded, and what finds no room is refused at once.
    let sends = (0..40).map(|n| send(node.http, json!({ "conversationId": "3", "content": format!("slow {n}") })));
    let answers = futures_util::future::join_all(sends).await;
    let refused: Vec<&Value> = answers.iter().filter(|(status, _)| *status == 503).map(|(_, answer)| answer).collect();
    assert_eq!(refused.len(), 8, "{refused:?}");
    assert!(refused.iter().all(|answer| answer["error"]["retryAfterMs"].is_u64()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_the_setting_decides() {
    let backend = Backend::start().await;
    let node = Node::embedded(&backend.settings(&[("HOOK_TIMEOUT", "300ms")])).await;
    open_chat(&node).await;
    for content in ["silent", "broken", "long", "silent", "broken"] {
        let (status, answer) = send(node.http, json!({ "conversationId": "3", "content": content })).await;
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("UNAVAILABLE")), "{content}");
        assert!(answer["error"]["retryAfterMs"].is_u64(), "{answer}");
    }
    // After five failures in a row the hook isn't asked for a second; then one question closes the breaker.
    backend.asked();
    assert_eq!(send(node.http, json!({ "conversationId": "3", "content": "fine" })).await.0, 503);
    assert_eq!(backend.asked(), Vec::<Value>::new());
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(send(node.http, json!({ "conversationId": "3", "content": "fine" })).await.0, 201);
    assert_eq!(contents(&node).await, ["fine"]);

    let settings = backend.settings(&[("HOOK_TIMEOUT", "300ms"), ("HOOK_ON_FAILURE", "allow")]);
    let node = Node::embedded(&settings).await;
    open_chat(&node).await;
    for content in ["silent", "broken", "refuse"] {
        let (status, answer) = send(node.http, json!({ "conversationId": "3", "content": content })).await;
        assert_eq!(status, if content == "refuse" { 403 } else { 201 }, "{answer}");
    }
    assert_eq!(contents(&node).await, ["silent", "broken"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_missing_for_one_conversation_close_the_hook_to_nobody_else() {
    let backend = Backend::start().await;
    let node = Node::embedded(&backend.settings(&[("HOOK_TIMEOUT", "500ms")])).await;
    open_chat(&node).await;
    let silent = (0..20).map(|n| send(node.http, json!({ "conversationId": "3", "content": format!("silent {n}") })));
    let answers = futures_util::future::join_all(silent).await;
    assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
    let (status, answer) =
        acting(node.http, "POST", "/api/v1/messages", "7", json!({ "to": "8", "content": "others" })).await;
    assert_eq!(status, 201, "{answer}");
}
