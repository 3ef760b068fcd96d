//! Opening a store: migrations, wrong URLs, and a server that is away or frozen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::store::{MessageChange, Receipt, ReceiptKind, Store, StoreError, connect};

use crate::store::{World, batch, bounded, contract, conversation, new_group, say, send, silent, user};
use crate::support::postgres::Postgres;

contract!(
    nodes_that_start_at_once_migrate_once,
    a_store_says_where_it_is,
    a_database_of_an_unreleased_version_is_refused,
);

async fn nodes_that_start_at_once_migrate_once(world: World) {
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let url = world.url.clone();
        starts.spawn(async move { connect(&url).await.map(drop) });
    }
    while let Some(started) = starts.join_next().await {
        started.expect("a start ends").expect("it connects to migrated tables");
    }
    new_group(&world.store, "c", &["a"]).await;
    assert_eq!(send(&world.another().await, &[("c", "a", "", "x")]).await.len(), 1);
}

/// Versions below 100 were several small files; the tables that they made can't be carried over.
async fn a_database_of_an_unreleased_version_is_refused(world: World) {
    let older = "DELETE FROM schema_migrations; INSERT INTO schema_migrations (version) VALUES (1), (2), (24)";
    match &world.database {
        Some(database) => database.client().await.batch_execute(older).await.expect("written"),
        None => file(&world).execute_batch(older).expect("written"),
    }
    let fault = fault(&world.url).await;
    assert!(fault.contains("unreleased version of Parley; begin with an empty one"), "{fault}");
    assert!(fault.contains(&world.store.describe()), "it says which: {fault}");
}

/// The oldest files list no versions, and count theirs in the file's head.
#[tokio::test]
async fn a_file_of_the_first_days_is_refused() {
    let world = World::sqlite().await;
    file(&world).execute_batch("DELETE FROM schema_migrations; PRAGMA user_version = 1").expect("written");
    let fault = fault(&world.url).await;
    assert!(fault.contains("unreleased version of Parley"), "{fault}");
}

fn file(world: &World) -> rusqlite::Connection {
    rusqlite::Connection::open(world.url.strip_prefix("sqlite:").expect("a file")).expect("opened")
}

async fn a_store_says_where_it_is(world: World) {
    world.store.ping().await.expect("it answers");
    let place = world.store.describe();
    assert!(place.starts_with("PostgreSQL database") || place.starts_with("SQLite in"), "{place}");
}

/// What is acknowledged is on the disk, whatever the database's default: each session sees to that. A server that waits
/// for its standbys goes on doing so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_the_disk_whatever_the_default() {
    let database = Postgres::database().await;
    connect(&database.url).await.expect("tables");
    let client = database.client().await;
    let note = "CREATE TABLE noted (setting text); \
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
            $$ BEGIN INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$; \
        CREATE TRIGGER note AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION note()";
    client.batch_execute(note).await.expect("a trigger");
    for (default, expected) in [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
        let set = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {default}', current_database()); END $$"
        );
        client.batch_execute(&set).await.expect("set");
        let store = connect(&database.url).await.expect("a store");
        new_group(&store, default, &["a"]).await;
        assert_eq!(send(&store, &[(default, "a", "", "x")]).await.len(), 1);
        let noted = client.query("DELETE FROM noted RETURNING setting", &[]).await.expect("noted");
        let noted: Vec<&str> = noted.iter().map(|row| row.get(0)).collect();
        assert_eq!(noted, [expected], "with the default {default}");
    }
}

