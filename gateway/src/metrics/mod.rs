//! Metrics: one table of names, help texts and handles. Names follow Prometheus: base units, `_total` for counters.
//! It offers [`Metrics`], whose handles are made once: looking one up by name takes ten times as long on the hot path.
//! It never labels a metric with a value that a user can choose.

mod process;

use std::collections::HashMap;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use shared::event::ResyncReason;
use shared::{Command, ErrorCode, Event};

use crate::overload::Kind;
pub use process::heap_is_read_by;

/// Bounds of the histograms of times, in seconds.
const SECONDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Bounds of the histogram of batches, in messages.
const MESSAGES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The kind of envelope that comes over the backbone and is no [`Event`]: a message that is not stored yet.
const LIVE: &str = "message.live";

/// The handles and how they are made, one row each.
macro_rules! handles {
    ($($(#[$doc:meta])* $public:vis $field:ident: $type:ty = $handle:expr;)+) => {
        /// The handles.
        #[expect(missing_docs, reason = "a handle's help text says what it measures")]
        pub struct Metrics { $($(#[$doc])* $public $field: $type,)+ }

        impl Metrics {
            /// Makes every handle on the recorder that is installed.
            #[must_use]
            pub fn new() -> Self {
                describe();
                begin_at_zero();
                gauge!("parley_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
                Self { $($field: $handle,)+ }
            }
        }
    };
}

handles! {
    /// Not yet authenticated ones included.
    pub connections: Gauge = gauge("parley_connections", "Open sockets");
    pub event_streams: Gauge =
        gauge("parley_event_streams", "Open streams of server-sent events, which parley_connections counts as well");
    pub users: Gauge = gauge("parley_users", "Users with a socket on this node");
    pub sessions: Gauge = gauge("parley_sessions", "Open sockets of authenticated users");
    pub connections_max: Gauge =
        gauge("parley_connections_limit", "How many sockets this node takes (MAX_CONNECTIONS)");
    pub queue_bytes: Gauge = gauge("parley_queue_bytes", "Bytes that wait to be written to sockets");
    pub queue_bytes_max: Gauge =
        gauge("parley_queue_largest_bytes", "Bytes that wait for the socket for which the most waits");
    pub events_queued: Counter = counter("parley_events_queued_total", "Events queued on sockets");
    pub dropped_ephemeral: Counter =
        counter("parley_ephemeral_dropped_total", "Ephemeral events that were dropped because a socket's queue was full");
    pub slow_consumers: Counter = counter("parley_slow_consumers_total", "Sockets closed because they read too slowly");
    pub poisoned: Counter =
        counter("parley_backbone_poisoned_total", "Payloads from the backbone that were dropped as malformed");
    pub healed: Counter = counter("parley_healed_events_total", "Events that open sockets got from the log");
    pub gaps: Counter =
        counter("parley_gaps_total", "Live events after a gap on a socket; the gap is read from the log");
    pub topics: Gauge = gauge("parley_large_conversations", "Large conversations that a socket here belongs to");
    pub topic_gaps: Counter =
        counter("parley_large_gaps_total", "Events of large conversations after a gap; the gap is read from the store");
    pub topic_reads: Counter =
        counter("parley_large_reads_total", "Reads of the store for large conversations: to begin, to fill gaps, to resume");
    pub topic_healed: Counter =
        counter("parley_large_healed_total", "Gaps of large conversations that were filled from the store");
    pub topic_resyncs: Counter =
        counter("parley_large_resyncs_total", "Sockets that were told to fetch what they missed of a large conversation");
    pub heals_failed: Counter =
        counter("parley_heals_failed_total", "Logs that could not be read although a socket lacks events");
    pub count_loads_failed: Counter =
        counter("parley_count_loads_failed_total", "Loads of unread counts from the store that failed; they are repeated");
    pub direct: Counter =
        counter("parley_direct_deliveries_total", "Messages handed to local sockets while the backbone was away");
    pub markers: Counter = counter("parley_markers_total", "Messages in whose place a marker was put into a log");
    pub pings: Counter = counter("parley_pings_total", "Pings sent to silent clients");
    pub panics: Counter = counter("parley_session_panics_total", "Sessions that ended by a fault of the server");
    pub commit_seconds: Histogram = histogram("parley_commit_seconds", "From a send to its commit");
    pub hook_seconds: Histogram = histogram("parley_hook_seconds", "From a question to the hook to its answer");
    pub webhook_lag_seconds: Gauge =
        gauge("parley_webhook_lag_seconds", "Age of the oldest event that the events webhook is owed");
    pub webhook_owed: Gauge =
        gauge("parley_webhook_owed", "Events that the events webhook is owed; at most 100,000 are counted");
    pub webhook_dead: Gauge =
        gauge("parley_webhook_dead", "Events of the webhook that are kept as dead; at most 100,000 are counted");
    pub webhook_delivering: Gauge =
        gauge("parley_webhook_delivering", "1 on the node that delivers the events of the webhook");
    pub publish_seconds: Histogram = histogram("parley_publish_seconds", "From a commit to the backbone's answer");
    pub publish_failed: Counter =
        counter("parley_outbox_publish_failed_total", "Publications that failed and are left to the sweeper");
    pub redone: Counter = counter("parley_outbox_redone_total", "Outbox rows published late");
    pub late_kept: Counter = late("kept");
    pub late_delivered: Counter =
        counter("parley_late_deliveries_total", "Messages handed to sockets before they were stored");
    pub late_stored: Counter = late("stored");
    pub late_refused: Counter = late("refused");
    pub outbox_age_seconds: Gauge = gauge("parley_outbox_age_seconds", "Age of the oldest unpublished outbox row");
    pub backbone_up: Gauge = gauge("parley_backbone_up", "1 while the backbone carries events");
    pub store_up: Gauge = gauge("parley_store_up", "1 while the store answers");
    pub audit_written: Counter = counter("parley_audit_written_total", "Lines written to the audit trail");
    pub audit_dropped: Counter =
        counter("parley_audit_dropped_total", "Lines of the audit trail that were dropped: the store was away");
    pub store_ping_seconds: Histogram =
        histogram("parley_store_ping_seconds", "How long the store takes to answer the question of readiness");
    pub ready: Gauge = gauge("parley_ready", "1 while the node may be sent users, as /readyz says");
    pub draining: Gauge = gauge("parley_draining", "1 from SIGTERM on");
    resumes: HashMap<Option<ResyncReason>, Counter> = resumes();
    /// Those of other names are `other`, because a backend may name its own as it likes.
    events: ByName = ByName::new("parley_events_total", Event::NAMES.into_iter().chain([LIVE]));
    other_events: Counter = counter!("parley_events_total", "type" => "other");
    commands: ByName = ByName::new("parley_commands_total", Command::NAMES);
    errors: HashMap<ErrorCode, Counter> =
        ErrorCode::ALL.map(|code| (code, counter!("parley_errors_total", "code" => code.as_str()))).into();
    resyncs: HashMap<ResyncReason, Counter> =
        ResyncReason::ALL.map(|reason| (reason, counter!("parley_resyncs_total", "reason" => reason.as_str()))).into();
}

fn gauge(name: &'static str, help: &'static str) -> Gauge {
    describe_gauge!(name, help);
    gauge!(name)
}

fn counter(name: &'static str, help: &'static str) -> Counter {
    describe_counter!(name, help);
    counter!(name)
}

fn histogram(name: &'static str, help: &'static str) -> Histogram {
    describe_histogram!(name, help);
    histogram!(name)
}

fn late(outcome: &'static str) -> Counter {
    counter!("parley_late_messages_total", "outcome" => outcome)
}

/// By the fault that stood against the resume, if any.
fn resumes() -> HashMap<Option<ResyncReason>, Counter> {
    let faults = std::iter::once(None).chain(ResyncReason::ALL.map(Some));
    let result = |fault: Option<ResyncReason>| fault.map_or("resumed", ResyncReason::as_str);
    faults.map(|fault| (fault, counter!("parley_resumes_total", "result" => result(fault)))).collect()
}

/// Counters by the label `type`. The frequent names stand first: finding one costs less than hashing it would.
struct ByName(Box<[(&'static str, Counter)]>);

impl ByName {
    fn new(metric: &'static str, names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(names.into_iter().map(|name| (name, counter!(metric, "type" => name))).collect())
    }

    fn get(&self, name: &str) -> Option<&Counter> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, counter)| counter)
    }
}

impl Metrics {
    /// A command came.
    pub fn command(&self, name: &'static str) {
        match self.commands.get(name) {
            Some(counter) => counter.increment(1),
            None => counter!("parley_commands_total", "type" => name).increment(1),
        }
    }

    /// An event came over the backbone. Other names than ours count as `other`.
    pub fn event(&self, name: &str) {
        self.events.get(name).unwrap_or(&self.other_events).increment(1);
    }

    /// A connection asked to go on where it was; what stood against it, if anything.
    pub fn resume(&self, fault: Option<ResyncReason>) {
        if let Some(counter) = self.resumes.get(&fault) {
            counter.increment(1);
        }
    }

    /// There is a route over REST; `route` is its pattern, and `status` that of its good answers. Its series begin at zero:
    /// a rate needs a value before the first request.
    pub fn route(&self, route: &str, method: &str, status: &str) {
        requests(route, method, status).increment(0);
        request_seconds(route).record_many(0.0, 0);
    }

    /// A request over REST was answered; `route` is its pattern.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        requests(route, method, &status.to_string()).increment(1);
        request_seconds(route).record(took);
    }

    /// A command was answered with an error.
    pub fn error(&self, code: ErrorCode) {
        if let Some(counter) = self.errors.get(&code) {
            counter.increment(1);
        }
    }

    /// A client was notified to fetch missed events.
    pub fn resync(&self, reason: ResyncReason) {
        if let Some(counter) = self.resyncs.get(&reason) {
            counter.increment(1);
        }
    }

    /// A handshake ended; `result` is one of a fixed set of words.
    pub fn handshake(&self, result: &'static str) {
        counter!("parley_handshakes_total", "result" => result).increment(1);
    }

    /// A try of a push notification ended; `result` is one of a fixed set of words.
    pub fn push(&self, result: &'static str) {
        counter!("parley_push_total", "result" => result).increment(1);
    }

    /// Events of the webhook were tried, or died; `result` is one of a fixed set of words.
    pub fn webhook_events(&self, result: &'static str, count: usize) {
        counter!("parley_webhook_events_total", "result" => result).increment(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// How far the events of the webhook are behind.
    #[expect(clippy::cast_precision_loss, reason = "counted up to a bound far below 2^52")]
    pub fn webhook_lag(&self, oldest: Duration, owed: u64, dead: u64) {
        self.webhook_lag_seconds.set(oldest.as_secs_f64());
        self.webhook_owed.set(owed as f64);
        self.webhook_dead.set(dead as f64);
    }

    /// A question to the hook ended; `answer` is one of a fixed set of words.
    pub fn hook(&self, answer: &'static str) {
        counter!("parley_hook_total", "answer" => answer).increment(1);
    }

    /// A socket ended: who ended it, and why.
    pub fn ended(&self, by: &'static str, reason: &'static str) {
        counter!("parley_closes_total", "by" => by, "reason" => reason).increment(1);
    }
}

fn requests(route: &str, method: &str, status: &str) -> Counter {
    let method = METHODS.into_iter().find(|known| known.eq_ignore_ascii_case(method)).unwrap_or("other");
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_owned())];
    counter!("parley_http_requests_total", &labels)
}

fn request_seconds(route: &str) -> Histogram {
    histogram!("parley_http_request_seconds", "route" => route.to_owned())
}

/// Methods that some route has.
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "PATCH", "DELETE"];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Installs the Prometheus recorder of this process, or finds the one that is installed.
pub fn recorder() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    static INSTALL: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one_at_a_time = INSTALL.lock();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_messages".to_owned()), MESSAGES)?;
    let handle = builder.install_recorder()?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// The metrics as Prometheus reads them: those of the recorder, and the process's own.
#[must_use]
pub fn render(prometheus: &PrometheusHandle) -> String {
    let mut text = prometheus.render();
    process::render_into(&mut text);
    text
}

/// Series of metrics whose handles are made where they are used, or when something happens first. A panel without any series
/// shows "no data".
fn begin_at_zero() {
    for result in ["accepted", "vanished", "over_capacity", "auth_unavailable"] {
        counter!("parley_handshakes_total", "result" => result).increment(0);
    }
    for reason in ["closed", "vanished", "io_error"] {
        counter!("parley_closes_total", "by" => "client", "reason" => reason).increment(0);
    }
    for reason in ["websocket_fault", "write_timeout"] {
        counter!("parley_closes_total", "by" => "server", "reason" => reason).increment(0);
    }
    for result in ["delivered", "retried", "dead", "obsolete"] {
        counter!("parley_push_total", "result" => result).increment(0);
    }
    for result in ["delivered", "failed", "dead", "dropped"] {
        counter!("parley_webhook_events_total", "result" => result).increment(0);
    }
    for answer in ["allowed", "replaced", "refused", "none"] {
        counter!("parley_hook_total", "answer" => answer).increment(0);
    }
    for kind in Kind::ALL {
        counter!("parley_refused_total", "kind" => kind.label()).increment(0);
        gauge!("parley_queue_head_seconds", "kind" => kind.label()).set(0.0);
    }
    for name in [
        "parley_backbone_invalid_payloads_total",
        "parley_backbone_reconnects_total",
        "parley_deflate_plain_bytes_total",
        "parley_deflate_compressed_bytes_total",
        "parley_store_batches_failed_total",
    ] {
        counter!(name).increment(0);
    }
    for name in [
        "parley_backbone_lag_seconds",
        "parley_delivery_seconds",
        "parley_store_batch_messages",
        "parley_store_batch_seconds",
    ] {
        histogram!(name).record_many(0.0, 0);
    }
}

/// The help texts of metrics with labels, and of those whose handles are made where they are used.
fn describe() {
    describe_gauge!("parley_build_info", "1; the version is the label");
    describe_counter!("parley_events_total", "Events that came over the backbone, by type");
    describe_counter!("parley_http_requests_total", "Answered REST requests by route, method and status");
    describe_histogram!("parley_http_request_seconds", "From a REST request to its answer, by route");
    describe_histogram!(
        "parley_delivery_seconds",
        "From a message's acceptance (createdAt) to the write to a socket; per write, the oldest message in it"
    );
    describe_counter!(
        "parley_deflate_plain_bytes_total",
        "Bytes of frames before they were compressed, each event once for all sockets that share it"
    );
    describe_counter!("parley_deflate_compressed_bytes_total", "Bytes of the same frames after that");
    describe_histogram!("parley_store_batch_seconds", "How long the store takes for a batch of messages");
    describe_histogram!("parley_store_batch_messages", "Messages in a batch");
    describe_counter!("parley_store_batches_failed_total", "Batches of messages that the store did not take");
    describe_histogram!("parley_backbone_lag_seconds", "From this node's probe to its return through the subscription");
    describe_counter!("parley_backbone_reconnects_total", "Times that the backbone's connections were made anew");
    describe_counter!("parley_backbone_invalid_payloads_total", "Messages on the node's channels that it can't read");
    describe_counter!("parley_resumes_total", "Connections that tried to resume, by result");
    describe_counter!("parley_resyncs_total", "Clients notified to fetch missed events (resync), by reason");
    describe_counter!("parley_late_messages_total", "Messages delivered live without the store, by outcome");
    describe_counter!("parley_commands_total", "Commands by type");
    describe_counter!("parley_errors_total", "Error answers by code");
    describe_counter!("parley_refused_total", "Commands that were refused because too much of their kind waits");
    describe_gauge!("parley_queue_head_seconds", "How long the first that waits has waited, by kind");
    describe_counter!("parley_auth_service_total", "Questions to the authentication service by result");
    describe_histogram!("parley_auth_service_seconds", "From a question to the authentication service to its answer");
    describe_gauge!("parley_auth_service_open", "1 while the authentication service fails and gets no requests");
    describe_counter!("parley_jwks_fetches_total", "Fetches of the issuer's public keys by result");
    describe_counter!("parley_handshakes_total", "Handshakes by result");
    describe_counter!("parley_hook_total", "Questions to the hook by answer: allowed, replaced, refused, none");
    describe_gauge!("parley_hook_open", "1 while the hook isn't asked, after failures in a row");
    describe_counter!(
        "parley_webhook_events_total",
        "Events of the webhook by result: delivered, failed, dead, dropped"
    );
    describe_counter!("parley_push_total", "Push notifications by result: delivered, retried, dead, obsolete");
    describe_counter!("parley_closes_total", "Connections that ended, by the closing side and the reason");
}
