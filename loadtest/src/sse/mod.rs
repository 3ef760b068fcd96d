//! A lean client for server-sent events over plain TCP: no buffer stays with an idle stream, as with [`crate::ws`].
//! It offers [`Stream`], which opens one and gives what it says.
//! It never comes back by itself: whoever opened the stream decides about that.

mod chunks;
mod event;
mod stream;

pub use event::{Event, Incoming};
pub use stream::Stream;
