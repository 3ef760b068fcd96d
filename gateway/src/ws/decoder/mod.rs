//! Client frames (RFC 6455 §5, RFC 7692 §6): turns the bytes of one socket into messages and control frames, or into one fault.
//! It offers [`Decoder`]. A whole message is unmasked in place and lent out; only an incomplete one is kept.
//! It never waits, never sees a socket, and never keeps more bytes than the limit of one message.

mod fault;
mod header;
#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut};

use super::deflate::inflate;
pub use fault::Fault;
use header::{Control, HEADER_BYTES_MAX, Header, Kind, Opcode};

/// The decoder of one socket.
#[derive(Debug)]
pub struct Decoder {
    /// The bytes of an incomplete header, frame or message; `None` between messages, so idle sockets keep nothing.
    partial: Option<Box<Assembly>>,
    message_bytes_max: u32,
    /// Pings that were sent and whose pongs may still come.
    pongs_due: u8,
    /// The client negotiated that messages may be compressed.
    deflates: bool,
}

/// An item of the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'i> {
    /// A text message, valid UTF-8.
    Text(Payload<'i>),
    /// A binary message.
    Binary(Payload<'i>),
    /// A ping of at most 125 bytes, to be answered.
    Ping(Payload<'i>),
    /// A pong.
    Pong,
    /// A part of a message that goes on with the next data frame. It brings nothing yet; it is told so that it can be counted.
    Fragment,
    /// A close frame with its code, if any. What follows it is not to be read (RFC 6455 §5.5.1).
    Close(Option<u16>),
}

/// Unmasked bytes, either where they were received or put together from pieces.
#[derive(Debug)]
pub enum Payload<'i> {
    /// In the caller's buffer.
    InPlace(&'i mut [u8]),
    /// From several reads or fragments.
    Assembled(Vec<u8>),
}

#[derive(Debug, Default)]
struct Assembly {
    head: [u8; HEADER_BYTES_MAX],
    head_len: usize,
    /// The frame whose payload is arriving.
    frame: Option<IncomingFrame>,
    /// The message that is open, and what has arrived of it.
    kind: Option<Kind>,
    message: Vec<u8>,
    /// `message` has to be inflated when it is complete.
    compressed: bool,
    /// Bytes of `message` that are known to be UTF-8.
    checked: usize,
    control: Vec<u8>,
}

#[derive(Debug)]
struct IncomingFrame {
    opcode: Opcode,
    fin: bool,
    /// Turned so that its first byte is for the next byte of the payload.
    mask: [u8; 4],
    left: usize,
}

impl Decoder {
    /// A decoder that refuses messages, fragmented, compressed or not, of more than `message_bytes_max` bytes. With `deflates`
    /// they may be compressed, and the limit holds before and after. Allocates nothing.
    #[must_use]
    pub fn new(message_bytes_max: u32, deflates: bool) -> Self {
        Self { partial: None, message_bytes_max, pongs_due: 0, deflates }
    }

    /// A ping was sent: one pong is an answer.
    pub fn expect_pong(&mut self) {
        self.pongs_due = self.pongs_due.saturating_add(1);
    }

    /// Whether a pong that came is the answer to a ping; each ping has one.
    pub fn is_answer(&mut self) -> bool {
        let left = self.pongs_due.checked_sub(1);
        self.pongs_due = left.unwrap_or_default();
        left.is_some()
    }

    /// Takes the next item off the front of `input`; `None` once all of it was consumed.
    ///
    /// # Errors
    /// The peer broke the protocol: the socket is to be closed with [`Fault::close_code`] and this decoder not used again.
    pub fn next<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Item<'i>>, Fault> {
        loop {
            if self.partial.as_ref().is_some_and(|partial| partial.frame.is_some()) {
                match self.receive(input)? {
                    FrameProgress::Item(item) => return Ok(Some(item)),
                    FrameProgress::Fragment => return Ok(Some(Item::Fragment)),
                    FrameProgress::Incomplete => return Ok(None),
                }
            }
            let Some(header) = self.next_header(input)? else { return Ok(None) };
            let payload_bytes = self.admit(&header)?;
            if payload_bytes <= input.len()
                && let Some(whole) = FrameKind::of(&header)
            {
                let payload = split_off_front(input, payload_bytes);
                unmask(payload, header.mask);
                return whole.lend(payload, self.bytes_max()).map(Some);
            }
            self.partial.get_or_insert_default().begin(&header, payload_bytes);
        }
    }

    /// Takes a header off the front of `input`, keeping what there is of an incomplete one.
    fn next_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, Fault> {
        let kept = self.partial.as_ref().map_or(0, |partial| partial.head_len);
        if kept == 0
            && let Some(header) = Header::parse(input, self.deflates)?
        {
            split_off_front(input, header.header_bytes);
            return Ok(Some(header));
        }
        while let [byte, ..] = split_off_front(input, 1) {
            let partial = self.partial.get_or_insert_default();
            if let Some(header) = partial.push_head(*byte, self.deflates)? {
                if partial.is_done() {
                    self.partial = None;
                }
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Checks a header against the open message and the limit, before any byte of its payload is kept.
    /// Returns the bytes of its payload.
    fn admit(&self, header: &Header) -> Result<usize, Fault> {
        let open = self.partial.as_ref().filter(|partial| partial.kind.is_some());
        let before = match (header.opcode, open) {
            (Opcode::Control(_), _) | (Opcode::Data(_), None) => 0,
            (Opcode::Continuation, Some(partial)) => partial.message.len(),
            (Opcode::Continuation, None) => return Err(Fault::ContinuationUnexpected),
            (Opcode::Data(_), Some(_)) => return Err(Fault::ContinuationExpected),
        };
        match usize::try_from(header.payload_bytes) {
            Ok(bytes) if before.saturating_add(bytes) <= self.limit(header.opcode) => Ok(bytes),
            Ok(_) | Err(_) => Err(Fault::TooBig),
        }
    }

    fn limit(&self, opcode: Opcode) -> usize {
        match opcode {
            Opcode::Control(_) => usize::MAX,
            Opcode::Continuation | Opcode::Data(_) => self.bytes_max(),
        }
    }

    fn bytes_max(&self) -> usize {
        usize::try_from(self.message_bytes_max).unwrap_or(usize::MAX)
    }

    /// Takes what has arrived of the current frame's payload off the front of `input`.
    fn receive<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<FrameProgress<'i>, Fault> {
        let bytes_max = self.bytes_max();
        let Some(partial) = &mut self.partial else { return Ok(FrameProgress::Incomplete) };
        let received = partial.receive(input, bytes_max)?;
        if partial.is_done() {
            self.partial = None;
        }
        Ok(received)
    }
}

/// The progress of the current frame.
enum FrameProgress<'i> {
    Incomplete,
    Fragment,
    Item(Item<'i>),
}

impl Assembly {
    fn is_done(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.kind.is_none()
    }

    /// Adds one byte to the header; `Some` when it is complete.
    fn push_head(&mut self, byte: u8, deflates: bool) -> Result<Option<Header>, Fault> {
        if let Some(place) = self.head.get_mut(self.head_len) {
            *place = byte;
            self.head_len += 1;
        }
        let header = Header::parse(self.head.get(..self.head_len).unwrap_or_default(), deflates)?;
        if header.is_some() {
            self.head_len = 0;
        }
        Ok(header)
    }

    fn begin(&mut self, header: &Header, payload_bytes: usize) {
        if let Opcode::Data(kind) = header.opcode {
            self.kind = Some(kind);
            self.compressed = header.compressed;
        }
        self.frame =
            Some(IncomingFrame { opcode: header.opcode, fin: header.fin, mask: header.mask, left: payload_bytes });
    }

    fn receive<'i>(&mut self, input: &mut &'i mut [u8], bytes_max: usize) -> Result<FrameProgress<'i>, Fault> {
        let Some(frame) = &mut self.frame else { return Ok(FrameProgress::Incomplete) };
        let arrived = split_off_front(input, frame.left);
        unmask(arrived, frame.mask);
        frame.mask.rotate_left(arrived.len() % 4);
        frame.left -= arrived.len();
        let (opcode, complete, fin) = (frame.opcode, frame.left == 0, frame.fin);
        if complete {
            self.frame = None;
        }
        match opcode {
            Opcode::Control(control) => {
                self.control.extend_from_slice(arrived);
                if !complete {
                    return Ok(FrameProgress::Incomplete);
                }
                Item::control(control, Payload::Assembled(std::mem::take(&mut self.control))).map(FrameProgress::Item)
            }
            Opcode::Continuation | Opcode::Data(_) => {
                self.message.extend_from_slice(arrived);
                let item = self.message(complete && fin, bytes_max)?;
                Ok(item.map_or(
                    if complete { FrameProgress::Fragment } else { FrameProgress::Incomplete },
                    FrameProgress::Item,
                ))
            }
        }
    }

    /// Checks what has arrived of the message, and hands it out with its last byte. A compressed one is inflated then: there
    /// is one inflater for all sockets, so it can't keep half a message.
    fn message<'i>(&mut self, complete: bool, bytes_max: usize) -> Result<Option<Item<'i>>, Fault> {
        if self.compressed {
            if !complete {
                return Ok(None);
            }
            self.message = inflate(&self.message, bytes_max)?;
            self.compressed = false;
        }
        if self.kind == Some(Kind::Text) {
            self.check_utf8(complete)?;
        }
        if !complete {
            return Ok(None);
        }
        let payload = Payload::Assembled(std::mem::take(&mut self.message));
        self.checked = 0;
        Ok(self.kind.take().map(|kind| Item::message(kind, payload)))
    }

    /// Fails at the first byte that can't be UTF-8, however much of the message is still to come; a character may be cut
    /// at the end unless the message is complete.
    fn check_utf8(&mut self, complete: bool) -> Result<(), Fault> {
        let unchecked = self.message.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(unchecked) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_some() || complete => return Err(Fault::Utf8),
            Err(error) => self.checked += error.valid_up_to(),
        }
        Ok(())
    }
}

