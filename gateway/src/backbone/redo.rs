//! What a redo does with an event that its user's log may have already: a pure function of what the log holds.
//!
//! No comparison of two clocks can lose an event: where a clock would have to be believed, the answer is a marker.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use shared::{ConversationId, Epoch, MessageId, NotificationId, UserId};

use super::{BackboneError, Delivery, DeliveryKind, DeliveryOutcome, Durable};
use crate::switches;

/// How much older than a commit something in the log has to be, to be certainly older: Redis' clock and the store's may
/// differ by that, in milliseconds.
const CLOCKS_APART_MS_MAX: i64 = 5_000;
/// Messages and notifications that one marker names.
const MESSAGES_PER_MARKER: usize = 500;

/// The outcome of each delivery of a call.
pub(super) type Outcomes = Vec<Result<DeliveryOutcome, BackboneError>>;

/// What is known of a user's log that was read from its end to its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownLog {
    pub(super) epoch: Epoch,
    /// When it began, in unix milliseconds, if that is known.
    pub(super) begun_ms: Option<i64>,
    /// The highest `seq` that was trimmed; 0 if none was.
    pub(super) floor: u64,
    /// When the oldest of its entries was appended, in unix milliseconds.
    pub(super) oldest_ms: Option<i64>,
    /// The `seq` of each event, by its id.
    pub(super) events: HashMap<Box<str>, u64>,
}

/// What a redo does with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RedoAnswer {
    /// It is appended, if the log has this epoch still.
    Append {
        /// The epoch of the log that was read.
        under: Epoch,
    },
    /// It is published again.
    Again {
        /// The epoch of the log that was read.
        epoch: Epoch,
        /// Its place.
        seq: u64,
    },
    /// A marker is appended.
    Marker,
}

impl KnownLog {
    /// A log of which nothing has been read yet.
    pub(super) fn new(epoch: Epoch, begun_ms: Option<i64>, floor: u64) -> Self {
        Self { epoch, begun_ms, floor, oldest_ms: None, events: HashMap::new() }
    }

    /// Notes an entry by its stamp: the time of its append, and the ids of its events, with `:` before each. Anything else is
    /// nobody's event.
    pub(super) fn note(&mut self, seq: u64, stamp: &str) {
        let mut parts = stamp.split(':');
        let Some(Ok(at)) = parts.next().map(str::parse) else { return };
        self.oldest_ms = Some(self.oldest_ms.map_or(at, |oldest| oldest.min(at)));
        self.events.extend(parts.map(|event| (event.into(), seq)));
    }

    /// Whether an event of this commit would be in the log, if it had ever been published.
    fn would_have(&self, committed_ms: i64) -> bool {
        let begun_ms = self.begun_ms.filter(|_| self.floor == 0);
        let known_since_ms = begun_ms.into_iter().chain(self.oldest_ms).min();
        known_since_ms.is_some_and(|since_ms| since_ms <= committed_ms - CLOCKS_APART_MS_MAX)
    }
}

/// What to do with an event; `None`: append it, whatever the log is.
pub(super) fn answer(log: Option<&KnownLog>, event: &Durable) -> Option<RedoAnswer> {
    if switches::off("append-once") {
        return None;
    }
    if let Some(log) = log
        && let Some(seq) = log.events.get(&*event.event_id)
    {
        return Some(RedoAnswer::Again { epoch: log.epoch.clone(), seq: *seq });
    }
    if event.message.is_none() && event.notification.is_none() {
        // State may come again. A message or kept notification may not: it can be fetched.
        return None;
    }
    match log.filter(|log| log.would_have(event.committed_at.unix_ms())) {
        Some(log) => Some(RedoAnswer::Append { under: log.epoch.clone() }),
        None if switches::off("marker") => None,
        None => Some(RedoAnswer::Marker),
    }
}

/// What is to be published for a redo: deliveries with their answers, and for each delivery that was asked about the place
/// among them.
pub(super) struct Answered {
    pub(super) deliveries: Vec<(Delivery, Option<Box<RedoAnswer>>)>,
    pub(super) places: Vec<usize>,
}

