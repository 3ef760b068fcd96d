//! Seed 004: the HTTP endpoints, invitations and notifications, on nodes with an embedded store and backbone and with real
//! servers.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::TwoNodes;

/// Somebody who asks over HTTP.
struct Asker<'a> {
    node: &'a Node,
    headers: Vec<(&'static str, String)>,
}

impl<'a> Asker<'a> {
    fn user(node: &'a Node, user: &str) -> Self {
        Self { node, headers: vec![bearer(&token(user))] }
    }

    /// A backend in the name of `user`.
    fn acting_for(node: &'a Node, user: &str) -> Self {
        Self { node, headers: vec![("x-api-key", API_KEY.to_owned()), ("x-user-id", user.to_owned())] }
    }

    fn backend(node: &'a Node) -> Self {
        Self { node, headers: vec![("x-api-key", API_KEY.to_owned())] }
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        get(self.node.http, path, &self.headers()).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        post(self.node.http, path, &self.headers(), body).await
    }

    /// The items of a list and where it goes on.
    async fn list(&self, path: &str) -> (Vec<Value>, Value) {
        let (status, mut list) = self.get(path).await;
        assert_eq!(status, 200, "{list}");
        let items = serde_json::from_value(list["items"].take()).expect("items");
        (items, list["next"].take())
    }

    async fn send(&self, target: &str, id: &str, content: &str) {
        let (status, sent) = self.post("/api/v1/messages", json!({ target: id, "content": content })).await;
        assert_eq!(status, 201, "{sent}");
    }
}

fn contents(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["content"].as_str().expect("content")).collect()
}

/// `GET /api/messages/private` and `GET /api/messages/group`: both sides, pages, and who may read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_by_limit_and_offset() {
    let node = Node::embedded(&[]).await;
    let (ann, bob, eve) = (Asker::user(&node, "7"), Asker::user(&node, "123"), Asker::user(&node, "eve"));
    assert_eq!(ann.list("/api/messages/private?user=123").await, (vec![], Value::Null));
    for n in 1..=5 {
        let (from, to) = if n % 2 == 1 { (&ann, "123") } else { (&bob, "7") };
        from.send("to", to, &format!("m{n}")).await;
    }
    let (items, next) = ann.list("/api/messages/private?user=123&limit=2&offset=1").await;
    assert_eq!((contents(&items), next), (vec!["m3", "m4"], json!("3")));
    let (items, next) = ann.list("/api/messages/private?user=123&limit=2&offset=3").await;
    assert_eq!((contents(&items), next), (vec!["m1", "m2"], json!("5")));
    assert_eq!(ann.list("/api/messages/private?user=123&limit=2&offset=5").await, (vec![], Value::Null));
    assert_eq!(ann.list("/api/messages/private?user=123&offset=99999999999").await.0, Vec::<Value>::new());

    let (items, _) = bob.list("/api/messages/private?user=7").await;
    assert_eq!(contents(&items), ["m1", "m2", "m3", "m4", "m5"]);
    let first = &items[0];
    assert_eq!((&first["type"], &first["from"], &first["to"]), (&json!("private"), &json!(7), &json!(123)));
    assert_eq!((&items[1]["from"], &items[1]["to"]), (&json!(123), &json!(7)));
    assert!(first["timestamp"].as_i64().is_some_and(|at| at > 1_700_000_000 && at < 5_000_000_000), "{first}");
    assert!(first["id"].is_u64(), "{first}");
    assert_eq!(eve.list("/api/messages/private?user=7").await.0, Vec::<Value>::new());

    let new = json!({ "id": "456", "kind": "group", "title": "Developers", "members": ["123"] });
    assert_eq!(Asker::acting_for(&node, "7").post("/api/v1/conversations", new).await.0, 201);
    for n in 1..=3 {
        ann.send("conversationId", "456", &format!("g{n}")).await;
    }
    let (items, next) = bob.list("/api/messages/group?group=456&limit=2").await;
    assert_eq!((contents(&items), next), (vec!["g2", "g3"], json!("2")));
    assert_eq!((&items[0]["type"], &items[0]["group_id"]), (&json!("group"), &json!("456")));
    assert_eq!(items[0].get("to"), None);
    let (items, _) = bob.list("/api/messages/group?group=456&limit=2&offset=2").await;
    assert_eq!(contents(&items), ["g1"]);

    let (status, answer) = eve.get("/api/messages/group?group=456").await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("NOT_MEMBER")));
    assert_eq!(eve.get("/api/messages/group?group=nowhere").await.0, 404);
    for path in ["/api/messages/private", "/api/messages/group", "/api/messages/private?user=a%20b"] {
        assert_eq!(ann.get(path).await.0, 400, "{path}");
    }
    for path in ["/api/messages/private?user=7", "/api/messages/group?group=456", "/api/notifications"] {
        assert_eq!(get(node.http, path, &[]).await.0, 401, "{path}");
    }
    for path in ["/api/groups/invite", "/api/notifications/read"] {
        assert_eq!(post(node.http, path, &[], json!({})).await.0, 401, "{path}");
    }
}

