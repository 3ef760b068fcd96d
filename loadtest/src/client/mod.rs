//! A `chat.v1` client with the whole behaviour of the contract: position, resume, resync, retries, close codes. It is
//! connected by a WebSocket, or by a stream of server-sent events beside which it sends over REST.
//! It offers [`Device`], a task that keeps one connection and records all that it receives.
//! It never judges a run: the oracle does.

mod device;
mod directory;
mod fetch;
mod gaps;
mod held_counts;
mod journal;
mod link;
mod pending;
mod posts;
mod reconnect;
mod session;
mod setup;
pub mod wire;

pub use device::Device;
pub use directory::Directory;
pub use gaps::GapTracker;
pub use held_counts::{HeldCounts, UnreadCounts};
pub use link::Transport;
pub use pending::{OutgoingMessage, Recipient};
pub use reconnect::{Backoff, ReconnectAction, after_close, after_refusal};
pub use session::{Session, Step};
pub use setup::{DeviceSetup, Order};
