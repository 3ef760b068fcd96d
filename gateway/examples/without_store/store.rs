//! A store that keeps nothing: it numbers messages and holds who is in a conversation, in memory. The concerns that a
//! send doesn't need are in `absent`. Two nodes share no memory, so the id of a direct conversation names its two
//! users, and the number of a message depends on its sender's place: no two senders make the same one. Numbers have
//! gaps, and nothing is deduplicated.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use gateway::store::{
    ConversationPage, Conversations, Ids, Members, Membership, MembershipChange, MembershipOutcome, Messages,
    NewConversation, NewMessage, OutboxRow, Page, Refusal, Route, SendBatch, SendOutcome, SentBatch, Store, StoreError,
    StoredMessage, WalkPlace, ordered_pair,
};
use parking_lot::Mutex;
use shared::command::Target;
use shared::message::MemberView;
use shared::{Conversation, ConversationId, ConversationKind, Message, Role, Timestamp, UserId, Visibility};

/// Members never change here.
const MEMBERS_VERSION: u64 = 1;
/// The members that a conversation lists.
const MEMBERS_SHOWN_MAX: usize = 100;

/// A node's memory, as long as it runs.
pub(crate) struct MemoryStore {
    next_id: AtomicU64,
    conversations: Mutex<HashMap<ConversationId, Known>>,
}

/// A conversation: its members, and how many messages each of them has sent from here.
#[derive(Clone)]
struct Known {
    kind: ConversationKind,
    title: Option<String>,
    members: Vec<(UserId, Role)>,
    sent: Vec<u64>,
    last_seq: u64,
    created_at: Timestamp,
}

impl MemoryStore {
    pub(crate) fn new() -> Self {
        // Apart from other nodes' ids by chance, and below 2^53.
        let first = u64::from(rand::random::<u32>() >> 12) << 32 | 1;
        Self { next_id: AtomicU64::new(first), conversations: Mutex::default() }
    }

    /// Looks at a conversation; a direct one that another node has opened is known by its id.
    fn with<T>(&self, id: &ConversationId, look: impl FnOnce(&mut Known) -> T) -> Result<T, StoreError> {
        let mut conversations = self.conversations.lock();
        if let Some(known) = conversations.get_mut(id) {
            return Ok(look(known));
        }
        let (one, other) = users_of(id).ok_or(Refusal::NotFound)?;
        Ok(look(conversations.entry(id.clone()).or_insert(Known::new(ConversationKind::Direct, None, [one, other]))))
    }

    fn store(&self, new: &NewMessage, now: Timestamp) -> SendOutcome {
        let target = match &new.target {
            Target::Conversation(id) => Some(id.clone()),
            Target::User(to) => direct_id((&new.sender, to)),
        };
        let Some(conversation) = target else { return SendOutcome::Refused(Refusal::NotFound) };
        let seq = match self.with(&conversation, |known| known.next_seq(&new.sender)) {
            Ok(Some(seq)) => seq,
            Ok(None) => return SendOutcome::Refused(Refusal::NotMember),
            Err(_) => return SendOutcome::Refused(Refusal::NotFound),
        };
        let message = new.stored(&conversation, seq, seq, now);
        SendOutcome::Stored(StoredMessage { message, members_version: MEMBERS_VERSION })
    }
}

impl Known {
    fn new(kind: ConversationKind, title: Option<String>, users: impl IntoIterator<Item = UserId>) -> Self {
        let mut members: Vec<_> = users.into_iter().map(|user| (user, Role::Member)).collect();
        members.sort();
        members.dedup();
        Self { kind, title, sent: vec![0; members.len()], members, last_seq: 0, created_at: Timestamp::now() }
    }

    fn place(&self, user: &UserId) -> Option<usize> {
        self.members.binary_search_by(|(member, _)| member.cmp(user)).ok()
    }

    /// Rises with each message, and is no other sender's.
    fn next_seq(&mut self, sender: &UserId) -> Option<u64> {
        let place = self.place(sender)?;
        let sent = self.sent.get_mut(place)?;
        let seq = *sent * self.members.len() as u64 + place as u64 + 1;
        *sent += 1;
        self.last_seq = self.last_seq.max(seq);
        Some(seq)
    }

    fn view(&self, id: &ConversationId) -> Conversation {
        let members = self.members.iter().take(MEMBERS_SHOWN_MAX);
        let view = |(user, role): &(UserId, Role)| MemberView { user_id: user.clone(), role: *role, read_seq: 0 };
        Conversation {
            id: id.clone(),
            kind: self.kind,
            title: self.title.clone(),
            visibility: Visibility::Private,
            has_password: false,
            created_at: self.created_at,
            last_seq: self.last_seq,
            rev: self.last_seq,
            last_message: None,
            member_count: self.members.len() as u64,
            large: false,
            members: members.map(view).collect(),
            unread: None,
        }
    }
}