/// `POST /api/groups/invite`, the live notification, the list with its read status, accepting and declining.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_from_its_notification_to_its_acceptance() {
    let node = Node::embedded(&[]).await;
    let (ann, bob, eve) = (Asker::user(&node, "1"), Asker::user(&node, "2"), Asker::user(&node, "eve"));
    let mut bob_socket = Client::join(node.http, "2").await;
    let mut eve_socket = Client::join(node.http, "eve").await;
    let group = json!({ "id": "1", "kind": "group" });
    assert_eq!(Asker::acting_for(&node, "1").post("/api/v1/conversations", group).await.0, 201);

    // The body as the document shows it.
    let body = json!({ "group_id": 1, "user_id": 2, "group_name": "Developers" });
    let (status, answer) = ann.post("/api/groups/invite", body.clone()).await;
    assert_eq!((status, &answer["status"]), (201, &json!("invited")), "{answer}");
    let live = bob_socket.expect("notification").await;
    assert!(live["seq"].is_u64(), "{live}");
    let payload = &live["payload"];
    assert_eq!(payload["subtype"], "group_invite");
    assert_eq!(payload["message"], "You were invited to join group 'Developers'");
    assert_eq!((&payload["conversationId"], &payload["invitedBy"]), (&json!("1"), &json!("1")));
    let (items, _) = bob.list("/api/notifications").await;
    assert_eq!(items.len(), 1);
    assert_eq!(items[0]["type"], "notification");
    assert_eq!(items[0]["subtype"], "group_invite");
    assert_eq!(items[0]["message"], payload["message"]);
    assert_eq!((&items[0]["group_id"], &items[0]["read"]), (&json!(1), &json!(false)));
    assert_eq!(items[0]["id"].as_u64().map(|id| id.to_string()), payload["notificationId"].as_str().map(str::to_owned));
    assert!(items[0]["timestamp"].is_i64(), "{}", items[0]);

    // Nobody is notified twice, and who is only invited gets no messages and can't write.
    let (status, answer) = ann.post("/api/groups/invite", body.clone()).await;
    assert_eq!((status, &answer["status"]), (200, &json!("invited")));
    ann.send("conversationId", "1", "before").await;
    let (status, refused) = bob.post("/api/v1/messages", json!({ "conversationId": "1", "content": "x" })).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("NOT_MEMBER")));
    assert_eq!(bob.get("/api/messages/group?group=1").await.0, 403);
    assert!(bob_socket.settle().await.is_empty());
    assert_eq!(bob.list("/api/notifications").await.0.len(), 1);

    assert_eq!(bob.post("/api/v1/conversations/1/join", json!({})).await.0, 200);
    bob_socket.expect("conversation.joined").await;
    ann.send("conversationId", "1", "after").await;
    assert_eq!(bob_socket.expect("message.new").await["payload"]["message"]["content"], "after");
    let (status, answer) = ann.post("/api/groups/invite", body).await;
    assert_eq!((status, &answer["status"]), (200, &json!("accepted")));

    // Declining: the invitation is gone.
    let to_eve = json!({ "group_id": "1", "user_id": "eve" });
    assert_eq!(ann.post("/api/groups/invite", to_eve.clone()).await.0, 201);
    let live = eve_socket.expect("notification").await;
    assert_eq!(live["payload"]["message"], "You were invited to join group '1'");
    assert_eq!(eve.post("/api/v1/conversations/1/leave", json!({})).await.0, 204);
    assert_eq!(eve.post("/api/v1/conversations/1/join", json!({})).await.0, 403);

    // The group's title is the invitation's name, whatever the inviter says.
    let named = json!({ "id": "named", "kind": "group", "title": "Real\u{202e} title" });
    assert_eq!(Asker::acting_for(&node, "1").post("/api/v1/conversations", named).await.0, 201);
    let to_eve_as = json!({ "group_id": "named", "user_id": "eve", "group_name": "Your bank" });
    assert_eq!(ann.post("/api/groups/invite", to_eve_as).await.0, 201);
    let live = &eve_socket.expect("notification").await["payload"];
    assert_eq!(live["message"], "You were invited to join group 'Real title'");
    assert_eq!(live["title"], "Real title");

    // Who may not invite, and what is no invitation.
    assert_eq!(bob.post("/api/groups/invite", to_eve.clone()).await.0, 403);
    assert_eq!(eve.post("/api/groups/invite", to_eve).await.0, 403);
    assert_eq!(ann.post("/api/groups/invite", json!({ "group_id": 9, "user_id": 2 })).await.0, 404);
    for bad in [
        json!({ "user_id": 2 }),
        json!({ "group_id": 1 }),
        json!({ "group_id": 1.5, "user_id": 2 }),
        json!({ "group_id": "a b", "user_id": 2 }),
        json!({ "group_id": 1, "user_id": 3, "group_name": "" }),
        json!({ "group_id": 1, "user_id": 3, "group_name": "x\0" }),
        json!({ "group_id": 1, "user_id": 3, "group_name": "two\nlines" }),
        json!({ "group_id": 1, "user_id": 3, "group_name": "\u{202e}" }),
        json!({ "group_id": 1, "user_id": 9_007_199_254_740_993u64 }),
        json!({ "group_id": 9_007_199_254_740_992u64, "user_id": 3 }),
        json!({ "group_id": 9.007_199_254_740_992e15, "user_id": 3 }),
    ] {
        assert_eq!(ann.post("/api/groups/invite", bad.clone()).await.0, 400, "{bad}");
    }
}

