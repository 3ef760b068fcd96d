//! Replays one device's log and judges each entry by what the connection was promised.

use std::collections::{HashMap, HashSet};

use shared::{ConversationId, Epoch, MessageId, UserId};

use super::evidence::{DeviceEvidence, Entry, FetchReason, Sighting};
use super::story::story;
use super::verdict::{Verdict, ViolationKind};
use crate::client::wire::Place;

/// The event that each connection of each user saw at each place of the user's log.
pub(super) type Logs = HashMap<(UserId, Epoch), HashMap<u64, MessageId>>;

/// How a message first reached a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryPath {
    /// On a connection; it was opened at this time, by a resume or not.
    Log { opened_us: u64, by_resume: bool },
    /// Without `seq`.
    Direct,
    /// From the store, after `resync`.
    Resync,
    /// From the store, because the device saw a hole.
    Hole,
}

/// When and how a message first came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at_us: u64,
    pub(super) path: DeliveryPath,
}

/// The replay of one device's log.
pub(super) struct Replay<'a> {
    device: &'a DeviceEvidence,
    verdict: &'a mut Verdict,
    logs: &'a mut Logs,
    here: Option<Place>,
    opened_us: u64,
    by_resume: bool,
    owes_resync: bool,
    /// By socket, on this connection, since the last resync.
    on_connection: HashSet<MessageId>,
    logged_at: HashMap<MessageId, Place>,
    highest: HashMap<ConversationId, u64>,
    /// From the store, after a resync: these may come again.
    fetched: HashSet<MessageId>,
    arrivals: HashMap<MessageId, Arrival>,
    sightings: HashSet<Sighting>,
}

/// A device's observations, beside faults.
pub(super) struct Observations {
    /// The first arrival of every message.
    pub(super) arrivals: HashMap<MessageId, Arrival>,
    /// Every message with every place at which it was said to be.
    pub(super) sightings: HashSet<Sighting>,
}

impl<'a> Replay<'a> {
    pub(super) fn through(device: &'a DeviceEvidence, verdict: &'a mut Verdict, logs: &'a mut Logs) -> Observations {
        let mut replay = Self {
            device,
            verdict,
            logs,
            here: None,
            opened_us: 0,
            by_resume: false,
            owes_resync: false,
            on_connection: HashSet::new(),
            logged_at: HashMap::new(),
            highest: HashMap::new(),
            fetched: HashSet::new(),
            arrivals: HashMap::new(),
            sightings: HashSet::new(),
        };
        let mut opened = 0_u64;
        for record in &device.log.records {
            opened += u64::from(matches!(record.entry, Entry::Opened { .. }));
            replay.entry(record.at_us, &record.entry);
        }
        if replay.owes_resync {
            replay.fault(ViolationKind::ResyncMissing, || "the last connection".into());
        }
        replay.verdict.counts.reconnects += opened.saturating_sub(1);
        Observations { arrivals: replay.arrivals, sightings: replay.sightings }
    }

    fn entry(&mut self, at_us: u64, entry: &Entry) {
        match entry {
            Entry::Opened { asked, resumed, place } => self.opened(at_us, asked.as_ref(), *resumed, place),
            Entry::Durable { seq, message } => {
                self.advance(*seq);
                if let Some(message) = message {
                    self.logged(at_us, *seq, message);
                }
            }
            Entry::Direct(message) => {
                self.on_socket(message);
                self.arrive(at_us, message, DeliveryPath::Direct);
            }
            Entry::Position { place, stands_for } => self.moved(place, *stands_for),
            Entry::Resync { place, is_marker } => {
                self.here = Some(place.clone());
                self.owes_resync = false;
                self.verdict.counts.resyncs += 1;
                self.verdict.counts.markers += u64::from(*is_marker);
                // Events that the server can't account for any more may come again.
                self.on_connection.clear();
            }
            Entry::Fetched { reason, message } => {
                let path = match reason {
                    FetchReason::Start | FetchReason::Resync => {
                        self.fetched.insert(message.id);
                        DeliveryPath::Resync
                    }
                    FetchReason::Hole => DeliveryPath::Hole,
                };
                self.arrive(at_us, message, path);
            }
            Entry::Adopted => {
                // The resync owned up to everything missing until now, to what a hole had shown before as well.
                for arrival in self.arrivals.values_mut().filter(|arrival| arrival.path == DeliveryPath::Hole) {
                    arrival.path = DeliveryPath::Resync;
                }
            }
            Entry::Closed => {
                self.here = None;
                self.owes_resync = false;
            }
        }
    }

