//! Metrics, each handle made once: looking one up by name on the hot path costs ten times as much.
//!
//! No label holds anything that a user can choose.

use std::collections::HashMap;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use shared::ErrorCode;
use shared::event::ResyncReason;

use crate::ws::socket::Ended;

/// Bounds of the histograms of times, in seconds.
const SECONDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Every command's label.
const COMMANDS: [&str; 11] = [
    "auth",
    "ping",
    "message.send",
    "message.read",
    "message.delivered",
    "typing",
    "block.add",
    "block.remove",
    "conversation.join",
    "conversation.leave",
    "presence.query",
];

/// The handles.
pub struct Metrics {
    /// Open sockets, not yet authenticated ones included.
    pub connections: Gauge,
    /// Users with a socket here.
    pub users: Gauge,
    /// Events queued on sockets.
    pub events_queued: Counter,
    /// Ephemeral events that found no room.
    pub dropped_ephemeral: Counter,
    /// Sockets over their byte budget.
    pub slow_consumers: Counter,
    /// Payloads from the backbone that were no envelopes.
    pub poisoned: Counter,
    /// Events brought from the log to open sockets.
    pub healed: Counter,
    /// Messages handed to local sockets while the backbone was away.
    pub direct: Counter,
    /// Open sockets told of a new epoch without a loss.
    pub positions: Counter,
    /// Connections that resumed.
    pub resumed: Counter,
    /// Pings sent.
    pub pings: Counter,
    /// Sessions whose task panicked.
    pub panics: Counter,
    /// From the command to its answer, for sends.
    pub commit_seconds: Histogram,
    /// From the commit to the backbone's answer.
    pub publish_seconds: Histogram,
    /// Outbox rows whose publication failed and which the sweeper takes.
    pub publish_failed: Counter,
    /// Outbox rows published late, by the sweeper.
    pub redone: Counter,
    /// Messages delivered live and kept until the store takes them.
    pub late_kept: Counter,
    /// Events of such messages queued on sockets.
    pub late_delivered: Counter,
    /// Those that it took.
    pub late_stored: Counter,
    /// Those that found no room, or that it refused.
    pub late_refused: Counter,
    /// The age of the oldest unpublished outbox row.
    pub outbox_age_seconds: Gauge,
    /// 1 while the backbone carries events.
    pub backbone_up: Gauge,
    /// 1 while the store answers.
    pub store_up: Gauge,
    /// Lines of the audit trail that were written.
    pub audit_written: Counter,
    /// Lines of the audit trail that found no room, or that the store didn't take.
    pub audit_dropped: Counter,
    commands: HashMap<&'static str, Counter>,
    errors: HashMap<ErrorCode, Counter>,
    resyncs: HashMap<ResyncReason, Counter>,
}

impl Metrics {
    /// Makes every handle on the recorder that is installed.
    #[must_use]
    pub fn new() -> Self {
        describe();
        Self {
            connections: gauge!("parley_connections"),
            users: gauge!("parley_users"),
            events_queued: counter!("parley_events_queued_total"),
            dropped_ephemeral: counter!("parley_ephemeral_dropped_total"),
            slow_consumers: counter!("parley_slow_consumers_total"),
            poisoned: counter!("parley_backbone_poisoned_total"),
            healed: counter!("parley_healed_events_total"),
            direct: counter!("parley_direct_deliveries_total"),
            positions: counter!("parley_positions_total"),
            resumed: counter!("parley_resumes_total", "result" => "resumed"),
            pings: counter!("parley_pings_total"),
            panics: counter!("parley_session_panics_total"),
            commit_seconds: histogram!("parley_commit_seconds"),
            publish_seconds: histogram!("parley_publish_seconds"),
            publish_failed: counter!("parley_outbox_publish_failed_total"),
            redone: counter!("parley_outbox_redone_total"),
            late_kept: counter!("parley_late_messages_total", "outcome" => "kept"),
            late_delivered: counter!("parley_late_deliveries_total"),
            late_stored: counter!("parley_late_messages_total", "outcome" => "stored"),
            late_refused: counter!("parley_late_messages_total", "outcome" => "refused"),
            outbox_age_seconds: gauge!("parley_outbox_age_seconds"),
            backbone_up: gauge!("parley_backbone_up"),
            store_up: gauge!("parley_store_up"),
            audit_written: counter!("parley_audit_written_total"),
            audit_dropped: counter!("parley_audit_dropped_total"),
            commands: COMMANDS.map(|name| (name, counter!("parley_commands_total", "type" => name))).into(),
            errors: ErrorCode::ALL.map(|code| (code, counter!("parley_errors_total", "code" => code.as_str()))).into(),
            resyncs: [ResyncReason::Epoch, ResyncReason::Trimmed, ResyncReason::Future, ResyncReason::Invalid]
                .map(|reason| (reason, counter!("parley_resyncs_total", "reason" => reason.as_str())))
                .into(),
        }
    }

