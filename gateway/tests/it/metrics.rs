//! Prometheus' view: conventional names, no label that a user can choose, an answer to every query of the dashboard and
//! the rules, and an alert when Redis is gone. Nodes are processes of their own here, because a process has one set of
//! metrics.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::{bearer, get, post, request};
use crate::support::node::{API_KEY, token};
use crate::support::ports::free_address;
use crate::support::postgres::Postgres;
use crate::support::process::{Process, ServedNode};
use crate::support::redis::Redis;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const RULES: [&str; 2] = ["recording.yml", "alerts.yml"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_two_nodes_answers_the_dashboard_and_fires_when_redis_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut redis, database) = (Redis::start(), Postgres::database().await);
    let one = ServedNode::start(&redis.url(), &database.url, &[], folder.path(), "one").await;
    let two = ServedNode::start(&redis.url(), &database.url, &[], folder.path(), "two").await;
    let prometheus = Prometheus::start(folder.path(), &[one.ops, two.ops]).await;

    traffic(&one, &two).await;
    let texts = [scrape(one.ops).await, scrape(two.ops).await];
    texts.iter().for_each(|text| names_follow_the_conventions(text));
    no_label_is_a_users(&texts);
    every_query_names_a_metric_that_is_there(&texts);

    prometheus.wait_for("sum(parley_ready)", |value| value == Some("2".to_owned())).await;
    // Rates need two scrapes with something between them.
    traffic(&one, &two).await;
    for query in dashboard_queries() {
        prometheus.wait_for(&query, |value| value.is_some()).await;
    }
    prometheus.wait_for(r#"count(ALERTS{alertstate="firing"})"#, |value| value.is_none()).await;

    let page = prometheus.console_when(|page| !page.contains('–')).await;
    for node in [one.ops, two.ops] {
        assert!(page.contains(&format!("<tr><th>{node}</th>\n<td>yes</td>\n<td>")), "{page}");
    }
    assert!(page.contains("<tr><th>nodes ready</th><td>2</td>") && page.contains("none firing"), "{page}");

    redis.kill();
    for alert in ["ParleyBackboneAway", "ParleyNodeNotReady"] {
        let firing = format!(r#"count(ALERTS{{alertname="{alert}", alertstate="firing"}})"#);
        prometheus.wait_for(&firing, |value| value == Some("2".to_owned())).await;
    }
    prometheus.console_when(|page| page.contains("<th>ParleyBackboneAway</th>") && page.contains("<td>no</td>")).await;
    redis.restart();
    let firing = r#"count(ALERTS{alertname="ParleyBackboneAway", alertstate="firing"})"#;
    prometheus.wait_for(firing, |value| value.is_none()).await;
}

/// A rate needs a value before the first request: until then a dashboard would show "no data".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_node_has_every_series_at_zero() {
    let folder = tempfile::tempdir().expect("a folder");
    let (redis, database) = (Redis::start(), Postgres::database().await);
    let node = ServedNode::start(&redis.url(), &database.url, &[], folder.path(), "one").await;
    let text = scrape(node.ops).await;
    let (_, document) = get(node.http, "/openapi.json", &[]).await;
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 20, "{} paths", paths.len());
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            let start = format!(r#"parley_http_requests_total{{route="{path}",method="{}","#, method.to_uppercase());
            let line =
                text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start} is missing"));
            assert!(line.ends_with(" 0"), "{line}");
        }
        let seconds = format!(r#"parley_http_request_seconds_count{{route="{path}"}} 0"#);
        assert!(text.contains(&seconds), "{seconds} is missing");
    }
    every_query_names_a_metric_that_is_there(&[text.clone(), text]);
}

/// Something of everything: messages, a resume, one that can't be, REST, faults, names that nobody may find in a label.
async fn traffic(one: &ServedNode, two: &ServedNode) {
    let mut a = Client::join(one.http, "user-a").await;
    let (mut b, success) = Client::join_with(two.http, &token("user-b")).await;
    for n in 0..5 {
        a.send("message.send", json!({ "to": "user-b", "content": format!("the-content-{n}") })).await;
        a.expect("message.sent").await;
        b.expect("message.new").await;
    }
    a.send("message.send", json!({ "conversationId": "no-such-conversation", "content": "x" })).await;
    a.expect("error").await;
    let key = [("x-api-key", API_KEY)];
    let event = json!({ "type": "an-event-of-a-backend", "payload": {} });
    let publish = json!({ "users": ["user-b"], "event": event, "durable": false });
    assert_eq!(post(one.http, "/api/v1/publish", &key, publish).await.0, 202);
    b.expect("an-event-of-a-backend").await;
    assert_eq!(get(two.http, "/api/v1/a-path-of-somebody", &key).await.0, 404);
    let (name, value) = bearer(&token("user-a"));
    let listed = request(two.http, "GET", "/api/v1/conversations", &[(name, &value)], "").await;
    assert_eq!(listed.0, 200);
    drop(b);
    let epoch = success["epoch"].as_str().expect("an epoch");
    for (position, resumed) in [(format!("{epoch}:{}", success["seq"]), true), ("nonsense".to_owned(), false)] {
        let path = format!("/chat/ws?token={}&resume={position}", token("user-b"));
        let mut again = Client::open(one.http, &path, &[]).await.expect("an upgrade");
        assert_eq!(again.expect("auth_success").await["payload"]["resumed"], resumed);
    }
}

