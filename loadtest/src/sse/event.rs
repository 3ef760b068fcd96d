//! The lines of `text/event-stream` as a client reads them (HTML Standard, §9.2.6): text in, events out. No I/O here.
//! A line ends with a line feed, before which a carriage return may stand; one alone, which nobody sends, ends no line.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// An event with data.
    Event(Event),
    /// When to come back once the stream has ended.
    Retry(Duration),
    /// A comment: a sign of life.
    Comment,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `id`, if it has one.
    pub id: Option<String>,
    /// The `event`; empty if there is none.
    pub kind: String,
    /// The lines of `data`.
    pub data: Bytes,
}

/// The text of a stream up to where it has come, and the event that is incomplete.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// Text that is not parsed yet.
    pub(super) text: BytesMut,
    id: Option<String>,
    kind: String,
    data: Option<Vec<u8>>,
}

impl Parser {
    /// The next one; `None` while there is none.
    pub(super) fn next(&mut self) -> Option<Incoming> {
        while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let line = self.text.split_to(end + 1).freeze();
            let line = line.strip_suffix(b"\r\n").or_else(|| line.strip_suffix(b"\n")).unwrap_or(&line);
            if let Some(incoming) = self.line(line) {
                return Some(incoming);
            }
        }
        // An idle stream keeps no buffer.
        if self.text.is_empty() && self.text.capacity() > 0 {
            self.text = BytesMut::new();
        }
        None
    }

    fn line(&mut self, line: &[u8]) -> Option<Incoming> {
        if line.is_empty() {
            let (id, kind, data) = (self.id.take(), std::mem::take(&mut self.kind), self.data.take());
            return data.map(|data| Incoming::Event(Event { id, kind, data: data.into() }));
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match field {
            b"" => return Some(Incoming::Comment),
            b"id" => self.id = Some(text()),
            b"event" => self.kind = text(),
            b"retry" => return text().parse().ok().map(Duration::from_millis).map(Incoming::Retry),
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is said in a text which comes in pieces of so many bytes.
    fn said(text: &str, piece_bytes: usize) -> Vec<Incoming> {
        let (mut parser, mut said) = (Parser::default(), Vec::new());
        for piece in text.as_bytes().chunks(piece_bytes) {
            parser.text.extend_from_slice(piece);
            said.extend(std::iter::from_fn(|| parser.next()));
        }
        assert!(parser.text.is_empty() && parser.text.capacity() == 0);
        said
    }

    fn event(id: Option<&str>, kind: &str, data: &'static str) -> Incoming {
        Incoming::Event(Event { id: id.map(str::to_owned), kind: kind.into(), data: data.into() })
    }

    #[test]
    fn events_comments_and_waits_are_the_same_however_they_are_cut() {
        let text = ":\n\nevent: message.new\nid: e:7\ndata: {\"a\":1}\n\nretry: 700\n\ndata:one\r\ndata: two\r\n\r\n";
        let all = [
            Incoming::Comment,
            event(Some("e:7"), "message.new", "{\"a\":1}"),
            Incoming::Retry(Duration::from_millis(700)),
            event(None, "", "one\ntwo"),
        ];
        for piece_bytes in 1..=text.len() {
            assert_eq!(said(text, piece_bytes), all, "{piece_bytes}");
        }
    }

    #[test]
    fn a_block_without_data_and_an_unknown_field_say_nothing() {
        assert_eq!(said("event: x\n\nother: y\nretry: soon\ndata: z\n\n", 9), [event(None, "", "z")]);
    }
}
