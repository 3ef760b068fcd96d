//! Contract of the store: the erasure of a user, which any node goes on with.

use gateway::store::{AuthorPlace, ErasurePlace, MembershipChange};

use crate::store::{World, contract, conversation, named, new_group, positions, say, silent, telling, user};

contract!(an_erasure_is_begun_once_and_remembered, all_who_were_in_are_found);

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
