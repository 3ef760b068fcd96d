//! One user's log as the scripts of the backbone keep it (`backbone/redis/lua`), and a record of all that was ever in it.

use std::collections::BTreeSet;

use bytes::Bytes;
use gateway::backbone::{LogHead, LogPage};
use shared::{Epoch, Position};

/// Entries that a log keeps.
const KEPT: usize = 8;
/// Entries that one read brings.
const PAGE: usize = 3;

/// The server, and the log that it has now.
pub(crate) struct Backbone {
    server: u32,
    epochs: u32,
    log: Option<Log>,
    /// The place and the message of each event that was ever appended, in order.
    appended: Vec<(Place, u64)>,
    /// The places of events that their log has lost.
    gone: BTreeSet<Place>,
}

struct Log {
    epoch: Epoch,
    last: u64,
    entries: Vec<(u64, u64, Bytes)>,
}

/// A place among all events: the number of the epoch, and the `seq`.
pub(crate) type Place = (u32, u64);

/// Where in the order of all events a position stands.
pub(crate) fn place(epoch: &Epoch, seq: u64) -> Place {
    let (_, number) = epoch.as_str().split_once('.').expect("an epoch of this model");
    (number.parse().expect("an epoch of this model"), seq)
}

/// The envelopes of a message's event, without `seq`.
pub(crate) fn body(message: u64) -> String {
    format!(
        r#"{{"type":"message.new","payload":{{"message":{{"id":"{message}","createdAt":"2026-11-21T12:00:00.000Z"}}}}}}"#
    )
}

impl Backbone {
    pub(crate) fn new() -> Self {
        Self { server: 1, epochs: 0, log: None, appended: Vec::new(), gone: BTreeSet::new() }
    }

    /// Appends a message's event and returns the payload to publish; `None` if nothing was done.
    pub(crate) fn append(&mut self, message: u64, is_subscribed: bool) -> Option<Bytes> {
        self.append_as(message, is_subscribed, |_, _| body(message))
    }

    /// Publishes a message again that was committed at this place, as `backbone/redo.rs` decides it: as it stands in the log; as
    /// a new event, if the log is older and has lost nothing since; else a marker in its place, also if `doubts`.
    pub(crate) fn redo(&mut self, message: u64, committed: Place, doubts: bool, is_subscribed: bool) -> Option<Bytes> {
        if let Some(log) = &self.log {
            if let Some((_, _, payload)) = log.entries.iter().find(|(_, known, _)| *known == message) {
                return Some(payload.clone());
            }
            let floor = log.entries.first().map_or(log.last, |(first, ..)| first - 1);
            let (epoch, seq) = committed;
            if !doubts && epoch == self.epochs && floor <= seq {
                return self.append(message, is_subscribed);
            }
        }
        self.append_as(message, is_subscribed, |epoch, seq| {
            let place = format!(r#""reason":"trimmed","epoch":"{epoch}","seq":{seq}"#);
            format!(r#"{{"type":"resync","payload":{{{place},"messageId":"{message}"}}}}"#)
        })
    }

    fn append_as(
        &mut self,
        message: u64,
        is_subscribed: bool,
        event: impl FnOnce(&Epoch, u64) -> String,
    ) -> Option<Bytes> {
        let mut head = String::new();
        if self.log.is_none() {
            if !is_subscribed {
                return None;
            }
            head = format!("{{\"epoch\":\"{}\",\"seq\":0}}\n", self.open().as_str());
        }
        let log = self.log.as_mut()?;
        log.last += 1;
        let event = event(&log.epoch, log.last);
        let payload = format!(r#"{{"seq":{},{}"#, log.last, event.strip_prefix('{')?);
        log.entries.push((log.last, message, Bytes::from(payload.clone())));
        self.appended.push((place(&log.epoch, log.last), message));
        while log.entries.len() > KEPT {
            let (seq, ..) = log.entries.remove(0);
            self.gone.insert(place(&log.epoch, seq));
        }
        Some(Bytes::from(head + &payload))
    }

    /// What the log holds; with the line for the nodes if it had to be opened.
    pub(crate) fn head(&mut self) -> (LogHead, Option<Bytes>) {
        let mut line = None;
        if self.log.is_none() {
            line = Some(Bytes::from(format!("{{\"epoch\":\"{}\",\"seq\":0}}\n", self.open().as_str())));
        }
        let log = self.log.as_ref().expect("a log that is open");
        let floor = log.entries.first().map_or(log.last, |(first, ..)| first - 1);
        (LogHead { epoch: log.epoch.clone(), floor, last: log.last }, line)
    }

    /// Reads some entries after a `seq`.
    pub(crate) fn read(&mut self, after: u64) -> (LogPage, Option<Bytes>) {
        let (head, line) = self.head();
        let entries = self.log.iter().flat_map(|log| &log.entries).filter(|(seq, ..)| *seq > after);
        let entries = entries.take(PAGE).map(|(seq, _, payload)| (*seq, payload.clone())).collect();
        (LogPage { head, entries }, line)
    }

    /// Another server takes over, without the log.
    pub(crate) fn change_server(&mut self) {
        self.server += 1;
        self.log = None;
    }

    /// The log is evicted or deleted.
    pub(crate) fn lose_log(&mut self) {
        self.log = None;
    }

    /// An entry is deleted, but the last one isn't, and none of a message that may be published again: then the log would
    /// prove that it wasn't there. `which` chooses.
    pub(crate) fn lose_entry(&mut self, which: usize, may_come_again: impl Fn(u64) -> bool) {
        if let Some(log) = &mut self.log
            && log.entries.get(which).is_some_and(|(_, message, _)| !may_come_again(*message))
            && which + 1 < log.entries.len()
        {
            let (seq, ..) = log.entries.remove(which);
            self.gone.insert(place(&log.epoch, seq));
        }
    }

    /// The position of the log's last event, if there is a log.
    pub(crate) fn position(&self) -> Option<Position> {
        self.log.as_ref().map(|log| Position { epoch: log.epoch.clone(), seq: log.last })
    }

    /// The place of the last event that was appended to the newest log, which may have vanished.
    pub(crate) fn end(&self) -> Place {
        self.log.as_ref().map_or((self.epochs, 0), |log| (self.epochs, log.last))
    }

    /// The message of an event that was appended.
    pub(crate) fn message_at(&self, place: Place) -> Option<u64> {
        let at = self.appended.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        self.appended.get(at).map(|(_, message)| *message)
    }

    /// Whether a log has lost any event from one place to another.
    pub(crate) fn lost_any(&self, from: Place, to: Place) -> bool {
        self.gone.range(from..=to).next().is_some()
    }

    fn open(&mut self) -> Epoch {
        self.epochs += 1;
        let epoch = Epoch::parse(&format!("s{}.{}", self.server, self.epochs)).expect("an epoch");
        self.log = Some(Log { epoch: epoch.clone(), last: 0, entries: Vec::new() });
        epoch
    }
}