/// The default of a role or a database, made for another program, changes nothing: what is done at the same time all
/// succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_sets_the_isolation_that_it_needs() {
    bounded(async {
        for defaults in [
            "default_transaction_isolation = 'serializable'",
            "default_transaction_isolation = 'repeatable read'",
            "lock_timeout = '1ms'",
        ] {
            let database = Postgres::database().await;
            connect(&database.url).await.expect("tables");
            let set = format!(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {}', current_database()); END $$",
                defaults.replace('\'', "''")
            );
            database.client().await.batch_execute(&set).await.expect("set");
            let store = connect(&database.url).await.expect("a store");
            let members = ["a", "b", "d", "e", "f", "g"];
            new_group(&store, "c", &members).await;
            for round in 0..8 {
                let message = say(&store, "c", "a", "x").await.message.id;
                let mut acts = tokio::task::JoinSet::new();
                for member in &members[1..] {
                    let (store, member) = (Arc::clone(&store), user(member));
                    let receipt = Receipt {
                        kind: ReceiptKind::Read,
                        user: member.clone(),
                        conversation: conversation("c"),
                        up_to: Some(message),
                    };
                    acts.spawn({
                        let store = Arc::clone(&store);
                        async move { store.receipts(&[receipt], silent()).await.map(drop) }
                    });
                    acts.spawn(async move {
                        let emoji = "👍".to_owned();
                        let change = MessageChange::React { emoji, on: true };
                        store.change_message(message, Some(&member), &change, silent()).await.map(drop)
                    });
                }
                while let Some(done) = acts.join_next().await {
                    done.expect("it ends").unwrap_or_else(|error| panic!("{defaults}, round {round}: {error}"));
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_database_that_lacks_characters_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = Postgres::database_with(&format!("ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")).await;
        let fault = fault(&database.url).await;
        assert!(fault.contains(encoding) && fault.contains("createdb --encoding=UTF8"), "{fault}");
    }
    let good = Postgres::database_with("ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0").await;
    connect(&good.url).await.expect("UTF8 will do").ping().await.expect("it answers");
}

async fn fault(url: &str) -> String {
    match connect(url).await {
        Ok(_) => panic!("{url} must not connect"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn an_empty_database_is_migrated_by_six_nodes_at_once() {
    bounded(async {
        let database = Postgres::database().await;
        let starts = (0..6).map(|_| connect(&database.url));
        for started in futures_util::future::join_all(starts).await {
            started.expect("it connects").ping().await.expect("it answers");
        }
    })
    .await;
}

/// While a database is empty the planner can't tell its indexes from each other, unless it was shown what the rows are
/// like.
#[tokio::test]
async fn an_empty_database_is_searched_by_the_right_index() {
    bounded(async {
        let database = Postgres::database().await;
        connect(&database.url).await.expect("it connects");
        let client = database.client().await;
        client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").await.expect("set");
        for (what, index) in [("conversation_id = 'c'", "members_pkey"), ("user_id = 'u'", "members_by_user")] {
            let sql = format!("EXPLAIN SELECT role FROM members WHERE {what} AND state = 'accepted'");
            let plan = client.query(&sql, &[]).await.expect("a plan");
            let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
            assert!(plan[0].contains(index), "{plan:?}");
        }
        let left = client.query_one("SELECT count(*) FROM conversations", &[]).await.expect("a count");
        assert_eq!(left.get::<_, i64>(0), 0, "the rows that it was shown are gone");
    })
    .await;
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    bounded(async {
        let database = Postgres::database().await;
        connect(&database.url).await.expect("it connects");
        let newer = "INSERT INTO schema_migrations (version) VALUES (4000)";
        database.client().await.batch_execute(newer).await.expect("written");
        let fault = fault(&database.url).await;
        assert!(fault.contains("version 4000") && fault.contains("newer gateway"), "{fault}");
    })
    .await;
}

#[tokio::test]
async fn a_newer_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("parley.db");
    let url = format!("sqlite:{}", file.display());
    drop(connect(&url).await.expect("it opens"));
    let sql = "INSERT INTO schema_migrations (version) VALUES (4000)";
    rusqlite::Connection::open(&file).expect("a file").execute(sql, []).expect("written");
    let fault = fault(&url).await;
    assert!(fault.contains("version 4000") && fault.contains("newer gateway"), "{fault}");
}

#[tokio::test]
async fn wrong_urls_are_explained_without_the_password() {
    bounded(async {
        for (url, part) in [
            ("", "must begin with"),
            ("mysql://x", "must begin with"),
            ("sqlite:", "names no file"),
            ("sqlite:/nowhere/at/all.db", "folder must exist"),
            ("postgres://u:geheim@host:port/db", "postgres://user:password@host"),
            ("postgres://u:geheim@127.0.0.1:1/db", "is the server up"),
            ("postgres://u:geheim@127.0.0.1:1/db?sslmode=require", "is the server up"),
            ("postgres://u:geheim@127.0.0.1:1/db?sslrootcert=/ca.pem", "sslmode=verify-full"),
        ] {
            let fault = fault(url).await;
            assert!(fault.contains(part), "{url}: {fault}");
            assert!(!fault.contains("geheim"), "{fault}");
        }
        let database = Postgres::database().await;
        let missing = database.url.replace("parley_test", "missing");
        let fault = fault(&missing).await;
        assert!(fault.contains("createdb"), "{fault}");
    })
    .await;
}

#[tokio::test]
async fn a_database_in_memory_is_its_own() {
    let one = connect("sqlite::memory:").await.expect("opened");
    let other = connect("sqlite::memory:").await.expect("opened");
    new_group(&one, "c", &["a"]).await;
    new_group(&other, "c", &["a"]).await;
}

/// Every call ends within five seconds, also when the server's processes stand still, and goes on afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_unavailable_in_time_and_a_killed_one_comes_back() {
    bounded(async {
        let server = Postgres::start_own();
        let database = server.new_database().await;
        let store = connect(&database.url).await.expect("it connects");
        new_group(&store, "c", &["a"]).await;
        let first = batch(&store, &[("c", "a", "", "1")]).await;
        let second = batch(&store, &[("c", "a", "", "2")]).await;
        store.send(&first).await.expect("stored");

        let asker = [user("a")];
        server.freeze();
        let asked = Instant::now();
        let results = tokio::join!(store.send(&second), store.ping(), store.unread(&asker));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(is_away(&results.0) && is_away(&results.1) && is_away(&results.2), "{results:?}");
        server.thaw();
        // The frozen server may or may not have carried it out: the same batch is stored once.
        retried(&store, &second).await;

        server.kill();
        assert!(is_away(&store.ping().await));
        server.restart();
        retried(&store, &first).await;
        let page = store.messages(&crate::store::conversation("c"), gateway::store::Page::After(0), 9).await;
        assert_eq!(page.expect("a page").len(), 2);
    })
    .await;
}

fn is_away<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

async fn retried(store: &Arc<dyn Store>, batch: &gateway::store::SendBatch) {
    for _ in 0..20 {
        match store.send(batch).await {
            Ok(sent) => {
                assert!(matches!(sent.outcomes[0], gateway::store::SendOutcome::Stored(_)));
                return;
            }
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store does not come back");
}
