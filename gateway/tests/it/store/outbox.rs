//! Contract of the store: outbox rows, leases, and the backbone server that rows were published under.

use std::sync::Arc;

use gateway::store::{Store, connect};
use shared::Conversation;

use crate::store::{
    World, batch, bounded, contract, conversation, event, group_of, new_group, owner, silent, telling, user,
};
use crate::support::postgres::Postgres;

contract!(
    a_row_is_written_with_its_change_or_not_at_all,
    rows_of_a_dead_owner_are_taken_over,
    a_row_is_marked_retained_and_pruned,
    rows_published_elsewhere_come_in_commit_order,
    stamps_in_the_future_are_due_and_leases_have_ended,
    two_nodes_never_take_the_same_row,
    a_row_is_narrowed_and_taken_page_by_page,
    messages_are_found_with_their_age,
    a_backbone_is_adopted_once,
);

/// A lease that always counts as live, or as ended, in milliseconds.
const LIVE: u64 = 60_000;
const ENDED: u64 = 0;

async fn taken(store: &Arc<dyn Store>, by: &str, lease_ms: u64) -> Vec<u64> {
    let rows = store.take_unpublished(&owner(by), lease_ms, 0, (0, 100)).await.expect("rows");
    rows.into_iter().map(|row| row.id).collect()
}

/// Rows are taken when they are older than now; the store's clock counts milliseconds.
async fn a_tick() {
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
}

async fn a_row_is_written_with_its_change_or_not_at_all(world: World) {
    let store = &world.store;
    let ids = store.reserve_ids(4).await.expect("ids");
    let told = telling(ids.start, "a", |made: &Conversation| made.id.to_string());
    let group = group_of("c", shared::Visibility::Private, None, &["a"]);
    store.create_conversation(&group, told).await.expect("made");
    let refused = telling(ids.start + 1, "a", |made: &Conversation| made.id.to_string());
    store.create_conversation(&group, refused).await.expect_err("the id is taken");
    let moved = event(&user("a"), "it's\n\"two\" lines");
    store.enqueue(ids.start + 2, &owner("n:1"), std::slice::from_ref(&moved)).await.expect("enqueued");
    store.enqueue(ids.start + 2, &owner("n:1"), std::slice::from_ref(&moved)).await.expect("enqueued before");
    store.enqueue(ids.start + 3, &owner("n:1"), &[]).await.expect("nothing to say");
    let sent = batch(store, &[("c", "a", "", "1"), ("c", "b", "", "no"), ("c", "a", "", "2")]).await;
    let outcomes = store.send(&sent).await.expect("taken").outcomes;
    let nothing = batch(store, &[("c", "b", "", "no")]).await;
    store.send(&nothing).await.expect("taken");
    a_tick().await;
    let rows = store.take_unpublished(&owner("n:1"), ENDED, 0, (0, 100)).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [ids.start, ids.start + 2, sent.id]);
    assert_eq!(rows[0].events, [event(&user("a"), "c")]);
    assert_eq!((rows[1].events.as_slice(), rows[1].owner.as_str()), ([moved].as_slice(), "n:1"));
    let messages: Vec<_> = rows[2].messages.iter().map(|stored| stored.message.clone()).collect();
    let stored = |place: usize| crate::store::stored(outcomes[place].clone()).message;
    assert_eq!(messages, [stored(0), stored(2)]);
    assert!(store.outbox_age_ms().await.expect("an age") >= 3);
    let young = store.take_unpublished(&owner("n:1"), ENDED, 60_000, (0, 100)).await.expect("rows");
    assert!(young.is_empty(), "rows that are younger than asked for stay");
}

