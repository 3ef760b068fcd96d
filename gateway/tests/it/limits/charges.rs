//! Charges: a request counts for what it makes, over sockets and over REST; bulk requests run a few at a time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateway::limits::{BulkPlace, BulkWork};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::limits::addresses::upgrade;
use crate::support::client::{Client, Incoming};
use crate::support::http::{bearer, get, post, request};
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};

/// Commands a second of a user, in these tests.
const RATE: f64 = 20.0;
const SETTINGS: [(&str, &str); 2] = [("USER_COMMANDS_PER_SECOND", "20"), ("COMMANDS_PER_SECOND", "0")];

async fn as_user(to: SocketAddr, user: &str, path: &str, body: Value) -> (u16, Value) {
    let (name, value) = bearer(&token(user));
    post(to, path, &[(name, &value)], body).await
}

async fn as_backend(to: SocketAddr, path: &str, body: Value) -> (u16, Value) {
    post(to, path, &[("x-api-key", API_KEY)], body).await
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// So many passed since `started`, each at `charge`: that is what the allowance holds, and no less than most of a burst.
fn assert_charged(what: &str, passed: usize, charge: f64, started: Instant) {
    let (seconds, charged) = (started.elapsed().as_secs_f64(), f64::from(u32::try_from(passed).expect("few")) * charge);
    // A part that is known only afterwards may be charged too late for the next one.
    let most = 2.0 * RATE + RATE * seconds + RATE / 10.0 * (seconds + 2.0) + 3.0 * charge;
    assert!(charged <= most, "{what}: {passed} passed in {seconds} s, each for {charge}");
    assert!(charged >= 1.5 * RATE, "{what}: only {passed} passed, each for {charge}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_thousands_is_made_on_credit() {
    let node = Node::embedded(&[]).await;
    let group = || json!({ "kind": "group", "members": names("m", 9_000) });
    let (status, made) = as_user(node.http, "a", "/api/v1/conversations", group()).await;
    assert_eq!((status, &made["memberCount"]), (201, &json!(9_001)), "a charge larger than the burst can be paid");
    let (name, value) = bearer(&token("a"));
    let (status, refused) = get(node.http, "/api/v1/conversations", &[(name, &value)]).await;
    assert_eq!((status, &refused["error"]["code"]), (429, &json!("RATE_LIMITED")), "{refused}");
    let wait_ms = refused["error"]["retryAfterMs"].as_u64().expect("when to come again");
    assert!((1..=7_500).contains(&wait_ms), "{wait_ms}");
    assert_eq!(as_user(node.http, "a", "/api/v1/conversations", group()).await.0, 429);
    // Nobody else pays for it, and backends answer for themselves.
    let direct = json!({ "kind": "direct", "members": ["c"] });
    assert_eq!(as_user(node.http, "b", "/api/v1/conversations", direct).await.0, 201);
    for _ in 0..2 {
        assert_eq!(as_backend(node.http, "/api/v1/conversations", group()).await.0, 201);
    }
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    assert_eq!(
        get(node.http, "/api/v1/conversations", &[(name, &value)]).await.0,
        200,
        "the time that was told is enough"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_charged_for_what_they_make() {
    let node = Node::embedded(&SETTINGS).await;
    let channel = json!({ "kind": "channel", "id": "open", "members": names("m", 3) });
    assert_eq!(as_backend(node.http, "/api/v1/conversations", channel).await.0, 201);
    let group = json!({ "kind": "group", "id": "g" });
    let (status, _) =
        post(node.http, "/api/v1/conversations", &[("x-api-key", API_KEY), ("x-user-id", "inviter")], group).await;
    assert_eq!(status, 201);
    type Request = fn(usize) -> (String, Value);
    let requests: [(&str, f64, Request); 5] = [
        ("joiner", 5.0, |n| {
            (format!("/api/v1/conversations/open/{}", if n % 2 == 0 { "join" } else { "leave" }), json!({}))
        }),
        ("inviter", 5.0, |n| ("/api/v1/conversations/g/invites".to_owned(), json!({ "userId": format!("i{n}") }))),
        ("writer", 5.0, |n| ("/api/v1/messages".to_owned(), json!({ "to": format!("s{n}"), "content": "hello" }))),
        ("maker", 11.0, |n| {
            ("/api/v1/conversations".to_owned(), json!({ "kind": "group", "members": names(&format!("g{n}-"), 10) }))
        }),
        ("reader", 1.0, |_| ("/api/v1/conversations/open/read".to_owned(), json!({}))),
    ];
    for (user, charge, request) in requests {
        let (started, mut passed) = (Instant::now(), 0);
        for n in 0..60 {
            let (path, body) = request(n);
            let (status, answer) = as_user(node.http, user, &path, body).await;
            passed += usize::from(status != 429);
            assert!(status < 500, "{answer}");
        }
        assert_charged(user, passed, charge, started);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_messages_are_charged_by_the_members_that_are_told() {
    let node = Node::embedded(&SETTINGS).await;
    for (id, members, charge) in [("small", 3, 1.0), ("large", 450, 5.0)] {
        let members = [names(&format!("{id}-"), members), vec!["a".to_owned()]].concat();
        let group = json!({ "kind": "group", "id": id, "members": members });
        assert_eq!(as_backend(node.http, "/api/v1/conversations", group).await.0, 201);
        let message = json!({ "conversationId": id, "content": "x" });
        let headers = [("x-api-key", API_KEY), ("x-user-id", "a")];
        let (status, sent) = post(node.http, "/api/v1/messages", &headers, message).await;
        assert_eq!(status, 201, "{sent}");
        // Nothing is left of what the group before cost.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut a = Client::join(node.http, "a").await;
        let (started, mut passed) = (Instant::now(), 0);
        for n in 0..60 {
            let edit = json!({ "messageId": sent["message"]["id"], "content": format!("v{n}") });
            a.send("message.edit", edit).await;
            passed += usize::from(is_edited(&mut a).await);
        }
        assert_charged(id, passed, charge, started);
    }
}

/// What only REST has, and what the sockets have too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rest_makes_is_charged_as_over_sockets() {
    let node = Node::embedded(&SETTINGS).await;
    let own = ["reactor", "taker", "renamer", "muter", "lister", "spammer"].map(str::to_owned);
    let members = [names("l", 450), own.to_vec()].concat();
    let large = json!({ "kind": "group", "id": "large", "members": members });
    assert_eq!(as_backend(node.http, "/api/v1/conversations", large).await.0, 201);
    for owner in ["renamer", "muter"] {
        let path = format!("/api/v1/conversations/large/members/{owner}");
        let body = json!({ "role": "owner" }).to_string();
        assert_eq!(request(node.http, "PATCH", &path, &[("x-api-key", API_KEY)], body).await.0, 200);
    }
    let message = json!({ "conversationId": "large", "content": "x" });
    let headers = [("x-api-key", API_KEY), ("x-user-id", "spammer")];
    let (_, sent) = post(node.http, "/api/v1/messages", &headers, message).await;
    let reactions = format!("/api/v1/messages/{}/reactions", sent["message"]["id"].as_str().expect("an id"));
    let conversation = "/api/v1/conversations/large";
    type Asked<'a> = (&'a str, f64, &'a str, Box<dyn Fn(usize) -> (String, Value) + 'a>);
    let requests: [Asked<'_>; 5] = [
        ("reactor", 5.0, "POST", Box::new(|_| (reactions.clone(), json!({ "emoji": ":a:" })))),
        ("taker", 5.0, "DELETE", Box::new(|_| (format!("{reactions}/:b:"), Value::Null))),
        ("renamer", 5.0, "PATCH", Box::new(|n| (conversation.to_owned(), json!({ "title": format!("title {n}") })))),
        ("muter", 1.0, "POST", {
            Box::new(|n| (format!("{conversation}/mutes"), json!({ "userId": format!("l{n}"), "untilSeconds": 60 })))
        }),
        ("lister", 1.0, "GET", Box::new(|_| (format!("{conversation}/members?limit=100"), Value::Null))),
    ];
    for (user, charge, method, of) in requests {
        let (started, mut passed) = (Instant::now(), 0);
        let (name, value) = bearer(&token(user));
        for n in 0..60 {
            let (path, body) = of(n);
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let (status, answer) = request(node.http, method, &path, &[(name, &value)], body).await;
            assert!(status < 300 || status == 429, "{user}: {answer}");
            passed += usize::from(status != 429);
        }
        assert_charged(user, passed, charge, started);
    }
    // An admin pays for the second that a removal may take.
    let claims = json!({ "sub": "boss", "scope": "admin", "exp": in_seconds(60), "iat": in_seconds(0) });
    let (name, value) = bearer(&token_with(claims));
    let (started, mut passed) = (Instant::now(), 0);
    for _ in 0..60 {
        let path = "/api/v1/users/nobody/messages";
        let (status, answer) = request(node.http, "DELETE", path, &[(name, &value)], "").await;
        assert!(status == 200 || status == 429, "{answer}");
        passed += usize::from(status == 200);
    }
    assert_charged("remover", passed, 10.0, started);
}

/// Whether the edit that was sent is answered by its event.
async fn is_edited(client: &mut Client) -> bool {
    loop {
        match client.next().await {
            Incoming::Frame(frame) if frame["type"] == "message.edited" => return true,
            Incoming::Frame(frame) if frame["type"] == "error" => {
                assert_eq!(frame["payload"]["code"], "RATE_LIMITED");
                return false;
            }
            Incoming::Frame(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Pings, pongs that nobody asked for and empty fragments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_a_command_count_like_commands() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "10")]).await;
    let empty = |head: u8| [head, 0x80, 0, 0, 0, 0];
    for (first, frame) in [(0x89, 0x89), (0x8A, 0x8A), (0x01, 0x00)] {
        let mut socket = TcpStream::connect(node.http).await.expect("the node accepts");
        socket.write_all(&upgrade("", "")).await.expect("sent");
        let frames = [&empty(first)[..], &empty(frame).repeat(300)].concat();
        socket.write_all(&frames).await.expect("sent");
        let mut bytes = Vec::new();
        let end = socket.read_to_end(&mut bytes);
        // The node may have reset the connection because of frames that it did not read any more.
        let _ = tokio::time::timeout(Duration::from_secs(20), end).await.expect("an end");
        let close = [&4101_u16.to_be_bytes()[..], b"rate_limited"].concat();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("RATE_LIMITED"), "{frame:x}: {text}");
        assert!(bytes.windows(close.len()).any(|part| part == close), "{frame:x}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_requests_of_backends_run_four_at_a_time() {
    let node = Node::embedded(&[]).await;
    let running = async || {
        let mut places: Vec<BulkPlace<'_>> = Vec::new();
        while places.len() < 4 {
            let place = node.app.node().bulk_of_backends.enter(BulkWork::Recipients(0)).await;
            places.push(place.unwrap_or_else(|busy| panic!("{busy:?}")));
        }
        places
    };
    let places = running().await;
    let event = json!({ "type": "news", "payload": {} });
    let bulk = [
        ("/api/v1/broadcast", json!({ "event": event })),
        ("/api/v1/publish", json!({ "users": names("u", 101), "event": event })),
        ("/api/v1/conversations", json!({ "kind": "group", "id": "g", "members": names("u", 101) })),
    ];
    for (path, body) in &bulk {
        let (status, refused) = as_backend(node.http, path, body.clone()).await;
        assert_eq!((status, &refused["error"]["code"]), (503, &json!("UNAVAILABLE")), "{path}: {refused}");
        assert!(refused["error"]["retryAfterMs"].as_u64().is_some_and(|wait_ms| wait_ms >= 500), "{refused}");
    }
    // What is for few goes on, and so do users.
    let few = json!({ "users": names("u", 100), "event": event });
    assert_eq!(as_backend(node.http, "/api/v1/publish", few).await.0, 202);
    let group = json!({ "kind": "group", "members": names("u", 150) });
    assert_eq!(as_user(node.http, "a", "/api/v1/conversations", group).await.0, 201);
    drop(places);
    for ((path, body), expected) in bulk.into_iter().zip([202, 202, 201]) {
        assert_eq!(as_backend(node.http, path, body).await.0, expected, "{path}");
    }
    let add = json!({ "userIds": names("v", 101) });
    assert_eq!(as_backend(node.http, "/api/v1/conversations/g/members", add).await.0, 200);
}
