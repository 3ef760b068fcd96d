//! The store in an embedded SQLite file: one thread owns the connection. The same rules as on PostgreSQL, in simple
//! loops inside one transaction; batches are made above the trait.

mod activity;
mod audit;
mod bulk;
mod changes;
mod conversations;
mod history;
mod lookups;
mod membership;
mod migrate;
mod notifications;
mod outbox;
mod people;
mod receipts;
mod revocations;
mod roster;
mod rows;
mod send;
mod thread;

use std::ops::Range;

use async_trait::async_trait;
use shared::{Conversation, ConversationId, Message, Timestamp, UserId};

use super::{
    Members, MembershipChange, MembershipOutcome, NewConversation, OutboxEvent, OutboxRow, Owner, Page, PendingRow,
    Receipt, ReceiptChange, Refusal, SendBatch, SendOutcome, Store, StoreError, UnreadCount,
};
pub(super) use thread::SqliteStore;

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.read(|read| rows::row(read, "SELECT 1", [], |_| Ok(())).map(drop)).await
    }

    fn describe(&self) -> String {
        self.place.clone()
    }

    async fn reserve_ids(&self, count: u32) -> Result<Range<u64>, StoreError> {
        self.write(move |change| outbox::reserve_ids(change, count)).await
    }

    async fn send(&self, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError> {
        let batch = batch.clone();
        self.write(move |change| send::send(change, &batch)).await
    }

    async fn receipts(
        &self,
        receipts: &[Receipt],
        outbox: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
        let receipts = receipts.to_vec();
        self.write(move |change| receipts::receipts(change, &receipts, &outbox)).await
    }

    async fn open_direct(
        &self,
        pair: (&UserId, &UserId),
        id: &ConversationId,
        outbox: OutboxRow<Conversation>,
    ) -> Result<(Conversation, bool), StoreError> {
        let (one, other, id) = (pair.0.clone(), pair.1.clone(), id.clone());
        self.write(move |change| conversations::open_direct(change, (&one, &other), &id, &outbox)).await
    }

    async fn create_conversation(
        &self,
        new: &NewConversation,
        outbox: OutboxRow<Conversation>,
    ) -> Result<Conversation, StoreError> {
        let new = new.clone();
        self.write(move |change| conversations::create(change, &new, &outbox)).await
    }

    async fn conversation(&self, id: &ConversationId, viewer: Option<&UserId>) -> Result<Conversation, StoreError> {
        let (id, viewer) = (id.clone(), viewer.cloned());
        self.read(move |read| conversations::one(read, &id, viewer.as_ref())).await
    }

    async fn conversations(&self, user: &UserId, offset: u64, limit: u32) -> Result<Vec<Conversation>, StoreError> {
        let user = user.clone();
        self.read(move |read| conversations::of_user(read, &user, offset, limit)).await
    }

    async fn join_password(&self, id: &ConversationId, user: &UserId) -> Result<Option<String>, StoreError> {
        let (id, user) = (id.clone(), user.clone());
        self.read(move |read| membership::join_password(read, &id, &user)).await
    }

    async fn change_membership(
        &self,
        id: &ConversationId,
        user: &UserId,
        change: &MembershipChange,
        outbox: OutboxRow<MembershipOutcome>,
    ) -> Result<MembershipOutcome, StoreError> {
        let (id, user, what) = (id.clone(), user.clone(), change.clone());
        self.write(move |change| membership::change(change, &id, &user, &what, &outbox)).await
    }

    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError> {
        let id = id.clone();
        self.read(move |read| membership::members(read, &id)).await
    }

    async fn messages(&self, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError> {
        let id = id.clone();
        self.read(move |read| history::messages(read, &id, page, limit)).await
    }

    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
        outbox: OutboxRow<bool>,
    ) -> Result<bool, StoreError> {
        let (blocker, blocked) = (blocker.clone(), blocked.clone());
        self.write(move |change| people::set_block(change, (&blocker, &blocked), on, &outbox)).await
    }

    async fn remember_usernames(&self, users: &[(UserId, String)]) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(move |change| people::remember_usernames(change, &users)).await
    }

    async fn user_by_name(&self, username: &str) -> Result<Option<UserId>, StoreError> {
        let username = username.to_owned();
        self.read(move |read| people::user_by_name(read, &username)).await
    }

    async fn set_last_seen(&self, users: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(move |change| people::set_last_seen(change, &users)).await
    }

    async fn partners(&self, users: &[UserId], limit: u32) -> Result<Vec<Vec<UserId>>, StoreError> {
        let users = users.to_vec();
        self.read(move |read| users.iter().map(|user| history::partners(read, user, limit)).collect()).await
    }

    async fn unread(&self, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError> {
        let users = users.to_vec();
        self.read(move |read| users.iter().map(|user| history::unread(read, user)).collect()).await
    }

    async fn enqueue(&self, id: u64, owner: &Owner, events: &[OutboxEvent]) -> Result<(), StoreError> {
        let (owner, events) = (owner.clone(), events.to_vec());
        self.write(move |change| outbox::insert(change, id, &owner, &events)).await
    }

    async fn mark_published(&self, rows: &[u64], server: &str) -> Result<(), StoreError> {
        let (rows, server) = (rows.to_vec(), server.to_owned());
        self.write(move |change| outbox::mark_published(change, &rows, &server)).await
    }

    async fn beat(&self, owner: &Owner) -> Result<(), StoreError> {
        let owner = owner.clone();
        self.write(move |change| outbox::beat(change, &owner)).await
    }

    async fn lease_is_live(&self, owner: &str, lease_ms: u64) -> Result<bool, StoreError> {
        let owner = owner.to_owned();
        self.read(move |read| outbox::lease_is_live(read, &owner, lease_ms)).await
    }

    async fn take_unpublished(
        &self,
        owner: &Owner,
        lease_ms: u64,
        min_age_ms: u64,
        limit: u32,
    ) -> Result<Vec<PendingRow>, StoreError> {
        let owner = owner.clone();
        self.write(move |change| outbox::take_unpublished(change, &owner, lease_ms, min_age_ms, limit)).await
    }

    async fn retire_backbone(&self, server: &str) -> Result<(), StoreError> {
        let server = server.to_owned();
        self.write(move |change| outbox::retire_backbone(change, &server)).await
    }

    async fn is_backbone_retired(&self, server: &str) -> Result<bool, StoreError> {
        let server = server.to_owned();
        self.read(move |read| outbox::is_backbone_retired(read, &server)).await
    }

    async fn adopt_backbone(&self, server: &str) -> Result<Option<String>, StoreError> {
        let server = server.to_owned();
        self.write(move |change| outbox::adopt_backbone(change, &server)).await
    }

    async fn published_elsewhere(&self, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        let server = server.to_owned();
        self.read(move |read| outbox::published_elsewhere(read, &server, after, limit)).await
    }

    async fn prune_outbox(&self, age_ms: u64) -> Result<u64, StoreError> {
        self.write(move |change| outbox::prune(change, age_ms)).await
    }

    async fn outbox_age_ms(&self) -> Result<u64, StoreError> {
        self.read(|read| outbox::age_ms(read)).await
    }
}
