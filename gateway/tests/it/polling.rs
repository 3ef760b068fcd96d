//! Long polling: the same log as a socket's, on any node, without reading in vain.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::TwoNodes;

async fn poll(node: &Node, user: &str, query: &str) -> (u16, Value) {
    let (name, value) = bearer(&token(user));
    let (path, headers) = (format!("/api/v1/events?{query}"), [(name, value.as_str())]);
    tokio::time::timeout(Duration::from_secs(35), get(node.http, &path, &headers)).await.expect("a poll ends")
}

async fn position(node: &Node, user: &str) -> String {
    let (status, now) = poll(node, user, "").await;
    assert_eq!((status, &now["events"]), (200, &json!([])), "{now}");
    format!("{}:{}", now["epoch"].as_str().expect("an epoch"), now["seq"])
}

fn after(answer: &Value) -> String {
    format!("{}:{}", answer["epoch"].as_str().expect("an epoch"), answer["seq"])
}

fn types(answer: &Value) -> Vec<(&str, Option<u64>)> {
    let events = answer["events"].as_array().expect("events").iter();
    events.map(|event| (event["type"].as_str().expect("a type"), event["seq"].as_u64())).collect()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_wakes_a_poll_on_any_node() {
    let cluster = TwoNodes::start(&[]).await;
    let (one, two) = (&cluster.one, &cluster.two);
    let mut a = Client::join(one.http, "a").await;
    let start = position(two, "b").await;
    let send = async |a: &mut Client, content: &str| {
        a.send("message.send", json!({ "to": "b", "content": content })).await;
        a.expect("message.sent").await
    };

    // While b waits on one node, a sends on the other.
    let since = format!("since={start}&wait=30");
    let waiting = poll(two, "b", &since);
    let sending = async {
        until("b waits", async || two.app.node().registry.user_count() == 1).await;
        let (_, presence) = get(one.http, "/api/v1/presence?users=b", &[("x-api-key", API_KEY)]).await;
        assert_eq!(presence["users"]["b"]["online"], true, "who polls is online");
        send(&mut a, "one").await
    };
    let ((status, first), sent) = tokio::join!(waiting, sending);
    assert_eq!(status, 200, "{first}");
    // The direct conversation was made by the first message: that event may come alone, before the message.
    let mut all: Vec<Value> = first["events"].as_array().expect("events").clone();
    let mut last = first;
    if !all.iter().any(|event| event["type"] == "message.new") {
        let (status, next) = poll(one, "b", &format!("since={}", after(&last))).await;
        assert_eq!(status, 200, "{next}");
        all.extend(next["events"].as_array().expect("events").iter().cloned());
        last = next;
    }
    let seqs: Vec<u64> = all.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, [1, 2]);
    let kinds: Vec<&str> = all.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds, ["conversation.created", "message.new", "conversation.updated", "notification.unread"]);
    assert_eq!(all[1]["payload"]["message"], sent["payload"]["message"]);
    assert_eq!(last["seq"], 2);

    // The same from the older position, at once, on the other node; then nothing within a second.
    let (_, again) = poll(one, "b", &format!("since={start}")).await;
    assert_eq!((&again["events"], &again["seq"]), (&json!(all), &json!(2)));
    let (status, none) = poll(two, "b", &format!("since={}&wait=1", after(&last))).await;
    assert_eq!((status, types(&none), &none["seq"], &none["epoch"]), (200, vec![], &json!(2), &last["epoch"]));

    // Positions that can't be served.
    for n in 0..24 {
        send(&mut a, &n.to_string()).await;
    }
    until("the log holds all", async || position(two, "b").await.ends_with(":26")).await;
    cluster.redis.ask("XTRIM chat:log:{chat:user:b} MAXLEN 16");
    let now = position(two, "b").await;
    let epoch = now.split(':').next().expect("an epoch").to_owned();
    for (since, reason) in [
        (start.as_str(), "trimmed"),
        (&format!("{epoch}:99"), "future"),
        ("other.epoch:1", "epoch"),
        ("nonsense", "invalid"),
    ] {
        let (status, moved) = poll(one, "b", &format!("since={since}")).await;
        assert_eq!((status, &moved["reason"], after(&moved)), (409, &json!(reason), now.clone()), "{moved}");
        assert_eq!(moved["error"]["code"], "CONFLICT");
    }
    // Redis comes back empty while a poll waits: it learns the new epoch.
    let since = format!("since={now}&wait=30");
    let waiting = poll(two, "b", &since);
    let emptying = async {
        until("b waits", async || two.app.node().registry.user_count() == 1).await;
        cluster.redis.ask("FLUSHALL");
        send(&mut a, "anew").await;
    };
    let ((status, moved), ()) = tokio::join!(waiting, emptying);
    assert_eq!((status, &moved["reason"]), (409, &json!("epoch")), "{moved}");
    assert_ne!(moved["epoch"].as_str(), Some(epoch.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_are_bounded_and_end_with_the_right_to_listen() {
    let node = Node::embedded(&[]).await;
    let start = position(&node, "a").await;
    let since = format!("since={start}&wait=30");
    let waiting = || async {
        let (status, ended) = poll(&node, "a", &since).await;
        (status, ended["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let rest = async {
        until("four wait", async || node.app.node().registry.socket_count() == 4).await;
        assert_eq!(waiting().await, (429, "RATE_LIMITED".to_owned()));
        // Another user's are counted apart.
        let other = position(&node, "b").await;
        assert_eq!(poll(&node, "b", &format!("since={other}&wait=0")).await.0, 200);
        let revoke = json!({ "userId": "a" });
        assert_eq!(post(node.http, "/api/v1/control/revoke", &[("x-api-key", API_KEY)], revoke).await.0, 202);
    };
    let (one, two, three, four, ()) = tokio::join!(waiting(), waiting(), waiting(), waiting(), rest);
    for ended in [one, two, three, four] {
        assert_eq!(ended, (401, "UNAUTHENTICATED".to_owned()));
    }
    assert_eq!(node.app.node().registry.socket_count(), 0);
}

/// The store answers nothing: the events come all the same, without their counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_waits_for_counts_only_so_long() {
    let cluster = TwoNodes::start(&[]).await;
    let (one, two) = (&cluster.one, &cluster.two);
    let _online = Client::join(one.http, "b").await;
    let start = position(two, "b").await;
    let mut a = Client::join(one.http, "a").await;
    a.send("message.send", json!({ "to": "b", "content": "one" })).await;
    a.expect("message.sent").await;
    cluster.everything_is_published().await;
    let store = cluster.database.client().await;
    store.batch_execute("BEGIN; LOCK TABLE members IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    let (status, answer) = poll(two, "b", &format!("since={start}")).await;
    store.batch_execute("COMMIT").await.expect("unlocked");
    let came: Vec<&str> = types(&answer).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!((status, came), (200, vec!["conversation.created", "message.new", "conversation.updated"]));
}
