//! Look-ups for one user at a time, answered for many users by one query. After a deploy, or when Redis came back
//! empty, every user is looked up at once.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use shared::{ConversationId, UserId};
use tokio_util::sync::CancellationToken;

use super::flow::Flow;
use super::lane::{CommitLane, Item, PendingItem};
use super::{OwnLarge, Partner, Store, StoreError};
use crate::overload::Kind;

/// Queries the store. Look-ups that arrive during a query make the next one.
pub struct ByUser<A: Send + 'static> {
    asked: CommitLane<UserLookup<A>>,
}

/// The users that share conversations with a user: [`People::partners`](super::People::partners).
pub type Partners = ByUser<Vec<Partner>>;

/// The large conversations of users: [`LargeConversations::large_of`](super::LargeConversations::large_of).
pub struct LargeOf {
    asked: CommitLane<LargeLookup>,
}

struct LargeLookup {
    user: UserId,
    named: BTreeSet<ConversationId>,
}

impl Item for LargeLookup {
    type Answer = Vec<OwnLarge>;

    fn bytes(&self) -> usize {
        self.user.as_str().len() + self.named.iter().map(|id| id.as_str().len()).sum::<usize>()
    }
}

impl LargeOf {
    /// Starts the task that queries; it ends when this is dropped.
    #[must_use]
    pub fn start(store: Arc<dyn Store>) -> Self {
        let ask = move |asked: Vec<PendingItem<LargeLookup>>| {
            let store = Arc::clone(&store);
            async move {
                let (users, named): (Vec<_>, Vec<_>) =
                    asked.iter().map(|asked| (asked.item.user.clone(), asked.item.named.clone())).unzip();
                match store.large_of(&users, &named).await {
                    Ok(answers) => asked.into_iter().zip(answers).for_each(|(asked, answer)| asked.answer(Ok(answer))),
                    Err(error) => asked.into_iter().for_each(|asked| asked.answer(Err(error.clone()))),
                }
            }
        };
        Self { asked: CommitLane::start(Kind::LookUps, Flow::patient(), CancellationToken::new(), ask) }
    }

    /// The large conversations that `user` is in, and those of the named ones.
    pub async fn of(&self, user: &UserId, named: BTreeSet<ConversationId>) -> Result<Vec<OwnLarge>, StoreError> {
        self.asked.ask(LargeLookup { user: user.clone(), named }).await
    }
}

struct UserLookup<A> {
    user: UserId,
    answer: PhantomData<fn() -> A>,
}

impl<A: Send + 'static> Item for UserLookup<A> {
    type Answer = A;

    fn bytes(&self) -> usize {
        self.user.as_str().len()
    }
}

impl Partners {
    /// Starts the task that queries; it ends when this is dropped. Each user gets at most `limit` partners.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, limit: u32) -> Self {
        Self::ask_together(move |users| {
            let store = Arc::clone(&store);
            async move { store.partners(&users, limit).await }
        })
    }
}

impl<A: Send + 'static> ByUser<A> {
    fn ask_together<Q, F>(query: Q) -> Self
    where
        Q: Fn(Vec<UserId>) -> F + Send + 'static,
        F: Future<Output = Result<Vec<A>, StoreError>> + Send + 'static,
    {
        let ask = move |asked: Vec<PendingItem<UserLookup<A>>>| {
            let answers = query(asked.iter().map(|asked| asked.item.user.clone()).collect());
            async move {
                match answers.await {
                    Ok(answers) => asked.into_iter().zip(answers).for_each(|(asked, answer)| asked.answer(Ok(answer))),
                    Err(error) => asked.into_iter().for_each(|asked| asked.answer(Err(error.clone()))),
                }
            }
        };
        Self { asked: CommitLane::start(Kind::LookUps, Flow::patient(), CancellationToken::new(), ask) }
    }

    /// The store's answer for `user`.
    pub async fn of(&self, user: &UserId) -> Result<A, StoreError> {
        self.asked.ask(UserLookup { user: user.clone(), answer: PhantomData }).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn what_many_ask_at_once_is_one_query_and_each_gets_their_own() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let by_user = ByUser::ask_together(move |users: Vec<UserId>| {
            seen.lock().push(users.len());
            std::future::ready(match users.len() {
                100 => Ok(users.into_iter().map(|user| user.to_string()).collect()),
                _ => Err(StoreError::Unavailable("away".to_owned())),
            })
        });
        let users: Vec<UserId> = (0..100).map(|number| UserId::parse(&format!("u{number}")).expect("an id")).collect();
        for (user, answer) in users.iter().zip(join_all(users.iter().map(|user| by_user.of(user))).await) {
            assert_eq!(answer.expect("an answer"), user.to_string());
        }
        let refused = join_all(users[..3].iter().map(|user| by_user.of(user))).await;
        assert!(refused.iter().all(Result::is_err));
        assert_eq!(*sizes.lock(), [100, 3]);
    }
}
