//! An event's bytes for sockets: written and framed once for each dialect that is there, and shared by its sockets.
//! They are compressed once more for the sockets that negotiated it, and these share that form.
//!
//! Events travel as canonical envelopes. Canonical sockets get those bytes as they are.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use metrics::{Counter, counter};
use shared::dialect::CANONICAL_ONLY;
use shared::{Dialect, Epoch, Event, Timestamp, Wire};

use crate::delivery::envelope::{companions, lines};
use crate::delivery::known_counts::Companion;
use crate::ws::deflate;
use crate::ws::frame::{frame_text, framed_len, put_text};

/// Bytes of frames that were compressed, before and after. Looked up once: the sockets of a process share them.
static PLAIN_BYTES: LazyLock<Counter> = LazyLock::new(|| counter!("parley_deflate_plain_bytes_total"));
static COMPRESSED_BYTES: LazyLock<Counter> = LazyLock::new(|| counter!("parley_deflate_compressed_bytes_total"));

/// A form of an event by dialect; without and with `seq`. Each is made when the first socket asks for it.
type Forms = [[OnceCell<Bytes>; 2]; Dialect::ALL.len()];

/// The frames of an event and its companions; each form is made when the first socket asks for it.
#[derive(Debug)]
pub struct Frames<'a> {
    envelopes: Cow<'a, [u8]>,
    /// A companion that was made on this node, behind the others; only canonical sockets get it.
    made_here: OnceCell<String>,
    seq: Option<u64>,
    plain: Forms,
    /// Nothing while no socket asked that negotiated compression.
    compressed: OnceCell<Box<Forms>>,
}

impl<'a> Frames<'a> {
    /// Those of newline-separated envelopes, of which the first has this `seq` if it is durable.
    #[must_use]
    pub fn new(envelopes: impl Into<Cow<'a, [u8]>>, seq: Option<u64>) -> Self {
        let (made_here, compressed) = (OnceCell::new(), OnceCell::new());
        Self { envelopes: envelopes.into(), made_here, seq, plain: Forms::default(), compressed }
    }

    /// Those of one event without `seq`.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        Self::new(event.to_json().into_bytes(), None)
    }

    /// Puts a companion behind the others, before the first socket asks for the bytes.
    pub fn follow_with(&self, companion: &Companion) {
        self.made_here.get_or_init(|| companion.to_string());
    }

    /// The bytes for a socket; none if its dialect has no frame for the event.
    pub fn on(&self, wire: Wire) -> &Bytes {
        let plain = form(&self.plain, wire).get_or_init(|| write(wire, &self.envelopes, self.made_here(), self.seq));
        if wire.deflate_from.is_none() {
            return plain;
        }
        form(self.compressed.get_or_init(Box::default), wire)
            .get_or_init(|| compressed(wire, plain).unwrap_or_else(|| plain.clone()))
    }

    /// The companions alone, for a socket that had the event already.
    #[must_use]
    pub fn companions_on(&self, wire: Wire) -> Bytes {
        sent_on(wire, write(wire, companions(&self.envelopes), self.made_here(), None))
    }

    fn made_here(&self) -> &[u8] {
        self.made_here.get().map_or(&[], String::as_bytes)
    }
}

fn form(forms: &Forms, wire: Wire) -> &OnceCell<Bytes> {
    #[expect(clippy::indexing_slicing, reason = "an index is below the length of `Dialect::ALL`")]
    let [unnumbered, numbered] = &forms[wire.dialect.index()];
    if wire.numbered { numbered } else { unnumbered }
}

/// Framed messages as they go to a socket that negotiated compression; `None` where it makes none of them smaller.
fn compressed(wire: Wire, framed: &Bytes) -> Option<Bytes> {
    let compressed = deflate::compressed(framed, wire.deflate_from)?;
    PLAIN_BYTES.increment(u64::try_from(framed.len()).unwrap_or(u64::MAX));
    COMPRESSED_BYTES.increment(u64::try_from(compressed.len()).unwrap_or(u64::MAX));
    Some(compressed)
}

