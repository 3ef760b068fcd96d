//! A hostile user: every request and every frame has its answer, none is a fault of the server, and the next request is
//! served as before. That no bytes panic a decoder is tested in `shared::dialect`.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::http::{bearer, get, request};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::{TwoNodes, acting, bounded};

/// One answer for each: the expected status.
async fn ask(node: &Node, method: &str, path: &str, body: impl Into<hyper::body::Bytes>, expected: &[u16]) {
    let (name, value) = bearer(&token("a"));
    let (status, answer) = request(node.http, method, path, &[(name, &value)], body).await;
    assert!(expected.contains(&status), "{method} {path}: {status} {answer}");
    if status >= 400 {
        assert!(answer["error"]["code"].is_string(), "{method} {path}: {answer}");
    }
}

const OK: &[u16] = &[200];
const BAD: &[u16] = &[400];

async fn queries(node: &Node) {
    let (most, over) = (u64::MAX.to_string(), "18446744073709551616");
    let beyond = (u128::from(u64::MAX) / 2 + 1).to_string();
    for (path, name) in [
        ("/api/v1/conversations/g/messages", "before"),
        ("/api/v1/conversations/g/messages", "after"),
        ("/api/v1/conversations/g/messages", "changedSince"),
        ("/api/messages/group?group=g", "offset"),
        ("/api/messages/private?user=b", "offset"),
        ("/api/notifications", "offset"),
    ] {
        let join = if path.contains('?') { '&' } else { '?' };
        for good in ["0", "1", &beyond, &most] {
            ask(node, "GET", &format!("{path}{join}{name}={good}"), "", OK).await;
        }
        for bad in ["-1", over, "1.5", "1e3", "%00", "", "x", "%F0%9F%A6%9C", "0x10"] {
            ask(node, "GET", &format!("{path}{join}{name}={bad}"), "", BAD).await;
        }
        for good in ["0", "1", "101", "4294967295"] {
            ask(node, "GET", &format!("{path}{join}limit={good}"), "", OK).await;
        }
        for bad in ["-1", "4294967296", over, "x", "NaN"] {
            ask(node, "GET", &format!("{path}{join}limit={bad}"), "", BAD).await;
        }
        ask(node, "GET", &format!("{path}{join}limit=1&limit=2"), "", BAD).await;
    }
    let longest = format!("1.1.{}", "x".repeat(128));
    for good in ["0.0.c", "1..", "99999999999999.99999999999999.a~b!c", "1..a.b:c@d", &longest] {
        ask(node, "GET", &format!("/api/v1/conversations?cursor={good}"), "", OK).await;
    }
    for bad in
        ["", "0", "1", &most, "1.1", "1.1.", "-1..", "1.-1.c", "100000000000000..", "1.1.a%2Fb", "1..%00", "x..c"]
    {
        ask(node, "GET", &format!("/api/v1/conversations?cursor={bad}"), "", BAD).await;
    }
    for bad in ["wait=-1", "wait=4294967296", "wait=x"] {
        ask(node, "GET", &format!("/api/v1/events?{bad}"), "", BAD).await;
    }
    for lost in ["x", "a:-1", "%00:1", "e:18446744073709551616", "%F0%9F%A6%9C:1"] {
        ask(node, "GET", &format!("/api/v1/events?wait=0&since={lost}"), "", &[400, 409]).await;
    }
    for bad in ["", "a,,b", "a%00", "%F0%9F%A6%9C", &"a,".repeat(600)] {
        ask(node, "GET", &format!("/api/v1/presence?users={bad}"), "", BAD).await;
    }
}

