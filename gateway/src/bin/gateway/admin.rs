//! `gateway admin …`: an operator's queries about a running cluster, from a terminal.
//!
//! It calls the public and the operators' HTTP interface like any other client. It prints a table for people, or JSON
//! for programs.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use gateway::http_client::{Answer, Endpoint};
use hyper::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Users asked for in one request.
const PAGE: usize = 100;

/// The query, and the nodes to send it to.
#[derive(Args)]
pub(crate) struct AdminArgs {
    #[command(subcommand)]
    command: Admin,
    /// Where the cluster is; several nodes, comma-separated, for stats [default: http://127.0.0.1:8086]
    #[arg(long, env = "PARLEY_URL", global = true, value_delimiter = ',')]
    url: Vec<String>,
    /// The operators' listener of each node, for connections, webhook and ready [default: http://127.0.0.1:8087]
    #[arg(long, env = "PARLEY_OPS_URL", global = true, value_delimiter = ',')]
    ops_url: Vec<String>,
    /// The key of backends (better in the environment: others see a command line)
    #[arg(long, env = "API_KEY", global = true, hide_env_values = true)]
    api_key: Option<String>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    /// How long an answer may take, in seconds
    #[arg(long, global = true, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

#[derive(Subcommand)]
enum Admin {
    /// Sockets and users of each node that is named by --url
    Stats,
    /// List the connections of each node that --ops-url names
    Connections {
        /// Stop after so many users
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Close a user's sockets on every node; the clients reconnect
    Disconnect {
        /// The user's id
        user: String,
        /// For the log
        #[arg(long)]
        reason: Option<String>,
    },
    /// Revoke a user's tokens and close the user's sockets on every node
    Revoke {
        /// The user's id
        user: String,
    },
    /// Publish an event to users, or to every connected user
    Publish {
        /// A user's id; repeat it for several
        #[arg(long = "user", required_unless_present = "everyone")]
        users: Vec<String>,
        /// To every connected user; never kept
        #[arg(long, conflicts_with_all = ["users", "ephemeral"])]
        everyone: bool,
        /// The event's type
        #[arg(long = "type", default_value = "notification")]
        kind: String,
        /// The event's payload, a JSON object
        #[arg(long)]
        payload: String,
        /// Only to users who are connected now; otherwise it is kept in the users' logs
        #[arg(long)]
        ephemeral: bool,
    },
    /// How far the events for the backend are behind; or post them once more
    Webhook {
        /// Post events once more, from this event on
        #[arg(long, value_name = "ID")]
        repeat_from_id: Option<String>,
        /// Post events once more, from this time on, like 2025-11-21T13:00:00.000Z
        #[arg(long, value_name = "TIME", conflicts_with = "repeat_from_id")]
        repeat_from: Option<String>,
    },
    /// Whether each node that is named by --ops-url may be sent users; fails if one may not
    Ready,
}

/// Asks, and gives what is to be printed.
pub(crate) fn run(args: &AdminArgs) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer(args))
}

