//! A lean WebSocket client over plain TCP: no buffer stays with an idle socket, and a write never waits.
//!
//! It replaces a crate because the driver shares two cores and their memory with the servers that it measures, and
//! holds up to 18,000 sockets. The clients of fastwebsockets 0.10 and tokio-websockets 0.13 keep a read buffer of 8 KiB
//! per connection, which can't be released. With tokio-websockets 4,000 idle connections took 31.2 MB, with this client
//! 14.4 MB. A read of fastwebsockets can't be dropped half-way without losing bytes, and a device drops its read at
//! every order and tick. RESULTS.md has more, under "The load driver's WebSocket client".

mod frame;
mod inflate;
mod socket;

pub use frame::{CloseFrame, FrameError, Opcode, encode};
pub(crate) use socket::{CONNECT_TIMEOUT, Head, dial, poll_fill, read_head};
pub use socket::{ConnectError, Incoming, Reader, Writer, connect};

#[doc(hidden)]
pub use frame::{Frame, decode};
