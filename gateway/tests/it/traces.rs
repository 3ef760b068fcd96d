//! A message's way over two nodes as a collector sees it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::postgres::Postgres;
use crate::support::process::ServedNode;
use crate::support::redis::Redis;

type Spans = Arc<Mutex<Vec<Value>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_leaves_one_trace_over_two_nodes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (redis, database) = (Redis::start(), Postgres::database().await);
    let (collector, spans) = collector().await;
    let traced = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector), ("OTEL_TRACES_SAMPLER_ARG", "1")];
    let one = ServedNode::start(&redis.url(), &database.url, &traced, folder.path(), "one").await;
    let two = ServedNode::start(&redis.url(), &database.url, &traced, folder.path(), "two").await;
    let mut alice = Client::join(one.http, "alice").await;
    let mut bob = Client::join(two.http, "bob").await;
    alice.send("message.send", json!({ "to": "bob", "content": "nobody-elses-business" })).await;
    let id = alice.expect("message.sent").await["payload"]["message"]["id"].clone();
    bob.expect("message.new").await;

    let complete = async {
        loop {
            let got = spans.lock().clone();
            if got.iter().filter(|span| span["name"] == "deliver").count() == 2 && got.len() == 5 {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let Ok(got) = tokio::time::timeout(Duration::from_secs(15), complete).await else {
        panic!("not the five spans of one message: {:#?}", spans.lock());
    };
    let named = |name: &str| got.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no span {name}"));
    let [send, commit, publish] = ["send", "commit", "publish"].map(named);
    assert_eq!(send["parentSpanId"], "");
    for child in [commit, publish] {
        assert_eq!(child["parentSpanId"], send["spanId"]);
    }
    for span in &got {
        assert_eq!(span["traceId"], send["traceId"]);
        assert_eq!(span["attributes"][0]["value"]["stringValue"], id);
        assert!(nanoseconds(span, "startTimeUnixNano") <= nanoseconds(span, "endTimeUnixNano"), "{span}");
    }
    for deliver in got.iter().filter(|span| span["name"] == "deliver") {
        assert_eq!(deliver["parentSpanId"], publish["spanId"]);
        assert_eq!(deliver["attributes"][1], json!({ "key": "parley.deliver.sockets", "value": { "intValue": "1" } }));
    }
    assert!(nanoseconds(commit, "startTimeUnixNano") >= nanoseconds(send, "startTimeUnixNano"));
    assert!(nanoseconds(publish, "endTimeUnixNano") > nanoseconds(commit, "startTimeUnixNano"));
    let text = json!(got).to_string();
    for secret in ["alice", "bob", "nobody-elses"] {
        assert!(!text.contains(secret), "{secret} stands in a span");
    }
}

fn nanoseconds(span: &Value, field: &str) -> u64 {
    span[field].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{field} of {span}"))
}

/// An OTLP/HTTP receiver, and what it has received.
async fn collector() -> (String, Spans) {
    let spans = Spans::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let receive = async |State(spans): State<Spans>, axum::Json(body): axum::Json<Value>| {
        let resource = &body["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0],
            json!({ "key": "service.name", "value": { "stringValue": "parley" } })
        );
        spans.lock().extend(resource["scopeSpans"][0]["spans"].as_array().expect("spans").iter().cloned());
        axum::Json(json!({}))
    };
    let routes = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&spans));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, spans)
}