    /// A command came.
    pub fn command(&self, name: &'static str) {
        if let Some(counter) = self.commands.get(name) {
            counter.increment(1);
        }
    }

    /// A command was answered with an error.
    pub fn error(&self, code: ErrorCode) {
        if let Some(counter) = self.errors.get(&code) {
            counter.increment(1);
        }
    }

    /// A client was told to fetch what it missed.
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

    /// A socket ended; who closed it, and why if it was the server.
    pub fn ended(&self, ended: &Ended) {
        let (by, reason) = match ended {
            Ended::Peer(_) => ("client", "closed"),
            Ended::Vanished => ("client", "vanished"),
            Ended::Fault(_) => ("server", "websocket_fault"),
            Ended::Closed { code, .. } => ("server", code.reason()),
            Ended::Aborted => ("server", "write_timeout"),
            Ended::Io(_) => ("client", "io_error"),
        };
        counter!("parley_closes_total", "by" => by, "reason" => reason).increment(1);
    }
}

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
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?;
    let handle = builder.install_recorder()?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

fn describe() {
    describe_gauge!("parley_connections", "Open sockets");
    describe_gauge!("parley_users", "Users with a socket on this node");
    describe_counter!("parley_events_queued_total", "Events queued on sockets");
    describe_counter!("parley_ephemeral_dropped_total", "Ephemeral events that found no room in a socket's queue");
    describe_counter!("parley_slow_consumers_total", "Sockets closed because they read too slowly");
    describe_counter!("parley_backbone_poisoned_total", "Payloads from the backbone that were dropped as malformed");
    describe_counter!("parley_healed_events_total", "Events brought from the log to open sockets");
    describe_counter!("parley_direct_deliveries_total", "Messages handed to local sockets while the backbone was away");
    describe_counter!("parley_positions_total", "Users told of a new epoch without a loss");
    describe_counter!("parley_resumes_total", "Connections that asked to resume, by result");
    describe_counter!("parley_resyncs_total", "Clients told to fetch what they missed, by reason");
    describe_counter!("parley_pings_total", "Pings sent to silent clients");
    describe_counter!("parley_session_panics_total", "Sessions that ended by a fault of the server");
    describe_histogram!("parley_commit_seconds", "From a send to its commit");
    describe_histogram!("parley_publish_seconds", "From a commit to the backbone's answer");
    describe_counter!("parley_outbox_publish_failed_total", "Publications that failed and are left to the sweeper");
    describe_counter!("parley_outbox_redone_total", "Outbox rows published late");
    describe_counter!("parley_late_deliveries_total", "Messages handed to sockets before they were stored");
    describe_counter!(
        "parley_late_messages_total",
        "Messages delivered live without the store, by what became of them"
    );
    describe_gauge!("parley_outbox_age_seconds", "Age of the oldest unpublished outbox row");
    describe_gauge!("parley_backbone_up", "1 while the backbone carries events");
    describe_gauge!("parley_store_up", "1 while the store answers");
    describe_counter!("parley_audit_written_total", "Lines written to the audit trail");
    describe_counter!("parley_audit_dropped_total", "Lines of the audit trail that were dropped: the store was away");
    describe_counter!("parley_commands_total", "Commands by type");
    describe_counter!("parley_errors_total", "Error answers by code");
    describe_counter!("parley_auth_service_total", "Questions to the authentication service by result");
    describe_histogram!("parley_auth_service_seconds", "From a question to the authentication service to its answer");
    describe_gauge!("parley_auth_service_open", "1 while the authentication service fails and is not asked");
    describe_counter!("parley_jwks_fetches_total", "Fetches of the issuer's public keys by result");
    describe_counter!("parley_handshakes_total", "Handshakes by result");
    describe_counter!("parley_push_total", "Push notifications by result: delivered, retried, dead, obsolete");
    describe_counter!("parley_closes_total", "Connections that ended, by who closed them and why");
}