async fn answer(args: &AdminArgs) -> anyhow::Result<String> {
    let client = Asker { args };
    let public = or_default(&args.url, "http://127.0.0.1:8086");
    let ops = or_default(&args.ops_url, "http://127.0.0.1:8087");
    // An order reaches every node through the backbone: one node is enough to give it to.
    let first = public.first().map_or("", String::as_str);
    match &args.command {
        Admin::Stats => {
            let mut nodes = Vec::new();
            for url in &public {
                let stats = client.get(url, "/api/v1/internal/chat/ws/stats").await?;
                let fields = stats.as_object().cloned().unwrap_or_default();
                nodes.push(fields.into_iter().chain([("url".to_owned(), json!(url))]).collect());
            }
            Ok(print(args, nodes, &["url", "connections", "users", "dialects", "boot"]))
        }
        Admin::Connections { limit } => {
            let mut rows = Vec::new();
            for url in &ops {
                client.connections(url, *limit, &mut rows).await?;
            }
            let columns =
                ["userId", "connectionId", "dialect", "connectedAt", "lastHeardAt", "queuedBytes", "channels"];
            Ok(print(args, rows, &columns))
        }
        Admin::Disconnect { user, reason } => {
            let order = json!({ "userId": user, "reason": reason });
            client.post(first, "/api/v1/control/disconnect", &order).await?;
            Ok(done(args, &format!("{user}'s sockets are being closed on every node")))
        }
        Admin::Revoke { user } => {
            client.post(first, "/api/v1/control/revoke", &json!({ "userId": user })).await?;
            Ok(done(args, &format!("{user}'s tokens are revoked, and the sockets are being closed on every node")))
        }
        Admin::Publish { users, everyone, kind, payload, ephemeral } => {
            let payload: Value = serde_json::from_str(payload).context("--payload is not JSON")?;
            let event = json!({ "type": kind, "payload": payload });
            if *everyone {
                client.post(first, "/api/v1/broadcast", &json!({ "event": event })).await?;
                return Ok(done(args, "published to every connected user"));
            }
            let order = json!({ "users": users, "event": event, "durable": !ephemeral });
            client.post(first, "/api/v1/publish", &order).await?;
            Ok(done(args, &format!("published to {}", users.join(", "))))
        }
        Admin::Webhook { repeat_from_id, repeat_from } => {
            // Every node reads the same store.
            let url = ops.first().map_or("", String::as_str);
            if repeat_from_id.is_none() && repeat_from.is_none() {
                let lag = client.get(url, "/api/v1/admin/webhook").await?;
                return Ok(print(args, vec![lag], &["owed", "oldestMs", "dead"]));
            }
            let mut order = match repeat_from_id {
                Some(id) => json!({ "fromId": id }),
                None => json!({ "from": repeat_from }),
            };
            let mut repeated = 0;
            // A node repeats so many in one order.
            loop {
                let answer = client.post(url, "/api/v1/admin/webhook/repeat", &order).await?;
                repeated += at(&answer, "repeated").as_u64().unwrap_or_default();
                match at(&answer, "lastId").as_str().and_then(|id| id.parse::<u64>().ok()) {
                    Some(last) if at(&answer, "more") == true => {
                        order = json!({ "fromId": last.saturating_add(1).to_string() });
                    }
                    Some(_) | None => break,
                }
            }
            if args.json {
                return Ok(json!({ "repeated": repeated }).to_string());
            }
            Ok(format!("{repeated} events are posted once more"))
        }
        Admin::Ready => {
            for url in &ops {
                client.ready(url).await?;
            }
            Ok(done(args, "ready"))
        }
    }
}

struct Asker<'a> {
    args: &'a AdminArgs,
}

impl Asker<'_> {
    async fn get(&self, url: &str, path: &str) -> anyhow::Result<Value> {
        let answer = self.endpoint(url, path)?.get(self.headers()?).await.map_err(|error| unreachable(url, &error))?;
        understood(url, &answer)
    }

    async fn post(&self, url: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = Bytes::from(body.to_string());
        let asked = self.endpoint(url, path)?.post_json(self.headers()?, body).await;
        understood(url, &asked.map_err(|error| unreachable(url, &error))?)
    }

    /// Appends one row a connection, page by page.
    async fn connections(&self, url: &str, limit: usize, rows: &mut Vec<Value>) -> anyhow::Result<()> {
        let (mut after, mut left) = (String::new(), limit);
        while left > 0 {
            let path = format!("/api/v1/admin/connections?limit={}{after}", left.min(PAGE));
            let page = self.get(url, &path).await?;
            let users = at(&page, "items").as_array().map(Vec::as_slice).unwrap_or_default();
            rows.extend(users.iter().flat_map(rows_of));
            left = left.saturating_sub(users.len().max(1));
            match at(&page, "next").as_str() {
                Some(next) => after = format!("&after={}", encoded(next)),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn ready(&self, url: &str) -> anyhow::Result<()> {
        let asked = self.endpoint(url, "/readyz")?.get(HeaderMap::new()).await;
        let answer = asked.map_err(|error| unreachable(url, &error))?;
        if answer.status == hyper::StatusCode::SERVICE_UNAVAILABLE {
            bail!("{url}: {}", String::from_utf8_lossy(&answer.body).trim());
        }
        understood(url, &answer).map(drop)
    }

    fn endpoint(&self, url: &str, path: &str) -> anyhow::Result<Endpoint> {
        let whole = format!("{}{path}", url.trim().trim_end_matches('/'));
        let uri = whole.parse().ok().filter(|uri: &hyper::Uri| matches!(uri.scheme_str(), Some("http" | "https")));
        let uri = uri.with_context(|| format!("{url:?} is not a URL; give one like http://127.0.0.1:8086"))?;
        Ok(Endpoint::new(uri, Duration::from_secs(self.args.timeout), ANSWER_BYTES_MAX)?)
    }

    fn headers(&self) -> anyhow::Result<HeaderMap> {
        let Some(key) = &self.args.api_key else {
            bail!("API_KEY is not set; give the nodes' API_KEY in the environment")
        };
        let mut key =
            HeaderValue::from_str(key.trim()).context("API_KEY can't be sent: it holds control characters")?;
        key.set_sensitive(true);
        Ok(HeaderMap::from_iter([(hyper::header::HeaderName::from_static("x-api-key"), key)]))
    }
}

fn or_default(given: &[String], default: &str) -> Vec<String> {
    if given.is_empty() { vec![default.to_owned()] } else { given.to_vec() }
}

fn unreachable(url: &str, error: &gateway::http_client::RequestError) -> anyhow::Error {
    anyhow::anyhow!("{url} can't be reached: {error}; is the node there?")
}

/// The JSON of a good answer, or what stands against it and what to do.
fn understood(url: &str, answer: &Answer) -> anyhow::Result<Value> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status.is_success() {
        return Ok(body);
    }
    let error = at(&body, "error");
    let said = at(error, "message").as_str().unwrap_or("no reason was given");
    match answer.status.as_u16() {
        401 => bail!("{url} refuses the API key ({said}); it must be the nodes' API_KEY"),
        404 if error.is_null() => bail!("{url} has no such endpoint; is it the right port of a Parley node?"),
        status => match at(error, "field").as_str() {
            Some(field) => bail!("{url} answers {status}: {field} {said}"),
            None => bail!("{url} answers {status}: {said}"),
        },
    }
}

/// A field of an answer; null if there is none.
fn at<'v>(value: &'v Value, field: &str) -> &'v Value {
    value.get(field).unwrap_or(&Value::Null)
}

