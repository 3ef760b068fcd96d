//! Contract of the store: notifications are kept with the outbox row of their event, listed, and marked as read; direct
//! conversations are found without being opened.

use std::sync::Arc;

use gateway::store::{KeptNotification, MembershipChange, OutboxEvent, OutboxRow, Store};
use shared::{NotificationId, UserId};

use crate::store::{World, contract, conversation, event, new_group, owner, silent, user};

contract!(
    what_is_published_durably_is_kept_for_each_user,
    a_notification_is_kept_with_its_change_or_not_at_all,
    read_by_id_and_all_at_once,
    pages_are_newest_first,
    a_direct_conversation_is_found_without_being_opened,
);

fn notification(id: u64, users: &[&str], text: &str) -> OutboxEvent {
    let body = format!(r#"{{"type":"notification","payload":{{"notificationId":"{id}","text":"{text}"}}}}"#);
    OutboxEvent { users: users.iter().map(|id| user(id)).collect(), body, topic: None }
}

async fn list(store: &Arc<dyn Store>, of: &str) -> Vec<KeptNotification> {
    store.notifications(&user(of), 0, 100).await.expect("a list")
}

fn ids(list: &[KeptNotification]) -> Vec<u64> {
    list.iter().map(|kept| kept.id.get()).collect()
}

fn id(number: u64) -> NotificationId {
    NotificationId::new(number).expect("an id")
}

/// A row that tells one user how many were marked.
fn telling_count(row: u64, to: &UserId) -> OutboxRow<u64> {
    let to = to.clone();
    OutboxRow {
        id: row,
        owner: owner("test:0"),
        events: Box::new(move |count| vec![event(&to, &count.to_string())]),
        owed: None,
    }
}

async fn what_is_published_durably_is_kept_for_each_user(world: World) {
    let store = &world.store;
    let events = [
        notification(7, &["a", "b"], "it's \\u0000 \\\"x\\\""),
        event(&user("a"), r#"{"type":"conversation.left","payload":{"conversationId":"c"}}"#),
        notification(8, &["b"], "two"),
        event(&user("a"), r#"{"type":"notification","payload":{"text":"no id"}}"#),
    ];
    store.enqueue(100, &owner("n:1"), &events).await.expect("enqueued");
    // A second try after an uncertain commit keeps nothing twice.
    store.enqueue(100, &owner("n:1"), &events).await.expect("enqueued before");
    let at_a = list(store, "a").await;
    assert_eq!(ids(&at_a), [7]);
    assert_eq!(at_a[0].payload, r#"{"notificationId":"7","text":"it's \u0000 \"x\""}"#);
    assert!(at_a[0].read_at.is_none() && at_a[0].created_at.unix_ms() > 0);
    assert_eq!(ids(&list(store, "b").await), [8, 7]);
    assert!(list(store, "c").await.is_empty());
    let rows = store.take_unpublished(&owner("n:1"), 0, 0, (0, 9)).await.expect("rows");
    assert_eq!((rows.len(), rows[0].events.as_slice()), (1, events.as_slice()));
}

async fn a_notification_is_kept_with_its_change_or_not_at_all(world: World) {
    let store = &world.store;
    new_group(store, "g", &["a"]).await;
    let row = |id: u64| OutboxRow {
        id,
        owner: owner("test:0"),
        events: Box::new(move |_: &_| vec![notification(id, &["b"], "come")]),
        owed: None,
    };
    let invite = MembershipChange::Invite { by: None };
    store.change_membership(&conversation("nowhere"), &user("b"), &invite, row(1)).await.expect_err("no such group");
    assert!(list(store, "b").await.is_empty());
    store.change_membership(&conversation("g"), &user("b"), &invite, row(2)).await.expect("invited");
    assert_eq!(ids(&list(store, "b").await), [2]);
}

async fn read_by_id_and_all_at_once(world: World) {
    let store = &world.store;
    for number in 1..=4 {
        store.enqueue(number, &owner("n:1"), &[notification(number, &["a", "b"], "x")]).await.expect("enqueued");
    }
    let a = user("a");
    let marked = store.read_notifications(&a, Some(&[id(2), id(2), id(99)]), telling_count(50, &a)).await;
    assert_eq!(marked.expect("marked"), 1);
    assert_eq!(store.read_notifications(&a, Some(&[id(2)]), silent()).await.expect("marked before"), 0);
    assert_eq!(store.read_notifications(&a, Some(&[]), silent()).await.expect("nothing asked"), 0);
    let read = |list: Vec<KeptNotification>| -> Vec<u64> {
        ids(&list.into_iter().filter(|kept| kept.read_at.is_some()).collect::<Vec<_>>())
    };
    assert_eq!(read(list(store, "a").await), [2]);
    assert_eq!(store.read_notifications(&a, None, silent()).await.expect("all"), 3);
    assert_eq!(store.read_notifications(&a, None, silent()).await.expect("all again"), 0);
    assert_eq!(read(list(store, "a").await), [4, 3, 2, 1]);
    assert!(read(list(store, "b").await).is_empty(), "another user's are left alone");
    let rows = store.take_unpublished(&owner("test:0"), 0, 0, (0, 9)).await.expect("rows");
    let told: Vec<_> = rows.iter().filter(|row| row.id == 50).flat_map(|row| &row.events).collect();
    assert_eq!(told, [&event(&a, "1")]);
}

async fn pages_are_newest_first(world: World) {
    let store = &world.store;
    // In another order than their ids.
    for number in [3, 1, 2] {
        store.enqueue(number, &owner("n:1"), &[notification(number, &["a"], "x")]).await.expect("enqueued");
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    let page =
        async |offset: u64, limit: u32| ids(&store.notifications(&user("a"), offset, limit).await.expect("a page"));
    assert_eq!(page(0, 2).await, [2, 1]);
    assert_eq!(page(2, 2).await, [3]);
    assert!(page(3, 2).await.is_empty() && page(u64::MAX, 2).await.is_empty());
}

async fn a_direct_conversation_is_found_without_being_opened(world: World) {
    let store = &world.store;
    let (a, b) = (user("a"), user("b"));
    assert_eq!(store.direct((&a, &b)).await.expect("asked"), None);
    assert!(store.conversations(&a, None, 9).await.expect("a list").items.is_empty());
    store.open_direct(Some(&b), (&b, &a), &conversation("ab"), silent()).await.expect("opened");
    assert_eq!(store.direct((&a, &b)).await.expect("asked"), Some(conversation("ab")));
    assert_eq!(store.direct((&b, &a)).await.expect("asked"), Some(conversation("ab")));
}
