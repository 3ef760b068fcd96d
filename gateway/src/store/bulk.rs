//! Many members at once: one transaction, one outbox row.

use std::sync::Arc;

use async_trait::async_trait;
use shared::{Conversation, ConversationId, Role, UserId, Visibility};

use super::membership::{Facts, Standing, may_moderate, next_standing};
use super::{Members, MembershipChange, OutboxRow, Refusal, StoreError};

/// The outcome of adding many.
#[derive(Debug, Clone, PartialEq)]
pub struct MembersAdded {
    /// The users that came in, in the order of the request.
    pub added: Vec<UserId>,
    /// The users that are banned and stayed out.
    pub banned: Vec<UserId>,
    /// The users that stayed out because of a block between them and the one who adds; ascending by id.
    pub blocked: Vec<UserId>,
    /// The conversation as each of them sees it afterwards; as a backend sees it when nobody came in.
    pub conversation: Conversation,
    /// The accepted members afterwards.
    pub members: Arc<Members>,
}

/// Adding many members.
#[async_trait]
pub trait BulkMembers: Send + Sync + 'static {
    /// `by` (owner or admin, or a backend if `None`) makes all these users members, with the rights of a member. Users
    /// that are members already are skipped. `Full` if they don't all fit: then nobody comes in.
    async fn add_members(
        &self,
        id: &ConversationId,
        users: &[UserId],
        by: Option<&UserId>,
        outbox: OutboxRow<MembersAdded>,
    ) -> Result<MembersAdded, StoreError>;
}

/// The facts that adding many is judged by, read under the conversation's lock.
pub(super) struct BulkFacts<'a> {
    pub(super) visibility: Visibility,
    /// The user who adds; `None` for a backend.
    pub(super) by: Option<&'a UserId>,
    /// The row of that user.
    pub(super) actor: Option<Standing>,
    /// The newest message: later ones are for the members of then.
    pub(super) last_seq: u64,
    /// The users with whom the one who adds shares a block, ascending by id.
    pub(super) blocked: &'a [UserId],
}

/// The users of one addition, by what becomes of them. Members of before are in no list.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) added: Vec<UserId>,
    pub(super) banned: Vec<UserId>,
    pub(super) blocked: Vec<UserId>,
}

/// Puts the users that may come in into `members`.
pub(super) fn decide_all(
    members: &mut Members,
    facts: &BulkFacts<'_>,
    users: impl Iterator<Item = (UserId, Option<Standing>)>,
) -> Result<Decided, Refusal> {
    let BulkFacts { visibility, by, actor, last_seq, blocked } = *facts;
    may_moderate(actor, by)?;
    let change = MembershipChange::Add { by: by.cloned(), role: Role::Member };
    let mut decided = Decided::default();
    for (user, standing) in users {
        let blocked = blocked.binary_search(&user).is_ok();
        match next_standing(&Facts { visibility, user: &user, standing, actor, members, blocked }, &change) {
            Ok(Some(_)) => {
                members.set(&user, Some(Role::Member));
                members.since_seq = last_seq;
                decided.added.push(user);
            }
            Ok(None) => {}
            Err(Refusal::Banned) => decided.banned.push(user),
            Err(Refusal::Blocked) => decided.blocked.push(user),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(decided)
}