async fn scrape(ops: SocketAddr) -> String {
    match get(ops, "/metrics", &[]).await {
        (200, Value::String(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn names_follow_the_conventions(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (deploy/test.sh installs prometheus)");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let said = promtool.wait_with_output().expect("it ends");
    let complaints = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));
}

fn no_label_is_a_users(texts: &[String]) {
    for text in texts {
        for word in ["user-a", "user-b", "the-content", "no-such", "an-event-of", "a-path-of", "nonsense", "127.0.0.1"]
        {
            assert!(!text.contains(word), "{word} stands in the metrics");
        }
        let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
        assert!(series < 1200, "{series} series from one node");
    }
}

fn every_query_names_a_metric_that_is_there(texts: &[String]) {
    let mut known: BTreeSet<String> = BTreeSet::from(["up".to_owned()]);
    for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')) {
        known.insert(line.split(['{', ' ']).next().unwrap_or_default().to_owned());
    }
    let rules = RULES.map(rule_file).join("\n");
    known.extend(rules.lines().filter_map(|line| Some(line.split_once("record: ")?.1.trim().to_owned())));
    // Of the rules, everything but what is told to people.
    let of_rules = rules.lines().filter(|line| !line.contains("summary:") && !line.trim_start().starts_with('#'));
    let queries = dashboard_queries().into_iter().chain(of_rules.map(str::to_owned));
    let mut unknown = BTreeSet::new();
    let mut asked = 0;
    for name in queries.flat_map(|query| metric_names(&query)) {
        asked += 1;
        if !known.contains(&name) {
            unknown.insert(name);
        }
    }
    assert!(unknown.is_empty(), "queried, but measured by no node: {unknown:?}\n{}", texts[0]);
    assert!(asked > 80, "only {asked} metrics were found in the queries");
}

/// The names in a query that can only be metrics.
fn metric_names(query: &str) -> Vec<String> {
    let outside_of_strings: String = query.split('"').step_by(2).collect();
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    outside_of_strings
        .split(|c| !name(c))
        .filter(|word| ["parley_", "parley:", "instance:", "process_"].iter().any(|start| word.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

fn rule_file(name: &str) -> String {
    std::fs::read_to_string(format!("{DEPLOY}/prometheus/{name}")).expect("a rule file")
}

/// Every query of the dashboard, its variables filled in.
fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let text = std::fs::read_to_string(format!("{DEPLOY}/grafana/parley.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut found = Vec::new();
    collect(&dashboard["panels"], &mut found);
    assert!(found.len() > 40, "{} queries in the dashboard", found.len());
    let filled = |query: &String| query.replace("$__rate_interval", "60s").replace("$instance", ".*");
    found.iter().map(filled).collect()
}

/// A real Prometheus with the project's rules; alerts fire at once instead of after minutes.
struct Prometheus {
    _process: Process,
    address: SocketAddr,
    log: std::path::PathBuf,
}

impl Prometheus {
    async fn start(folder: &Path, nodes: &[SocketAddr]) -> Self {
        for name in RULES {
            let hasty: Vec<String> = rule_file(name)
                .lines()
                .map(|line| match line.split_once("for: ") {
                    Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s"),
                    _ => line.to_owned(),
                })
                .collect();
            std::fs::write(folder.join(name), hasty.join("\n")).expect("a rule file");
        }
        let targets: Vec<String> = nodes.iter().map(SocketAddr::to_string).collect();
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": RULES,
            "scrape_configs": [{ "job_name": "parley", "static_configs": [{ "targets": targets }] }],
        });
        // JSON is YAML.
        std::fs::write(folder.join("prometheus.yml"), config.to_string()).expect("a configuration");
        let (address, log) = (free_address(), folder.join("prometheus.log"));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.console.templates={DEPLOY}/prometheus/consoles"))
            .arg(format!("--web.listen-address={address}"));
        let prometheus = Self { _process: Process::start(&mut command, &log), address, log };
        let up = async {
            while tokio::net::TcpStream::connect(address).await.is_err() || get(address, "/-/ready", &[]).await.0 != 200
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), up).await.is_err() {
            panic!("Prometheus is not ready: {}", prometheus.said());
        }
        prometheus
    }

    /// The page that operators see without Grafana, once it is as expected: a rate needs two scrapes of each node.
    async fn console_when(&self, expected: impl Fn(&str) -> bool) -> String {
        let url = format!("http://{}/consoles/parley.html", self.address);
        let mut page = String::new();
        for _ in 0..60 {
            let output = Command::new("curl").args(["-sS", "--fail", &url]).output().expect("curl");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            page = String::from_utf8(output.stdout).expect("text");
            if expected(&page) {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("the page stays as it is: {page}");
    }

    /// Asks again and again until the first value of the answer (`None`: no series) is as expected.
    async fn wait_for(&self, query: &str, expected: impl Fn(Option<String>) -> bool) {
        let mut last = Value::Null;
        for _ in 0..90 {
            let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
            let (status, answer) = get(self.address, &format!("/api/v1/query?query={encoded}"), &[]).await;
            assert_eq!(status, 200, "{query}: {answer}");
            if expected(answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)) {
                return;
            }
            last = answer;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("{query}: {last}\n{}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
