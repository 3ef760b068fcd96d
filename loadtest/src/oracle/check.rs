//! The proof: compares acknowledged, stored and received messages, and the unread counts of both sides. A pure function.

use std::collections::{HashMap, HashSet};

use shared::{ConversationId, MessageId, UserId};

use super::counts::check_counts;
use super::evidence::{Ack, ConversationFacts, Evidence, MessageRow};
use super::replay::{Arrival, DeliveryPath, Logs, Observations, Replay};
use super::verdict::{Verdict, ViolationKind};
use crate::client::Transport;

/// Judges a run.
#[must_use]
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    let stored: HashMap<MessageId, &MessageRow> = evidence.stored.iter().map(|row| (row.message.id, row)).collect();
    count(evidence, &mut verdict);
    check_store(evidence, &mut verdict);
    let acked_us = check_acks(evidence, &stored, &mut verdict);
    check_counts(evidence, &mut verdict);
    let due = due_by_user(&evidence.conversations, &evidence.stored);

    let mut logs = Logs::new();
    let mut arrivals_us = Vec::new();
    for device in &evidence.devices {
        let (delivered_before, resumes_before) = (verdict.counts.delivered, verdict.counts.resumes);
        let Observations { arrivals, sightings } = Replay::through(device, &mut verdict, &mut logs);
        for sighting in &sightings {
            let known = evidence.conversations.get(&sighting.conversation);
            let of_this_run = known.is_some_and(|facts| sighting.seq > facts.base_seq);
            if of_this_run && stored.get(&sighting.id).is_none_or(|row| row.message != *sighting) {
                verdict.fault(ViolationKind::Phantom, || {
                    format!("{} got {sighting:?}, which is not stored so", device.user)
                });
            }
        }
        for id in due.get(&device.user).into_iter().flatten() {
            let arrival = arrivals.get(id);
            arrivals_us.extend(arrival.map(|arrival| arrival.at_us));
            verdict.counts.due += 1;
            let who = || format!("message {id} for {} (device {})", device.user, device.number);
            match arrival {
                None => verdict.fault(ViolationKind::Undelivered, who),
                Some(Arrival { path: DeliveryPath::Hole, .. }) => verdict.fault(ViolationKind::SilentHole, who),
                Some(arrival) => delivered(*arrival, acked_us.get(id).copied(), &mut verdict),
            }
        }
        if device.transport == Transport::Stream {
            let counts = &mut verdict.counts;
            counts.stream_deliveries += counts.delivered - delivered_before;
            counts.stream_resumes += counts.resumes - resumes_before;
        }
    }
    let (gap_ms, at_ms) = longest_gap_ms(evidence, arrivals_us);
    verdict.counts.delivery_gap_ms_max = gap_ms;
    verdict.counts.delivery_gap_at_ms = at_ms;
    verdict
}

fn count(evidence: &Evidence, verdict: &mut Verdict) {
    let Verdict { counts, closes, refusals, .. } = verdict;
    counts.attempted = evidence.attempts.len() as u64;
    counts.stored = evidence.stored.len() as u64;
    for device in &evidence.devices {
        let log = &device.log;
        counts.acked += log.acks.len() as u64;
        counts.duplicates += log.duplicates.len() as u64;
        counts.refused += log.refused.values().sum::<u64>();
        counts.unsettled += log.unsettled as u64;
        counts.connects_failed += log.failures.iter().filter(|failure| !failure.upgraded).count() as u64;
        counts.malformed += log.malformed;
        counts.stopped += u64::from(log.stopped);
        for (code, times) in &log.closes {
            *closes.entry(*code).or_default() += times;
        }
        for (code, times) in &log.refused {
            *refusals.entry(code.clone()).or_default() += times;
        }
    }
}

/// One row for one `tempId`; in every conversation `seq` counts from the base without a gap.
fn check_store(evidence: &Evidence, verdict: &mut Verdict) {
    let mut names: HashMap<(&UserId, &str), MessageId> = HashMap::new();
    let mut seqs: HashMap<&ConversationId, Vec<u64>> = HashMap::new();
    for row in &evidence.stored {
        seqs.entry(&row.message.conversation).or_default().push(row.message.seq);
        let Some(temp_id) = row.temp_id.as_deref() else { continue };
        if let Some(first) = names.insert((&row.sender, temp_id), row.message.id) {
            verdict.fault(ViolationKind::DoubleStored, || {
                format!("{temp_id} of {} is message {first} and message {}", row.sender, row.message.id)
            });
        }
    }
    for (conversation, mut seqs) in seqs {
        seqs.sort_unstable();
        let mut last = evidence.conversations.get(conversation).map_or(0, |facts| facts.base_seq);
        for seq in seqs {
            if seq != last + 1 {
                verdict.fault(ViolationKind::StoreDisorder, || format!("{conversation}: {last} is followed by {seq}"));
            }
            last = seq;
        }
    }
}

