//! Many members at once: one transaction, one outbox row.

use std::sync::Arc;

use async_trait::async_trait;
use shared::{Conversation, ConversationId, Role, UserId, Visibility};

use super::membership::{Facts, Standing, decide, may_moderate};
use super::{Members, MembershipChange, OutboxRow, Refusal, StoreError};

/// What adding many did.
#[derive(Debug, Clone, PartialEq)]
pub struct MembersAdded {
    /// Who came in, in the order asked.
    pub added: Vec<UserId>,
    /// Who is banned and stayed out.
    pub banned: Vec<UserId>,
    /// The conversation as each of them sees it afterwards; as a backend sees it when nobody came in.
    pub conversation: Conversation,
    /// The accepted members afterwards.
    pub members: Arc<Members>,
}

/// Adding many members.
#[async_trait]
pub trait BulkMembers: Send + Sync + 'static {
    /// `by` (owner or admin, or a backend if `None`) makes all these users members, with the rights of a member. Who is one
    /// already is passed over. `Full` if they don't all fit: then nobody comes in.
    async fn add_members(
        &self,
        id: &ConversationId,
        users: &[UserId],
        by: Option<&UserId>,
        outbox: OutboxRow<MembersAdded>,
    ) -> Result<MembersAdded, StoreError>;
}

/// Puts those who may come in into `members`: who does, and who is banned.
pub(super) fn decide_all(
    members: &mut Members,
    visibility: Visibility,
    actor: Option<Standing>,
    by: Option<&UserId>,
    users: impl Iterator<Item = (UserId, Option<Standing>)>,
) -> Result<(Vec<UserId>, Vec<UserId>), Refusal> {
    may_moderate(actor, by)?;
    let change = MembershipChange::Add { by: by.cloned(), role: Role::Member };
    let (mut added, mut banned) = (Vec::new(), Vec::new());
    for (user, standing) in users {
        match decide(&Facts { visibility, user: &user, standing, actor, members }, &change) {
            Ok(Some(_)) => {
                members.set(&user, Some(Role::Member));
                added.push(user);
            }
            Ok(None) => {}
            Err(Refusal::Banned) => banned.push(user),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok((added, banned))
}
