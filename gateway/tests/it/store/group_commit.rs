//! Group commit over both stores: natural batches, order, poison, uncertain commits, the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::store::{
    CommitSink, CommittedBatch, CommittedEvents, GroupCommit, GroupCommitSettings, IdBlock, NewMessageDraft,
    OutboxEvent, Page, Receipt, ReceiptChange, ReceiptKind, Refusal, SendOutcome, Store, StoreError, connect,
};
use shared::MessageId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::store::{World, bounded, contract, conversation, event, new_group, owner, say, stored, target, user};
use crate::support::postgres::Postgres;

contract!(
    sends_are_batched_and_published_in_commit_order,
    one_sender_keeps_their_order,
    a_message_that_cannot_be_stored_fails_alone,
    a_caller_that_vanished_is_published,
    receipts_are_batched_with_their_events,
    the_end_waits_for_what_was_taken,
);

/// A group commit and what came out of it.
pub(super) struct Line {
    pub(super) commit: Arc<GroupCommit>,
    pub(super) batches: UnboundedReceiver<CommittedBatch>,
    receipts: UnboundedReceiver<CommittedEvents>,
}

/// Notes what it takes.
struct Noted {
    batches: UnboundedSender<CommittedBatch>,
    receipts: UnboundedSender<CommittedEvents>,
}

impl CommitSink for Noted {
    fn messages(&self, committed: CommittedBatch) {
        drop(self.batches.send(committed));
    }

    fn receipt_events(&self, receipts: &[Receipt], outcomes: &[Result<ReceiptChange, Refusal>]) -> Vec<OutboxEvent> {
        let moved = receipts.iter().zip(outcomes).filter(|(_, change)| change.as_ref().is_ok_and(|one| one.moved));
        moved.map(|(receipt, _)| event(&receipt.user, "read")).collect()
    }

    fn receipts(&self, committed: CommittedEvents) {
        drop(self.receipts.send(committed));
    }
}

pub(super) fn line(store: &Arc<dyn Store>) -> Line {
    #[expect(clippy::disallowed_methods, reason = "a test ends before it can grow")]
    let (batches_in, batches) = unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "a test ends before it can grow")]
    let (receipts_in, receipts) = unbounded_channel();
    let sink = Arc::new(Noted { batches: batches_in, receipts: receipts_in });
    let settings = GroupCommitSettings { owner: owner("test:0"), sink, owes_events: false };
    let ids = Arc::new(IdBlock::new(store.clone()));
    Line { commit: Arc::new(GroupCommit::start(store.clone(), ids, settings)), batches, receipts }
}

pub(super) fn draft(to: &str, sender: &str, content: &str) -> NewMessageDraft {
    NewMessageDraft {
        id: None,
        target: target(to),
        sender: user(sender),
        temp_id: None,
        kind: "text".into(),
        content: content.to_owned(),
        reply_to: None,
        data: None,
    }
}

