//! Limits of one user, and of one address, on this node and in the cluster.
//!
//! Offers checks that say whether a command or a connection may pass, and if not, how long to wait. Never sees sockets or
//! requests. Every table here has a fixed size or a cap.

mod addresses;
mod polls;
mod rate;
mod slots;
mod user_rates;

pub use addresses::{Addresses, OverLimit, Stay};
pub use polls::{PollPlace, Polls};
pub use rate::{Bucket, Rate};
pub use slots::Slots;
pub use user_rates::{Allowance, UserRates};
