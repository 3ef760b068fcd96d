//! Limits per user and per address, on this node and in the cluster.
//! It offers checks that say whether a command or a connection may pass, and if not, how long to wait.
//! It never sees a socket or a request, and no table here grows without a bound.

mod addresses;
mod bulk;
pub mod charges;
mod polls;
mod rate;
mod shared_places;
mod slots;
mod user_rates;

pub use addresses::{Addresses, OverLimit, Stay};
pub use bulk::{BulkPlace, BulkRequests, BulkWork, TooManyBulkRequests};
pub use polls::{PollPlace, Polls};
pub use rate::{Bucket, Rate};
pub use shared_places::{AddressKey, SharedPlace, SharedPlaces, may_take};
pub use slots::Slots;
pub use user_rates::{Allowance, UserRates};
