//! Signed requests to URLs of the settings: [`PushWebhook`] posts what no connection received, and [`Hook`] asks before
//! something is stored. A webhook never follows a redirect, and never posts to another URL than the one of its setting.

mod hook;
mod push;
mod signature;

pub use hook::{Hook, HookAnswer, HookQuestion, HookRefusal};
pub use push::PushWebhook;
