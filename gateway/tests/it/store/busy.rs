//! A conversation that another transaction holds stops nobody else (NOLOSS.md, C5). The other end is a transaction that
//! stays open, as that of a node which was paused.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gateway::store::{Page, SendOutcome, StoreError};

use crate::store::group_commit::{draft, line};
use crate::store::{World, batch, bounded, conversation, new_group, stored};

/// How long the other transaction stays open.
const HELD: Duration = Duration::from_millis(2_500);
/// The latest moment at which everybody else's messages are stored, on a loaded machine.
const PROMPT: Duration = Duration::from_millis(1_500);

/// Sends into a held conversation, by several names, and beside it, and checks both.
async fn bystanders_go_on(hold: &str) {
    let world = World::postgres().await;
    let mut line = line(&world.store);
    let first = stored(line.commit.send(draft("@b", "a", "0")).await.expect("taken")).message;
    let held = first.conversation_id;
    new_group(&world.store, "free", &["a", "b", "c"]).await;
    let mut other = world.database.as_ref().expect("a database").client().await;
    let holding = other.transaction().await.expect("a transaction");
    holding.batch_execute(&hold.replace("HELD", held.as_str())).await.expect("it is held");

    let begun = Instant::now();
    let names = ["@b", held.as_str()];
    let waiting = async {
        // One batch has some of them, later ones the rest.
        let first = (1..=5).map(|n| line.commit.send(draft(names[n % 2], "a", &n.to_string())));
        let second = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            join_all((6..=9).map(|n| line.commit.send(draft(names[n % 2], "a", &n.to_string())))).await
        };
        let (mut first, second) = tokio::join!(join_all(first), second);
        first.extend(second);
        first
    };
    let bystanders = async {
        for _ in 0..4 {
            for outcome in join_all((0..20).map(|_| line.commit.send(draft("free", "c", "x")))).await {
                stored(outcome.expect("taken"));
            }
            stored(line.commit.send(draft("@d", "c", "to a stranger")).await.expect("taken"));
        }
        begun.elapsed()
    };
    let release = async {
        tokio::time::sleep(HELD).await;
        holding.commit().await.expect("released");
    };
    let (waited, prompt, ()) = tokio::join!(waiting, bystanders, release);
    assert!(prompt < PROMPT, "bystanders waited for {prompt:?}");
    assert!(begun.elapsed() >= HELD);
    let seqs: Vec<u64> = waited.into_iter().map(|outcome| stored(outcome.expect("taken")).message.seq).collect();
    assert_eq!(seqs, (2..=10).collect::<Vec<_>>(), "in the order in which they came");
    let page = world.store.messages(&held, Page::After(0), 100).await.expect("a page");
    let contents: Vec<&str> = page.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(contents, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "none twice");
    let free = world.store.messages(&conversation("free"), Page::After(0), 100).await.expect("a page");
    assert_eq!(free.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=80).collect::<Vec<_>>());
    line.commit.finish().await;
    // Each was handed on once, in its conversation's order.
    let mut told = Vec::new();
    while let Ok(batch) = line.batches.try_recv() {
        told.extend(batch.messages.into_iter().map(|stored| stored.message).filter(|it| it.conversation_id == held));
    }
    assert_eq!(told.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_conversation_stops_nobody_else() {
    bounded(bystanders_go_on("SELECT 1 FROM conversations WHERE id = 'HELD' FOR UPDATE")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_member_stops_nobody_else() {
    bounded(bystanders_go_on("SELECT 1 FROM members WHERE conversation_id = 'HELD' AND user_id = 'a' FOR UPDATE"))
        .await;
}

/// A pair that is held has no conversation yet: first messages wait for it, those to others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_pair_stops_nobody_else() {
    bounded(async {
        let world = World::postgres().await;
        let line = line(&world.store);
        let mut other = world.database.as_ref().expect("a database").client().await;
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute("SELECT parley_lock_pairs(ARRAY['a/b'])").await.expect("it is held");
        let begun = Instant::now();
        let waiting = join_all((0..3).map(|n| line.commit.send(draft(["@b", "@a"][n % 2], ["a", "b"][n % 2], "x"))));
        let bystanders = async {
            join_all((0..3).map(|n| line.commit.send(draft(&format!("@s{n}"), "a", "x")))).await;
            begun.elapsed()
        };
        let release = async {
            tokio::time::sleep(HELD).await;
            holding.commit().await.expect("released");
        };
        let (waited, prompt, ()) = tokio::join!(waiting, bystanders, release);
        assert!(prompt < PROMPT, "bystanders waited for {prompt:?}");
        let seqs: Vec<u64> = waited.into_iter().map(|outcome| stored(outcome.expect("taken")).message.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
    })
    .await;
}

/// What is held for too long is told in time, and is not stored afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_too_long_is_answered_and_not_stored() {
    bounded(async {
        let world = World::postgres().await;
        new_group(&world.store, "c", &["a"]).await;
        let line = line(&world.store);
        let mut other = world.database.as_ref().expect("a database").client().await;
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute("SELECT 1 FROM conversations WHERE id = 'c' FOR UPDATE").await.expect("it is held");
        let begun = Instant::now();
        let outcome = line.commit.send(draft("c", "a", "x")).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        holding.rollback().await.expect("released");
        assert_eq!(stored(line.commit.send(draft("c", "a", "y")).await.expect("taken")).message.seq, 1);
        line.commit.finish().await;
        assert_eq!(world.store.messages(&conversation("c"), Page::After(0), 9).await.expect("a page").len(), 1);
    })
    .await;
}

/// A repeated batch tells again what was busy: nothing of it was stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_batch_tells_again_what_was_busy() {
    bounded(async {
        let world = World::postgres().await;
        for id in ["c", "d"] {
            new_group(&world.store, id, &["a"]).await;
        }
        let mut other = world.database.as_ref().expect("a database").client().await;
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute("SELECT 1 FROM conversations WHERE id = 'c' FOR UPDATE").await.expect("it is held");
        let once = batch(&world.store, &[("c", "a", "t", "x"), ("d", "a", "", "y"), ("c", "a", "", "z")]).await;
        let sent = world.store.send(&once).await.expect("taken");
        let busy = SendOutcome::Busy(Some(conversation("c")));
        assert_eq!((&sent.outcomes[0], &sent.outcomes[2]), (&busy, &busy));
        stored(sent.outcomes[1].clone());
        holding.rollback().await.expect("released");
        let again = world.another().await.send(&once).await.expect("taken again");
        assert!(matches!((&again.outcomes[0], &again.outcomes[2]), (SendOutcome::Busy(_), SendOutcome::Busy(_))));
        assert_eq!(again.outcomes[1], sent.outcomes[1]);
    })
    .await;
}

/// NOLOSS.md, C10: a plain batch that is undone leaves `synchronous_commit` alone, which holds for the whole transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undone_batch_leaves_the_session_as_it_is() {
    bounded(async {
        let world = World::postgres().await;
        let mut client = world.database.as_ref().expect("a database").client().await;
        let change = client.transaction().await.expect("a transaction");
        change.batch_execute("SET LOCAL synchronous_commit = on").await.expect("set");
        let plain = "SELECT out_seqs IS NULL AS undone FROM parley_send_plain(1, 'o', '{2}', '{nowhere}', '{1}', '{1}', \
            '{a}', '{1}', '{1}', '{2}', '{1}', '{1}', '{a}', '{t}', '{text}', '{x}', NULL)";
        assert!(change.query_one(plain, &[]).await.expect("called").get::<_, bool>("undone"));
        for (setting, expected) in [("synchronous_commit", "on"), ("lock_timeout", "0")] {
            let found = change.query_one("SELECT current_setting($1)", &[&setting]).await.expect("a setting");
            assert_eq!(found.get::<_, &str>(0), expected, "{setting}");
        }
    })
    .await;
}