async fn sends_are_batched_and_published_in_commit_order(world: World) {
    let mut line = line(&world.store);
    for id in ["c", "d", "e"] {
        new_group(&world.store, id, &["a"]).await;
    }
    let sends = (0..300).map(|count| line.commit.send(draft(["c", "d", "e"][count % 3], "a", "x")));
    for outcome in futures_util::future::join_all(sends).await {
        stored(outcome.expect("taken"));
    }
    // The sink was called before the callers were answered.
    let mut published = Vec::new();
    let mut batches = 0;
    while let Ok(batch) = line.batches.try_recv() {
        batches += 1;
        let row = world.store.take_unpublished(&owner("test:0"), 0, 0, (0, 1_000)).await.expect("rows");
        assert!(row.iter().any(|row| row.id == batch.row));
        published.extend(batch.messages.into_iter().map(|stored| stored.message));
    }
    assert!(batches < 60, "{batches} batches for 300 sends at once");
    for id in ["c", "d", "e"] {
        let seqs = published.iter().filter(|message| message.conversation_id == conversation(id));
        assert_eq!(seqs.map(|message| message.seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    }
    assert!(matches!(line.commit.send(draft("nowhere", "a", "x")).await, Ok(SendOutcome::Refused(Refusal::NotFound))));
    assert!(line.batches.try_recv().is_err(), "nothing stored, nothing published");
}

async fn one_sender_keeps_their_order(world: World) {
    let line = line(&world.store);
    new_group(&world.store, "c", &["a"]).await;
    let contents: Vec<String> = (0..200).map(|count| count.to_string()).collect();
    let sends = contents.iter().map(|content| line.commit.send(draft("c", "a", content)));
    futures_util::future::join_all(sends).await;
    let page = world.store.messages(&conversation("c"), Page::After(0), 1_000).await.expect("a page");
    assert_eq!(page.into_iter().map(|message| message.content).collect::<Vec<_>>(), contents);
}

/// NOLOSS.md, B6: PostgreSQL aborts a transaction that holds U+0000, SQLite one that breaks a rule of its tables.
async fn a_message_that_cannot_be_stored_fails_alone(world: World) {
    let mut line = line(&world.store);
    new_group(&world.store, "c", &["a"]).await;
    match &world.database {
        Some(database) => {
            let rule = "ALTER TABLE messages ADD CHECK (content <> 'poison')";
            database.client().await.batch_execute(rule).await.expect("a rule");
        }
        None => {
            let file = world.url.strip_prefix("sqlite:").expect("a file");
            let rule = "CREATE TRIGGER rule BEFORE INSERT ON messages WHEN new.content = 'poison' \
                BEGIN SELECT raise(ABORT, 'poison'); END";
            rusqlite::Connection::open(file).expect("opened").execute_batch(rule).expect("a rule");
        }
    }
    let contents = ["1", "2", "poison", "3", "4"];
    let sends = contents.iter().map(|content| line.commit.send(draft("c", "a", content)));
    let outcomes = futures_util::future::join_all(sends).await;
    for (content, outcome) in contents.iter().zip(outcomes) {
        match *content {
            "poison" => assert!(matches!(outcome, Err(StoreError::Failed(_))), "{outcome:?}"),
            _ => drop(stored(outcome.expect("taken"))),
        }
    }
    let page = world.store.messages(&conversation("c"), Page::After(0), 10).await.expect("a page");
    let found: Vec<_> = page.iter().map(|message| (message.seq, message.content.as_str())).collect();
    assert_eq!(found, [(1, "1"), (2, "2"), (3, "3"), (4, "4")]);
    let mut published = Vec::new();
    while let Ok(batch) = line.batches.try_recv() {
        world.store.mark_published(&[batch.row], "redis-1").await.expect("marked");
        published.extend(batch.messages.into_iter().map(|stored| stored.message));
    }
    assert_eq!(published, page);
    assert_eq!(world.store.outbox_age_ms().await.expect("an age"), 0, "every row was told to the sink");
}

async fn a_caller_that_vanished_is_published(world: World) {
    let mut line = line(&world.store);
    new_group(&world.store, "c", &["a"]).await;
    let commit = line.commit.clone();
    let caller = tokio::spawn(async move { commit.send(draft("c", "a", "x")).await });
    tokio::task::yield_now().await;
    let mut other = Box::pin(line.commit.send(draft("c", "a", "y")));
    // One poll queues it; then its caller goes.
    assert!(futures_util::poll!(&mut other).is_pending());
    drop(other);
    caller.await.expect("a task").expect("taken");
    let mut contents = Vec::new();
    while contents.len() < 2 {
        let batch = line.batches.recv().await.expect("a batch");
        contents.extend(batch.messages.into_iter().map(|stored| stored.message.content));
    }
    contents.sort();
    assert_eq!(contents, ["x", "y"]);
}

async fn receipts_are_batched_with_their_events(world: World) {
    let mut line = line(&world.store);
    let readers: Vec<String> = (0..50).map(|count| format!("r{count}")).collect();
    let members: Vec<&str> = readers.iter().map(String::as_str).chain(["a"]).collect();
    new_group(&world.store, "c", &members).await;
    say(&world.store, "c", "a", "x").await;
    let receipt =
        |by: &str| Receipt { kind: ReceiptKind::Read, user: user(by), conversation: conversation("c"), up_to: None };
    let asked = readers.iter().map(|reader| line.commit.receipt(receipt(reader)));
    for change in futures_util::future::join_all(asked).await {
        assert_eq!(change.expect("taken").expect("a member's").marked_count, 1);
    }
    let mut told = Vec::new();
    let rows = world.store.take_unpublished(&owner("test:0"), 0, 0, (0, 100)).await.expect("rows");
    while let Ok(committed) = line.receipts.try_recv() {
        let row = rows.iter().find(|row| row.id == committed.row).expect("its row");
        assert_eq!(row.events, committed.events);
        told.extend(committed.events);
    }
    assert_eq!(told.len(), 50);
    assert_eq!(line.commit.receipt(receipt("stranger")).await.expect("taken"), Err(Refusal::NotMember));
    assert!(line.receipts.try_recv().is_err());
}

async fn the_end_waits_for_what_was_taken(world: World) {
    let line = line(&world.store);
    new_group(&world.store, "c", &["a"]).await;
    let mut sends: Vec<_> = (0..50).map(|_| Box::pin(line.commit.send(draft("c", "a", "x")))).collect();
    for send in &mut sends {
        assert!(futures_util::poll!(send).is_pending());
    }
    line.commit.finish().await;
    let last = world.store.conversation(&conversation("c"), None).await.expect("the conversation").last_seq;
    assert_eq!(last, 50);
    for send in sends {
        stored(send.await.expect("answered"));
    }
    assert!(matches!(line.commit.send(draft("c", "a", "late")).await, Err(StoreError::Unavailable(_))));
}

/// NOLOSS.md, B8: whatever a frozen server does with a batch, each message is stored once, and each answer is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncertain_commit_is_never_doubled() {
    bounded(async {
        let server = Postgres::start_own();
        let database = server.new_database().await;
        let store = connect(&database.url).await.expect("it connects");
        new_group(&store, "c", &["a"]).await;
        let line = line(&store);
        line.commit.send(draft("c", "a", "before")).await.expect("taken");
        for frozen_ms in [100, 2_500, 5_500] {
            server.freeze();
            let asked = Instant::now();
            let sends = (0..20).map(|_| line.commit.send(draft("c", "a", "x")));
            let thaw = async {
                tokio::time::sleep(Duration::from_millis(frozen_ms)).await;
                server.thaw();
            };
            let answers = async {
                let answers = futures_util::future::join_all(sends).await;
                (answers, asked.elapsed())
            };
            let ((answers, took), ()) = tokio::join!(answers, thaw);
            assert!(took < Duration::from_secs(5), "{took:?}");
            let told: Vec<MessageId> =
                answers.into_iter().flatten().map(|outcome| stored(outcome).message.id).collect();
            assert_eq!(told.len(), if frozen_ms < 4_000 { 20 } else { 0 }, "frozen for {frozen_ms} ms");
            let page = store.messages(&conversation("c"), Page::After(0), 1_000).await.expect("a page");
            assert!(told.iter().all(|id| page.iter().any(|message| message.id == *id)));
        }
        line.commit.finish().await;
        let page = store.messages(&conversation("c"), Page::After(0), 1_000).await.expect("a page");
        let seqs: Vec<u64> = page.iter().map(|message| message.seq).collect();
        assert_eq!(seqs, (1..=u64::try_from(page.len()).expect("a count")).collect::<Vec<_>>());
        assert!((41..=61).contains(&page.len()), "{} messages", page.len());
        // Each stands in exactly one row, so that the sweeper publishes what the callers were not told.
        let rows = store.take_unpublished(&owner("test:0"), 0, 0, (0, 1_000)).await.expect("rows");
        let mut named: Vec<_> = rows.iter().flat_map(|row| &row.messages).map(|one| one.message.seq).collect();
        named.sort_unstable();
        assert_eq!(named, seqs);
    })
    .await;
}
