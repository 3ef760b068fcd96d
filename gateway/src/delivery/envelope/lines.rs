//! Payloads as lines. Many bytes are searched at once, because this runs for every event.

use memchr::memchr;

/// The lines of a payload.
pub fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(payload);
    std::iter::from_fn(move || {
        let (line, after) = first_line(rest?);
        rest = after;
        Some(line)
    })
}

/// The companions of the first envelope.
#[must_use]
pub fn companions(envelopes: &[u8]) -> &[u8] {
    first_line(envelopes).1.unwrap_or_default()
}

/// The first line, and the bytes behind its newline if it has one.
pub fn first_line(payload: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'\n', payload).and_then(|end| payload.split_at_checked(end)) {
        Some((line, rest)) => (line, rest.get(1..)),
        None => (payload, None),
    }
}