/// `GET /api/notifications` and `POST /api/notifications/read`: what backends publish, pages, and what is marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_are_listed_and_marked_as_read() {
    let node = Node::embedded(&[]).await;
    let (backend, ann, bob) = (Asker::backend(&node), Asker::user(&node, "1"), Asker::user(&node, "2"));
    let mut device = Client::join(node.http, "1").await;
    let publish = async |payload: Value, durable: Option<bool>| {
        let event = json!({ "type": "notification", "payload": payload });
        let mut body = json!({ "users": ["1", "2"], "event": event });
        if let Some(durable) = durable {
            body["durable"] = json!(durable);
        }
        assert_eq!(backend.post("/api/v1/publish", body).await.0, 202);
    };
    publish(json!({ "subtype": "friend_request", "message": "m1", "from": 9, "timestamp": 1_640_995_200 }), None).await;
    publish(json!({ "subtype": "x", "message": "m2" }), Some(true)).await;
    publish(json!({ "subtype": "x", "message": "gone" }), Some(false)).await;
    publish(json!({ "subtype": "x", "message": "m3" }), None).await;
    let mut live = Vec::new();
    for _ in 0..4 {
        live.push(device.expect("notification").await["payload"].clone());
    }
    // A backend's payload is passed on as it was, with the id by which it is kept. What is only live may overtake it.
    let (kept, gone): (Vec<&Value>, Vec<&Value>) = live.iter().partition(|one| one["notificationId"].is_string());
    let words = |of: &[&Value]| of.iter().map(|one| one["message"].clone()).collect::<Vec<_>>();
    assert_eq!((words(&kept), words(&gone)), (vec![json!("m1"), json!("m2"), json!("m3")], vec![json!("gone")]));
    assert_eq!((&kept[0]["from"], &kept[0]["timestamp"]), (&json!(9), &json!(1_640_995_200)));

    let messages = |items: &[Value]| items.iter().map(|item| item["message"].clone()).collect::<Vec<_>>();
    let (items, next) = ann.list("/api/notifications").await;
    assert_eq!((messages(&items), next), (vec![json!("m3"), json!("m2"), json!("m1")], Value::Null));
    assert_eq!(items[2]["timestamp"], 1_640_995_200);
    let (items, next) = ann.list("/api/notifications?limit=2").await;
    assert_eq!((messages(&items), next), (vec![json!("m3"), json!("m2")], json!("2")));
    let (items, _) = ann.list("/api/notifications?limit=2&offset=2").await;
    assert_eq!(messages(&items), ["m1"]);

    let id = items[0]["id"].clone();
    let (status, marked) = ann.post("/api/notifications/read", json!({ "ids": [id] })).await;
    assert_eq!((status, &marked["marked"]), (200, &json!(1)));
    let told = device.expect("notification.read").await;
    assert_eq!(told["payload"]["notificationIds"], json!([id.to_string()]));
    let read = |items: &[Value]| items.iter().map(|item| item["read"].clone()).collect::<Vec<_>>();
    let (items, _) = ann.list("/api/notifications").await;
    assert_eq!(read(&items), [false, false, true]);
    assert!(items[2]["read_at"].is_i64() && items[0]["read_at"].is_null());
    // As the document has it, without a body: all of them.
    let (status, marked) =
        crate::support::http::request(node.http, "POST", "/api/notifications/read", &ann.headers(), "").await;
    assert_eq!((status, &marked["marked"]), (200, &json!(2)));
    assert_eq!(device.expect("notification.read").await["payload"], json!({}));
    assert_eq!(read(&ann.list("/api/notifications").await.0), [true, true, true]);
    let (_, marked) = ann.post("/api/notifications/read", json!({})).await;
    assert_eq!(marked["marked"], 0);
    assert!(device.settle().await.is_empty(), "nothing changed, so nobody is told");
    assert_eq!(read(&bob.list("/api/notifications").await.0), [false, false, false]);
    for bad in [json!({ "ids": ["x"] }), json!({ "ids": [0] }), json!({ "ids": 7 })] {
        assert_eq!(ann.post("/api/notifications/read", bad.clone()).await.0, 400, "{bad}");
    }
}

