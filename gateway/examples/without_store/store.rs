//! A store that keeps nothing: it numbers messages, knows who is in a conversation, and refuses what a measurement of
//! sends doesn't need. Two nodes share no memory, so a direct conversation's id tells its two users, and the number of a
//! message tells its sender's place: no two senders make the same one, but numbers have gaps, and nothing is deduplicated.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use gateway::store::{
    Activity, Audit, AuditEntry, BulkMembers, Changes, ChannelActivity, ChannelCount, Directs, KeptNotification,
    Lookups, Members, MembersAdded, MembershipChange, MembershipOutcome, MessageChange, MessageOutcome,
    NewConversation, NewMessage, Notifications, OutboxEvent, OutboxRow, Owner, Page, PendingRow, Receipt,
    ReceiptChange, Refusal, Revocations, Roster, SendBatch, SendOutcome, Store, StoreError, StoredMessage, UnreadCount,
};
use parking_lot::Mutex;
use shared::message::MemberView;
use shared::{
    Conversation, ConversationId, ConversationKind, Message, MessageId, NotificationId, Role, Timestamp, UserId,
    Visibility,
};

/// Members never change here.
const MEMBERS_VERSION: u64 = 1;
/// The members that a conversation lists.
const MEMBERS_SHOWN_MAX: usize = 100;

/// What a node remembers as long as it runs.
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
        let seq = match self.with(&new.conversation, |known| known.next_seq(&new.sender)) {
            Ok(Some(seq)) => seq,
            Ok(None) => return SendOutcome::Refused(Refusal::NotMember),
            Err(_) => return SendOutcome::Refused(Refusal::NotFound),
        };
        let message = new.stored(seq, seq, now);
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
            members: members.map(view).collect(),
            unread: None,
        }
    }
}

/// The id of two users' direct conversation, the same on every node; `None` if it can't be told apart from others'.
fn direct_id((one, other): (&UserId, &UserId)) -> Option<ConversationId> {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    let plain = |user: &UserId| !user.as_str().contains(':');
    let id = ConversationId::parse(&format!("direct:{first}:{second}")).ok()?;
    (plain(first) && plain(second)).then_some(id)
}

fn users_of(id: &ConversationId) -> Option<(UserId, UserId)> {
    let (one, other) = id.as_str().strip_prefix("direct:")?.split_once(':')?;
    Some((UserId::parse(one).ok()?, UserId::parse(other).ok()?))
}