async fn rows_of_a_dead_owner_are_taken_over(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a"]).await;
    let mut sent = batch(store, &[("c", "a", "", "x")]).await;
    sent.owner = owner("one:boot1");
    store.send(&sent).await.expect("taken");
    a_tick().await;
    store.beat(&owner("one:boot1")).await.expect("a beat");
    store.beat(&owner("one:boot1")).await.expect("a second beat");
    assert!(store.lease_is_live("one:boot1", LIVE).await.expect("asked"));
    assert!(!store.lease_is_live("one:boot1", ENDED).await.expect("asked"));
    assert!(!store.lease_is_live("one", LIVE).await.expect("asked"));
    assert!(taken(store, "two:boot9", LIVE).await.is_empty(), "its owner lives");
    assert!(taken(store, "one-too:boot1", LIVE).await.is_empty(), "that is another node's name");
    assert!(taken(store, "on:boot1", LIVE).await.is_empty(), "that is another node's name");
    assert_eq!(taken(store, "one:boot2", LIVE).await, [sent.id], "an older boot of the same node");
    assert_eq!(taken(store, "one:boot2", LIVE).await, [sent.id], "its own");
    store.beat(&owner("one:boot2")).await.expect("a beat");
    assert!(taken(store, "two:boot9", LIVE).await.is_empty());
    let rows = store.take_unpublished(&owner("two:boot9"), ENDED, 0, (0, 100)).await.expect("rows");
    assert_eq!((rows.len(), rows[0].owner.as_str()), (1, "one:boot2"));
    // A node that never beat has no lease.
    assert_eq!(taken(store, "three:boot1", LIVE).await, [sent.id]);
}

async fn a_row_is_marked_retained_and_pruned(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a"]).await;
    let sent = batch(store, &[("c", "a", "", "x")]).await;
    store.send(&sent).await.expect("taken");
    assert_eq!(store.adopt_backbone("redis-1").await.expect("adopted"), None);
    a_tick().await;
    assert_eq!(store.prune_outbox(0).await.expect("pruned"), 0, "what isn't published stays");
    store.mark_published(&[sent.id, 999_999], "redis-1").await.expect("marked");
    assert!(taken(store, "test:0", ENDED).await.is_empty());
    assert_eq!(store.outbox_age_ms().await.expect("an age"), 0);
    assert_eq!(store.prune_outbox(60_000).await.expect("pruned"), 0, "it is retained");
    a_tick().await;
    assert_eq!(store.adopt_backbone("redis-2").await.expect("adopted"), Some("redis-1".into()));
    assert_eq!(store.prune_outbox(0).await.expect("pruned"), 0, "it was published elsewhere");
    store.mark_published(&[sent.id], "redis-2").await.expect("marked");
    a_tick().await;
    assert_eq!(store.prune_outbox(0).await.expect("pruned"), 1);
    store.mark_published(&[], "redis-2").await.expect("nothing to mark");
}

async fn rows_published_elsewhere_come_in_commit_order(world: World) {
    let store = &world.store;
    let ids = store.reserve_ids(5).await.expect("ids");
    // Committed in another order than their ids.
    let order = [3, 0, 4, 1, 2].map(|place| ids.start + place);
    for id in order {
        store.enqueue(id, &owner("n:1"), &[event(&user("a"), "x")]).await.expect("enqueued");
        a_tick().await;
    }
    store.mark_published(&order[..4], "redis-1").await.expect("marked");
    assert!(store.published_elsewhere("redis-1", 0, 10).await.expect("rows").is_empty());
    let mut after = 0;
    let mut found = Vec::new();
    loop {
        let rows = store.published_elsewhere("redis-2", after, 2).await.expect("rows");
        let Some(last) = rows.last() else { break };
        after = last.id;
        found.extend(rows.iter().map(|row| row.id));
        store.mark_published(&[rows[0].id], "redis-2").await.expect("marked");
    }
    assert_eq!(found, order[..4]);
}

