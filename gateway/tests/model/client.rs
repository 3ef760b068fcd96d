//! A client: one connection after the other, and the check of all that they are given.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway::backbone::LogHead;
use gateway::delivery::send_queue::SendQueue;
use serde_json::Value;
use shared::{Epoch, Position, Wire};

use super::backbone::{Backbone, place};

/// How far a connection has come.
pub(crate) enum Stage {
    /// It stands in the registry, its gate closed.
    Registered,
    /// It was told what the log holds.
    Entered(LogHead),
    /// Its gate is open.
    Live,
}

/// A client, and what it knows.
pub(crate) struct Client {
    /// The node of its connection.
    pub(crate) node: usize,
    /// The connection's number.
    pub(crate) connection: u64,
    pub(crate) queue: Arc<SendQueue>,
    pub(crate) stage: Stage,
    /// The position that it was told last, from which it resumes.
    pub(crate) position: Option<Position>,
    /// The messages that it was given, or has fetched from the store.
    known: BTreeSet<u64>,
    /// The messages that this connection was given.
    given: BTreeSet<u64>,
    /// The messages that came in their place, over all connections and epochs.
    given_in_order: BTreeSet<u64>,
    /// An event that came in its place, but isn't the one of that place: it is of a log that was begun anew, and a `resync`
    /// has to follow. A push doesn't tell its epoch: when a subscription is back, the heal does, and a push may be faster
    /// (NOLOSS.md, B1, open).
    doubt: Option<String>,
}

impl Client {
    pub(crate) fn new(node: usize, connection: u64, bytes_max: u32) -> Self {
        Self {
            node,
            connection,
            queue: Arc::new(SendQueue::new(bytes_max, Wire::CHAT)),
            stage: Stage::Registered,
            position: None,
            known: BTreeSet::new(),
            given: BTreeSet::new(),
            given_in_order: BTreeSet::new(),
            doubt: None,
        }
    }

    /// The same client with another connection.
    pub(crate) fn reconnected(&self, node: usize, connection: u64, bytes_max: u32) -> Self {
        let (position, known, given_in_order) =
            (self.position.clone(), self.known.clone(), self.given_in_order.clone());
        Self { position, known, given_in_order, ..Self::new(node, connection, bytes_max) }
    }

    /// A frame came. Messages up to `committed` are in the store, where the client fetches what a `resync` costs it.
    pub(crate) fn read(&mut self, frame: &Value, backbone: &Backbone, committed: u64) -> Result<(), String> {
        let payload = &frame["payload"];
        let told = || {
            let epoch = payload["epoch"].as_str().and_then(Epoch::parse).ok_or("no epoch")?;
            let seq = payload["seq"].as_u64().ok_or("no seq")?;
            Ok::<_, String>(Position { epoch, seq })
        };
        match frame["type"].as_str() {
            Some("joined") => {
                let position = told()?;
                if payload["resumed"] == true {
                    check(self.position.as_ref() == Some(&position), || format!("resumed elsewhere: {frame}"))?;
                } else {
                    // What a refused resume costs is told by the `resync` behind it; a new device fetches all.
                    if self.position.is_none() {
                        self.known.extend(1..=committed);
                        self.position = Some(position);
                    }
                }
                Ok(())
            }
            Some("message.new") => {
                let id = payload["message"]["id"].as_str().and_then(|id| id.parse().ok()).ok_or("no id")?;
                if let Some(seq) = frame["seq"].as_u64() {
                    self.advance(seq, |message| message == id, backbone)?;
                    // In doubt it came in a wrong place, and comes again in its own behind the `resync` (NOLOSS.md, B1, open).
                    let is_new = self.doubt.is_some() || self.given_in_order.insert(id);
                    check(is_new, || format!("given twice, over connections: {frame}"))?;
                }
                let is_new = self.given.insert(id);
                check(is_new || self.doubt.is_some(), || format!("given twice: {frame}"))?;
                self.known.insert(id);
                Ok(())
            }
            Some("position") if frame["seq"].is_u64() => {
                // In the place of an event that it has already.
                let known = &self.known.clone();
                self.advance(told()?.seq, |message| known.contains(&message), backbone)
            }
            Some("resync") if frame["seq"].is_u64() => {
                // A marker: whatever it stands for, the store has it.
                let now = told()?;
                let seq = frame["seq"].as_u64().ok_or("no seq")?;
                let named = payload["messageId"].as_str().and_then(|id| id.parse::<u64>().ok());
                self.advance(seq, |message| Some(message) == named, backbone)?;
                check(self.position.as_ref() == Some(&now) || self.doubt.is_some(), || format!("elsewhere: {frame}"))?;
                self.known.extend(1..=committed);
                Ok(())
            }
            Some("resync") => {
                let now = told()?;
                if let Some(before) = &self.position {
                    let (from, to) = (place(&before.epoch, before.seq), place(&now.epoch, now.seq));
                    let is_later = from.0 < to.0;
                    let is_right = match payload["reason"].as_str() {
                        Some("epoch") => is_later,
                        Some("trimmed") => is_later || (from <= to && backbone.lost_any(from, to)),
                        _ => false,
                    };
                    check(is_right, || format!("at {before:?} there is no reason for {frame}"))?;
                }
                self.known.extend(1..=committed);
                self.position = Some(now);
                self.doubt = None;
                Ok(())
            }
            _ => Err(format!("an unknown frame: {frame}")),
        }
    }

    /// Whether it knows every message up to this one, and stands at the end of the log.
    pub(crate) fn has_all(&self, backbone: &Backbone, committed: u64) -> Result<(), String> {
        self.without_doubt()?;
        let end = backbone.position();
        check(self.position == end, || format!("stands at {:?} of {end:?}", self.position))?;
        let missed = (1..=committed).find(|message| !self.known.contains(message));
        check(missed.is_none(), || format!("message {missed:?} was missed"))
    }

    /// The event `seq` came, which has to be the next one, and to bring the right message.
    fn advance(&mut self, seq: u64, is_right: impl Fn(u64) -> bool, backbone: &Backbone) -> Result<(), String> {
        let position = self.position.as_mut().ok_or("not joined")?;
        check(seq == position.seq + 1, || format!("event {seq} came at {position:?}"))?;
        let message = backbone.message_at(place(&position.epoch, seq));
        if !message.is_some_and(is_right) {
            self.doubt.get_or_insert_with(|| format!("event {seq} at {position:?} doesn't bring {message:?}"));
        }
        position.seq = seq;
        Ok(())
    }

    fn without_doubt(&self) -> Result<(), String> {
        check(self.doubt.is_none(), || format!("no resync followed: {:?}", self.doubt))
    }
}

fn check(holds: bool, fault: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(fault()) }
}