fn not_here<T>(what: &str) -> Result<T, StoreError> {
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

    async fn reserve_ids(&self, count: u32) -> Result<Range<u64>, StoreError> {
        let first = self.next_id.fetch_add(count.into(), Ordering::Relaxed);
        Ok(first..first + u64::from(count))
    }

    async fn send(&self, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError> {
        let now = Timestamp::now();
        Ok(batch.messages.iter().map(|new| self.store(new, now)).collect())
    }

    async fn receipts(
        &self,
        _: &[Receipt],
        _: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
        not_here("receipts")
    }

    async fn open_direct(
        &self,
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

    async fn conversations(&self, _: &UserId, _: u64, _: u32) -> Result<Vec<Conversation>, StoreError> {
        not_here("a user's conversations")
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

    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError> {
        self.with(id, |known| Members {
            kind: known.kind,
            version: MEMBERS_VERSION,
            since_seq: 0,
            list: known.members.clone(),
            blocked: false,
        })
    }

    async fn messages(&self, _: &ConversationId, _: Page, _: u32) -> Result<Vec<Message>, StoreError> {
        not_here("history")
    }

    async fn set_block(&self, _: &UserId, _: &UserId, _: bool, _: OutboxRow<bool>) -> Result<bool, StoreError> {
        not_here("blocks")
    }

    async fn remember_usernames(&self, _: &[(UserId, String)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn user_by_name(&self, _: &str) -> Result<Option<UserId>, StoreError> {
        Ok(None)
    }

    async fn set_last_seen(&self, _: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn partners(&self, users: &[UserId], _: u32) -> Result<Vec<Vec<UserId>>, StoreError> {
        Ok(vec![Vec::new(); users.len()])
    }

    async fn unread(&self, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError> {
        Ok(vec![Vec::new(); users.len()])
    }

    async fn enqueue(&self, _: u64, _: &Owner, _: &[OutboxEvent]) -> Result<(), StoreError> {
        not_here("events of a backend")
    }

    async fn mark_published(&self, _: &[u64], _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn beat(&self, _: &Owner) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lease_is_live(&self, _: &str, _: u64) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn take_unpublished(&self, _: &Owner, _: u64, _: u64, _: u32) -> Result<Vec<PendingRow>, StoreError> {
        Ok(Vec::new())
    }

    async fn retire_backbone(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn is_backbone_retired(&self, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn adopt_backbone(&self, _: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn published_elsewhere(&self, _: &str, _: u64, _: u32) -> Result<Vec<PendingRow>, StoreError> {
        Ok(Vec::new())
    }

    async fn prune_outbox(&self, _: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn outbox_age_ms(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl Activity for MemoryStore {
    async fn channels_of(&self, _: &[UserId], _: u32) -> Result<Vec<(UserId, ConversationId)>, StoreError> {
        not_here("channels")
    }

    async fn busiest(&self, _: &[(UserId, u32)], _: u32) -> Result<Vec<ChannelCount>, StoreError> {
        not_here("channels")
    }

    async fn activity(&self, _: &ConversationId) -> Result<ChannelActivity, StoreError> {
        not_here("channels")
    }
}

#[async_trait]
impl Audit for MemoryStore {
    async fn write_audit(&self, _: &[AuditEntry]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl BulkMembers for MemoryStore {
    async fn add_members(
        &self,
        _: &ConversationId,
        _: &[UserId],
        _: Option<&UserId>,
        _: OutboxRow<MembersAdded>,
    ) -> Result<MembersAdded, StoreError> {
        not_here("a change of members")
    }
}

#[async_trait]
impl Changes for MemoryStore {
    async fn change_message(
        &self,
        _: MessageId,
        _: Option<&UserId>,
        _: &MessageChange,
        _: OutboxRow<MessageOutcome>,
    ) -> Result<MessageOutcome, StoreError> {
        not_here("a change of a message")
    }
}

#[async_trait]
impl Directs for MemoryStore {
    async fn direct(&self, pair: (&UserId, &UserId)) -> Result<Option<ConversationId>, StoreError> {
        Ok(direct_id(pair))
    }
}

#[async_trait]
impl Lookups for MemoryStore {
    async fn username(&self, _: &UserId) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn conversation_of(&self, _: MessageId) -> Result<Option<ConversationId>, StoreError> {
        not_here("where a message stands")
    }

    async fn is_banned(&self, _: &ConversationId, _: &UserId) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[async_trait]
impl Notifications for MemoryStore {
    async fn notifications(&self, _: &UserId, _: u64, _: u32) -> Result<Vec<KeptNotification>, StoreError> {
        not_here("notifications")
    }

    async fn read_notifications(
        &self,
        _: &UserId,
        _: Option<&[NotificationId]>,
        _: OutboxRow<u64>,
    ) -> Result<u64, StoreError> {
        not_here("notifications")
    }
}

#[async_trait]
impl Revocations for MemoryStore {
    async fn keep_revocation(&self, _: &UserId, _: i64) -> Result<(), StoreError> {
        not_here("revocations")
    }

    async fn revocations(&self, _: Option<&UserId>, _: u32) -> Result<Vec<(UserId, i64)>, StoreError> {
        Ok(Vec::new())
    }

    async fn prune_revocations(&self, _: i64) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl Roster for MemoryStore {
    async fn members_at(&self, id: &ConversationId, _: u64) -> Result<Vec<UserId>, StoreError> {
        self.with(id, |known| known.members.iter().map(|(user, _)| user.clone()).collect())
    }
}