/// A user's connections, each a row that names the user.
fn rows_of(user: &Value) -> Vec<Value> {
    let connections = at(user, "connections").as_array().map(Vec::as_slice).unwrap_or_default();
    let of_user = ["userId", "channels"].map(|field| (field.to_owned(), at(user, field).clone()));
    let row = |connection: &Value| {
        let fields = connection.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
        fields.chain(of_user.clone()).collect()
    };
    connections.iter().map(row).collect()
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn done(args: &AdminArgs, what: &str) -> String {
    if args.json { json!({ "ok": true, "message": what }).to_string() } else { what.to_owned() }
}

fn print(args: &AdminArgs, rows: Vec<Value>, columns: &[&str]) -> String {
    if args.json {
        return Value::Array(rows).to_string();
    }
    table(&rows, columns)
}

/// Aligned columns under their names; columns that no row has are left out.
fn table(rows: &[Value], columns: &[&str]) -> String {
    let columns: Vec<&str> = columns
        .iter()
        .copied()
        .filter(|column| rows.is_empty() || rows.iter().any(|row| !at(row, column).is_null()))
        .collect();
    let lines = rows.iter().map(|row| columns.iter().map(|column| shown(at(row, column))).collect::<Vec<_>>());
    let head = columns.iter().map(|column| heading(column)).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let text = lines.iter().map(|line| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    });
    text.collect::<Vec<_>>().join("\n")
}

/// `connectedAt` as `CONNECTED AT`.
fn heading(column: &str) -> String {
    column.chars().fold(String::new(), |mut text, c| {
        if c.is_ascii_uppercase() {
            text.push(' ');
        }
        text.push(c.to_ascii_uppercase());
        text
    })
}

/// A cell: what a node says is shown without what could move the terminal's cursor.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_tame() {
        let rows = [
            json!({ "userId": "alice", "queuedBytes": 0, "channels": ["a", "b"] }),
            json!({ "userId": "b\u{1b}[2J", "queuedBytes": 1234 }),
        ];
        let text = table(&rows, &["userId", "dialect", "queuedBytes", "channels"]);
        assert_eq!(text, "USER ID  QUEUED BYTES  CHANNELS\nalice    0             a,b\nb?[2J    1234");
        assert_eq!(table(&[], &["userId"]), "USER ID");
    }

    #[test]
    fn connections_are_rows() {
        let user = json!({ "userId": "a", "channels": ["c"], "connections": [{ "connectionId": "1" }, { "connectionId": "2" }] });
        let ids: Vec<Value> = rows_of(&user).iter().map(|row| row["connectionId"].clone()).collect();
        assert_eq!(ids, ["1", "2"]);
        assert_eq!(rows_of(&user)[0]["userId"], "a");
    }
}
