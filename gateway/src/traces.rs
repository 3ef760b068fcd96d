//! Traces of messages (send, commit, publish, deliver) as OTLP over HTTP. Off unless a collector is set.
//! It offers [`record`]. The message's id decides the trace's id, and whether it is sampled, so events carry no
//! context.
//! It never puts a user or a content into a span, only times and numbers.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use hyper::Uri;
use hyper::header::HeaderMap;
use metrics::{Counter, counter, describe_counter};
use serde_json::{Value, json};
use shared::MessageId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::http_client::Endpoint;

/// Spans that may wait for the collector; more are dropped, and counted.
const WAITING_MAX: usize = 8192;
/// Spans in one request.
const SPANS_PER_REQUEST: usize = 512;
/// How long a span waits for others.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// How long the collector may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

static TRACES: OnceLock<Traces> = OnceLock::new();

/// A part of a message's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// From the command to its outcome: the whole of what the sender waits for.
    Send,
    /// The batch in the store.
    Commit,
    /// From the commit to the backbone's answer.
    Publish,
    /// From the backbone to the queues of a node's sockets.
    Deliver,
}

/// One span. `count` is the messages of a batch, or the sockets of a delivery.
#[derive(Debug)]
struct Span {
    step: Step,
    message: u64,
    began_ns: u128,
    ended_ns: u128,
    count: u32,
}

#[derive(Debug)]
struct Traces {
    /// Messages whose hash lies below are kept.
    kept_below: u64,
    queue: mpsc::Sender<Span>,
    dropped: Counter,
}

/// The task that sends spans to the collector.
pub struct Exporter {
    queue: mpsc::Receiver<Span>,
    endpoint: Endpoint,
    node: String,
    dropped: Counter,
}

/// Traces this share of the messages (0 to 1) of this process from now on. `url` is the collector's, without `/v1/traces`.
///
/// # Errors
/// The URL can't be used, or this process is being traced already.
pub fn install(url: &str, share: f64, node: &str) -> anyhow::Result<Exporter> {
    let uri: Uri = format!("{}/v1/traces", url.trim_end_matches('/')).parse().context("it is not a URL")?;
    let endpoint = Endpoint::new(uri, ANSWER_WITHIN, ANSWER_BYTES_MAX)?;
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    describe_counter!("parley_spans_dropped_total", "Spans of traces that the collector did not get");
    let dropped = counter!("parley_spans_dropped_total");
    let traces = Traces { kept_below: threshold(share), queue: sender, dropped: dropped.clone() };
    TRACES.set(traces).map_err(|_| anyhow::anyhow!("traces are already set up in this process"))?;
    Ok(Exporter { queue, endpoint, node: node.to_owned(), dropped })
}

/// Whether messages are traced at all, before anything is looked up for it.
#[must_use]
pub fn on() -> bool {
    TRACES.get().is_some()
}

/// A step of a message ended just now.
pub fn record(step: Step, message: MessageId, began: Instant, count: usize) {
    let Some(traces) = TRACES.get() else { return };
    let message = message.get();
    // The salt of the choice is none of the ids'.
    if mix(message ^ 0x9e6d) >= traces.kept_below {
        return;
    }
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let began_ns = ended.saturating_sub(began.elapsed()).as_nanos();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let span = Span { step, message, began_ns, ended_ns: ended.as_nanos(), count };
    if traces.queue.try_send(span).is_err() {
        traces.dropped.increment(1);
    }
}

impl Exporter {
    /// Sends until `stop`, then what is still waiting.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut waiting = Vec::with_capacity(SPANS_PER_REQUEST);
        let mut beat = tokio::time::interval(SEND_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reachable = true;
        loop {
            let stopped = tokio::select! {
                _ = beat.tick() => false,
                () = stop.cancelled() => true,
            };
            while let Ok(span) = self.queue.try_recv() {
                waiting.push(span);
                if waiting.len() == SPANS_PER_REQUEST {
                    self.send(&mut waiting, &mut reachable).await;
                }
            }
            self.send(&mut waiting, &mut reachable).await;
            if stopped {
                return;
            }
        }
    }

