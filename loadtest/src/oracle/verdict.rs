//! The checker's verdict, and its text.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::Report;
use crate::seed::Seed;

/// How many violations of each kind are spelled out.
const SHOWN_PER_KIND: usize = 5;

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// Acknowledged, but not in the store.
    LostAck,
    /// Acknowledged as another message than the one stored, or twice as different ones.
    AckMismatch,
    /// Two rows for one `tempId` of one sender.
    DoubleStored,
    /// A conversation's `seq` skips or repeats a number in the store.
    StoreDisorder,
    /// Stored, and a recipient's device never got it.
    Undelivered,
    /// Stored, and a device got it only because it looked for a hole itself: nobody told it.
    SilentHole,
    /// A device got it twice.
    Doubled,
    /// A connection's log skipped a `seq`.
    LogGap,
    /// A connection's log went back or repeated a `seq`.
    LogDisorder,
    /// Two connections of a user saw different events at one place of the log.
    LogDisagrees,
    /// `resumed: true` at another position than asked for.
    ResumeMismatch,
    /// `resumed: false`, and no `resync` followed.
    ResyncMissing,
    /// Delivered, but not in the store, or at another place there.
    Phantom,
    /// REST history and the database differ.
    HistoryDisagrees,
    /// A device holds another unread count than the store, when traffic rests.
    WrongCount,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The faults.
    pub kind: ViolationKind,
    /// Where.
    pub detail: String,
}

/// The counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages that were to be sent.
    pub attempted: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Answers that said `duplicate`: to a repeated or a raced send.
    pub duplicates: u64,
    /// Messages neither acknowledged nor refused at the end.
    pub unsettled: u64,
    /// Messages refused for good.
    pub refused: u64,
    /// Messages in the store.
    pub stored: u64,
    /// Deliveries that were due: stored messages times the devices of their conversation's members.
    pub due: u64,
    /// Deliveries that happened.
    pub delivered: u64,
    /// Of these: live, on an open connection.
    pub live: u64,
    /// Of these: brought by a resume.
    pub resumed: u64,
    /// Of these: without a `seq`, while Redis was away.
    pub direct: u64,
    /// Of these: fetched after a `resync`.
    pub fetched: u64,
    /// Deliveries to devices that receive by server-sent events, on whichever of these ways.
    pub stream_deliveries: u64,
    /// Messages that came again on a later connection, under another epoch or after a direct delivery. No fault: a
    /// client drops them by id.
    pub repeated: u64,
    /// Messages that arrived behind a later one of their conversation. No fault: clients sort.
    pub late: u64,
    /// Connections that resumed.
    pub resumes: u64,
    /// Of these: streams that went on behind their last event.
    pub stream_resumes: u64,
    /// Times that a server said `resync`.
    pub resyncs: u64,
    /// Of these: in place of single events in a log.
    pub markers: u64,
    /// Connections beyond each device's first.
    pub reconnects: u64,
    /// Attempts to connect that got neither a WebSocket nor a stream.
    pub connects_failed: u64,
    /// Frames that were not understood.
    pub malformed: u64,
    /// Devices that the server told to stop.
    pub stopped: u64,
    /// Devices that hold the unread counts of the store.
    pub right_counts: u64,
    /// Unread messages in the store, summed up over all devices.
    pub unread_stored: u64,
    /// The longest time in which nothing at all was delivered while messages were sent, in milliseconds.
    pub delivery_gap_ms_max: u64,
    /// When that time began, in milliseconds since the first send of the run.
    pub delivery_gap_at_ms: u64,
    /// The longest time from acknowledgement to delivery, in milliseconds.
    pub delivery_ms_max: u64,
}

