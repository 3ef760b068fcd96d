//! A cache of conversations' members, each entry valid until a commit has seen another version.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use shared::{ConversationId, ProtocolError, Role, UserId};

use super::refused;
use crate::store::{Members, Store, StoreError};
use crate::switches;

/// Members that the cache holds, over all conversations.
const MEMBERS_CACHED_MAX: u64 = 1_000_000;
/// The longest that an entry is used without a commit that confirms it. Typing and receipts rely on it alone.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// The longest that an entry is remembered: for what goes on while the store is away.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The members of the conversations that this node works with.
pub struct MembersCache {
    store: Arc<dyn Store>,
    cache: Cache<ConversationId, CachedMembers>,
}

#[derive(Clone)]
struct CachedMembers {
    members: Arc<Members>,
    loaded: Instant,
}

impl CachedMembers {
    fn if_fresh(self) -> Option<Arc<Members>> {
        (self.loaded.elapsed() < FRESH_FOR).then_some(self.members)
    }
}

impl MembersCache {
    /// An empty cache over the store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let weigh =
            |_: &ConversationId, known: &CachedMembers| u32::try_from(known.members.list.len() + 8).unwrap_or(u32::MAX);
        let cache = Cache::builder().weigher(weigh).max_capacity(MEMBERS_CACHED_MAX).time_to_live(REMEMBERED).build();
        Self { store, cache }
    }

    /// The members as they are remembered, or from the store.
    pub async fn get(&self, conversation: &ConversationId) -> Result<Arc<Members>, StoreError> {
        match self.cache.get(conversation).and_then(CachedMembers::if_fresh) {
            Some(members) => Ok(members),
            None => self.load(conversation).await,
        }
    }

    /// The members as they were last seen, however long ago: only for what goes on while the store is away.
    pub fn remembered(&self, conversation: &ConversationId) -> Option<Arc<Members>> {
        self.cache.get(conversation).map(|known| known.members)
    }

    /// The members at `version` or later.
    pub async fn at(&self, conversation: &ConversationId, version: u64) -> Result<Arc<Members>, StoreError> {
        match self.confirmed(conversation, version) {
            Some(members) => Ok(members),
            None => self.load(conversation).await,
        }
    }

    /// The members at `version` or later, if they are remembered. A commit that saw this version confirms them, however long
    /// ago they were loaded.
    pub fn confirmed(&self, conversation: &ConversationId, version: u64) -> Option<Arc<Members>> {
        let known = self.cache.get(conversation)?;
        if known.members.version < version && !switches::off("members-version") {
            return None;
        }
        let members = Arc::clone(&known.members);
        if known.loaded.elapsed() > FRESH_FOR / 2 {
            self.keep(conversation, &members);
        }
        Some(members)
    }

    /// Takes the members of a conversation that a commit has just opened, unless it is known already.
    pub fn learn(&self, conversation: &ConversationId, members: Members) {
        if self.cache.get(conversation).is_none() {
            self.keep(conversation, &Arc::new(members));
        }
    }

    /// Loads the members of several conversations by one query; one that doesn't exist is left out.
    pub async fn load_many(&self, conversations: &[ConversationId]) -> Result<(), StoreError> {
        for (conversation, members) in self.store.members_of(conversations).await? {
            self.keep(&conversation, &Arc::new(members));
        }
        Ok(())
    }

    /// The members for message `seq`, whose commit saw `version` or an earlier one: the members of now, and those of
    /// then if they differ. A late message isn't for members who came later, but it is for those who have left since.
    pub async fn audience(
        &self,
        conversation: &ConversationId,
        version: u64,
        seq: u64,
    ) -> Result<(Arc<Members>, Option<Vec<UserId>>), StoreError> {
        let now = self.at(conversation, version).await?;
        let then = match now.route.is_large_at(seq) || is_for_all_of(&now, seq) {
            true => None,
            false => Some(self.store.members_at(conversation, seq).await?),
        };
        Ok((now, then))
    }

    /// The members, if `user` is one of them.
    pub async fn of_member(&self, conversation: &ConversationId, user: &UserId) -> Result<Arc<Members>, ProtocolError> {
        let members = self.get(conversation).await?;
        match self.role_of(conversation, &members, user).await? {
            Some(_) => Ok(members),
            // The error is that of a message.
            None => Err(refused(self.store.outside(conversation, Some(user)).await?)),
        }
    }

    /// The role of a user. Those of a large conversation aren't remembered: the store is asked for one of them.
    pub async fn role_of(
        &self,
        conversation: &ConversationId,
        members: &Members,
        user: &UserId,
    ) -> Result<Option<Role>, StoreError> {
        match members.route.large {
            true => self.store.role_in(conversation, user).await,
            false => Ok(members.role(user)),
        }
    }

    /// Forgets a conversation whose members have changed.
    pub fn forget(&self, conversation: &ConversationId) {
        self.cache.invalidate(conversation);
    }

    /// Forgets everything: orders to forget may have been missed.
    pub fn forget_all(&self) {
        self.cache.invalidate_all();
    }

    async fn load(&self, conversation: &ConversationId) -> Result<Arc<Members>, StoreError> {
        let members = Arc::new(self.store.members(conversation).await?);
        self.keep(conversation, &members);
        Ok(members)
    }

    fn keep(&self, conversation: &ConversationId, members: &Arc<Members>) {
        let known = CachedMembers { members: Arc::clone(members), loaded: Instant::now() };
        self.cache.insert(conversation.clone(), known);
    }
}

/// Whether the message `seq` was for exactly these members, and they are listed: no membership changed since.
pub fn is_for_all_of(members: &Members, seq: u64) -> bool {
    !members.route.large && (members.since_seq < seq || switches::off("members-then"))
}