impl Answered {
    /// The outcome of each delivery that was asked about, from those of what was published.
    pub(super) fn outcomes(&self, published: &[Result<DeliveryOutcome, BackboneError>]) -> Outcomes {
        let missing = || Err(BackboneError("the outcome of a redo is missing".to_owned()));
        self.places.iter().map(|place| published.get(*place).cloned().unwrap_or_else(missing)).collect()
    }
}

/// Answers for all deliveries of a call. Messages that can't be decided share a marker of their user.
pub(super) fn answer_all(deliveries: &[Delivery], logs: &HashMap<UserId, KnownLog>) -> Answered {
    let mut answered = Answered { deliveries: Vec::with_capacity(deliveries.len()), places: Vec::new() };
    let mut marked: HashMap<&UserId, (usize, Vec<&Durable>)> = HashMap::new();
    for delivery in deliveries {
        let place = answered.deliveries.len();
        let given = match &delivery.kind {
            DeliveryKind::Durable(durable) => answer(logs.get(&delivery.user), durable).zip(Some(durable)),
            DeliveryKind::Ephemeral => None,
        };
        if let Some((RedoAnswer::Marker, durable)) = given {
            let (at, names) = marked.entry(&delivery.user).or_insert((place, Vec::new()));
            if names.len() >= MESSAGES_PER_MARKER {
                let whole = std::mem::take(names);
                finish(&mut answered.deliveries, *at, &whole);
                *at = place;
            }
            names.push(durable);
            answered.places.push(*at);
            if *at == place {
                answered.deliveries.push((delivery.clone(), Some(Box::new(RedoAnswer::Marker))));
            }
        } else {
            answered.places.push(place);
            answered.deliveries.push((delivery.clone(), given.map(|(given, _)| Box::new(given))));
        }
    }
    for (at, names) in marked.into_values() {
        finish(&mut answered.deliveries, at, &names);
    }
    answered
}

/// Makes the marker of these messages out of the delivery at its place.
fn finish(deliveries: &mut [(Delivery, Option<Box<RedoAnswer>>)], at: usize, names: &[&Durable]) {
    let Some((delivery, _)) = deliveries.get_mut(at) else { return };
    let DeliveryKind::Durable(durable) = &mut delivery.kind else { return };
    let ids: Vec<&str> = names.iter().map(|durable| &*durable.event_id).collect();
    durable.event_id = Arc::from(ids.join(":"));
    durable.push = None;
    delivery.body = body(names);
}