/// Framed messages for one socket.
fn sent_on(wire: Wire, framed: Bytes) -> Bytes {
    compressed(wire, &framed).unwrap_or(framed)
}

/// Newline-separated envelopes as text frames one after another in one buffer; empty lines make no frame.
#[must_use]
pub fn frame_lines(envelopes: &[u8]) -> Bytes {
    frame_lines_of([envelopes, &[]])
}

fn frame_lines_of(parts: [&[u8]; 2]) -> Bytes {
    let lines = || parts.into_iter().flat_map(lines).filter(|line| !line.is_empty());
    let mut framed = Vec::with_capacity(lines().map(|line| framed_len(line.len())).sum());
    for line in lines() {
        put_text(&mut framed, line);
    }
    framed.into()
}

/// The companions of the first envelope, for one socket.
#[must_use]
pub fn companions_on(wire: Wire, envelopes: &[u8]) -> Bytes {
    sent_on(wire, write(wire, companions(envelopes), &[], None))
}

/// An event for one socket.
#[must_use]
pub fn event_on(wire: Wire, event: &Event) -> Bytes {
    sent_on(wire, framed(wire.encode(event, None, Timestamp::now())))
}

/// An event for one socket with the client's `ref`, which only canonical frames carry.
#[must_use]
pub fn reply_on(wire: Wire, event: &Event, reference: Option<&str>) -> Bytes {
    if wire.dialect.is_flat() {
        event_on(wire, event)
    } else {
        sent_on(wire, frame_text(event.to_json_with_ref(reference).as_bytes()))
    }
}

/// The `position` that takes the place of the durable event `seq` on a socket that had it already.
#[must_use]
pub fn position_on(wire: Wire, epoch: &Epoch, seq: u64) -> Bytes {
    framed(wire.encode(&Event::Position { epoch: epoch.clone(), seq }, Some(seq), Timestamp::now()))
}

/// Canonical envelopes in the dialect of a socket.
fn write(wire: Wire, envelopes: &[u8], made_here: &[u8], seq: Option<u64>) -> Bytes {
    if wire.dialect.is_flat() { translate(wire, envelopes, seq) } else { frame_lines_of([envelopes, made_here]) }
}

/// Canonical envelopes in a flat dialect. An envelope of an unknown event has no frame there.
fn translate(wire: Wire, envelopes: &[u8], seq: Option<u64>) -> Bytes {
    let lines = lines(envelopes).filter(|line| !line.is_empty()).enumerate();
    let read = lines.filter(|(_, line)| !is_canonical_only(line));
    let events = read.filter_map(|(place, line)| Some((place, serde_json::from_slice::<Event>(line).ok()?)));
    let now = Timestamp::now();
    framed(events.flat_map(|(place, event)| wire.encode(&event, seq.filter(|_| place == 0), now)).collect())
}

/// Whether a line, as we write it, is one of those that no flat dialect has a frame for: they repeat whole messages.
fn is_canonical_only(line: &[u8]) -> bool {
    let kind = line.strip_prefix(br#"{"type":""#).unwrap_or_default();
    CANONICAL_ONLY.iter().any(|known| kind.strip_prefix(known.as_bytes()).is_some_and(|rest| rest.starts_with(b"\"")))
}

fn framed(texts: Vec<String>) -> Bytes {
    match texts.as_slice() {
        [] => Bytes::new(),
        [text] => frame_text(text.as_bytes()),
        texts => {
            let mut bytes = BytesMut::new();
            texts.iter().for_each(|text| bytes.extend_from_slice(&frame_text(text.as_bytes())));
            bytes.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_one_frame() {
        let long = "y".repeat(300);
        let framed = frame_lines(format!("{{}}\n{long}\n\nab\n").as_bytes());
        let expected = [&frame_text(b"{}")[..], &frame_text(long.as_bytes()), &frame_text(b"ab")].concat();
        assert_eq!(framed, expected);
        assert_eq!(frame_lines(b"{}"), frame_text(b"{}"));
        assert!(frame_lines(b"\n").is_empty());
    }
}
