//! The body of an HTTP answer without its framing: chunks (RFC 9112 §7.1), a known length, or all up to the end. No I/O here.

use bytes::{Buf, BytesMut};

/// The longest line before a chunk, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 256;

/// Where in its body an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Before the line with a chunk's size.
    ChunkSize,
    /// Inside a chunk, with so many bytes left.
    Chunk(usize),
    /// Behind a chunk's bytes, before its line end.
    ChunkEnd,
    /// In a body of a known length, with so many bytes left.
    Length(usize),
    /// The body goes up to the connection's end.
    UntilClose,
    /// Behind the last byte.
    Over,
}

/// The bytes are no chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunks")]
pub(super) struct Malformed;

impl Framing {
    /// Moves the body's bytes from `raw` to `body`, as many as there are. Trailers are left where they are.
    pub(super) fn unwrap(&mut self, raw: &mut BytesMut, body: &mut BytesMut) -> Result<(), Malformed> {
        loop {
            match self {
                Self::ChunkSize => {
                    let Some(end) = raw.windows(2).position(|window| window == b"\r\n") else {
                        return if raw.len() > SIZE_LINE_BYTES_MAX { Err(Malformed) } else { Ok(()) };
                    };
                    let line = raw.split_to(end);
                    raw.advance(2);
                    *self = match chunk_bytes(&line)? {
                        0 => Self::Over,
                        bytes => Self::Chunk(bytes),
                    };
                }
                Self::Chunk(left) => {
                    *left -= take(raw, body, *left);
                    if *left > 0 {
                        return Ok(());
                    }
                    *self = Self::ChunkEnd;
                }
                Self::ChunkEnd => {
                    if raw.len() < 2 {
                        return Ok(());
                    }
                    if raw.split_to(2) != b"\r\n"[..] {
                        return Err(Malformed);
                    }
                    *self = Self::ChunkSize;
                }
                Self::Length(left) => {
                    *left -= take(raw, body, *left);
                    if *left == 0 {
                        *self = Self::Over;
                    }
                    return Ok(());
                }
                Self::UntilClose => {
                    take(raw, body, raw.len());
                    return Ok(());
                }
                Self::Over => return Ok(()),
            }
        }
    }
}

/// Moves at most so many bytes; returns how many there were.
fn take(raw: &mut BytesMut, body: &mut BytesMut, bytes_max: usize) -> usize {
    let bytes = raw.len().min(bytes_max);
    body.extend_from_slice(&raw.split_to(bytes));
    bytes
}

/// The size in a chunk's first line; extensions are left out.
fn chunk_bytes(line: &[u8]) -> Result<usize, Malformed> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let size = std::str::from_utf8(size).map_err(|_| Malformed)?;
    usize::from_str_radix(size.trim(), 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, when it comes in pieces of so many bytes, and where the framing is then.
    fn unwrapped(mut framing: Framing, text: &str, piece_bytes: usize) -> Result<(String, Framing), Malformed> {
        let (mut raw, mut body) = (BytesMut::new(), BytesMut::new());
        for piece in text.as_bytes().chunks(piece_bytes) {
            raw.extend_from_slice(piece);
            framing.unwrap(&mut raw, &mut body)?;
        }
        Ok((String::from_utf8(body.to_vec()).expect("text"), framing))
    }

    #[test]
    fn chunks_give_the_same_body_however_they_are_cut() {
        let text = "6\r\nid: a:\r\n3;name=value\r\n1\n\n\r\n0\r\n\r\n";
        for piece_bytes in 1..=text.len() {
            assert_eq!(unwrapped(Framing::ChunkSize, text, piece_bytes), Ok(("id: a:1\n\n".into(), Framing::Over)));
        }
        assert_eq!(unwrapped(Framing::ChunkSize, "6\r\nid:", 9), Ok(("id:".into(), Framing::Chunk(3))));
    }

    #[test]
    fn a_known_length_ends_and_an_unknown_one_does_not() {
        for piece_bytes in 1..=5 {
            assert_eq!(unwrapped(Framing::Length(4), "four!", piece_bytes), Ok(("four".into(), Framing::Over)));
            assert_eq!(unwrapped(Framing::UntilClose, "four!", piece_bytes), Ok(("four!".into(), Framing::UntilClose)));
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        for text in ["nonsense\r\n", "1\r\nab\r\n", "\r\n", &"0".repeat(300)] {
            assert_eq!(unwrapped(Framing::ChunkSize, text, text.len()), Err(Malformed), "{text}");
        }
    }
}