    async fn send(&self, spans: &mut Vec<Span>, reachable: &mut bool) {
        if spans.is_empty() {
            return;
        }
        let body = Bytes::from(request(&self.node, spans).to_string());
        let fault = match self.endpoint.post_json(HeaderMap::new(), body).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status)),
            Err(error) => Some(error.to_string()),
        };
        match (&fault, *reachable) {
            (Some(reason), true) => tracing::warn!(reason, "the trace collector does not accept spans"),
            (None, false) => tracing::info!("the trace collector accepts spans again"),
            (Some(_), false) | (None, true) => {}
        }
        *reachable = fault.is_none();
        if fault.is_some() {
            self.dropped.increment(u64::try_from(spans.len()).unwrap_or(0));
        }
        spans.clear();
    }
}

/// An `ExportTraceServiceRequest` in OTLP's JSON encoding.
fn request(node: &str, spans: &[Span]) -> Value {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            attribute("service.name", "parley"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", node),
        ] },
        "scopeSpans": [{ "scope": { "name": "parley" }, "spans": spans.iter().map(Span::to_json).collect::<Vec<_>>() }],
    }] })
}

impl Span {
    fn to_json(&self) -> Value {
        // `send` is the root; it and what it causes have the same ids on every node. Each node delivers by a span of its own.
        let id_of = |step: Step| format!("{:016x}", mix(self.message ^ step.salt()).max(1));
        let (id, parent) = match self.step {
            Step::Send => (id_of(Step::Send), None),
            Step::Commit | Step::Publish => (id_of(self.step), Some(id_of(Step::Send))),
            Step::Deliver => (format!("{:016x}", rand::random::<u64>().max(1)), Some(id_of(Step::Publish))),
        };
        let (name, counted) = match self.step {
            Step::Send => ("send", None),
            Step::Commit => ("commit", Some("parley.batch.messages")),
            Step::Publish => ("publish", Some("parley.publish.deliveries")),
            Step::Deliver => ("deliver", Some("parley.deliver.sockets")),
        };
        let mut attributes =
            vec![json!({ "key": "parley.message.id", "value": { "stringValue": self.message.to_string() } })];
        attributes.extend(counted.map(|key| json!({ "key": key, "value": { "intValue": self.count.to_string() } })));
        json!({
            "traceId": format!("{:016x}{:016x}", mix(self.message ^ 0x7261), mix(self.message ^ 0x6365)),
            "spanId": id,
            "parentSpanId": parent.unwrap_or_default(),
            "name": name,
            "kind": 1,
            "startTimeUnixNano": self.began_ns.to_string(),
            "endTimeUnixNano": self.ended_ns.to_string(),
            "attributes": attributes,
        })
    }
}

impl Step {
    fn salt(self) -> u64 {
        match self {
            Self::Send => 0x10_0000,
            Self::Commit => 0x20_0000,
            Self::Publish => 0x30_0000,
            Self::Deliver => 0x40_0000,
        }
    }
}

/// Spreads numbers that follow one another over all of 64 bits (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share needs no more precision, and a cast from a float keeps to the bounds"
)]
fn threshold(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_keeps_the_same_share() {
        let kept = (1..100_000_u64).filter(|message| mix(message ^ 0x9e6d) < threshold(0.1)).count();
        assert!((9_000..11_000).contains(&kept), "{kept} of 100,000");
        assert_eq!((threshold(0.0), threshold(1.0), threshold(7.0)), (0, u64::MAX, u64::MAX));
    }

    #[test]
    fn ids_are_the_same_on_every_node() {
        let span = |step| Span { step, message: 42, began_ns: 1, ended_ns: 2, count: 3 }.to_json();
        assert_eq!(span(Step::Send)["traceId"], span(Step::Deliver)["traceId"]);
        assert_eq!(span(Step::Commit)["parentSpanId"], span(Step::Send)["spanId"]);
        assert_eq!(span(Step::Deliver)["parentSpanId"], span(Step::Publish)["spanId"]);
        assert_ne!(span(Step::Commit)["spanId"], span(Step::Publish)["spanId"]);
        assert_eq!(span(Step::Send)["traceId"].as_str().map(str::len), Some(32));
    }
}
