//! A lean WebSocket client over plain TCP: no buffer stays with an idle socket, and a write never waits.

mod frame;
mod socket;

pub use frame::{CloseFrame, FrameError, Opcode, encode};
pub use socket::{ConnectError, Incoming, Reader, Writer, connect};

#[doc(hidden)]
pub use frame::{Frame, decode};
