//! Large conversations: which there are, how a conversation becomes large and small again, and what somebody missed of one.
//! The values and the rules that both stores share, and the trait. No SQL.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use shared::{Conversation, ConversationId, Message, Place, Role, UserId};

use super::{OutboxRow, Route, StoreError};

/// The most changes that are read in place of lost publications. Who missed more is told to fetch them.
pub const MISSED_MAX: u32 = 256;

impl Route {
    /// Whether a conversation with this route and more than `over` members, or less than half as many, is to change it.
    #[must_use]
    pub fn is_due(&self, over: u32, is_direct: bool) -> bool {
        turn(self.large, self.count, over, is_direct).is_some()
    }
}

/// A conversation that becomes large, or small again.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossed {
    /// The conversation, without its newest message; `rev` and `last_seq` are those of the crossing.
    pub conversation: Conversation,
    /// Its accepted members, each of whom is told.
    pub members: Arc<Vec<UserId>>,
}

/// A conversation of a user, as their connection has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnLarge {
    /// The conversation.
    pub conversation: ConversationId,
    /// Where it is. Those that aren't large are told only where they were asked for.
    pub head: Head,
}

/// Where a conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its newest change and message.
    pub place: Place,
    /// Whether it is large.
    pub large: bool,
}

/// What was read in place of lost publications.
#[derive(Debug, Clone, PartialEq)]
pub struct Missed {
    /// Where the conversation was when this was read. `None` if there is none, or it was deleted.
    pub head: Option<Head>,
    /// The `rev` behind which nothing is left out.
    pub floor: u64,
    /// The messages whose last change lies behind `floor`, by `rev`; with each, whether it was published once for all members.
    pub messages: Vec<(Message, bool)>,
}

impl Missed {
    /// Of the newest changes behind `after`, at most one more than [`MISSED_MAX`], the latest first.
    pub(super) fn of(head: Option<Head>, after: u64, mut newest: Vec<(Message, bool)>) -> Self {
        let max = usize::try_from(MISSED_MAX).unwrap_or(usize::MAX);
        let floor = newest.get(max).map_or(after, |(message, _)| message.rev);
        newest.truncate(max);
        newest.reverse();
        Self { head, floor, messages: newest }
    }
}

/// What is asked of large conversations.
#[async_trait]
pub trait LargeConversations: Send + Sync + 'static {
    /// For each of these users, in their order: the large conversations that they are in, and those of the named ones that they
    /// are in, large or not. By one query.
    async fn large_of(
        &self,
        users: &[UserId],
        named: &[BTreeSet<ConversationId>],
    ) -> Result<Vec<Vec<OwnLarge>>, StoreError>;

    /// Where these conversations are, by one query. One that doesn't exist, or was deleted, is left out.
    async fn heads(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Head>, StoreError>;

    /// What changed behind the `rev` `after`, and where the conversation is, by one statement.
    async fn missed(&self, id: &ConversationId, after: u64) -> Result<Missed, StoreError>;

    /// The role of a user in a conversation, if they are an accepted member.
    async fn role_in(&self, id: &ConversationId, user: &UserId) -> Result<Option<Role>, StoreError>;

    /// The members of a conversation between whom and a user there is a block, by id.
    async fn blocked_in(&self, id: &ConversationId, user: &UserId) -> Result<Vec<UserId>, StoreError>;

    /// Conversations that are not large and have more than `over` members, or are large and have less than half as many (`over`
    /// 0: all that are large). At most `limit`.
    async fn due_to_cross(&self, over: u32, limit: u32) -> Result<Vec<ConversationId>, StoreError>;

    /// Makes a conversation large or small again if it is due to, under its lock; whether it was. Each member is told by an
    /// event in the row.
    async fn cross(&self, id: &ConversationId, over: u32, outbox: OutboxRow<Crossed>) -> Result<bool, StoreError>;
}

/// Whether a conversation is to become large (`Some(true)`), or small again.
pub(super) fn turn(large: bool, count: u64, over: u32, is_direct: bool) -> Option<bool> {
    let over = u64::from(over);
    if large {
        return (over == 0 || 2 * count < over).then_some(false);
    }
    (over > 0 && count > over && !is_direct).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Crossing;

    #[test]
    fn a_message_goes_the_way_that_its_commit_found() {
        let crossing = |last_seq, large| Crossing { last_seq, large };
        let route = Route {
            large: true,
            count: 9,
            crossings: vec![crossing(3, true), crossing(7, false), crossing(7, true), crossing(9, false)],
        };
        let ways = (1..=11).map(|seq| route.is_large_at(seq)).collect::<Vec<_>>();
        assert_eq!(ways, [false, false, false, true, true, true, true, true, true, false, false]);
        assert!(!Route::default().is_large_at(1));
    }

    #[test]
    fn a_conversation_crosses_with_room_between_the_limits() {
        for (large, count, over, expected) in [
            (false, 100, 100, None),
            (false, 101, 100, Some(true)),
            (true, 100, 100, None),
            (true, 50, 100, None),
            (true, 49, 100, Some(false)),
            (true, 1000, 0, Some(false)),
            (false, 1000, 0, None),
            (false, 3, 2, Some(true)),
            (true, 1, 2, None),
            (true, 0, 2, Some(false)),
        ] {
            assert_eq!(turn(large, count, over, false), expected, "{large} {count} {over}");
        }
        assert_eq!(turn(false, 2, 1, true), None, "direct conversations stay small");
    }
}
