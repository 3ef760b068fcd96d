//! One read buffer per thread: an idle socket has none.

use std::cell::Cell;

/// Bytes that one read may bring.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Box<[u8]>> = Cell::default();
}

/// Lends this thread's buffer, whose contents mean nothing.
pub(super) fn with_read_buffer<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    // Taken, not borrowed: a nested call from inside `read` gets a buffer of its own, not a panic.
    let mut buffer = BUFFER.take();
    if buffer.is_empty() {
        buffer = vec![0; READ_BYTES].into_boxed_slice();
    }
    let result = read(&mut buffer);
    BUFFER.set(buffer);
    result
}
