//! The contract suite of the store: what its cases stand on, and the macro that runs each case on both stores.

mod audit;
mod blocks;
mod busy;
mod changes;
mod connections;
mod conversation_changes;
mod data;
mod erasure;
mod first_messages;
mod group_commit;
mod large;
mod listings;
mod lookups;
mod membership;
mod migrations;
mod moderation;
mod notifications;
mod outbox;
mod overload;
mod receipts;
mod revocations;
mod sends;
mod start;
mod upkeep;
mod walks;
mod webhook_events;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gateway::store::{
    Locks, Names, NewConversation, NewMessage, OutboxEvent, OutboxRow, Owner, Refusal, SendBatch, SendOutcome,
    SentBatch, Store, StoreError, StoredMessage, connect,
};
use shared::command::Target;
use shared::{ConversationId, ConversationKind, MessageId, UserId, Visibility};

use crate::support::postgres::{Database, Postgres};

/// No case takes longer, in seconds.
const CASE_SECONDS_MAX: u64 = 90;

/// Makes a test of each case for each store.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store::bounded(async { super::$case($crate::store::World::postgres().await).await }).await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store::bounded(async { super::$case($crate::store::World::sqlite().await).await }).await;
            })+
        }
    };
}
pub(crate) use contract;

/// Fails a test that hangs.
pub(crate) async fn bounded(case: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(CASE_SECONDS_MAX), case).await.expect("the case ends in time");
}

/// An empty database and a store on it.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) url: String,
    /// Where tables can be looked at, on PostgreSQL.
    pub(crate) database: Option<Database>,
    _folder: Option<Folder>,
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl World {
    pub(crate) async fn postgres() -> Self {
        let database = Postgres::database().await;
        let url = database.url.clone();
        let store = connect(&url).await.expect("PostgreSQL takes the tables");
        Self { store, url, database: Some(database), _folder: None }
    }

    pub(crate) async fn sqlite() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("parley-sqlite-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir(&folder.0).expect("a folder");
        let url = format!("sqlite:{}", folder.0.join("parley.db").display());
        let store = connect(&url).await.expect("SQLite takes the tables");
        Self { store, url, database: None, _folder: Some(folder) }
    }

    /// Another store on the same database, as another node has it.
    pub(crate) async fn another(&self) -> Arc<dyn Store> {
        connect(&self.url).await.expect("a second node connects")
    }
}

/// The names of a user who is looked up and shown by the same one.
pub(crate) fn named(name: &str) -> Names {
    Names { username: Some(name.to_owned()), shown: Some(name.to_owned()) }
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("an id")
}

pub(crate) fn conversation(id: &str) -> ConversationId {
    ConversationId::parse(id).expect("an id")
}

pub(crate) fn owner(text: &str) -> Owner {
    Owner::from(text)
}

/// A row that says nothing.
pub(crate) fn silent<T: 'static>() -> OutboxRow<T> {
    OutboxRow { id: 0, owner: owner("test:0"), events: Box::new(|_| Vec::new()), owed: None }
}

/// A row with one event for `to`, whose body `body` builds from the outcome.
pub(crate) fn telling<T: 'static>(id: u64, to: &str, body: fn(&T) -> String) -> OutboxRow<T> {
    let to = user(to);
    let events = move |change: &T| vec![event(&to, &body(change))];
    OutboxRow { id, owner: owner("test:0"), events: Box::new(events), owed: None }
}

pub(crate) fn event(to: &UserId, body: &str) -> OutboxEvent {
    OutboxEvent { users: vec![to.clone()], body: body.to_owned(), topic: None }
}

pub(crate) fn is_refused<T>(result: Result<T, StoreError>, refusal: Refusal) -> bool {
    matches!(result, Err(StoreError::Refused(found)) if found == refusal)
}

/// What `new_group` is asked for.
pub(crate) fn group_of(id: &str, visibility: Visibility, owner: Option<&str>, members: &[&str]) -> NewConversation {
    NewConversation {
        id: conversation(id),
        kind: ConversationKind::Group,
        title: Some("A title".into()),
        visibility,
        password_hash: None,
        owner: owner.map(user),
        members: members.iter().map(|id| user(id)).collect(),
    }
}

