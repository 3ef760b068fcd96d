//! A redo: reads the logs of its users, and publishes what they answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use redis::{Value, from_redis_value};
use shared::{Epoch, UserId};

use super::push_adding::PushAdding;
use crate::backbone::push_jobs::job_of;
use crate::backbone::queue::Queue;
use crate::backbone::redis::connect::server::failed;
use crate::backbone::redis::link::Link;
use crate::backbone::redis::{log, scripts};
use crate::backbone::redo::{KnownLog, Outcomes, answer_all};
use crate::backbone::{BackboneError, BackboneHost, Delivery, DeliveryOutcome, LogHead, PushJob};

/// Entries that one call reads: Redis does nothing else meanwhile, for a millisecond at the most.
const ENTRIES_PER_CALL: usize = 128;

/// Carries out [`Backbone::redo`](crate::backbone::Backbone::redo).
pub(in crate::backbone::redis) async fn redo(
    link: &Arc<Link>,
    queue: &Queue,
    host: &Arc<dyn BackboneHost>,
    deliveries: &[Delivery],
) -> Result<Outcomes, BackboneError> {
    let began = Instant::now();
    let users: BTreeSet<&UserId> = deliveries.iter().map(|delivery| &delivery.user).collect();
    let mut logs = HashMap::with_capacity(users.len());
    let mut unread = HashMap::new();
    for user in users {
        match read(link, user).await {
            Ok(log) => drop(log.map(|log| logs.insert(user.clone(), log))),
            Err(fault) => drop(unread.insert(user, fault)),
        }
    }
    // Nothing is decided for a user whose log can't be read.
    let readable: Vec<Delivery> =
        deliveries.iter().filter(|delivery| !unread.contains_key(&delivery.user)).cloned().collect();
    let mut answered = answer_all(&readable, &logs);
    let published = queue.publish_each(std::mem::take(&mut answered.deliveries), Some(began)).await?;
    let outcomes = answered.outcomes(&published);
    // A marker names several messages: each wants its job, if nobody is there to be told.
    let unseen =
        readable.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Ok(DeliveryOutcome::Marked(0))));
    let jobs: Vec<PushJob> = unseen.filter_map(|(delivery, _)| job_of(delivery)).collect();
    if !jobs.is_empty() {
        PushAdding::new(Arc::clone(link), Arc::clone(host)).add_all(jobs).await?;
    }
    let mut outcomes = outcomes.into_iter();
    let outcome = |delivery: &Delivery| match unread.get(&delivery.user) {
        Some(fault) => Some(Err(fault.clone())),
        None => outcomes.next(),
    };
    Ok(deliveries.iter().filter_map(outcome).collect())
}

/// Reads which events a user's log has, from its end to its beginning, where nobody appends those of the redo meanwhile.
/// `None`: there is no log of this server, or it was begun anew meanwhile.
async fn read(link: &Link, user: &UserId) -> Result<Option<KnownLog>, BackboneError> {
    let (keys, mut before) = (link.keys(), "+".to_owned());
    let mut known: Option<KnownLog> = None;
    loop {
        let mut call = scripts::call(&link.scripts.events, &[keys.log(user)]);
        call.arg(&before).arg(ENTRIES_PER_CALL);
        let fields: Vec<bytes::Bytes> = match link.run_script(&call).await? {
            Value::Nil => return Ok(None),
            fields => from_redis_value(fields).map_err(|error| failed(error.into()))?,
        };
        let (LogHead { epoch, floor, .. }, entries) = log::head_and_rest(&fields)?;
        let log = known.get_or_insert_with(|| KnownLog::new(epoch.clone(), begun_ms(&epoch), floor));
        if log.epoch != epoch {
            return Ok(None);
        }
        log.floor = floor;
        let mut first = None;
        for entry in entries.chunks(2) {
            let [seq, stamp] = entry else { return Err(log::unreadable()) };
            // The id of an entry that isn't ours may be any.
            let Ok(seq) = log::number(seq) else { continue };
            log.note(seq, std::str::from_utf8(stamp).unwrap_or_default());
            first = Some(seq);
        }
        match first.filter(|_| entries.len() == 2 * ENTRIES_PER_CALL) {
            Some(first) => before = format!("(1-{first}"),
            None => return Ok(known),
        }
    }
}

/// When a log began: its epoch's name tells it, `<server>.<unix ms>-<nonce>`.
fn begun_ms(epoch: &Epoch) -> Option<i64> {
    let (_, rest) = epoch.as_str().split_once('.')?;
    rest.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_tells_when_its_log_began() {
        for (epoch, begun) in [("0a1b2c3d.1763730000000-9f1", Some(1_763_730_000_000)), ("0a1b2c3d.9f1", None)] {
            assert_eq!(begun_ms(&Epoch::parse(epoch).expect("an epoch")), begun);
        }
    }
}
