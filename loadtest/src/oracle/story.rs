//! What a device saw of one message, for people who look for the cause of a violation.

use shared::MessageId;

use super::evidence::{DeviceEvidence, Entry, FetchReason, Record};

/// Steps that are told; the last ones, if there are more.
const STEPS_MAX: usize = 40;

/// Everything that concerns the message, and each change of the device's place in its log, with the seconds since the run's
/// start.
pub(super) fn story(device: &DeviceEvidence, message: MessageId) -> String {
    let acks = device.log.acks.iter().filter(|ack| ack.message.id == message);
    let mut steps: Vec<(u64, String)> = acks.map(|ack| (ack.at_us, format!("acknowledged {}", ack.temp_id))).collect();
    steps.extend(device.log.records.iter().filter_map(|record| Some((record.at_us, step(record, message)?))));
    steps.sort_by_key(|(at_us, _)| *at_us);
    let told = steps.split_off(steps.len().saturating_sub(STEPS_MAX));
    let told = told.into_iter().map(|(at_us, step)| format!("{}.{:03} {step}", at_us / 1_000_000, at_us / 1000 % 1000));
    told.collect::<Vec<_>>().join("; ")
}

fn step(Record { entry, .. }: &Record, wanted: MessageId) -> Option<String> {
    Some(match entry {
        Entry::Opened { asked, resumed, place } => {
            format!("opened at {}:{}, asked for {asked:?}, resumed {resumed}", place.epoch, place.seq)
        }
        Entry::Durable { seq, message: Some(message) } if message.id == wanted => format!("event {seq} is it"),
        Entry::Direct(message) if message.id == wanted => "it came without a place".to_owned(),
        Entry::Fetched { reason: FetchReason::Start, message } if message.id == wanted => {
            "the first fetch brought it".to_owned()
        }
        Entry::Fetched { reason: FetchReason::Resync, message } if message.id == wanted => {
            "a resync's fetch brought it".to_owned()
        }
        Entry::Fetched { reason: FetchReason::Hole, message } if message.id == wanted => {
            "the fetch of a hole brought it".to_owned()
        }
        Entry::Position { place, stands_for: None } => format!("position {}:{}", place.epoch, place.seq),
        Entry::Resync { place, is_marker: false } => format!("resync {}:{}", place.epoch, place.seq),
        Entry::Adopted => "the resync is done".to_owned(),
        Entry::Closed => "closed".to_owned(),
        Entry::Durable { .. }
        | Entry::Direct(_)
        | Entry::Fetched { .. }
        | Entry::Position { stands_for: Some(_), .. }
        | Entry::Resync { is_marker: true, .. } => return None,
    })
}
