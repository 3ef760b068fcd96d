//! Operators at a terminal: `gateway admin` against two nodes, and the log lines of the nodes meanwhile.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::{bearer, request};
use crate::support::node::{API_KEY, token};
use crate::support::ports::free_address;
use crate::support::postgres::Postgres;
use crate::support::process::ServedNode;
use crate::support::redis::Redis;

const CONTENT: &str = "what-alice-told-bob-is-nobody-elses-business";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_asks_and_orders_and_the_logs_tell_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let (redis, database) = (Redis::start(), Postgres::database().await);
    let loud = [("LOG_FORMAT", "json"), ("RUST_LOG", "gateway=trace,info")];
    let one = ServedNode::start(&redis.url(), &database.url, &loud, folder.path(), "one").await;
    let two = ServedNode::start(&redis.url(), &database.url, &loud, folder.path(), "two").await;
    let mut alice = Client::join(one.http, "alice").await;
    let mut bob = Client::join(two.http, "bob").await;
    alice.send("message.send", json!({ "to": "bob", "content": CONTENT })).await;
    bob.expect("message.new").await;

    // Issued before alice is revoked: one of a later second would be good again.
    let (name, value) = bearer(&token("alice"));

    stats(&one, &two);
    orders(&one, &mut alice, &mut bob).await;
    faults(&one);

    let headers = [(name, &*value), ("x-request-id", "the-id-of-a-proxy")];
    assert_eq!(request(two.http, "GET", "/api/v1/conversations", &headers, "").await.0, 401, "alice was revoked");
    for node in [&one, &two] {
        wait_for_ends(node).await;
    }
    logs_tell_no_secret(&one);
    let said = logs_tell_no_secret(&two);
    let of_request = |line: &&Value| line["span"]["id"] == "the-id-of-a-proxy" && line["fields"]["route"].is_string();
    let answered = said.iter().find(of_request).expect("the request's line");
    assert_eq!(
        (&answered["fields"]["route"], &answered["fields"]["status"]),
        (&json!("/api/v1/conversations"), &json!(401))
    );
}

fn stats(one: &ServedNode, two: &ServedNode) {
    let urls = format!("http://{},http://{}", one.http, two.http);
    let shown = good(&admin(&["stats", "--url", &urls], Some(API_KEY)));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert!(lines[0].starts_with("URL") && lines[0].contains("CONNECTIONS"), "{shown}");
    assert!(lines[2].starts_with(&format!("http://{}", two.http)), "{shown}");
    let nodes: Value =
        serde_json::from_str(&good(&admin(&["stats", "--json", "--url", &urls], Some(API_KEY)))).expect("JSON");
    assert_eq!(nodes.as_array().map(Vec::len), Some(2));
    assert_eq!((&nodes[0]["connections"], &nodes[1]["users"]), (&json!(1), &json!(1)));

    let ops = format!("http://{},http://{}", one.ops, two.ops);
    let shown = good(&admin(&["connections", "--ops-url", &ops], Some(API_KEY)));
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["USER", "alice", "bob"], "{shown}");
    assert_eq!((rows[1][2], rows[2][2]), ("chat.v1", "chat.v1"), "{shown}");
    let listed = good(&admin(&["connections", "--json", "--limit", "1", "--ops-url", &ops], Some(API_KEY)));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed[0]["userId"], &listed[1]["userId"]), (&json!("alice"), &json!("bob")));
    assert!(listed[0]["connectionId"].is_string(), "{listed}");

    assert_eq!(good(&admin(&["ready", "--ops-url", &ops], None)), "ready");
}

/// Given to one node, carried out on the other.
async fn orders(one: &ServedNode, alice: &mut Client, bob: &mut Client) {
    let url = format!("http://{}", one.http);
    let publish = ["publish", "--user", "bob", "--payload", r#"{"title":"hello"}"#, "--url", &url];
    assert_eq!(good(&admin(&publish, Some(API_KEY))), "published to bob");
    let kept = bob.expect("notification").await;
    assert_eq!((&kept["payload"]["title"], kept["seq"].is_u64()), (&json!("hello"), true));
    let everyone = ["publish", "--everyone", "--type", "news", "--payload", "{}", "--url", &url];
    good(&admin(&everyone, Some(API_KEY)));
    bob.expect("news").await;
    alice.expect("news").await;

    let disconnect = ["disconnect", "bob", "--reason", "a test", "--url", &url, "--json"];
    let answer: Value = serde_json::from_str(&good(&admin(&disconnect, Some(API_KEY)))).expect("JSON");
    assert_eq!(answer["ok"], true);
    assert_eq!(bob.expect_close().await, 4202);
    good(&admin(&["revoke", "alice", "--url", &url], Some(API_KEY)));
    assert_eq!(alice.expect_close().await, 4002);
}

fn faults(one: &ServedNode) {
    let url = format!("http://{}", one.http);
    let nobody = format!("http://{}", free_address());
    let publish = ["publish", "--user", "bob", "--url", &url, "--payload"];
    let with_payload = |payload| [&publish[..], &[payload]].concat();
    for (arguments, key, expected) in [
        (vec!["stats", "--url", &url], Some("a-key-that-is-wrong"), "API_KEY"),
        (vec!["stats", "--url", &url], None, "API_KEY is not set"),
        (vec!["stats", "--url", &nobody], Some(API_KEY), "is the node there?"),
        (vec!["stats", "--url", "127.0.0.1:8086"], Some(API_KEY), "http://127.0.0.1:8086"),
        (vec!["ready", "--ops-url", &url], None, "answers"),
        (vec!["revoke", "no user", "--url", &url], Some(API_KEY), "userId"),
        (with_payload("[]"), Some(API_KEY), "must be an object"),
        (with_payload("nonsense"), Some(API_KEY), "--payload"),
    ] {
        let output = admin(&arguments, key);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(said.contains(expected) && !said.contains(API_KEY), "{arguments:?}: {said}");
    }
}

fn admin(arguments: &[&str], key: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.arg("admin").args(arguments).env_clear();
    command.envs(key.map(|key| ("API_KEY", key)));
    command.output().expect("the gateway's own program")
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A socket that was closed ends when its peer has had a moment to take that in.
async fn wait_for_ends(node: &ServedNode) {
    let ended = async {
        while !std::fs::read_to_string(&node.log).expect("a log").contains("a connection ended") {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("the end of a connection in the log");
}

/// Every line is JSON, begins and ends of connections are there, and no token, key or message.
fn logs_tell_no_secret(node: &ServedNode) -> Vec<Value> {
    let text = std::fs::read_to_string(&node.log).expect("a log");
    // A token's header is the same for all of them.
    let header = token("anybody").split('.').next().expect("three parts").to_owned();
    for secret in [CONTENT, API_KEY, &header, "a-key-that-is-wrong"] {
        assert!(!text.contains(secret), "{secret} stands in the log");
    }
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    for message in ["listening", "connected", "joined", "a connection begins", "a connection ended"] {
        assert!(lines.iter().any(|line| line["fields"]["message"] == message), "no line says {message:?}\n{text}");
    }
    lines
}