/// NOLOSS.md, C9: the store's clock has stepped back by an hour since a node committed, beat, and died.
async fn stamps_in_the_future_are_due_and_leases_have_ended(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a"]).await;
    let mut sent = batch(store, &[("c", "a", "", "x")]).await;
    sent.owner = owner("dead:1");
    store.send(&sent).await.expect("taken");
    store.beat(&owner("dead:1")).await.expect("a beat");
    store.beat(&owner("alive:1")).await.expect("a beat");
    match &world.database {
        Some(database) => {
            let ahead = "UPDATE outbox SET committed_at = committed_at + interval '1 hour'; \
                UPDATE leases SET beaten_at = beaten_at + interval '1 hour' WHERE owner = 'dead:1'";
            database.client().await.batch_execute(ahead).await.expect("an hour ahead");
        }
        None => {
            let file = world.url.strip_prefix("sqlite:").expect("a file");
            let ahead = "UPDATE outbox SET committed_at = committed_at + 3600000; \
                UPDATE leases SET beaten_at = beaten_at + 3600000 WHERE owner = 'dead:1'";
            rusqlite::Connection::open(file).expect("opened").execute_batch(ahead).expect("an hour ahead");
        }
    }
    assert!(!store.lease_is_live("dead:1", LIVE).await.expect("asked"));
    assert!(store.lease_is_live("alive:1", LIVE).await.expect("asked"));
    let rows = store.take_unpublished(&owner("alive:1"), LIVE, 5_000, (0, 100)).await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [sent.id]);
    // The row of a living node stays its own.
    let others = store.take_unpublished(&owner("third:1"), LIVE, 5_000, (0, 100)).await.expect("rows");
    assert!(others.is_empty(), "{others:?}");
}

async fn two_nodes_never_take_the_same_row(world: World) {
    let other = world.another().await;
    new_group(&world.store, "c", &["a"]).await;
    for _ in 0..40 {
        let mut sent = batch(&world.store, &[("c", "a", "", "x")]).await;
        sent.owner = owner("dead:1");
        world.store.send(&sent).await.expect("taken");
    }
    a_tick().await;
    for node in ["left:1", "right:1"] {
        world.store.beat(&owner(node)).await.expect("a beat");
    }
    let mut all = Vec::new();
    while all.len() < 40 {
        let (left, right) = (owner("left:1"), owner("right:1"));
        let (left, right) = tokio::join!(
            world.store.take_unpublished(&left, LIVE, 0, (0, 7)),
            other.take_unpublished(&right, LIVE, 0, (0, 7))
        );
        let rows: Vec<_> = left.expect("rows").into_iter().chain(right.expect("rows")).map(|row| row.id).collect();
        assert!(!rows.is_empty());
        world.store.mark_published(&rows, "redis-1").await.expect("marked");
        all.extend(rows);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 40);
}

/// A row that stays due holds up none behind it, and says who still lacks something of it.
async fn a_row_is_narrowed_and_taken_page_by_page(world: World) {
    let store = &world.store;
    let ids = store.reserve_ids(5).await.expect("ids");
    for id in ids.clone() {
        store.enqueue(id, &owner("n:1"), &[event(&user("a"), "x"), event(&user("b"), "y")]).await.expect("enqueued");
        a_tick().await;
    }
    store.narrow(ids.start + 1, &[user("b"), user("c")]).await.expect("narrowed");
    store.narrow(ids.start + 1, &[user("b")]).await.expect("narrowed again");
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let rows = store.take_unpublished(&owner("n:1"), ENDED, 0, (after, 2)).await.expect("rows");
        let Some(last) = rows.last() else { break };
        after = last.id;
        found.extend(rows.into_iter().map(|row| (row.id, row.lacking)));
    }
    let expected: Vec<_> = ids.clone().map(|id| (id, (id == ids.start + 1).then(|| vec![user("b")]))).collect();
    assert_eq!(found, expected);
    // A row that is published says nothing more.
    store.mark_published(&[ids.start], "redis-1").await.expect("marked");
    store.narrow(ids.start, &[user("a")]).await.expect("nothing to narrow");
    let elsewhere = store.published_elsewhere("redis-2", 0, 9).await.expect("rows");
    assert_eq!(elsewhere.iter().map(|row| (row.id, row.lacking.clone())).collect::<Vec<_>>(), [(ids.start, None)]);
}

async fn messages_are_found_with_their_age(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a", "b"]).await;
    let sent = batch(store, &[("c", "a", "", "one"), ("c", "b", "", "two")]).await;
    store.send(&sent).await.expect("taken");
    a_tick().await;
    let ids: Vec<_> = sent.messages.iter().map(|message| message.id).collect();
    let unknown = shared::MessageId::new(999_999_999).expect("an id");
    let mut found = store.stored(&[ids[1], unknown, ids[0]]).await.expect("found");
    found.sort_by_key(|(stored, _)| stored.message.seq);
    let contents: Vec<&str> = found.iter().map(|(stored, _)| stored.message.content.as_str()).collect();
    assert_eq!(contents, ["one", "two"]);
    assert!(found.iter().all(|(_, age_ms)| (1..60_000).contains(age_ms)), "{found:?}");
    assert!(store.stored(&[]).await.expect("nothing").is_empty());
}

