//! WebSocket frames as a client sees them (RFC 6455 §5): written masked, read unmasked. No I/O here.

use bytes::{Buf, Bytes, BytesMut};

use super::inflate::inflate;

/// The largest frame that is taken from a server, in bytes.
const FRAME_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A later part of a message.
    Continuation,
    /// A text message or its first part.
    Text,
    /// A binary message or its first part.
    Binary,
    /// The end of the connection.
    Close,
    /// A sign of life that wants an answer.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    fn parse(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message ends with it.
    pub fin: bool,
    /// The kind.
    pub opcode: Opcode,
    /// Its payload, inflated.
    pub payload: Bytes,
}

/// Why the bytes of a server are no WebSocket stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set, or the opcode is unknown.
    #[error("reserved bits or an unknown opcode")]
    Reserved,
    /// Servers don't mask.
    #[error("a masked frame from a server")]
    Masked,
    /// Larger than this client takes.
    #[error("a frame of {0} bytes")]
    TooLarge(u64),
    /// A continuation without a beginning, or a beginning inside a message.
    #[error("a fragment out of place")]
    Fragment,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a malformed control frame")]
    Control,
    /// A compressed message that can't be inflated, or would be too large.
    #[error("a compressed message can't be inflated")]
    Deflate,
}

/// Takes the first whole frame off `buffer`; `None` while there is none. With `deflates`, a message may be compressed, if it
/// is a single frame: Parley sends no others.
pub fn decode(buffer: &mut BytesMut, deflates: bool) -> Result<Option<Frame>, FrameError> {
    let (Some(&first), Some(&second)) = (buffer.first(), buffer.get(1)) else { return Ok(None) };
    let opcode = Opcode::parse(first & 0x0F).ok_or(FrameError::Reserved)?;
    let is_message = matches!(opcode, Opcode::Text | Opcode::Binary) && first & 0x80 != 0;
    let compressed = deflates && is_message && first & 0x70 == 0x40;
    if first & 0x70 != 0 && !compressed {
        return Err(FrameError::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let (header_bytes, length) = match second & 0x7F {
        126 => match buffer.get(2..4).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (4, u64::from(u16::from_be_bytes(bytes))),
            None => return Ok(None),
        },
        127 => match buffer.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (10, u64::from_be_bytes(bytes)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    let fin = first & 0x80 != 0;
    if matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) && (!fin || length > 125) {
        return Err(FrameError::Control);
    }
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(length));
    }
    let payload_bytes = usize::try_from(length).map_err(|_| FrameError::TooLarge(length))?;
    if buffer.len() < header_bytes + payload_bytes {
        return Ok(None);
    }
    buffer.advance(header_bytes);
    let payload = buffer.split_to(payload_bytes).freeze();
    let payload = if compressed { inflate(&payload).ok_or(FrameError::Deflate)? } else { payload };
    Ok(Some(Frame { fin, opcode, payload }))
}

/// Appends a masked, unfragmented frame to `out`.
pub fn encode(opcode: Opcode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.reserve(payload.len() + 14);
    out.push(0x80 | opcode.bits());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.push(0x80 | short),
        (_, Ok(medium)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The code and reason of a close frame; both may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloseFrame {
    /// The close code.
    pub code: Option<u16>,
    /// The server's reason.
    pub reason: String,
}

impl CloseFrame {
    /// Reads a close frame's payload; a malformed one counts as one without a code.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        match payload.split_first_chunk::<2>() {
            Some((code, reason)) => {
                Self { code: Some(u16::from_be_bytes(*code)), reason: String::from_utf8_lossy(reason).into_owned() }
            }
            None => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(short as u8),
            medium @ 126..65_536 => {
                bytes.push(126);
                bytes.extend((medium as u16).to_be_bytes());
            }
            long => {
                bytes.push(127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_of_every_length_arrive_whole_however_they_are_cut() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let bytes = server_frame(0x81, &payload);
            let mut buffer = BytesMut::new();
            for (at, chunk) in bytes.chunks(bytes.len().div_ceil(3)).enumerate() {
                buffer.extend_from_slice(chunk);
                if (at + 1) * bytes.len().div_ceil(3) < bytes.len() {
                    assert_eq!(decode(&mut buffer, false), Ok(None), "{length}");
                }
            }
            let frame = decode(&mut buffer, false).expect("valid").expect("whole");
            assert_eq!((frame.fin, frame.opcode, frame.payload.len()), (true, Opcode::Text, length));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_compressed_message_is_inflated_where_that_was_negotiated() {
        // The examples of RFC 7692 §7.2.3.1.
        let hello = server_frame(0xC1, &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]);
        let frame = decode(&mut BytesMut::from(&hello[..]), true).expect("valid").expect("whole");
        assert_eq!((frame.opcode, &frame.payload[..]), (Opcode::Text, &b"Hello"[..]));
        assert_eq!(decode(&mut BytesMut::from(&hello[..]), false), Err(FrameError::Reserved));
        for (bytes, error) in [
            (server_frame(0xC1, b"hello"), FrameError::Deflate),
            (server_frame(0xC9, b""), FrameError::Reserved),
            (server_frame(0xA1, b""), FrameError::Reserved),
        ] {
            assert_eq!(decode(&mut BytesMut::from(&bytes[..]), true), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_no_server_frame_is_refused() {
        for (bytes, error) in [
            (vec![0xC1, 0], FrameError::Reserved),
            (vec![0x83, 0], FrameError::Reserved),
            (vec![0x81, 0x80], FrameError::Masked),
            (vec![0x09, 0], FrameError::Control),
            (vec![0x89, 126, 0, 200], FrameError::Control),
            (vec![0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0], FrameError::TooLarge(1 << 32)),
        ] {
            assert_eq!(decode(&mut BytesMut::from(&bytes[..]), false), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn a_written_frame_is_masked() {
        let mut out = Vec::new();
        encode(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d], &mut out);
        // The example of RFC 6455 §5.7.
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }
}