/// NOLOSS.md, A4: after `resync`, a client fetches the notifications that died with Redis from the store: one whose
/// publication failed, and one that was published, stood in a log, and was received by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_whose_push_died_with_redis_is_fetched() {
    let mut cluster = TwoNodes::start(&[]).await;
    let mut device = Client::join(cluster.two.http, "u").await;
    device.settle().await;
    let (gone, success) = Client::join_with(cluster.two.http, &token("v")).await;
    drop(gone);
    let backend = Asker::backend(&cluster.one);
    let publish = async |user: &str| {
        let event = json!({ "type": "notification", "payload": { "subtype": "x", "message": "survives" } });
        let body = json!({ "users": [user], "event": event, "durable": true });
        assert_eq!(backend.post("/api/v1/publish", body).await.0, 202);
    };
    publish("v").await;
    let logged = async {
        while cluster.redis.number("XLEN chat:log:{chat:user:v}") != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), logged).await.expect("it stands in the log");
    cluster.redis.freeze();
    publish("u").await;
    cluster.redis.kill();
    cluster.redis.restart();
    cluster.one.wait_ready(true).await;
    cluster.two.wait_ready(true).await;

    assert_eq!(device.expect("resync").await["payload"]["reason"], "epoch");
    let (epoch, seq) = (success["epoch"].as_str().expect("an epoch"), &success["seq"]);
    let path = format!("/chat/ws?token={}&resume={epoch}:{seq}", token("v"));
    let mut back = Client::open(cluster.one.http, &path, &[]).await.expect("an upgrade");
    assert_eq!(back.expect("resync").await["payload"]["reason"], "epoch");
    for user in ["u", "v"] {
        let (items, _) = Asker::user(&cluster.two, user).list("/api/notifications").await;
        assert_eq!(items.len(), 1, "{items:?}");
        assert_eq!((&items[0]["message"], &items[0]["read"]), (&json!("survives"), &json!(false)));
    }
}