/// A marker's envelope. Its place in the log is put into it when it is appended.
fn body(names: &[&Durable]) -> Bytes {
    #[derive(Serialize)]
    struct Envelope<'a> {
        r#type: &'static str,
        payload: Payload<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation_id: Option<&'a ConversationId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        message_ids: Vec<MessageId>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notification_ids: Vec<NotificationId>,
    }
    fn conversation(durable: &Durable) -> Option<&ConversationId> {
        durable.message.as_ref().map(|message| &message.conversation)
    }
    let first = names.first().and_then(|durable| conversation(durable));
    let conversation_id = first.filter(|_| names.iter().all(|durable| conversation(durable) == first));
    let messages = || names.iter().filter_map(|durable| durable.message.as_ref().map(|message| message.id));
    let (message_id, message_ids) = match names {
        [one] => (one.message.as_ref().map(|message| message.id), Vec::new()),
        _ => (None, messages().collect()),
    };
    let notification_ids = names.iter().filter_map(|durable| durable.notification).collect();
    let payload = Payload { conversation_id, message_id, message_ids, notification_ids };
    // An envelope has string keys only, and writing to memory can't fail.
    serde_json::to_string(&Envelope { r#type: "resync", payload }).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use shared::Timestamp;

    use super::*;
    use crate::backbone::CarriedMessage;

    fn epoch() -> Epoch {
        Epoch::parse("redis.1").expect("an epoch")
    }

    fn message(id: u64, committed_ms: i64) -> Durable {
        let conversation = ConversationId::parse("c").expect("an id");
        Durable {
            event_id: format!("m{id}").into(),
            committed_at: Timestamp::from_unix_ms(committed_ms),
            message: MessageId::new(id).map(|id| CarriedMessage { id, conversation, seq: id.get() }),
            notification: None,
            push: UserId::parse("ann").ok(),
            mentions: None,
        }
    }

    fn log(begun_ms: Option<i64>, floor: u64, entries: &[(u64, &str)]) -> KnownLog {
        let mut log = KnownLog::new(epoch(), begun_ms, floor);
        entries.iter().for_each(|(seq, stamp)| log.note(*seq, stamp));
        log
    }

    #[test]
    fn a_redo_has_three_answers() {
        let again = |seq| Some(RedoAnswer::Again { epoch: epoch(), seq });
        let append = Some(RedoAnswer::Append { under: epoch() });
        let marker = Some(RedoAnswer::Marker);
        for (log, expected) in [
            (log(Some(0), 0, &[(3, "100000:m7")]), again(3)),
            (log(Some(0), 0, &[(3, "100000:m6:m7:m8")]), again(3)),
            (log(Some(0), 0, &[(3, "100000:m70")]), append.clone()),
            (log(Some(0), 0, &[]), append.clone()),
            (log(Some(95_000), 0, &[]), append.clone()),
            (log(Some(95_001), 0, &[]), marker.clone()),
            (log(None, 0, &[]), marker.clone()),
            (log(Some(0), 5, &[(6, "95001:m6")]), marker.clone()),
            (log(Some(0), 5, &[(6, "95000:m6"), (7, "100000:m8")]), append.clone()),
            (log(Some(99_000), 0, &[(1, "95000:m6")]), append.clone()),
            (log(Some(99_000), 0, &[(1, ""), (2, "x"), (3, "1")]), append.clone()),
        ] {
            assert_eq!(answer(Some(&log), &message(7, 100_000)), expected, "{log:?}");
        }
        assert_eq!(answer(None, &message(7, 100_000)), marker, "there is no log");
        let state = Durable { message: None, ..message(7, 100_000) };
        assert_eq!(answer(None, &state), None, "state is appended again");
        assert_eq!(answer(Some(&log(Some(0), 0, &[(3, "1:m7")])), &state), again(3));
        let kept = Durable { notification: NotificationId::new(9), ..state };
        assert_eq!(answer(None, &kept), Some(RedoAnswer::Marker), "a kept notification can be fetched");
        let marker = String::from_utf8(body(&[&kept]).to_vec());
        let expected = r#"{"type":"resync","payload":{"notificationIds":["9"]}}"#;
        assert_eq!(marker.as_deref(), Ok(expected));
    }

    #[test]
    fn messages_that_can_not_be_decided_share_a_marker() {
        let user = |name: &str| UserId::parse(name).expect("an id");
        let delivery = |name: &str, durable| Delivery {
            user: user(name),
            body: Bytes::from_static(b"{\"type\":\"message.new\"}"),
            kind: DeliveryKind::Durable(durable),
        };
        let state = Durable { message: None, event_id: "9.0".into(), ..message(1, 100_000) };
        let asked = [
            delivery("ann", message(7, 100_000)),
            delivery("bob", message(7, 100_000)),
            delivery("ann", state),
            delivery("ann", message(8, 100_000)),
        ];
        let answered = answer_all(&asked, &HashMap::new());
        assert_eq!(answered.places, [0, 1, 2, 0]);
        let bodies: Vec<&[u8]> = answered.deliveries.iter().map(|(delivery, _)| &*delivery.body).collect();
        assert_eq!(
            bodies,
            [
                br#"{"type":"resync","payload":{"conversationId":"c","messageIds":["7","8"]}}"#.as_slice(),
                br#"{"type":"resync","payload":{"conversationId":"c","messageId":"7"}}"#,
                br#"{"type":"message.new"}"#,
            ]
        );
        let many: Vec<Delivery> = (1..=1_001).map(|id| delivery("ann", message(id, 100_000))).collect();
        assert_eq!(answer_all(&many, &HashMap::new()).deliveries.len(), 3);
    }
}
