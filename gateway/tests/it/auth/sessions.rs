//! Session cookies in Redis, and single-use tickets.

use gateway::backbone::Control;
use serde_json::{Value, json};
use shared::UserId;

use crate::support::client::{Client, Incoming};
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};
use crate::support::redis::Redis;

/// Two nodes on one Redis and one SQLite file.
struct Pair {
    one: Node,
    two: Node,
    redis: Redis,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn start() -> Self {
        let redis = Redis::start();
        let folder = tempfile::tempdir().expect("a folder");
        let database = format!("sqlite:{}", folder.path().join("parley.db").display());
        let one = Node::serve(&redis.url(), &database, &[]).await;
        let two = Node::serve(&redis.url(), &database, &[("SESSION_COOKIE", "sid")]).await;
        one.wait_ready(true).await;
        two.wait_ready(true).await;
        Self { one, two, redis, _folder: folder }
    }
}

/// What the node says first.
async fn first(node: &Node, path: &str, headers: &[(&str, &str)]) -> Value {
    let mut client = Client::open(node.http, path, headers).await.expect("upgrade");
    match client.next().await {
        Incoming::Frame(frame) => frame,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cookie_lets_in_as_long_as_redis_knows_it() {
    let pair = Pair::start().await;
    pair.redis.ask("SET session:s1 42");
    pair.redis.ask(r#"SET session:s2 {"userId":7,"username":"Bea","scope":"admin"}"#);
    pair.redis.ask("SET session:s3 {nonsense");
    let huge = format!("session_id=s1{}", "x".repeat(8_000));
    for (cookie, expected) in [
        ("session_id=s1", Some("42")),
        ("theme=dark; session_id=s1; session_id=s2", Some("42")),
        ("session_id=s2", Some("7")),
        ("session_id=s3", None),
        ("session_id=unknown", None),
        ("session_id=*", None),
        ("session_id=s1%00", None),
        ("session_id=s1; token=nonsense", None),
        (huge.as_str(), None),
    ] {
        let frame = first(&pair.one, "/chat/ws", &[("cookie", cookie)]).await;
        let user = (frame["type"] == "auth_success").then(|| frame["payload"]["userId"].as_str().expect("an id"));
        assert_eq!(user, expected, "{cookie}: {frame}");
    }
    // The other node has another name for it, and reads it over REST as well: with the rights that stand there.
    assert_eq!(first(&pair.two, "/chat/ws", &[("cookie", "sid=s1")]).await["payload"]["userId"], "42");
    let stats = "/api/v1/internal/chat/ws/stats";
    for (cookie, status) in [("sid=s2", 200), ("sid=s1", 403), ("session_id=s2", 401), ("sid=unknown", 401)] {
        assert_eq!(get(pair.two.http, stats, &[("cookie", cookie)]).await.0, status, "{cookie}");
    }
    pair.redis.ask("DEL session:s1");
    let frame = first(&pair.one, "/chat/ws", &[("cookie", "session_id=s1")]).await;
    assert_eq!((&frame["type"], &frame["payload"]["code"]), (&json!("auth_failed"), &json!("UNAUTHENTICATED")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_by_http_where_no_browser_looks_for_a_frame() {
    let node = Node::embedded(&[]).await;
    let expired = token_with(json!({ "sub": "a", "exp": in_seconds(-1) }));
    let revoked = token_with(json!({ "sub": "a", "exp": in_seconds(60), "iat": in_seconds(-60) }));
    let order = json!({ "userId": "a" });
    assert_eq!(post(node.http, "/api/v1/control/revoke", &[("x-api-key", API_KEY)], order).await.0, 202);
    for path in ["/ws/chat", "/ws", "/ws/channels"] {
        for bad in
            ["", "?token=nonsense", "?ticket=nonsense", &format!("?token={expired}"), &format!("?token={revoked}")]
        {
            let refused = Client::open(node.http, &format!("{path}{bad}"), &[]).await.err().expect("no upgrade");
            assert!(refused.0.contains("401"), "{path}{bad}: {refused:?}");
        }
        let cookie = [("cookie", "session_id=unknown")];
        let refused = Client::open(node.http, path, &cookie).await.err().expect("no upgrade");
        assert!(refused.0.contains("401"), "{path}: {refused:?}");
        let good = format!("{path}?token={}", token("b"));
        assert!(Client::open(node.http, &good, &[]).await.is_ok(), "{path}");
        // What is no WebSocket request is that in the first place.
        assert_eq!(get(node.http, path, &[]).await.0, 400, "{path}");
    }
    let mut client = Client::open(node.http, &format!("/chat/ws?token={revoked}"), &[]).await.expect("upgrade");
    client.expect("auth_failed").await;
    assert_eq!(client.expect_close().await, 4002);
}

/// A ticket for whoever shows this header.
async fn ticket(node: &Node, header: (&str, &str)) -> String {
    let (status, issued) = post(node.http, "/api/v2/ws-token", &[header], json!({})).await;
    assert_eq!((status, &issued["expiresIn"], &issued["token"]), (200, &json!(30), &issued["ticket"]), "{issued}");
    issued["ticket"].as_str().expect("a ticket").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_good_once_on_any_node() {
    let pair = Pair::start().await;
    let (name, value) = bearer(&token("a"));
    for parameter in ["ticket", "token"] {
        let ticket = ticket(&pair.one, (name, &value)).await;
        assert!(pair.redis.number(&format!("TTL chat:ticket:{ticket}")) <= 30);
        let path = format!("/chat/ws?{parameter}={ticket}");
        assert_eq!(first(&pair.two, &path, &[]).await["payload"]["userId"], "a");
        for node in [&pair.one, &pair.two] {
            assert_eq!(first(node, &path, &[]).await["type"], "auth_failed", "a second time");
        }
    }
    // It connects; it is no token for REST, so that no ticket can be had for another.
    let again = ticket(&pair.one, (name, &value)).await;
    let (name, as_token) = bearer(&again);
    assert_eq!(post(pair.one.http, "/api/v2/ws-token", &[(name, &as_token)], json!({})).await.0, 401);
    let mut client = Client::open(pair.one.http, "/chat/ws", &[]).await.expect("upgrade");
    client.send("auth", json!({ "token": again })).await;
    assert_eq!(client.expect("auth_success").await["payload"]["userId"], "a");
    for nonsense in [format!("ticket-{}", "0".repeat(64)), "ticket-*".to_owned(), token("a")] {
        assert_eq!(first(&pair.one, &format!("/chat/ws?ticket={nonsense}"), &[]).await["type"], "auth_failed");
    }
    assert_eq!(post(pair.one.http, "/api/v2/ws-token", &[], json!({})).await.0, 401);
    let backend = [("x-api-key", API_KEY), ("x-user-id", "b")];
    let (status, issued) = post(pair.one.http, "/api/v2/ws-token", &backend, json!({})).await;
    assert_eq!(status, 200, "a backend gets one for its user");
    let path = format!("/chat/ws?ticket={}", issued["ticket"].as_str().expect("a ticket"));
    assert_eq!(first(&pair.two, &path, &[]).await["payload"]["userId"], "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_by_ticket_ends_when_its_token_does_and_a_revoked_ticket_is_worthless() {
    let node = Node::embedded(&[]).await;
    let short = token_with(json!({ "sub": "a", "exp": in_seconds(3), "iat": in_seconds(0) }));
    let (name, value) = bearer(&short);
    let path = format!("/chat/ws?ticket={}", ticket(&node, (name, &value)).await);
    let mut client = Client::open(node.http, &path, &[]).await.expect("upgrade");
    client.expect("auth_success").await;
    assert_eq!(client.expect_close().await, 4300);

    let (name, value) = bearer(&token_with(json!({ "sub": "b", "exp": in_seconds(3600), "iat": in_seconds(-5) })));
    let path = format!("/chat/ws?ticket={}", ticket(&node, (name, &value)).await);
    let order = json!({ "userId": "b" });
    assert_eq!(post(node.http, "/api/v1/control/revoke", &[("x-api-key", API_KEY)], order).await.0, 202);
    let mut client = Client::open(node.http, &path, &[]).await.expect("upgrade");
    client.expect("auth_failed").await;
    assert_eq!(client.expect_close().await, 4002);
}

/// A revocation's time is in seconds. A token of that very second may be an older one or a newer one: its client fetches
/// another. An older one is worthless, and its client stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_very_second_of_a_revocation_is_to_be_fetched_anew() {
    for cluster in [None, Some(Pair::start().await)] {
        let embedded = Node::embedded(&[]).await;
        let node = cluster.as_ref().map_or(&embedded, |pair| &pair.one);
        let order = json!({ "userId": "a" });
        assert_eq!(post(node.http, "/api/v1/control/revoke", &[("x-api-key", API_KEY)], order).await.0, 202);
        let users = [UserId::parse("a").expect("an id")];
        let backbone = &node.app.node().backbone;
        let revoked_s = backbone.revoked_at(&users).await.expect("asked")[0].expect("it is there");
        for (issued_s, code, error) in [(revoked_s, 4300, "TOKEN_EXPIRED"), (revoked_s - 1, 4002, "UNAUTHENTICATED")] {
            let token = token_with(json!({ "sub": "a", "exp": in_seconds(60), "iat": issued_s }));
            let mut client = Client::open(node.http, &format!("/chat/ws?token={token}"), &[]).await.expect("upgrade");
            assert_eq!(client.expect("auth_failed").await["payload"]["code"], error);
            assert_eq!(client.expect_close().await, code);
            let (name, value) = bearer(&token);
            for path in ["/api/v1/conversations", "/api/v1/events?wait=0"] {
                let (status, answer) = get(node.http, path, &[(name, &value)]).await;
                assert_eq!((status, &answer["error"]["code"]), (401, &json!(error)), "{path}");
            }
        }
        let token = token_with(json!({ "sub": "a", "exp": in_seconds(60), "iat": revoked_s + 1 }));
        Client::join_with(node.http, &token).await;
    }
}

/// The same for sockets that are open when the order comes: by query, in the `auth` frame, refreshed, by ticket, by session;
/// and for polls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_sockets_learn_by_their_close_whether_to_fetch_another_token() {
    for pair in [None, Some(Pair::start().await)] {
        let embedded = Node::embedded(&[]).await;
        let (node, other) = pair.as_ref().map_or((&embedded, &embedded), |pair| (&pair.one, &pair.two));
        let backbone = &node.app.node().backbone;
        let revoked_s = in_seconds(0);
        let mut open = Vec::new();
        let signed =
            |user: &str, issued_s: i64| token_with(json!({ "sub": user, "exp": in_seconds(600), "iat": issued_s }));
        for (issued_s, code) in [(revoked_s - 1, 4002), (revoked_s, 4300), (revoked_s + 1, 4202)] {
            let token = signed("a", issued_s);
            open.push(("query", code, Client::join_with(other.http, &token).await.0));
            let mut by_frame = Client::open(other.http, "/chat/ws", &[]).await.expect("upgrade");
            by_frame.send("auth", json!({ "token": token })).await;
            by_frame.expect("auth_success").await;
            open.push(("frame", code, by_frame));
            let (mut refreshed, _) = Client::join_with(other.http, &signed("a", revoked_s - 100)).await;
            refreshed.send("auth", json!({ "token": token })).await;
            refreshed.expect("auth_success").await;
            open.push(("refreshed", code, refreshed));
            let (name, value) = bearer(&token);
            let path = format!("/chat/ws?ticket={}", ticket(node, (name, &value)).await);
            let mut by_ticket = Client::open(other.http, &path, &[]).await.expect("upgrade");
            by_ticket.expect("auth_success").await;
            open.push(("ticket", code, by_ticket));
            if let Some(pair) = &pair {
                let value = json!({ "userId": "a", "iat": issued_s }).to_string();
                pair.redis.set_bytes(&format!("session:s{code}"), value.as_bytes());
                let cookie = format!("sid=s{code}");
                let mut by_session =
                    Client::open(other.http, "/chat/ws", &[("cookie", &cookie)]).await.expect("upgrade");
                by_session.expect("auth_success").await;
                open.push(("session", code, by_session));
            }
        }
        let (_poller, success) = Client::join_with(other.http, &signed("b", revoked_s - 100)).await;
        let since = format!("{}:{}", success["epoch"].as_str().expect("an epoch"), success["seq"]);
        let (poll_at, (name, value)) = (other.http, bearer(&signed("b", revoked_s)));
        let poll = tokio::spawn(async move {
            get(poll_at, &format!("/api/v1/events?since={since}&wait=25"), &[(name, &value)]).await
        });
        let waiting = async {
            while other.app.node().registry.sockets_of(&UserId::parse("b").expect("an id")).len() < 2 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("the poll waits");

        for user in ["a", "b"] {
            let user_id = UserId::parse(user).expect("an id");
            let order = Control::Disconnect { user_id, revoked: true, revoked_s: Some(revoked_s) };
            backbone.control(&order).await.expect("ordered");
        }
        for (how, code, mut client) in open {
            assert_eq!(client.expect_close().await, code, "by {how}");
        }
        let (status, answer) = poll.await.expect("no panic");
        assert_eq!((status, &answer["error"]["code"]), (401, &json!("TOKEN_EXPIRED")), "{answer}");

        // The order that REST gives names its second.
        let issued_s = in_seconds(0);
        let (mut client, _) = Client::join_with(other.http, &signed("c", issued_s)).await;
        let order = json!({ "userId": "c" });
        assert_eq!(post(node.http, "/api/v1/control/revoke", &[("x-api-key", API_KEY)], order).await.0, 202);
        let asked = backbone.revoked_at(&[UserId::parse("c").expect("an id")]).await.expect("asked");
        let same_second = asked[0].expect("it is there") == issued_s;
        assert_eq!(client.expect_close().await, if same_second { 4300 } else { 4002 });
    }
}

/// Whoever writes sessions may write what nobody can read. The answer is the same each time, so it is no "try again".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_or_a_revocation_that_can_not_be_read_is_a_refusal() {
    let pair = Pair::start().await;
    pair.redis.set_bytes("session:s1", b"J\xfcrgen");
    pair.redis.ask("HSET session:s2 user a");
    for session in ["s1", "s2"] {
        let cookie = [("cookie", &*format!("session_id={session}"))];
        assert_eq!(get(pair.one.http, "/api/v1/conversations", &cookie).await.0, 401);
        let refused = Client::open(pair.one.http, "/ws", &cookie).await.err().expect("no upgrade");
        assert!(refused.0.contains("401"), "{refused:?}");
    }
    pair.redis.set_bytes("chat:revoked:a", b"soon");
    let (name, value) = bearer(&token("a"));
    assert_eq!(get(pair.one.http, "/api/v1/conversations", &[(name, &value)]).await.0, 401);
    let mut client =
        Client::open(pair.one.http, &format!("/chat/ws?token={}", token("a")), &[]).await.expect("upgrade");
    client.expect("auth_failed").await;
    assert_eq!(client.expect_close().await, 4002);
}
