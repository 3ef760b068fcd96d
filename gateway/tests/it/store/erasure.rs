//! Contract of the store: the erasure of a user, which any node goes on with.

use std::time::Duration;

use gateway::store::{AuthorPlace, ErasurePlace, MembershipChange};

use crate::store::{World, bounded, contract, conversation, named, new_group, positions, say, silent, telling, user};

contract!(
    an_erasure_is_begun_once_and_remembered,
    all_who_were_in_are_found,
    an_erasure_goes_on_when_nothing_of_before_may_come_any_more,
);

async fn an_erasure_is_begun_once_and_remembered(world: World) {
    let store = &world.store;
    let (a, b) = (user("a"), user("b"));
    let (direct, _) = store.open_direct(None, (&a, &b), &conversation("d"), silent()).await.expect("opened");
    say(store, "d", "a", "hi").await;
    assert_eq!(positions(store, "d", "a").await, (1, 1));
    store.remember_names(&[(a.clone(), named("Ann")), (b.clone(), named("Bob"))]).await.expect("kept");
    store.set_block(&b, &a, true, silent()).await.expect("blocked");
    store.set_last_seen(&[(a.clone(), shared::Timestamp::now())]).await.expect("kept");
    let id = store.reserve_ids(2).await.expect("ids").next().expect("an id");
    let kept = telling(id, "a", |_| r#"{"type":"notification","payload":{"notificationId":"12"}}"#.into());
    store.set_block(&a, &user("c"), true, kept).await.expect("blocked");
    assert_eq!(store.notifications(&a, 0, 9).await.expect("a page").len(), 1);

    assert_eq!(store.next_erasure().await.expect("asked"), None);
    for _ in 0..2 {
        store.begin_erasure(&a).await.expect("begun");
        assert_eq!(store.erasure_of(&a).await.expect("asked"), Some(ErasurePlace::Messages(None)));
    }
    assert_eq!(store.username(&a).await.expect("looked up"), None);
    assert_eq!(store.username(&b).await.expect("looked up").as_deref(), Some("Bob"));
    assert!(store.blocked_with(&a, &[b.clone(), user("c")]).await.expect("looked up").is_empty());
    assert!(store.notifications(&a, 0, 9).await.expect("a page").is_empty());
    assert!(!store.members(&direct.id).await.expect("members").blocked, "the block is gone for sends too");
    assert_eq!(positions(store, "d", "a").await, (0, 0));
    say(store, "d", "b", "still").await;

    for place in [
        ErasurePlace::Messages(Some(AuthorPlace { conversation: conversation("d"), seq: 7 })),
        ErasurePlace::Logs(None),
        ErasurePlace::Logs(Some(conversation("d"))),
    ] {
        store.keep_erasure(&a, Some(&place)).await.expect("kept");
        let other = world.another().await;
        assert_eq!(other.next_erasure().await.expect("asked"), Some((a.clone(), place)));
    }
    store.keep_erasure(&a, None).await.expect("done");
    assert_eq!((store.next_erasure().await.expect("asked"), store.erasure_of(&a).await.expect("asked")), (None, None));
}

async fn all_who_were_in_are_found(world: World) {
    let store = &world.store;
    for id in ["c", "e"] {
        new_group(store, id, &["a", "b", "l"]).await;
    }
    store.change_membership(&conversation("c"), &user("l"), &MembershipChange::Leave, silent()).await.expect("left");
    let ever = store.members_ever(&conversation("c"), None).await.expect("a page");
    assert_eq!(ever, [user("a"), user("b"), user("l")]);
    assert_eq!(store.members_ever(&conversation("c"), Some(&user("b"))).await.expect("a page"), [user("l")]);
    let place = async |after: Option<&str>| {
        let after = after.map(conversation);
        store.place_of(&user("l"), after.as_ref()).await.expect("asked")
    };
    assert_eq!(place(None).await, Some(conversation("c")), "also where they are no more");
    assert_eq!(place(Some("c")).await, Some(conversation("e")));
    assert_eq!(place(Some("e")).await, None);
}

async fn an_erasure_goes_on_when_nothing_of_before_may_come_any_more(world: World) {
    let store = &world.store;
    let a = user("a");
    new_group(store, "c", &["a", "b"]).await;
    say(store, "c", "a", "x").await;
    store.begin_erasure(&a).await.expect("begun");
    assert!(store.erasure_may_go_on(&a, 0).await.expect("asked"));
    assert!(!store.erasure_may_go_on(&a, 60_000).await.expect("asked"), "what was sent may still be on its way");
    store.keep_erasure(&a, Some(&ErasurePlace::Logs(None))).await.expect("kept");
    assert!(!store.erasure_may_go_on(&a, 0).await.expect("asked"), "the message may still come into logs");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let rows = store.take_unpublished(&"test:0".into(), 0, 0, (0, 10)).await.expect("rows");
    let rows: Vec<u64> = rows.iter().map(|row| row.id).collect();
    store.mark_published(&rows, "a-server").await.expect("marked");
    assert!(store.erasure_may_go_on(&a, 0).await.expect("asked"));
    // What comes later has nothing of what was emptied.
    say(store, "c", "b", "y").await;
    assert!(store.erasure_may_go_on(&a, 0).await.expect("asked"));
    store.keep_erasure(&a, Some(&ErasurePlace::Logs(Some(conversation("c"))))).await.expect("kept");
    assert!(store.erasure_may_go_on(&a, 0).await.expect("asked"), "the time stays that of the emptying");
}

/// A block that is made while an erasure begins is ended by it, and so sends say of the two what the blocks say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_for_a_block_that_is_being_made() {
    bounded(async {
        let world = World::postgres().await;
        let store = &world.store;
        let (a, b) = (user("a"), user("b"));
        store.open_direct(None, (&a, &b), &conversation("d"), silent()).await.expect("opened");
        store.set_block(&b, &a, true, silent()).await.expect("blocked");
        let database = world.database.as_ref().expect("a database");
        let mut other = database.client().await;
        let many = "INSERT INTO blocks SELECT 'x' || n, 'a', now() FROM generate_series(1, 1200) n";
        other.batch_execute(many).await.expect("more blocks than one call ends");
        let block = "SELECT parley_set_block('a/b', 'a', 'b', true, 0, 'o', NULL, '{}', '{}', '{}', '{}')";
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute(block).await.expect("under way");
        let watching = database.client().await;
        let release = async {
            let waits = "SELECT count(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
            while watching.query_one(waits, &[]).await.expect("sessions").get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            holding.commit().await.expect("released");
        };
        let (begun, ()) = tokio::join!(store.begin_erasure(&a), release);
        begun.expect("begun");
        let left = watching.query_one("SELECT count(*) FROM blocks", &[]).await.expect("a count").get::<_, i64>(0);
        assert_eq!((left, store.members(&conversation("d")).await.expect("members").blocked), (0, false));
    })
    .await;
}
