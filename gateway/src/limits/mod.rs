//! How much one user, and one address, may ask of this node and of the cluster. Knows neither sockets nor requests: it is
//! asked whether something may pass, and says how long to wait if not. Every table here has a fixed size or a cap.

mod addresses;
mod polls;
mod rate;
mod slots;
mod users;

pub use addresses::{Addresses, OverLimit, Stay};
pub use polls::{PollPlace, Polls};
pub use rate::{Bucket, Rate};
pub use slots::Slots;
pub use users::{Allowance, UserRates};