/// A private group.
pub(crate) async fn new_group(store: &Arc<dyn Store>, id: &str, members: &[&str]) -> ConversationId {
    let new = group_of(id, Visibility::Private, None, members);
    store.create_conversation(&new, silent()).await.expect("a group").id
}

/// Where a draft goes: into a conversation, or to the user behind an `@`.
pub(crate) fn target(to: &str) -> Target {
    match to.strip_prefix('@') {
        Some(to) => Target::User(user(to)),
        None => Target::Conversation(conversation(to)),
    }
}

/// A message to come: conversation (or `@user`), sender, temp id (or empty), content.
pub(crate) type Draft<'a> = (&'a str, &'a str, &'a str, &'a str);

pub(crate) async fn batch(store: &Arc<dyn Store>, drafts: &[Draft<'_>]) -> SendBatch {
    let count = u32::try_from(drafts.len()).expect("a small batch") + 1;
    let mut ids = store.reserve_ids(count).await.expect("ids");
    let id = ids.next().expect("the batch's id");
    let messages = drafts.iter().zip(ids).map(|((to, sender, temp_id, content), id)| NewMessage {
        id: MessageId::new(id).expect("a message id"),
        target: target(to),
        sender: user(sender),
        temp_id: (!temp_id.is_empty()).then(|| (*temp_id).into()),
        kind: "text".into(),
        content: (*content).to_owned(),
        reply_to: None,
        data: None,
    });
    let locks = Locks::Leave { held: Vec::new() };
    SendBatch { id, owner: owner("test:0"), messages: messages.collect(), locks, owes_events: false }
}

pub(crate) async fn send(store: &Arc<dyn Store>, drafts: &[Draft<'_>]) -> Vec<SendOutcome> {
    settled(store, &batch(store, drafts).await).await.outcomes
}

/// Sends a batch, and what was busy once more, as the group commit does: two batches that race may wait for one another.
pub(crate) async fn settled(store: &Arc<dyn Store>, batch: &SendBatch) -> SentBatch {
    let mut sent = store.send(batch).await.expect("the batch is taken");
    loop {
        let is_busy = |place: &usize| matches!(sent.outcomes[*place], SendOutcome::Busy(_));
        let busy: Vec<usize> = (0..sent.outcomes.len()).filter(is_busy).collect();
        if busy.is_empty() {
            return sent;
        }
        let id = store.reserve_ids(1).await.expect("an id").start;
        let messages = busy.iter().map(|place| batch.messages[*place].clone()).collect();
        let rest = SendBatch { id, messages, ..batch.clone() };
        let again = store.send(&rest).await.expect("the rest is taken");
        sent.opened.extend(again.opened);
        for (place, outcome) in busy.into_iter().zip(again.outcomes) {
            sent.outcomes[place] = outcome;
        }
    }
}

/// Sends one message that must be stored.
pub(crate) async fn say(store: &Arc<dyn Store>, to: &str, sender: &str, content: &str) -> StoredMessage {
    stored(send(store, &[(to, sender, "", content)]).await.remove(0))
}

pub(crate) fn stored(outcome: SendOutcome) -> StoredMessage {
    match outcome {
        SendOutcome::Stored(stored) => stored,
        other @ (SendOutcome::Duplicate(_) | SendOutcome::Refused(_) | SendOutcome::Busy(_)) => {
            panic!("not stored: {other:?}")
        }
    }
}

/// The member positions that no method of the trait tells: (read, seen).
pub(crate) async fn positions(store: &Arc<dyn Store>, id: &str, member: &str) -> (u64, u64) {
    let view = store.conversation(&conversation(id), None).await.expect("the conversation");
    let read = view.members.iter().find(|view| view.user_id == user(member)).expect("a member").read_seq;
    let unread = store.unread(&[user(member)]).await.expect("counts");
    let seen = unread[0].iter().find(|count| count.conversation == conversation(id)).expect("a count").seen_seq;
    (read, seen)
}
