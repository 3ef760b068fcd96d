//! Who shares conversations with whom, asked by many at a time: after a deploy or an outage everybody comes at once.

use std::sync::Arc;

use shared::UserId;
use tokio_util::sync::CancellationToken;

use super::lane::{Asked, Item, Lane};
use super::{Store, StoreError};

/// Asks the store for partners; what is asked while a query is under way goes into the next one.
pub struct Partners {
    asked: Lane<Of>,
}

struct Of(UserId);

impl Item for Of {
    type Answer = Vec<UserId>;

    fn bytes(&self) -> usize {
        self.0.as_str().len()
    }
}

impl Partners {
    /// Starts the task that asks; it ends when this is dropped. At most `limit` partners of each user are told.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, limit: u32) -> Self {
        let query = move |asked| answer(Arc::clone(&store), asked, limit);
        Self { asked: Lane::start(CancellationToken::new(), query) }
    }

    /// The partners of `user`, as [`Store::partners`] orders them.
    pub async fn of(&self, user: &UserId) -> Result<Vec<UserId>, StoreError> {
        self.asked.ask(Of(user.clone())).await
    }
}

async fn answer(store: Arc<dyn Store>, asked: Vec<Asked<Of>>, limit: u32) {
    let users: Vec<UserId> = asked.iter().map(|asked| asked.item.0.clone()).collect();
    match store.partners(&users, limit).await {
        Ok(partners) => asked.into_iter().zip(partners).for_each(|(asked, partners)| asked.answer(Ok(partners))),
        Err(error) => asked.into_iter().for_each(|asked| asked.answer(Err(error.clone()))),
    }
}