    fn opened(&mut self, at_us: u64, asked: Option<&Place>, resumed: bool, place: &Place) {
        if resumed {
            self.verdict.counts.resumes += 1;
            if asked != Some(place) {
                self.fault(ViolationKind::ResumeMismatch, || format!("asked for {asked:?}, got {place:?}"));
            }
        }
        self.owes_resync = asked.is_some() && !resumed;
        self.here = Some(place.clone());
        self.opened_us = at_us;
        self.by_resume = resumed;
        self.on_connection.clear();
        self.highest.clear();
    }

    /// The connection's next durable event has this `seq`.
    fn advance(&mut self, seq: u64) {
        let Some(here) = self.here.clone() else {
            return self.fault(ViolationKind::LogDisorder, || format!("{seq} before auth_success"));
        };
        if seq > here.seq + 1 {
            self.fault(ViolationKind::LogGap, || format!("{}: {} is followed by {seq}", here.epoch, here.seq));
        } else if seq <= here.seq {
            self.fault(ViolationKind::LogDisorder, || format!("{}: {} is followed by {seq}", here.epoch, here.seq));
        }
        self.here = Some(Place { epoch: here.epoch, seq: seq.max(here.seq) });
    }

    fn moved(&mut self, place: &Place, stands_for: Option<u64>) {
        let same_epoch = self.here.as_ref().is_some_and(|here| here.epoch == place.epoch);
        match (stands_for, same_epoch) {
            (Some(seq), true) => self.advance(seq),
            (Some(seq), false) => self.here = Some(Place { epoch: place.epoch.clone(), seq }),
            (None, false) => self.here = Some(place.clone()),
            (None, true) => {
                let here = self.here.as_ref().map_or(0, |here| here.seq);
                if here != place.seq {
                    self.fault(ViolationKind::LogGap, || {
                        format!("{}: position jumps from {here} to {}", place.epoch, place.seq)
                    });
                }
                self.here = Some(place.clone());
            }
        }
    }

    fn logged(&mut self, at_us: u64, seq: u64, message: &Sighting) {
        let once = self.on_socket(message);
        let path = DeliveryPath::Log { opened_us: self.opened_us, by_resume: self.by_resume };
        self.arrive(at_us, message, path);
        let Some(epoch) = self.here.as_ref().map(|here| here.epoch.clone()) else { return };
        let log = self.logs.entry((self.device.user.clone(), epoch.clone())).or_default();
        let first = *log.entry(seq).or_insert(message.id);
        if first != message.id {
            self.fault(ViolationKind::LogDisagrees, || {
                format!("{epoch}:{seq} is message {first} and message {}", message.id)
            });
        }
        let place = Place { epoch, seq };
        if let Some(before) = self.logged_at.insert(message.id, place.clone())
            && once
        {
            if before.epoch == place.epoch || !self.fetched.contains(&message.id) {
                let device = self.device;
                self.fault(ViolationKind::Doubled, || {
                    let story = story(device, message.id);
                    format!("message {} at {before:?} and at {place:?}: {story}", message.id)
                });
            } else {
                self.verdict.counts.repeated += 1;
            }
        }
    }

    /// A message on the socket; `false` if this connection had it already.
    fn on_socket(&mut self, message: &Sighting) -> bool {
        let once = self.on_connection.insert(message.id);
        if !once {
            let device = self.device;
            self.fault(ViolationKind::Doubled, || {
                format!("message {} twice on one connection: {}", message.id, story(device, message.id))
            });
        }
        let highest = self.highest.entry(message.conversation.clone()).or_default();
        self.verdict.counts.late += u64::from(message.seq < *highest);
        *highest = message.seq.max(*highest);
        once
    }

    fn arrive(&mut self, at_us: u64, message: &Sighting, path: DeliveryPath) {
        if !self.sightings.contains(message) {
            self.sightings.insert(message.clone());
        }
        let arrival = self.arrivals.entry(message.id).or_insert(Arrival { at_us, path });
        match (arrival.path, path) {
            // The log brought it after all: the hole was only lateness.
            (DeliveryPath::Hole, DeliveryPath::Log { .. } | DeliveryPath::Direct | DeliveryPath::Resync) => {
                arrival.path = path
            }
            (DeliveryPath::Direct, DeliveryPath::Log { .. }) if self.opened_us > arrival.at_us => {
                self.verdict.counts.repeated += 1
            }
            (DeliveryPath::Log { .. } | DeliveryPath::Direct | DeliveryPath::Resync | DeliveryPath::Hole, _) => {}
        }
    }

    fn fault(&mut self, kind: ViolationKind, detail: impl FnOnce() -> String) {
        let (user, number) = (&self.device.user, self.device.number);
        self.verdict.fault(kind, || format!("{user} (device {number}): {}", detail()));
    }
}