/// Every acknowledgement names a row, the same each time. Returns when each message was first acknowledged.
fn check_acks(
    evidence: &Evidence,
    stored: &HashMap<MessageId, &MessageRow>,
    verdict: &mut Verdict,
) -> HashMap<MessageId, u64> {
    let mut acked_us = HashMap::new();
    let mut by_name: HashMap<(&UserId, &str), &Ack> = HashMap::new();
    for device in &evidence.devices {
        for ack in device.log.acks.iter().chain(&device.log.duplicates) {
            let first_us = acked_us.entry(ack.message.id).or_insert(ack.at_us);
            *first_us = ack.at_us.min(*first_us);
            if let Some(first) = by_name.insert((&device.user, &ack.temp_id), ack)
                && first.message != ack.message
            {
                verdict.fault(ViolationKind::AckMismatch, || {
                    format!("{} is {:?} and {:?}", ack.temp_id, first.message, ack.message)
                });
            }
            match stored.get(&ack.message.id) {
                None => verdict
                    .fault(ViolationKind::LostAck, || format!("{} acknowledged as {:?}", ack.temp_id, ack.message)),
                Some(row) => {
                    let named = row.temp_id.as_ref().is_none_or(|temp_id| *temp_id == ack.temp_id);
                    if row.message != ack.message || row.sender != device.user || !named {
                        verdict.fault(ViolationKind::AckMismatch, || {
                            format!("{} acknowledged as {:?}, stored {row:?}", ack.temp_id, ack.message)
                        });
                    }
                }
            }
        }
    }
    acked_us
}

/// The messages that each user must get: all of their conversations', their own included.
pub(super) fn due_by_user<'a>(
    conversations: &'a HashMap<ConversationId, ConversationFacts>,
    stored: &[MessageRow],
) -> HashMap<&'a UserId, HashSet<MessageId>> {
    let mut due: HashMap<&UserId, HashSet<MessageId>> = HashMap::new();
    for row in stored {
        let members = conversations.get(&row.message.conversation).map(|facts| facts.members.as_slice());
        for member in members.unwrap_or_default() {
            due.entry(member).or_default().insert(row.message.id);
        }
    }
    due
}

fn delivered(arrival: Arrival, acked_us: Option<u64>, verdict: &mut Verdict) {
    let counts = &mut verdict.counts;
    counts.delivered += 1;
    match arrival.path {
        DeliveryPath::Log { opened_us, by_resume: true } if acked_us.is_some_and(|acked_us| acked_us < opened_us) => {
            counts.resumed += 1
        }
        DeliveryPath::Log { .. } => counts.live += 1,
        DeliveryPath::Direct => counts.direct += 1,
        DeliveryPath::Resync | DeliveryPath::Hole => counts.fetched += 1,
    }
    let took_us = acked_us.map_or(0, |acked_us| arrival.at_us.saturating_sub(acked_us));
    counts.delivery_ms_max = counts.delivery_ms_max.max(took_us / 1000);
}

/// The longest time between two deliveries to anybody, from the first send to the last, and when it began after the
/// first send.
fn longest_gap_ms(evidence: &Evidence, mut arrivals_us: Vec<u64>) -> (u64, u64) {
    let sends = || evidence.attempts.iter().map(|attempt| attempt.at_us);
    let (Some(first), Some(last)) = (sends().min(), sends().max()) else { return (0, 0) };
    arrivals_us.sort_unstable();
    // The first delivery after the last send ends the last gap.
    let end = arrivals_us.iter().copied().find(|at| *at >= last).unwrap_or(last);
    let moments = std::iter::once(first).chain(arrivals_us.into_iter().filter(|at| (first..=end).contains(at)));
    let moments: Vec<u64> = moments.chain(std::iter::once(end)).collect();
    let gaps = moments.iter().zip(moments.iter().skip(1)).map(|(from, to)| (to.saturating_sub(*from), from - first));
    let (gap_us, at_us) = gaps.max().unwrap_or((0, 0));
    (gap_us / 1000, at_us / 1000)
}
