//! The header of one client frame (RFC 6455 §5.2), with every rule that depends on no other frame.

use super::Fault;

/// Bytes of the longest header: two, a length of eight, a mask of four.
pub(super) const HEADER_BYTES_MAX: usize = 14;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The reserved bit of a compressed message, on its first frame (RFC 7692 §6).
const COMPRESSED: u8 = 0x40;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;
/// The longest payload of a control frame, and the longest length that stands in the second byte.
const LEN_SHORT_MAX: u8 = 125;
const LEN_IN_TWO_BYTES: u8 = 126;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Data(Kind),
    Control(Control),
}

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
}

/// The kind of a control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Close,
    Ping,
    Pong,
}

/// A header that has arrived whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// A compressed message begins.
    pub(super) compressed: bool,
    pub(super) mask: [u8; 4],
    /// Bytes of the payload, as the peer claims.
    pub(super) payload_bytes: u64,
    /// Bytes of this header.
    pub(super) header_bytes: usize,
}

impl Header {
    /// Reads the header at the start of `input`; `None` while it is incomplete. A fault is reported at its first byte. With
    /// `deflates`, messages may be compressed.
    pub(super) fn parse(input: &[u8], deflates: bool) -> Result<Option<Self>, Fault> {
        let Some(first) = input.first() else { return Ok(None) };
        let compressed = deflates && first & RESERVED == COMPRESSED;
        if first & RESERVED != 0 && !compressed {
            return Err(Fault::Reserved);
        }
        let opcode = Opcode::parse(first & OPCODE)?;
        if compressed && !matches!(opcode, Opcode::Data(_)) {
            return Err(Fault::Reserved);
        }
        let fin = first & FIN != 0;
        let control = matches!(opcode, Opcode::Control(_));
        if control && !fin {
            return Err(Fault::ControlFragmented);
        }
        let Some(second) = input.get(1) else { return Ok(None) };
        if second & MASKED == 0 {
            return Err(Fault::Unmasked);
        }
        let short = second & !MASKED;
        if control && short > LEN_SHORT_MAX {
            return Err(Fault::ControlTooLong);
        }
        let (payload_bytes, mask_at) = match short {
            0..=LEN_SHORT_MAX => (u64::from(short), 2),
            LEN_IN_TWO_BYTES => match chunk(input, 2) {
                Some(bytes) => (u64::from(u16::from_be_bytes(bytes)), 4),
                None => return Ok(None),
            },
            _ => match chunk(input, 2) {
                Some(bytes) => (u64::from_be_bytes(bytes), 10),
                None => return Ok(None),
            },
        };
        let shortest_form_from = match mask_at {
            2 => 0,
            4 => u64::from(LEN_SHORT_MAX) + 1,
            _ => u64::from(u16::MAX) + 1,
        };
        if payload_bytes < shortest_form_from || payload_bytes > i64::MAX as u64 {
            return Err(Fault::LengthEncoding);
        }
        let mask = chunk(input, mask_at);
        Ok(mask.map(|mask| Self { opcode, fin, compressed, mask, payload_bytes, header_bytes: mask_at + mask.len() }))
    }
}

impl Opcode {
    fn parse(opcode: u8) -> Result<Self, Fault> {
        Ok(match opcode {
            0x0 => Self::Continuation,
            0x1 => Self::Data(Kind::Text),
            0x2 => Self::Data(Kind::Binary),
            0x8 => Self::Control(Control::Close),
            0x9 => Self::Control(Control::Ping),
            0xA => Self::Control(Control::Pong),
            _ => return Err(Fault::Opcode),
        })
    }
}

fn chunk<const N: usize>(input: &[u8], at: usize) -> Option<[u8; N]> {
    input.get(at..)?.first_chunk().copied()
}