/// The result of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// The seed that the run was drawn from; none if the evidence was made by hand.
    pub seed: Option<Seed>,
    /// Counts.
    pub counts: Counts,
    /// Connections that ended, by close code; 0 is one that just broke or was left by the client.
    pub closes: BTreeMap<u16, u64>,
    /// Sends refused for good, by error code.
    pub refusals: BTreeMap<String, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<ViolationKind, u64>,
    /// The first faults of each kind.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Adds a fault.
    pub fn fault(&mut self, kind: ViolationKind, detail: impl FnOnce() -> String) {
        let count = self.faults.entry(kind).or_default();
        *count += 1;
        if *count <= SHOWN_PER_KIND as u64 {
            self.violations.push(Violation { kind, detail: detail() });
        }
    }

    /// How many faults of these kinds there are.
    #[must_use]
    pub fn count(&self, kinds: &[ViolationKind]) -> u64 {
        kinds.iter().filter_map(|kind| self.faults.get(kind)).sum()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The table.
    #[must_use]
    pub fn report(&self) -> Report {
        let counts = &self.counts;
        let mut report = Report::new("oracle");
        let lost = self.count(&[ViolationKind::LostAck, ViolationKind::Undelivered]);
        let doubled = self.count(&[ViolationKind::Doubled, ViolationKind::DoubleStored]);
        let disordered = self.count(&[
            ViolationKind::LogDisorder,
            ViolationKind::LogDisagrees,
            ViolationKind::StoreDisorder,
            ViolationKind::ResumeMismatch,
        ]);
        let holes = self.count(&[ViolationKind::LogGap, ViolationKind::SilentHole, ViolationKind::ResyncMissing]);
        let false_ = self.count(&[ViolationKind::AckMismatch, ViolationKind::Phantom, ViolationKind::HistoryDisagrees]);
        report.row("attempted", counts.attempted);
        report.row("acked", counts.acked);
        report.row("  duplicates among the answers", counts.duplicates);
        report.row("unsettled / refused", format!("{} / {}", counts.unsettled, counts.refused));
        report.row("stored", counts.stored);
        report.row("delivered / due", format!("{} / {}", counts.delivered, counts.due));
        report.row(
            "  live / resumed / direct / fetched",
            format!("{} / {} / {} / {}", counts.live, counts.resumed, counts.direct, counts.fetched),
        );
        report.row("  by streams of server-sent events", counts.stream_deliveries);
        report.row("lost", lost);
        report.row("doubled", doubled);
        report.row("out of order", disordered);
        report.row("holes", holes);
        report.row("false (phantom, wrong ack)", false_);
        report.row("devices with wrong unread counts", self.count(&[ViolationKind::WrongCount]));
        report.row("  right ones / unread messages", format!("{} / {}", counts.right_counts, counts.unread_stored));
        report.row("repeated on a later connection / late", format!("{} / {}", counts.repeated, counts.late));
        report.row(
            "longest delivery gap, ms (began at)",
            format!("{} ({})", counts.delivery_gap_ms_max, counts.delivery_gap_at_ms),
        );
        report.row("longest delivery, ms", counts.delivery_ms_max);
        report.row(
            "reconnects / resumes (by streams) / resyncs (of these markers)",
            format!(
                "{} / {} ({}) / {} ({})",
                counts.reconnects, counts.resumes, counts.stream_resumes, counts.resyncs, counts.markers
            ),
        );
        report.row(
            "connects failed / stopped / malformed",
            format!("{} / {} / {}", counts.connects_failed, counts.stopped, counts.malformed),
        );
        if !self.closes.is_empty() {
            report.row("closes by code", format!("{:?}", self.closes));
        }
        if !self.refusals.is_empty() {
            report.row("refusals by code", format!("{:?}", self.refusals));
        }
        self.judgement(&mut report);
        report
    }

    /// Adds what is wrong, or that nothing is.
    pub fn judgement(&self, report: &mut Report) {
        for violation in &self.violations {
            report.note(format!("{:?}: {}", violation.kind, violation.detail));
        }
        let again = self.seed.map(|seed| format!(": --seed {seed} draws this scenario again")).unwrap_or_default();
        report.note(match self.is_clean() {
            true => "PASS: nothing lost, doubled or out of order, and every unread count right".into(),
            false => format!("FAIL{again}"),
        });
    }
}
