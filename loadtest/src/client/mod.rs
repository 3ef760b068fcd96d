//! A `chat.v1` client with the whole behaviour of PROTOCOL §1: position, resume, resync, retries, close codes.

mod device;
mod directory;
mod fetch;
mod journal;
mod outgoing;
mod reconnect;
mod seen;
mod session;
mod setup;
pub mod wire;

pub use device::Device;
pub use directory::Directory;
pub use outgoing::{Send, SendTo};
pub use reconnect::{Backoff, Next, after_close, after_refusal};
pub use seen::Seen;
pub use session::{Session, Step};
pub use setup::{DeviceSetup, Order};
