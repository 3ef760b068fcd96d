//! Signed requests to URLs of the settings: [`Hook`] asks before something is stored, [`EventsWebhook`] posts what was
//! committed, and [`PushWebhook`] what no connection received. A webhook never follows a redirect, and never posts to another
//! URL than the one of its setting.

pub mod events;
mod hook;
mod presence;
mod push;
mod schedule;
mod signature;
mod signed;

pub use events::EventsWebhook;
pub use hook::{Hook, HookAnswer, HookQuestion, HookRefusal};
pub use presence::{PresencePosts, PresenceTask};
pub use push::PushWebhook;