/// The id of two users' direct conversation, the same on every node; `None` if it can't be told apart from others'.
fn direct_id((one, other): (&UserId, &UserId)) -> Option<ConversationId> {
    let (first, second) = ordered_pair(one, other);
    let plain = |user: &UserId| !user.as_str().contains(':');
    let id = ConversationId::parse(&format!("direct:{first}:{second}")).ok()?;
    (plain(first) && plain(second)).then_some(id)
}

fn users_of(id: &ConversationId) -> Option<(UserId, UserId)> {
    let (one, other) = id.as_str().strip_prefix("direct:")?.split_once(':')?;
    Some((UserId::parse(one).ok()?, UserId::parse(other).ok()?))
}

/// The answer to a request that this store can't fulfil.
pub(crate) fn not_here<T>(what: &str) -> Result<T, StoreError> {
    Err(StoreError::Failed(format!("{what}: this node runs without a store, for measuring sends only")))
}

#[async_trait]
impl Store for MemoryStore {
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "none (for measuring only)".into()
    }
}

#[async_trait]
impl Ids for MemoryStore {
    async fn reserve_ids(&self, count: u32) -> Result<Range<u64>, StoreError> {
        let first = self.next_id.fetch_add(count.into(), Ordering::Relaxed);
        Ok(first..first + u64::from(count))
    }
}

#[async_trait]
impl Messages for MemoryStore {
    async fn send(&self, batch: &SendBatch) -> Result<SentBatch, StoreError> {
        let now = Timestamp::now();
        let outcomes = batch.messages.iter().map(|new| self.store(new, now)).collect();
        Ok(SentBatch { outcomes, opened: Vec::new() })
    }

    async fn messages(&self, _: &ConversationId, _: Page, _: u32) -> Result<Vec<Message>, StoreError> {
        not_here("history")
    }
}

#[async_trait]
impl Conversations for MemoryStore {
    async fn direct(&self, pair: (&UserId, &UserId)) -> Result<Option<ConversationId>, StoreError> {
        Ok(direct_id(pair))
    }

    async fn open_direct(
        &self,
        _: Option<&UserId>,
        pair: (&UserId, &UserId),
        _: &ConversationId,
        outbox: OutboxRow<Conversation>,
    ) -> Result<(Conversation, bool), StoreError> {
        let Some(id) = direct_id(pair) else { return not_here("users whose ids hold a colon, or are long") };
        let made = !self.conversations.lock().contains_key(&id);
        let conversation = self.with(&id, |known| known.view(&id))?;
        if made {
            (outbox.events)(&conversation);
        }
        Ok((conversation, made))
    }

    async fn create_conversation(
        &self,
        new: &NewConversation,
        outbox: OutboxRow<Conversation>,
    ) -> Result<Conversation, StoreError> {
        let users = new.members.iter().chain(&new.owner).cloned();
        let known = Known::new(new.kind, new.title.clone(), users);
        let conversation = known.view(&new.id);
        self.conversations.lock().insert(new.id.clone(), known);
        (outbox.events)(&conversation);
        Ok(conversation)
    }

    async fn conversation(&self, id: &ConversationId, _: Option<&UserId>) -> Result<Conversation, StoreError> {
        self.with(id, |known| known.view(id))
    }

    async fn conversations(&self, _: &UserId, _: Option<&WalkPlace>, _: u32) -> Result<ConversationPage, StoreError> {
        not_here("a user's conversations")
    }
}

#[async_trait]
impl Membership for MemoryStore {
    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError> {
        self.with(id, |known| Members {
            kind: known.kind,
            version: MEMBERS_VERSION,
            since_seq: 0,
            list: known.members.clone(),
            blocked: false,
            route: Route::default(),
        })
    }

    async fn members_of(&self, ids: &[ConversationId]) -> Result<Vec<(ConversationId, Members)>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.push((id.clone(), self.members(id).await?));
        }
        Ok(found)
    }

    async fn members_at(&self, id: &ConversationId, _: u64) -> Result<Vec<UserId>, StoreError> {
        self.with(id, |known| known.members.iter().map(|(user, _)| user.clone()).collect())
    }

    async fn join_password(&self, _: &ConversationId, _: &UserId) -> Result<Option<String>, StoreError> {
        not_here("joining")
    }

    async fn change_membership(
        &self,
        _: &ConversationId,
        _: &UserId,
        _: &MembershipChange,
        _: OutboxRow<MembershipOutcome>,
    ) -> Result<MembershipOutcome, StoreError> {
        not_here("a change of members")
    }
}