async fn paths(node: &Node) {
    for id in ["%00", "a%20b", "%F0%9F%A6%9C", "%FF", "a%2Fb", "%2e%2e%2f", &"x".repeat(129), "a%0d%0ab", "*"] {
        ask(node, "GET", &format!("/api/v1/conversations/{id}"), "", BAD).await;
        ask(node, "GET", &format!("/api/v1/conversations/{id}/messages"), "", BAD).await;
        ask(node, "POST", &format!("/api/v1/conversations/{id}/join"), "{}", BAD).await;
        ask(node, "DELETE", &format!("/api/v1/conversations/g/members/{id}"), "", BAD).await;
        ask(node, "DELETE", &format!("/api/v1/messages/{id}"), "", BAD).await;
    }
    for id in ["0", "-1", "01", "1.0", "9007199254740992", "18446744073709551616", "%D9%A1"] {
        ask(node, "DELETE", &format!("/api/v1/messages/{id}"), "", BAD).await;
        ask(node, "PATCH", &format!("/api/v1/messages/{id}"), r#"{"content":"x"}"#, BAD).await;
    }
}

async fn bodies(node: &Node) {
    let deep = |open: &str| format!("{{\"x\":{}", open.repeat(300_000)).into_bytes();
    for (method, path) in [
        ("POST", "/api/v1/messages"),
        ("POST", "/api/v1/conversations"),
        ("POST", "/api/v1/conversations/g/join"),
        ("POST", "/api/v1/conversations/g/read"),
        ("POST", "/api/v1/publish"),
        ("POST", "/api/groups/invite"),
        ("POST", "/api/notifications/read"),
        ("PATCH", "/api/v1/messages/1"),
    ] {
        for body in
            [deep("["), deep("{\"x\":"), b"\xff\xfe".to_vec(), b"[]".to_vec(), b"null".to_vec(), b"{}x".to_vec()]
        {
            ask(node, method, path, body, BAD).await;
        }
    }
    for body in [
        r#"{"to":"b","content":"a\u0000b"}"#,
        r#"{"to":"b","content":"\ud800"}"#,
        r#"{"to":"b","content":""}"#,
        r#"{"to":"b","content":"x","tempId":"\u0000"}"#,
        r#"{"to":"b","content":"x","kind":""}"#,
        r#"{"to":18446744073709551616,"content":"x"}"#,
        r#"{"to":"b","content":"x","replyTo":"9007199254740992"}"#,
        r#"{"to":"b","conversationId":"g","content":"x"}"#,
        r#"{"to":"","content":"x"}"#,
    ] {
        ask(node, "POST", "/api/v1/messages", body, BAD).await;
    }
    // Of a member that stands there twice, one counts: never both, never none.
    ask(node, "POST", "/api/v1/messages", r#"{"to":"b","to":"b c","content":"x","content":"y"}"#, &[201, 400]).await;
    for body in [
        r#"{"kind":"group","title":"a\u0000b"}"#,
        r#"{"kind":"group","id":"a b"}"#,
        r#"{"kind":"group","kind":"group"}"#,
        r#"{"kind":"group","members":["a\nb"]}"#,
        r#"{"kind":"group","password":""}"#,
    ] {
        ask(node, "POST", "/api/v1/conversations", body, BAD).await;
    }
    for body in [r#"{"ids":[-1]}"#, r#"{"ids":[1.5]}"#, r#"{"ids":[9007199254740992]}"#, r#"{"ids":["0"]}"#] {
        ask(node, "POST", "/api/notifications/read", body, BAD).await;
    }
    ask(node, "POST", "/api/v1/conversations/g/join", r#"{"password":"a\u0000b"}"#, &[200, 400, 403]).await;
}

/// What some clients and dialects couldn't read goes to nobody; what all can read goes to everybody.
async fn strange_notifications(node: &Node) {
    let nested = |levels: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let mut social = Flat::join(node.http, "/ws", "a").await;
    let mut chat = Client::join(node.http, "a").await;
    for (payload, expected) in [
        (nested(20_000), 400),
        (nested(130), 400),
        (r#"{"x":1e999}"#.into(), 400),
        (r#"{"x":"\ud800"}"#.into(), 400),
        (nested(110), 202),
        (r#"{"message":"a\u0000b"}"#.into(), 202),
        (r#"{"x":1,"x":2}"#.into(), 202),
    ] {
        for kind in ["notification", "of.its.own"] {
            let body = format!(r#"{{"users":["a"],"event":{{"type":"{kind}","payload":{payload}}}}}"#);
            let (status, answer) = request(node.http, "POST", "/api/v1/publish", &[("x-api-key", API_KEY)], body).await;
            assert_eq!(status, expected, "{kind} {payload:.60} {answer}");
            if status == 202 {
                chat.expect(kind).await;
            }
            if status == 202 && kind == "notification" {
                social.expect("notification").await;
            }
        }
    }
    let (name, value) = bearer(&token("a"));
    let (status, answer) = get(node.http, "/api/notifications", &[(name, &value)]).await;
    assert_eq!((status, answer["items"].as_array().map(Vec::len)), (200, Some(3)), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_a_fault_of_the_server() {
    bounded(async {
        let cluster = TwoNodes::start(&[("USER_COMMANDS_PER_SECOND", "0")]).await;
        let node = &cluster.one;
        let group = serde_json::json!({ "kind": "group", "id": "g", "members": ["b"] });
        let (status, made) = acting(node.http, "POST", "/api/v1/conversations", "a", group).await;
        assert_eq!(status, 201, "{made}");
        queries(node).await;
        paths(node).await;
        bodies(node).await;
        strange_notifications(node).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_ends_a_connection_or_the_node() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")]).await;
    let deep = format!(r#"{{"type":"ping","x":{}"#, "[".repeat(30_000));
    let most = u64::MAX;
    for dialect in shared::Dialect::ALL {
        let path = format!("{}?token={}", dialect.path(), token("a"));
        let mut client = Client::open(node.http, &path, &[]).await.expect("an upgrade");
        for frame in [
            &*deep,
            r#"{"type":"\ud800"}"#,
            r#"{"type":"send_message","receiver_id":-1,"content":"x"}"#,
            r#"{"type":"message.send","payload":{"to":"\u0000","content":"x"}}"#,
            r#"{"type":"mark_read","message_id":18446744073709551615}"#,
            r#"{"type":"mark_read","message_id":9007199254740992}"#,
            r#"{"type":"message.read","payload":{"conversationId":"c","upTo":"9007199254740991"}}"#,
            &format!(r#"{{"type":"typing","chat_id":{most},"channel_id":{most},"is_typing":true}}"#),
            &format!(r#"{{"type":"group","group_id":{most},"content":"x"}}"#),
        ] {
            client.send_text(frame).await;
            let error = client.expect("error").await;
            let code = error.pointer("/payload/code").or(error.get("code")).and_then(Value::as_str).expect("a code");
            assert!(!["INTERNAL_ERROR", "UNAVAILABLE", "TIMEOUT"].contains(&code), "{dialect:?} {frame}: {error}");
        }
        client.send_text(r#"{"type":"ping"}"#).await;
        client.expect("pong").await;
    }
}
