//! Server frames (RFC 6455 §5.2): turns payloads into the bytes of unmasked frames.
//!
//! It never fragments a message and never masks.

use bytes::Bytes;
use shared::CloseCode;

/// FIN and the opcode of a text frame.
const TEXT: u8 = 0x81;
/// FIN and the opcode of a binary frame.
const BINARY: u8 = 0x82;
/// The reserved bit that marks a compressed message (RFC 7692 §6).
const COMPRESSED: u8 = 0x40;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// One text frame with this payload, which must be UTF-8.
#[must_use]
pub fn frame_text(payload: &[u8]) -> Bytes {
    frame(TEXT, payload)
}

/// Adds one text frame with this payload, which must be UTF-8.
pub fn put_text(framed: &mut Vec<u8>, payload: &[u8]) {
    put_frame(framed, TEXT, payload);
}

/// One binary frame with this payload.
#[must_use]
pub fn frame_binary(payload: &[u8]) -> Bytes {
    frame(BINARY, payload)
}

/// A ping without payload. Allocates nothing.
#[must_use]
pub const fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0])
}

/// Adds the answer to a ping, whose payload has at most [`CONTROL_PAYLOAD_BYTES_MAX`] bytes; what exceeds that is cut.
pub fn put_pong(framed: &mut Vec<u8>, payload: &[u8]) {
    put_frame(framed, PONG, payload.get(..CONTROL_PAYLOAD_BYTES_MAX).unwrap_or(payload));
}

/// A close frame with a code of ours and its reason.
#[must_use]
pub fn close(code: CloseCode) -> Bytes {
    control(CLOSE, &code.code().to_be_bytes(), code.reason().as_bytes())
}

/// The answer to a peer's close frame: its code again, or none when it gave none (RFC 6455 §5.5.1).
#[must_use]
pub fn close_echo(code: Option<u16>) -> Bytes {
    match code {
        Some(code) => control(CLOSE, &code.to_be_bytes(), &[]),
        None => Bytes::from_static(&[CLOSE, 0]),
    }
}

/// Adds a frame with `head` as its first byte, marked as compressed.
pub(super) fn put_compressed(framed: &mut Vec<u8>, head: u8, payload: &[u8]) {
    put_frame(framed, head | COMPRESSED, payload);
}

/// The payloads of frames that [`put_text`] put one after another.
pub fn text_payloads(framed: &[u8]) -> impl Iterator<Item = &[u8]> {
    frames(framed).map(|frame| frame.payload)
}

/// A server frame in a buffer.
pub(super) struct Framed<'f> {
    /// Its first byte.
    pub(super) head: u8,
    pub(super) payload: &'f [u8],
    /// All of it.
    pub(super) whole: &'f [u8],
}

/// The frames that stand one after another.
pub(super) fn frames(mut framed: &[u8]) -> impl Iterator<Item = Framed<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = framed.split_first()?;
        let (short, rest) = rest.split_first()?;
        let (len, rest) = match short {
            126 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
            127 => {
                let (len, rest) = rest.split_first_chunk()?;
                (usize::try_from(u64::from_be_bytes(*len)).ok()?, rest)
            }
            short => (usize::from(*short), rest),
        };
        let (payload, after) = rest.split_at_checked(len)?;
        let whole = framed.get(..framed.len() - after.len())?;
        framed = after;
        Some(Framed { head: *head, payload, whole })
    })
}

fn control(head: u8, start: &[u8], rest: &[u8]) -> Bytes {
    let rest = rest.get(..CONTROL_PAYLOAD_BYTES_MAX.saturating_sub(start.len())).unwrap_or(rest);
    let len = start.len() + rest.len();
    let mut framed = Vec::with_capacity(framed_len(len));
    put_header(&mut framed, head, len);
    framed.extend_from_slice(start);
    framed.extend_from_slice(rest);
    framed.into()
}

fn frame(head: u8, payload: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(framed_len(payload.len()));
    put_frame(&mut framed, head, payload);
    framed.into()
}

/// The bytes of a frame with a payload of so many bytes.
#[must_use]
pub const fn framed_len(payload: usize) -> usize {
    let header = match payload {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    header + payload
}

fn put_frame(framed: &mut Vec<u8>, head: u8, payload: &[u8]) {
    put_header(framed, head, payload.len());
    framed.extend_from_slice(payload);
}

fn put_header(framed: &mut Vec<u8>, head: u8, len: usize) {
    framed.push(head);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if short <= 125 => framed.push(short),
        (_, Ok(medium)) => {
            framed.push(126);
            framed.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            framed.push(127);
            framed.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_from_frames_of_every_length() {
        let payloads = [0, 1, 125, 126, 0xFFFF, 0x10000].map(|len| vec![b'x'; len]);
        let mut framed = Vec::new();
        payloads.iter().for_each(|payload| put_text(&mut framed, payload));
        assert!(text_payloads(&framed).eq(payloads.iter().map(Vec::as_slice)));
    }

    #[test]
    fn lengths_take_their_shortest_form_at_every_boundary() {
        for (len, header) in [
            (0_usize, &[0x81_u8, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xFFFF, &[0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![b'x'; len];
            let framed = frame_text(&payload);
            assert_eq!(&framed[..header.len()], header);
            assert_eq!(&framed[header.len()..], &payload[..]);
        }
        assert_eq!(frame_binary(&[7])[..], [0x82, 1, 7]);
    }

    #[test]
    fn control_frames_carry_code_reason_and_payload() {
        assert_eq!(ping()[..], [0x89, 0]);
        let mut pongs = Vec::new();
        put_pong(&mut pongs, b"");
        put_pong(&mut pongs, b"hi");
        assert_eq!(pongs, [0x8A, 0, 0x8A, 2, b'h', b'i']);
        put_pong(&mut pongs, &[1; 200]);
        assert_eq!(pongs.len(), 6 + 2 + CONTROL_PAYLOAD_BYTES_MAX);
        assert_eq!(close(CloseCode::Normal)[..], *b"\x88\x08\x03\xE8normal");
        assert_eq!(close_echo(Some(1001))[..], [0x88, 2, 0x03, 0xE9]);
        assert_eq!(close_echo(None)[..], [0x88, 0]);
    }
}
