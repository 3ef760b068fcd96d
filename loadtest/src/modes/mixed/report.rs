//! The table of a mixed load: a line per kind.

use super::plan::Kind;
use super::{MixedArgs, Outcome};
use crate::modes::Quantiles;
use crate::report::Report;

/// The table.
pub(super) fn report(args: &MixedArgs, outcome: &Outcome) -> Report {
    let mut report = Report::new("mixed load");
    report.row("rate asked for, per second", args.rate);
    report.row("visitors who left", outcome.departures);
    report.row("connections lost", outcome.connections_lost);
    report.row("users with a stream", outcome.streams);
    report.row("messages that streams brought", outcome.stream_deliveries);
    report.row("errors without a command", format!("{:?}", outcome.errors));
    report.cost(&outcome.cost);
    report.row("CPU, core-seconds per million of all", format!("{:.1}", outcome.cpu_seconds_per_million));
    report.detail(
        [
            "kind",
            "asked",
            "answered",
            "answer ms, p50 / p99 / max",
            "delivered / due",
            "delivery ms, p50 / p99 / max",
            "errors",
        ]
        .map(str::to_owned)
        .to_vec(),
    );
    let times = |times: &Quantiles| match times.count {
        0 => "-".to_owned(),
        _ => format!("{:.2} / {:.2} / {:.2}", times.p50, times.p99, times.max),
    };
    for (kind, of) in &outcome.kinds {
        report.detail(vec![
            format!("{kind:?}").to_lowercase(),
            of.asked.to_string(),
            if *kind == Kind::Typing { "-".into() } else { of.answered.to_string() },
            times(&of.answer_ms),
            if of.due == 0 { "-".into() } else { format!("{} / {}", of.delivered, of.due) },
            times(&of.delivery_ms),
            if of.errors.is_empty() { "-".into() } else { format!("{:?}", of.errors) },
        ]);
    }
    report
}