async fn a_backbone_is_adopted_once(world: World) {
    let other = world.another().await;
    assert_eq!(world.store.adopt_backbone("one").await.expect("adopted"), None);
    assert_eq!(other.adopt_backbone("one").await.expect("adopted"), None);
    for round in 0..10 {
        let server = format!("server-{round}");
        let (here, there) = tokio::join!(world.store.adopt_backbone(&server), other.adopt_backbone(&server));
        let changed = [here.expect("adopted"), there.expect("adopted")];
        assert_eq!(changed.iter().flatten().count(), 1, "{changed:?}");
    }
    // What is published on a server that was left doesn't count, until it is published elsewhere.
    let row = world.store.reserve_ids(1).await.expect("an id").start;
    other.retire_backbone("one").await.expect("retired");
    other.retire_backbone("one").await.expect("retired twice");
    assert!(world.store.is_backbone_retired("one").await.expect("asked"));
    assert!(!world.store.is_backbone_retired("server-9").await.expect("asked"));
    world.store.enqueue(row, &owner("n:1"), &[event(&user("a"), "x")]).await.expect("enqueued");
    a_tick().await;
    world.store.mark_published(&[row], "one").await.expect("told");
    assert_eq!(taken(&world.store, "n:1", ENDED).await, [row]);
    // Of a Cluster's masters none may be one that was left.
    assert!(world.store.is_backbone_retired("a-one-b").await.expect("asked"));
    assert!(!world.store.is_backbone_retired("a-none-b").await.expect("asked"));
    world.store.mark_published(&[row], "a-one-b").await.expect("told");
    assert_eq!(taken(&world.store, "n:1", ENDED).await, [row]);
    world.store.mark_published(&[row], "server-9").await.expect("marked");
    assert!(taken(&world.store, "n:1", ENDED).await.is_empty());

    let made = world.store.open_direct(Some(&user("a")), (&user("a"), &user("b")), &conversation("ab"), silent()).await;
    assert!(made.is_ok_and(|(_, made)| made));
}

/// The table is empty whenever a node had nothing to do for a minute: a plan that is made then must stay good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_planned_while_there_was_no_row_reads_none_twice() {
    const ROWS: u32 = 300;
    bounded(async {
        let database = Postgres::database().await;
        let store = connect(&database.url).await.expect("PostgreSQL takes the tables");
        let looking = database.client().await;
        looking.batch_execute("VACUUM ANALYZE outbox").await.expect("vacuumed");
        store.adopt_backbone("redis-1").await.expect("adopted");
        let ids = store.reserve_ids(ROWS).await.expect("ids");
        let (from, to) = (ids.start, ids.end);
        for rows in [from..from, from..to] {
            for id in rows.clone() {
                store.enqueue(id, &owner("n:1"), &[event(&user("a"), "x")]).await.expect("enqueued");
            }
            a_tick().await;
            let count = rows.clone().count();
            assert_eq!(store.take_unpublished(&owner("n:1"), ENDED, 0, (0, ROWS)).await.expect("rows").len(), count);
            store.mark_published(&rows.collect::<Vec<_>>(), "redis-1").await.expect("marked");
            a_tick().await;
            assert_eq!(store.prune_outbox(0).await.expect("pruned"), u64::try_from(count).expect("a count"));
        }
        // Counts are told when a connection ends.
        drop(store);
        let sql = "SELECT n_tup_del, idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'outbox'";
        let read = loop {
            let row = looking.query_one(sql, &[]).await.expect("counts");
            if row.get::<_, i64>(0) >= i64::from(ROWS) {
                break row.get::<_, i64>(1);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert!(read < 20 * i64::from(ROWS), "{read} rows were read to take, mark and prune {ROWS}");
    })
    .await;
}
