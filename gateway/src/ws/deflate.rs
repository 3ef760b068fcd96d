//! permessage-deflate (RFC 7692) without context takeover: each message is a deflate stream by itself.
//! It offers [`inflate`] and [`compressed`]. One inflater and one deflater serve all sockets of a thread.
//! It never makes more bytes of a message than its limit, and keeps nothing of a message.

use std::cell::RefCell;
use std::num::NonZeroU16;

use bytes::Bytes;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use super::frame::{frames, put_compressed};

/// Both windows, as a power of two. Every smaller one of a client fits into it.
const WINDOW_BITS: u8 = 15;

/// zlib's level. A chat message of 1,500 characters shrinks to 58 % at level 1, to 44 % at 2, to 43 % at 6; and 6 takes
/// five times as long for 60 KB.
const LEVEL: i32 = 2;

/// Messages with a larger payload are sent as they are. This much takes a millisecond to compress, and the thread that reads
/// the backbone does nothing else meanwhile.
pub const DEFLATE_BYTES_MAX: usize = 64 * 1024;

/// The end of a flushed stream, which the sender of a message leaves out (RFC 7692 §7.2.1).
const FLUSHED: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// The same, and an empty last block. A message that is whole makes nothing more of it, and the stream ends.
const ENDED: [u8; 6] = [0x00, 0x00, 0xFF, 0xFF, 0x03, 0x00];

/// The least room for a message that is inflated, in bytes.
const ROOM_MIN: usize = 512;
/// A guess how many times larger than its compressed form a message is.
const RATIO_GUESS: usize = 4;

thread_local! {
    static INFLATER: RefCell<Inflate> = RefCell::new(Inflate::new(false, WINDOW_BITS));
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater {
        stream: Deflate::new(LEVEL, false, WINDOW_BITS),
        deflated: Vec::new(),
        framed: Vec::new(),
    });
}

/// Why a message can't be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflateError {
    /// It would have more bytes than it may.
    TooBig,
    /// It isn't a deflate stream, or not a whole one.
    Damaged,
}

/// The message of a payload whose first frame had RSV1; it may have `bytes_max` bytes. A bomb costs no more than that.
///
/// # Errors
/// The payload is damaged, or its message too big.
pub fn inflate(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    // Some clients send no byte for an empty message, where RFC 7692 §7.2.3.6 wants one.
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let mut message = Message { bytes: Vec::new(), made: 0, bytes_max };
        // A stream may end by itself, with a block marked as the last (§7.2.3.4).
        if message.take(inflater, payload)? == Progress::Ended {
            return Ok(message.finish());
        }
        let made = message.made;
        match message.take(inflater, &ENDED)? {
            Progress::Ended if message.made == made => Ok(message.finish()),
            Progress::Ended | Progress::Waits => Err(InflateError::Damaged),
        }
    })
}

/// A message that is being inflated.
struct Message {
    /// What was made, and room for more.
    bytes: Vec<u8>,
    made: usize,
    bytes_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The last block ended with the last byte of the input.
    Ended,
    /// The stream goes on.
    Waits,
}

impl Message {
    /// Inflates all of `input`. After a last block a further stream may follow: §7.2.3.4 puts an empty one there.
    fn take(&mut self, inflater: &mut Inflate, input: &[u8]) -> Result<Progress, InflateError> {
        let mut rest = input;
        loop {
            self.make_room(rest.len());
            let room = self.bytes.get_mut(self.made..).unwrap_or_default();
            let (taken, made) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(rest, room, InflateFlush::SyncFlush);
            let status = status.map_err(|_| InflateError::Damaged)?;
            let since = |before: u64, now: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
            rest = rest.get(since(taken, inflater.total_in())..).unwrap_or_default();
            self.made += since(made, inflater.total_out());
            if self.made > self.bytes_max {
                return Err(InflateError::TooBig);
            }
            match status {
                Status::StreamEnd if rest.is_empty() => return Ok(Progress::Ended),
                Status::StreamEnd => inflater.reset(false),
                // Without room there may be more to come.
                Status::Ok | Status::BufError if self.made == self.bytes.len() => {}
                Status::Ok | Status::BufError if rest.is_empty() => return Ok(Progress::Waits),
                Status::Ok => {}
                Status::BufError => return Err(InflateError::Damaged),
            }
        }
    }

