//! The webhook of push notifications, with a real receiver: signed, retried, given up, and taken over from dead nodes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::client::Client;
use crate::support::http::get;
use crate::support::node::Node;
use crate::support::two_nodes::{TwoNodes, acting};

const SECRET: &str = "a-secret-of-the-webhook";

/// A request that came.
struct PushRequest {
    signature: String,
    body: Bytes,
}

/// Who receives notifications. Answers with the statuses it was given, then with 204; with none at all while it hangs.
struct Receiver {
    url: String,
    plan: Plan,
    came: mpsc::Receiver<PushRequest>,
    server: JoinHandle<()>,
}

type Plan = Arc<Mutex<VecDeque<u16>>>;

/// Stands in a plan for no answer.
const HANG: u16 = 0;

impl Receiver {
    async fn start(plan: &[u16]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let plan: Plan = Arc::new(Mutex::new(plan.iter().copied().collect()));
        let (sender, came) = mpsc::channel(1_000);
        let routes = Router::new().route("/hook", post(receive)).with_state((Arc::clone(&plan), sender));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { url: format!("http://{address}/hook"), plan, came, server }
    }

    /// The next notification, its signature checked.
    async fn next(&mut self) -> Value {
        let got = tokio::time::timeout(Duration::from_secs(30), self.came.recv()).await.expect("a notification");
        let PushRequest { signature, body } = got.expect("the receiver runs");
        verify(&signature, &body);
        serde_json::from_slice(&body).expect("JSON")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State((plan, came)): State<(Plan, mpsc::Sender<PushRequest>)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    assert_eq!(headers["content-type"], "application/json");
    let signature = headers["x-parley-signature"].to_str().expect("visible text").to_owned();
    came.send(PushRequest { signature, body }).await.expect("the test listens");
    let status = plan.lock().pop_front();
    match status {
        Some(HANG) => std::future::pending().await,
        status => StatusCode::from_u16(status.unwrap_or(204)).expect("a status"),
    }
}

/// What `gateway/WEBHOOKS.md` tells a receiver to do.
pub(crate) fn verify(signature: &str, body: &[u8]) {
    let (time, digest) = signature.split_once(',').expect("two parts");
    let time = time.strip_prefix("t=").expect("a time");
    let digest = digest.strip_prefix("v1=").expect("a digest");
    let age_s = shared::Timestamp::now().unix_seconds() - time.parse::<i64>().expect("a number");
    assert!((-5..=60).contains(&age_s), "fresh, not {age_s} s old");
    let digest: Vec<u8> =
        (0..digest.len()).step_by(2).map(|at| u8::from_str_radix(&digest[at..at + 2], 16).expect("hex")).collect();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", body].concat();
    aws_lc_rs::hmac::verify(&key, &signed, &digest).expect("signed with the secret");
}

async fn embedded(receiver: &Receiver) -> Node {
    Node::embedded(&[("PUSH_WEBHOOK_URL", &receiver.url), ("PUSH_WEBHOOK_SECRET", SECRET)]).await
}

/// The store knows the user; nobody else does.
async fn was_here(node: &Node, user: &str) {
    let seen = (user.parse().expect("an id"), shared::Timestamp::now());
    node.app.node().store.set_last_seen(&[seen]).await.expect("kept");
}

async fn say(to: SocketAddr, content: &str) -> Value {
    let body = json!({ "to": "b", "content": content });
    let (status, sent) = acting(to, "POST", "/api/v1/messages", "a", body).await;
    assert_eq!(status, 201, "{sent}");
    sent["message"].clone()
}

/// One notification for all members, whoever of them is there: the receiver asks who isn't.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_large_conversation_is_one_notification() {
    let mut receiver = Receiver::start(&[]).await;
    let settings =
        [("PUSH_WEBHOOK_URL", &*receiver.url), ("PUSH_WEBHOOK_SECRET", SECRET), ("LARGE_CONVERSATION_MEMBERS", "2")];
    let node = Node::embedded(&settings).await;
    for user in ["b", "c", "d"] {
        was_here(&node, user).await;
    }
    let group = json!({ "id": "g", "kind": "group", "members": ["b", "c", "d"] });
    let (status, made) = acting(node.http, "POST", "/api/v1/conversations", "a", group).await;
    assert_eq!(status, 201, "{made}");
    for content in ["one", "two"] {
        let body = json!({ "conversationId": "g", "content": content });
        let (status, sent) = acting(node.http, "POST", "/api/v1/messages", "a", body).await;
        assert_eq!(status, 201, "{sent}");
        let message = &sent["message"];
        let expected = json!({ "id": message["id"], "type": "message.new", "large": true, "message": message });
        assert_eq!(receiver.next().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_not_there_is_notified_until_it_is_taken() {
    let mut receiver = Receiver::start(&[503, 429]).await;
    let node = embedded(&receiver).await;
    was_here(&node, "b").await;
    let message = say(node.http, "while b is away").await;
    let first = receiver.next().await;
    let id = format!("{}.b", message["id"].as_str().expect("an id"));
    assert_eq!(first, json!({ "id": id, "type": "message.new", "userId": "b", "message": message }));
    // It failed twice: the same comes again, and then no more.
    assert_eq!(receiver.next().await, first);
    assert_eq!(receiver.next().await, first);

    // Who is there gets no notification; nor does anybody for what they sent themselves.
    let mut b = Client::join(node.http, "b").await;
    say(node.http, "b is there").await;
    b.expect("message.new").await;
    // A refusal is final: it goes to the dead ones, and the next is not held up.
    receiver.plan.lock().push_back(410);
    drop(b);
    let gone = async {
        while get(node.ops, "/api/v1/internal/chat/ws/stats", &[]).await.1["connections"] != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The channel is left two seconds after the last socket.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("b is gone");
    say(node.http, "refused").await;
    assert_eq!(receiver.next().await["message"]["content"], "refused");
    say(node.http, "taken").await;
    assert_eq!(receiver.next().await["message"]["content"], "taken");
    let backbone = &node.app.node().backbone;
    let buried = async {
        while backbone.buried_push_jobs().await.expect("counted") != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), buried).await.expect("a dead job");
}

/// The node that was at it dies as by `kill -9`: the other one takes the job over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_killed_node_arrives_all_the_same() {
    let cluster = TwoNodes::start(&[]).await;
    let mut receiver = Receiver::start(&[HANG]).await;
    let serve = |url: String| {
        let (redis, database) = (cluster.redis.url(), cluster.database.url.clone());
        async move {
            let push = [("PUSH_WEBHOOK_URL", url.as_str()), ("PUSH_WEBHOOK_SECRET", SECRET)];
            Node::serve(&redis, &database, &push).await
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    was_here(&cluster.one, "b").await;
    let doomed = runtime.spawn(serve(receiver.url.clone())).await.expect("it starts");
    let message = say(cluster.one.http, "a job").await;
    let first = receiver.next().await;
    assert_eq!(first["message"], message);
    runtime.shutdown_background();
    drop(doomed);
    let heir = serve(receiver.url.clone()).await;
    assert_eq!(receiver.next().await, first, "the same job, with the same id");
    // New ones arrive beside it, each once.
    let message = say(heir.http, "another").await;
    assert_eq!(receiver.next().await["message"], message);
    let done = async {
        while cluster.redis.number("XLEN chat:push") != 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), done).await.expect("nothing is left");
    assert!(receiver.came.try_recv().is_err(), "each arrived once");
}
