//! A database of the first release, filled, is brought up to date: everything in it reads as before, and takes what is new.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::store::{Page, Refusal, SendOutcome, Store, connect};
use shared::{ConversationKind, Message, MessageId, Role, UserId, Visibility};

use crate::store::{World, bounded, conversation, owner, positions, say, send, user};
use crate::support::postgres::{Database, Postgres};

const POSTGRES_0100: &str = include_str!("../../../src/store/postgres/migrations/0100_schema.sql");
const SQLITE_0100: &str = include_str!("../../../src/store/sqlite/migrations/0100_schema.sql");

/// Rows of every table, in the words that both stores understand. `T(<n>)` is a time, so many seconds after the first;
/// `IDS(<ids>)` a list of numbers.
const ROWS: &str = r#"
INSERT INTO conversations (id, kind, pair_key, title, visibility, password_hash, blocked, last_seq, rev, members_version,
        member_count, created_at, last_activity, members_seq) VALUES
    ('c', 'channel', NULL, 'A title', 'public', 'a hash', false, 3, 6, 5, 2, T(1), T(9), 1),
    ('d', 'direct', 'a/b', NULL, 'private', NULL, true, 1, 1, 2, 2, T(1), T(2), 0);
INSERT INTO members (conversation_id, user_id, role, state, read_seq, seen_seq, delivered_seq, joined_seq, left_seq) VALUES
    ('c', 'a', 'owner', 'accepted', 3, 3, 3, 0, NULL), ('c', 'b', 'member', 'accepted', 1, 2, 2, 1, NULL),
    ('c', 'i', 'member', 'invited', 0, 0, 0, 0, NULL), ('c', 'l', 'member', 'left', 1, 1, 1, 0, 1),
    ('c', 'x', 'member', 'banned', 0, 0, 0, 0, NULL),
    ('d', 'a', 'member', 'accepted', 1, 1, 1, 0, NULL), ('d', 'b', 'member', 'accepted', 0, 0, 0, 0, NULL);
INSERT INTO past_members VALUES ('c', 'b', 0, 1);
INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, reply_to, created_at, edited_at,
        deleted_at, reactions) VALUES
    (101, 'c', 1, 4, 'a', 't1', 'text', 'edited', NULL, T(3), T(6), NULL, '{"👍":["b"]}'),
    (102, 'c', 2, 5, 'a', NULL, 'text', '', NULL, T(4), NULL, T(7), NULL),
    (103, 'c', 3, 3, 'b', NULL, 'image', 'third', 101, T(5), NULL, NULL, NULL),
    (104, 'd', 1, 1, 'a', NULL, 'text', 'direct', NULL, T(2), NULL, NULL, NULL);
INSERT INTO edits VALUES (101, 1, 'as it was', T(6));
INSERT INTO blocks VALUES ('b', 'a', T(8));
INSERT INTO users VALUES ('a', T(9)), ('n', T(9));
INSERT INTO usernames VALUES ('Annie', 'a'), ('Ann', 'a'), ('Bob', 'b');
INSERT INTO revocations VALUES ('x', 7);
INSERT INTO notifications VALUES ('a', 105, '{"notificationId":"105","text":"kept"}', T(4), NULL);
INSERT INTO outbox (id, owner, committed_at, message_ids, events, published_at, server) VALUES
    (106, 'old:1', T(5), IDS(103), '[]', NULL, NULL),
    (107, 'old:1', T(6), IDS(), '[{"users":["b"],"body":"{\"type\":\"x\",\"payload\":{}}"}]', NULL, NULL),
    (108, 'old:1', T(4), IDS(102), '[]', T(5), 'a-server');
UPDATE id_blocks SET next = 1000;
INSERT INTO audit (at, kind, user_id) VALUES (T(1), 'connected', 'a');
"#;

/// The rows, with times and lists written as a store writes them.
fn rows(time: impl Fn(&str) -> String, ids: impl Fn(&str) -> String) -> String {
    let mut text = ROWS.to_owned();
    for (name, write) in [("T(", &time as &dyn Fn(&str) -> String), ("IDS(", &ids)] {
        while let Some((before, rest)) = text.split_once(name) {
            let (value, behind) = rest.split_once(')').expect("an end");
            text = format!("{before}{}{behind}", write(value));
        }
    }
    text
}