    /// Makes room for one byte more than the message may have at most: that byte tells that it is too big.
    fn make_room(&mut self, compressed_bytes: usize) {
        if self.made == self.bytes.len() {
            let wanted = (self.made * 2).max(compressed_bytes.saturating_mul(RATIO_GUESS)).max(ROOM_MIN);
            self.bytes.resize(wanted.min(self.bytes_max.saturating_add(1)), 0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.made);
        self.bytes
    }
}

/// The same framed messages, those of `from` bytes or more in their compressed form where that is smaller. `None` if none
/// is, or if the socket didn't negotiate it (`from` is `None`): they are to be sent as they are.
#[must_use]
pub fn compressed(framed: &[u8], from: Option<NonZeroU16>) -> Option<Bytes> {
    let from = usize::from(from?.get());
    let is_wanted = |payload: &[u8]| (from..=DEFLATE_BYTES_MAX).contains(&payload.len());
    if !frames(framed).any(|frame| is_wanted(frame.payload)) {
        return None;
    }
    DEFLATER.with_borrow_mut(|Deflater { stream, deflated, framed: output }| {
        output.clear();
        output.shrink_to(DEFLATE_BYTES_MAX);
        let mut any = false;
        for frame in frames(framed) {
            match is_wanted(frame.payload).then(|| deflate(stream, deflated, frame.payload)).flatten() {
                Some(payload) => {
                    put_compressed(output, frame.head, payload);
                    any = true;
                }
                None => output.extend_from_slice(frame.whole),
            }
        }
        any.then(|| Bytes::copy_from_slice(output))
    })
}

struct Deflater {
    stream: Deflate,
    /// The last message, compressed.
    deflated: Vec<u8>,
    /// The frames that are being put together.
    framed: Vec<u8>,
}

/// The compressed form of a payload, in `room`, without the end that is left out; `None` if it isn't smaller.
fn deflate<'r>(stream: &mut Deflate, room: &'r mut Vec<u8>, payload: &[u8]) -> Option<&'r [u8]> {
    stream.reset();
    // With a byte of this left over, the flush is complete, and the form is smaller.
    let bytes_max = payload.len() + FLUSHED.len();
    if room.len() < bytes_max {
        room.resize(bytes_max, 0);
    }
    let output = room.get_mut(..bytes_max)?;
    stream.compress(payload, output, DeflateFlush::SyncFlush).ok()?;
    let bytes = usize::try_from(stream.total_out()).ok().filter(|bytes| *bytes < bytes_max)?;
    output.get(..bytes)?.strip_suffix(&FLUSHED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ws::client_frame::{deflated, inflated_in_pieces};
    use crate::ws::frame::{frame_binary, frame_text};

    const LIMIT: usize = 70_000;

    fn from(bytes: u16) -> Option<NonZeroU16> {
        NonZeroU16::new(bytes)
    }

    /// Bytes that nobody can compress.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..bytes).map(|_| random()).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_inflate() {
        for (payload, message) in [
            (&b"\xF2\x48\xCD\xC9\xC9\x07\x00"[..], "Hello"),
            (b"\x00\x05\x00\xFA\xFF\x48\x65\x6C\x6C\x6F\x00", "Hello"),
            // The last block is marked as the last, and an empty one follows; some clients leave that one out.
            (b"\xF3\x48\xCD\xC9\xC9\x07\x00\x00", "Hello"),
            (b"\xF3\x48\xCD\xC9\xC9\x07\x00", "Hello"),
            (b"\xF2\x48\x05\x00\x00\x00\xFF\xFF\xCA\xC9\xC9\x07\x00", "Hello"),
            (b"\x00", ""),
            (b"", ""),
        ] {
            assert_eq!(inflate(payload, LIMIT), Ok(message.as_bytes().to_vec()), "{payload:x?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_damaged() {
        let text = "A message that says the same thing again, says the same thing again, and ends. ".repeat(20);
        for window_bits in [9, 15] {
            let payload = deflated(text.as_bytes(), window_bits);
            for bytes in 1..payload.len() {
                assert_eq!(inflate(&payload[..bytes], LIMIT), Err(InflateError::Damaged), "{bytes} bytes");
            }
            assert_eq!(inflate(&[&payload[..], &[0xFF; 3]].concat(), LIMIT), Err(InflateError::Damaged));
            assert_eq!(inflate(&[&payload[..], &FLUSHED].concat(), LIMIT), Err(InflateError::Damaged));
        }
        for payload in [&b"\xFF"[..], b"plain text", b"\x07", b"\x02", &[0; 5]] {
            assert_eq!(inflate(payload, LIMIT), Err(InflateError::Damaged), "{payload:x?}");
        }
        // Nothing of a damaged message is left in the inflater.
        assert_eq!(inflate(b"\xF2\x48\xCD\xC9\xC9\x07\x00", LIMIT), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn a_bomb_makes_no_more_bytes_than_a_message_may_have() {
        let bomb = deflated(&vec![0; 16 << 20], 15);
        assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
        for limit in [0, 1, 1024, LIMIT] {
            assert_eq!(inflate(&bomb, limit), Err(InflateError::TooBig));
        }
        let mut message = Message { bytes: Vec::new(), made: 0, bytes_max: LIMIT };
        assert_eq!(message.take(&mut Inflate::new(false, WINDOW_BITS), &bomb), Err(InflateError::TooBig));
        assert_eq!(message.bytes.len(), LIMIT + 1);
        // A stream that ends by itself, one a byte too long, one as long as it may be.
        assert_eq!(inflate(b"\xF3\x48\xCD\xC9\xC9\x07\x00", 4), Err(InflateError::TooBig));
        assert_eq!(inflate(&deflated(&vec![7; LIMIT + 1], 15), LIMIT), Err(InflateError::TooBig));
        assert_eq!(inflate(&deflated(&vec![7; LIMIT], 15), LIMIT), Ok(vec![7; LIMIT]));
    }

    #[test]
    fn messages_from_a_size_on_are_compressed_and_others_stay() {
        let long = "to be or not to be, that is the question: ".repeat(40);
        let framed = [frame_text(b"short"), frame_text(long.as_bytes()), frame_binary(&[3; 600])].concat();
        let sent = compressed(&framed, from(512)).expect("smaller");
        assert!(sent.len() < 200, "{} bytes", sent.len());
        let found: Vec<(u8, Vec<u8>)> = frames(&sent)
            .map(|frame| match frame.head & 0x40 {
                0 => (frame.head, frame.payload.to_vec()),
                _ => (frame.head, inflated_in_pieces(frame.payload).expect("whole")),
            })
            .collect();
        let expected = [(0x81, b"short".to_vec()), (0xC1, long.clone().into_bytes()), (0xC2, vec![3; 600])];
        assert_eq!(found, expected);
        // The size is that of the payload, and the border belongs to it.
        let framed = frame_text(&[b'x'; 512]);
        assert!(compressed(&framed, from(512)).is_some_and(|sent| sent.len() < framed.len()));
        assert_eq!(compressed(&framed, from(513)), None);
    }

    /// The distances that our compression makes reach as far as the window of a client does, and no further.
    #[test]
    fn what_repeats_from_afar_is_found_and_inflates_in_pieces() {
        let half = noise(30_000);
        let message = half.repeat(2);
        let sent = compressed(&frame_binary(&message), from(1)).expect("smaller");
        let payload = frames(&sent).next().expect("a frame").payload;
        assert!(payload.len() < 31_000, "{} bytes", payload.len());
        assert_eq!(inflated_in_pieces(payload), Some(message));
    }

    #[test]
    fn what_would_not_be_smaller_is_sent_as_it_is() {
        let random = noise(3_000);
        let huge = vec![b'x'; DEFLATE_BYTES_MAX + 1];
        for framed in [frame_binary(&random), frame_text(&huge), frame_text(b"x"), Bytes::new()] {
            assert_eq!(compressed(&framed, from(1)), None);
        }
        assert_eq!(compressed(&frame_text(&[b'x'; 4_000]), None), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_message_of_every_window_comes_back(
            words in prop::collection::vec("[a-e]{1,9}", 0..200),
            repeated in 1_usize..40,
            window_bits in 9_u8..=15,
        ) {
            let message = words.join(" ").repeat(repeated).into_bytes();
            prop_assume!(message.len() <= LIMIT);
            prop_assert_eq!(inflate(&deflated(&message, window_bits), LIMIT), Ok(message.clone()));
            if let Some(sent) = compressed(&frame_text(&message), from(1)) {
                let frame = frames(&sent).next().expect("a frame");
                prop_assert_eq!(inflated_in_pieces(frame.payload), Some(message));
            }
        }

        #[test]
        fn any_bytes_make_a_message_within_the_limit_or_none(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            limit in 0_usize..2_000,
        ) {
            if let Ok(message) = inflate(&payload, limit) {
                prop_assert!(message.len() <= limit);
            }
        }
    }
}
