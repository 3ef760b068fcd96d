//! A store that is slow, and one that has stopped: what is taken is stored, what is refused isn't, and each answer comes in
//! time.

use std::time::{Duration, Instant};

use gateway::overload::Kind;
use gateway::store::{StoreError, connect};
use tokio::task::JoinSet;

use super::group_commit::{draft, line};
use crate::store::{World, bounded, new_group, owner, stored, user};
use crate::support::postgres::Postgres;

/// How long PostgreSQL takes for a batch here. A batch has at most 256 messages.
const BATCH: Duration = Duration::from_millis(250);
/// For how long, and how many messages in each hundredth of a second: three times as many as it takes.
const LASTS: Duration = Duration::from_secs(5);
const EACH_TURN: u32 = 30;

/// Asked for three times what the store takes, the group commit does four fifths of it, and refuses the rest within a
/// second. Nothing that was refused is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_stores_what_it_can_and_refuses_the_rest_in_time() {
    bounded(async {
        let World { store, database, .. } = &World::postgres().await;
        new_group(store, "c", &["a"]).await;
        let client = database.as_ref().expect("a database").client().await;
        client
            .batch_execute(&format!(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN PERFORM pg_sleep({}); RETURN NULL; END $$; \
                 CREATE TRIGGER slow AFTER INSERT ON messages FOR EACH STATEMENT EXECUTE FUNCTION slow()",
                BATCH.as_secs_f64()
            ))
            .await
            .expect("a trigger");
        let line = line(store);
        let (mut sends, begun) = (JoinSet::new(), Instant::now());
        let mut turns = tokio::time::interval(Duration::from_millis(10));
        while begun.elapsed() < LASTS {
            turns.tick().await;
            for _ in 0..EACH_TURN {
                let commit = line.commit.clone();
                sends.spawn(async move {
                    let asked = Instant::now();
                    (commit.send(draft("c", "a", "x")).await, asked.elapsed())
                });
            }
        }
        let (mut acknowledged, mut refused, mut told) = (0_u32, 0_u32, Vec::new());
        while let Some(sent) = sends.join_next().await {
            match sent.expect("an answer") {
                (Ok(outcome), took) => {
                    drop(stored(outcome));
                    acknowledged += 1;
                    assert!(took < Duration::from_secs(4), "acknowledged after {took:?}");
                }
                (Err(StoreError::Busy(busy)), took) => {
                    assert_eq!(busy.kind, Kind::Messages);
                    told.push(busy.retry_after_ms);
                    refused += 1;
                    assert!(took < Duration::from_secs(3), "refused after {took:?}");
                }
                (Err(error), took) => panic!("{error} after {took:?}"),
            }
        }
        let in_table = client.query_one("SELECT count(*) FROM messages", &[]).await.expect("a count");
        assert_eq!(in_table.get::<_, i64>(0), i64::from(acknowledged), "stored is what was acknowledged");
        let full = client.query_one("SELECT count(*) FROM outbox", &[]).await.expect("a count").get::<_, i64>(0);
        // Whole batches, one after the other; the first ones may be small.
        assert!(i64::from(acknowledged) > (full - 4) * 200, "{acknowledged} messages in {full} batches");
        let time_for = begun.elapsed().as_secs_f64() / (BATCH.as_secs_f64() * 2.0);
        assert!(full as f64 > time_for * 0.8, "{full} batches in {:?}", begun.elapsed());
        assert!(refused > acknowledged / 4, "{refused} refused, {acknowledged} acknowledged");
        told.sort_unstable();
        told.dedup();
        assert!(told.len() > 100 && told.last() > Some(&2_000), "they grow and differ: {told:?}");
    })
    .await;
}

/// A store that has stopped: answers come within five seconds, later work is refused at once, and all goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_store_is_told_within_five_seconds_and_goes_on_by_itself() {
    bounded(async {
        let server = Postgres::start_own();
        let database = server.new_database().await;
        let store = connect(&database.url).await.expect("it connects");
        new_group(&store, "c", &["a"]).await;
        let line = line(&store);
        drop(stored(line.commit.send(draft("c", "a", "x")).await.expect("it is there")));
        server.freeze();
        let (mut sends, begun) = (JoinSet::new(), Instant::now());
        while begun.elapsed() < Duration::from_secs(4) {
            let commit = line.commit.clone();
            let since = begun.elapsed();
            sends.spawn(async move {
                let asked = Instant::now();
                (commit.send(draft("c", "a", "y")).await, since, asked.elapsed())
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (mut at_once, mut late) = (0, 0);
        while let Some(sent) = sends.join_next().await {
            let (answer, since, took) = sent.expect("an answer");
            assert!(took < Duration::from_secs(7), "{answer:?} after {took:?}");
            let error = answer.expect_err("nothing is stored");
            if since > Duration::from_millis(1_500) {
                late += 1;
                at_once += u32::from(matches!(error, StoreError::Busy(_)) && took < Duration::from_secs(1));
            }
        }
        assert!(at_once * 10 >= late * 8, "{at_once} of {late} were refused at once");
        server.thaw();
        let again = async {
            while line.commit.send(draft("c", "a", "z")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), again).await.expect("it goes on by itself");
    })
    .await;
}

/// One that waits for another process's lock holds up the whole file. Later work is refused at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_for_a_locked_file_is_refused_at_once() {
    bounded(async {
        let world = World::sqlite().await;
        let file = world.url.strip_prefix("sqlite:").expect("a file");
        let other = rusqlite::Connection::open(file).expect("opened");
        other.execute_batch("BEGIN IMMEDIATE").expect("locked");
        let (store, holder) = (world.store.clone(), owner("n:1"));
        let hanging = tokio::spawn(async move { store.beat(&holder).await });
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let asked = Instant::now();
        let refused = world.store.username(&user("a")).await;
        assert!(matches!(&refused, Err(StoreError::Busy(busy)) if busy.stands_still), "{refused:?}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        other.execute_batch("ROLLBACK").expect("unlocked");
        hanging.await.expect("it ends").expect("it goes on");
        // The work that hung is told of its end before the queue is.
        let again = async {
            while world.store.username(&user("a")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), again).await.expect("it goes on");
    })
    .await;
}