/// A frame that is an item by itself.
enum FrameKind {
    Message { kind: Kind, compressed: bool },
    Control(Control),
}

impl FrameKind {
    fn of(header: &Header) -> Option<Self> {
        match header.opcode {
            Opcode::Data(kind) if header.fin => Some(Self::Message { kind, compressed: header.compressed }),
            Opcode::Control(control) => Some(Self::Control(control)),
            Opcode::Data(_) | Opcode::Continuation => None,
        }
    }

    fn lend(self, payload: &mut [u8], bytes_max: usize) -> Result<Item<'_>, Fault> {
        match self {
            Self::Message { kind, compressed } => {
                let message = match compressed {
                    true => Payload::Assembled(inflate(payload, bytes_max)?),
                    false => Payload::InPlace(payload),
                };
                if kind == Kind::Text && std::str::from_utf8(&message).is_err() {
                    return Err(Fault::Utf8);
                }
                Ok(Item::message(kind, message))
            }
            Self::Control(control) => Item::control(control, Payload::InPlace(payload)),
        }
    }
}

impl<'i> Item<'i> {
    fn message(kind: Kind, payload: Payload<'i>) -> Self {
        match kind {
            Kind::Text => Self::Text(payload),
            Kind::Binary => Self::Binary(payload),
        }
    }

    fn control(control: Control, payload: Payload<'i>) -> Result<Self, Fault> {
        Ok(match control {
            Control::Close => Self::Close(close_code(&payload)?),
            Control::Ping => Self::Ping(payload),
            Control::Pong => Self::Pong,
        })
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Assembled(bytes) => bytes,
        }
    }
}

impl DerefMut for Payload<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Assembled(bytes) => bytes,
        }
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload<'_> {}

/// The code in the payload of a close frame (RFC 6455 §5.5.1, §7.4; codes up to 1014 as registered with IANA).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Fault::CloseLength) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::CloseCode(code));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Fault::Utf8),
    }
}

/// Takes up to `bytes` off the front of `input`.
fn split_off_front<'i>(input: &mut &'i mut [u8], bytes: usize) -> &'i mut [u8] {
    let whole = std::mem::take(input);
    let (front, rest) = whole.split_at_mut(bytes.min(whole.len()));
    *input = rest;
    front
}

/// Takes the mask off, eight bytes at a time (RFC 6455 §5.3).
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
