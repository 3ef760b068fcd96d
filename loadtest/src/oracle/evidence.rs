//! The records of an oracle run: sends, acknowledgements, and everything that each device received, in order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use shared::{ConversationId, MessageId, UserId};

use crate::client::wire::Place;
use crate::client::{HeldCounts, Transport, UnreadCounts};
use crate::rest::MessageView;

/// A message as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// The message's id.
    pub id: MessageId,
    /// The conversation.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: u64,
}

impl From<&MessageView> for Sighting {
    fn from(message: &MessageView) -> Self {
        Self { id: message.id, conversation: message.conversation_id.clone(), seq: message.seq }
    }
}

/// Why a device asked the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchReason {
    /// The device has connected for the first time: it lacks what was unread before.
    Start,
    /// The server said `resync`: it owns up to a hole.
    Resync,
    /// The device saw a hole in a conversation for five seconds.
    Hole,
}

/// One thing that happened to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// `auth_success`: what was asked for and what was given.
    Opened {
        /// The position in the request.
        asked: Option<Place>,
        /// The server's word.
        resumed: bool,
        /// The position given.
        place: Place,
    },
    /// A durable event.
    Durable {
        /// Its place in the log.
        seq: u64,
        /// The message, if it was `message.new` or `message.sent`.
        message: Option<Sighting>,
    },
    /// A message without a `seq`: Redis was away.
    Direct(Sighting),
    /// A `position` frame.
    Position {
        /// The payload.
        place: Place,
        /// The envelope's `seq`, when it stands for an event.
        stands_for: Option<u64>,
    },
    /// A `resync` frame.
    Resync {
        /// The new position.
        place: Place,
        /// It stands in the log, in place of single events.
        is_marker: bool,
    },
    /// A message that the store gave.
    Fetched {
        /// Why it was asked.
        reason: FetchReason,
        /// The message.
        message: Sighting,
    },
    /// The fetch of a resync is complete and its position adopted.
    Adopted,
    /// The connection ended.
    Closed,
}

/// An entry and when it was made, in microseconds since the run's start.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Microseconds since the run's start.
    pub at_us: u64,
    /// The event.
    pub entry: Entry,
}

/// An acknowledgement, `message.sent` for a send of this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The sender's name for the message.
    pub temp_id: String,
    /// Which message that is.
    pub message: Sighting,
    /// Microseconds since the run's start.
    pub at_us: u64,
}

/// An attempt to connect that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Microseconds since the run's start.
    pub at_us: u64,
    /// Whether there was a WebSocket or a stream, which ended before `auth_success`; a draining node does that.
    pub upgraded: bool,
    /// Why, in a short name to count by.
    pub why: String,
}

/// Everything about one device.
#[derive(Debug, Clone, Default)]
pub struct DeviceLog {
    /// The device's events, in order.
    pub records: Vec<Record>,
    /// The acknowledgements that it got.
    pub acks: Vec<Ack>,
    /// Acknowledgements that said `duplicate`, whether this device still waited for them or not.
    pub duplicates: Vec<Ack>,
    /// Sends that were refused for good, by error code.
    pub refused: BTreeMap<String, u64>,
    /// Connections that ended, by close code (0: without one).
    pub closes: BTreeMap<u16, u64>,
    /// Attempts to connect that failed, refused ones and those that were closed before `auth_success` among them.
    pub failures: Vec<Failure>,
    /// Frames that were not understood.
    pub malformed: u64,
    /// Whether a 40xx code or a final refusal stopped it.
    pub stopped: bool,
    /// How many sends are not settled.
    pub unsettled: usize,
    /// The messages that the log or a resync brought, to know when it is complete.
    pub brought: HashSet<MessageId>,
    /// Messages that the device looked for by itself. A resync that comes later accounts for them: what it makes a client fetch
    /// leaves out what the client has.
    pub looked_for: HashSet<MessageId>,
    /// The unread counts that it holds.
    pub unread: HeldCounts,
}

/// A device and its log.
#[derive(Debug, Clone)]
pub struct DeviceEvidence {
    /// The device's user.
    pub user: UserId,
    /// Its number among the run's devices.
    pub number: usize,
    /// How it is connected.
    pub transport: Transport,
    /// The device's records.
    pub log: DeviceLog,
}

/// A send that was tried at least once, or waits in a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The sender's name for it.
    pub temp_id: String,
    /// The sender.
    pub sender: UserId,
    /// Microseconds since the run's start at which it was meant to leave.
    pub at_us: u64,
}

/// A row of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// The message.
    pub message: Sighting,
    /// The sender.
    pub sender: UserId,
    /// The sender's name for it.
    pub temp_id: Option<String>,
}

/// A conversation of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationFacts {
    /// Its members.
    pub members: Vec<UserId>,
    /// The `seq` before the run's first message.
    pub base_seq: u64,
}

/// All that the checker looks at.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The run's conversations.
    pub conversations: HashMap<ConversationId, ConversationFacts>,
    /// The sends.
    pub attempts: Vec<Attempt>,
    /// The devices' records.
    pub devices: Vec<DeviceEvidence>,
    /// The stored messages of the run's conversations, after their base.
    pub stored: Vec<MessageRow>,
    /// The unread counts of the devices' users in the store; nothing is unread for a user who isn't there.
    pub unread: HashMap<UserId, UnreadCounts>,
}

/// A device's log while it is being written; the driver looks in from time to time.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    log: Mutex<DeviceLog>,
}

impl Recorder {
    /// An empty log of a run that began at `start`.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { start, log: Mutex::default() }
    }

    /// Writes an entry.
    pub fn record(&self, entry: Entry) {
        let at_us = self.now_us();
        self.with(|log| {
            match &entry {
                Entry::Durable { message: Some(message), .. }
                | Entry::Direct(message)
                | Entry::Fetched { reason: FetchReason::Start | FetchReason::Resync, message } => {
                    log.brought.insert(message.id);
                }
                Entry::Fetched { reason: FetchReason::Hole, message } => {
                    log.looked_for.insert(message.id);
                }
                Entry::Resync { .. } => log.brought.extend(log.looked_for.drain()),
                Entry::Durable { message: None, .. }
                | Entry::Opened { .. }
                | Entry::Position { .. }
                | Entry::Adopted
                | Entry::Closed => {}
            }
            log.records.push(Record { at_us, entry });
        });
    }

    /// Writes an acknowledgement.
    pub fn acknowledged(&self, temp_id: &str, message: Sighting) {
        let at_us = self.now_us();
        self.with(|log| log.acks.push(Ack { temp_id: temp_id.to_owned(), message, at_us }));
    }

    /// Writes an acknowledgement of a message that was there already.
    pub fn duplicate(&self, temp_id: &str, message: Sighting) {
        let at_us = self.now_us();
        self.with(|log| log.duplicates.push(Ack { temp_id: temp_id.to_owned(), message, at_us }));
    }

    /// Writes down an attempt to connect that failed.
    pub fn failed(&self, upgraded: bool, why: String) {
        let at_us = self.now_us();
        self.with(|log| log.failures.push(Failure { at_us, upgraded, why }));
    }

    /// Reads or changes the log.
    pub fn with<T>(&self, f: impl FnOnce(&mut DeviceLog) -> T) -> T {
        f(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