async fn postgres() -> (Database, Arc<dyn Store>) {
    let database = Postgres::database().await;
    let client = database.client().await;
    client.batch_execute(&format!("BEGIN; {POSTGRES_0100} COMMIT;")).await.expect("the first release's tables");
    let rows = rows(|time| format!("'2026-01-01 00:00:0{time}Z'"), |ids| format!("'{{{ids}}}'"));
    client.batch_execute(&rows).await.expect("its rows");
    let versions = "CREATE TABLE schema_migrations (version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now()); \
        INSERT INTO schema_migrations (version) VALUES (100)";
    client.batch_execute(versions).await.expect("its version");
    let store = connect(&database.url).await.expect("it is brought up to date");
    (database, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filled_database_of_the_first_release_reads_as_before_on_postgres() {
    bounded(async {
        let (database, store) = postgres().await;
        check(&store).await;
        // It has the tables, indexes and functions of a database that was made today.
        let shape = "SELECT format('%s %s %s %s', table_name, column_name, data_type, is_nullable) \
                FROM information_schema.columns WHERE table_schema = 'public' \
            UNION SELECT format('%s %s', tablename, indexdef) FROM pg_indexes WHERE schemaname = 'public' \
            UNION SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace ORDER BY 1";
        let shape = async |database: &Database| -> Vec<String> {
            let rows = database.client().await.query(shape, &[]).await.expect("a shape");
            rows.iter().map(|row| row.get(0)).collect()
        };
        let today = World::postgres().await;
        assert_eq!(shape(&database).await, shape(today.database.as_ref().expect("a database")).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filled_file_of_the_first_release_reads_as_before_on_sqlite() {
    bounded(async {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("parley.db");
        let connection = rusqlite::Connection::open(&file).expect("a file");
        let rows = rows(|time| format!("176722560{time}000"), |ids| format!("'[{ids}]'"));
        let version = "CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY NOT NULL) STRICT; \
            INSERT INTO schema_migrations (version) VALUES (100)";
        for sql in [SQLITE_0100, &rows, version] {
            connection.execute_batch(sql).expect("the first release's file");
        }
        drop(connection);
        let store = connect(&format!("sqlite:{}", file.display())).await.expect("it is brought up to date");
        check(&store).await;
    })
    .await;
}

async fn check(store: &Arc<dyn Store>) {
    let (a, b, c, d) = (user("a"), user("b"), conversation("c"), conversation("d"));
    // What waits to be published is as it was; what was published is not told again.
    let pending = store.take_unpublished(&owner("test:0"), 0, 0, (0, 10)).await.expect("rows");
    assert_eq!(pending.iter().map(|row| row.id).collect::<Vec<_>>(), [106, 107]);
    assert_eq!(pending[0].messages[0].message.content, "third");
    assert_eq!((pending[1].events[0].body.as_str(), &pending[1].lacking), (r#"{"type":"x","payload":{}}"#, &None));
    store.narrow(107, std::slice::from_ref(&b)).await.expect("what is new about rows");

    let view = store.conversation(&c, Some(&b)).await.expect("the channel");
    assert_eq!(
        (view.kind, view.title.as_deref(), view.visibility),
        (ConversationKind::Channel, Some("A title"), Visibility::Public)
    );
    assert_eq!((view.has_password, view.last_seq, view.rev, view.member_count, view.unread), (true, 3, 6, 2, Some(1)));
    assert_eq!((positions(store, "c", "a").await, positions(store, "c", "b").await), ((3, 3), (1, 2)));
    assert_eq!(store.members(&c).await.expect("members").list, [(a.clone(), Role::Owner), (b.clone(), Role::Member)]);
    assert_eq!(store.members_at(&c, 1).await.expect("members"), [a.clone(), b.clone(), user("l")]);
    assert_eq!(store.members_at(&c, 2).await.expect("members"), [a.clone(), b.clone()]);
    assert_eq!(store.members_ever(&c, None).await.expect("a page").len(), 5);
    assert_eq!(store.invitations(&user("i"), None, 9).await.expect("invitations").len(), 1);
    assert_eq!(store.join_password(&c, &user("n")).await.expect("it takes one").as_deref(), Some("a hash"));
    assert_eq!(store.public_channels(None, None, 9).await.expect("channels").items.len(), 1);
    let page = store.messages(&c, Page::After(0), 9).await.expect("a page");
    let told: Vec<(u64, u64, &str)> =
        page.iter().map(|message| (message.id.get(), message.rev, message.content.as_str())).collect();
    assert_eq!(told, [(101, 4, "edited"), (102, 5, ""), (103, 3, "third")]);
    let Message { reactions, data, edited_at, deleted_at, .. } = &page[0];
    assert_eq!(reactions, &BTreeMap::from([("👍".to_owned(), vec![b.clone()])]));
    assert!(data.is_none() && edited_at.is_some() && deleted_at.is_none() && page[1].deleted_at.is_some());
    assert_eq!((page[2].kind.as_str(), page[2].reply_to), ("image", MessageId::new(101)));

    // One of a user's names is kept, and is the one that is shown.
    let by_name = async |name: &str| store.user_by_name(name).await.expect("looked up");
    assert_eq!(
        (by_name("Ann").await, by_name("Annie").await, by_name("Bob").await),
        (Some(a.clone()), None, Some(b.clone()))
    );
    assert_eq!(store.username(&a).await.expect("looked up").as_deref(), Some("Ann"));
    let known = [user("a"), user("b"), user("n"), user("z")];
    assert_eq!(store.known_users(&known).await.expect("looked up").len(), 3);
    assert_eq!(store.blocked_by(&b, None, 9).await.expect("blocks"), std::slice::from_ref(&a));
    assert_eq!(store.notifications(&a, 0, 9).await.expect("a page").len(), 1);
    assert_eq!(store.direct((&b, &a)).await.expect("looked up"), Some(d));

    // It takes what a new database takes: sends, refusals, mutes, an end, an erasure.
    let refused = send(store, &[("@b", "a", "", "no"), ("c", "x", "", "no"), ("c", "a", "t1", "edited")]).await;
    assert_eq!(refused[..2], [Refusal::Blocked, Refusal::Banned].map(SendOutcome::Refused));
    assert!(matches!(&refused[2], SendOutcome::Duplicate(message) if message.id.get() == 101));
    assert_eq!(
        (say(store, "c", "b", "fourth").await.message.seq, say(store, "@n", "a", "hi").await.message.seq),
        (4, 1)
    );
    assert!(store.mute(&c, &b, Some(&a), Some(std::time::Duration::from_secs(60))).await.expect("muted"));
    store.begin_erasure(&a).await.expect("begun");
    let blocks: Vec<UserId> = store.blocked_by(&b, None, 9).await.expect("blocks");
    assert!(blocks.is_empty() && store.notifications(&a, 0, 9).await.expect("a page").is_empty());
    store.delete_conversation(&c, None, crate::store::silent()).await.expect("deleted");
    assert!(
        store.messages(&c, Page::After(0), 9).await.expect("a page").iter().all(|message| message.content.is_empty())
    );
}
