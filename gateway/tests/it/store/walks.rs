//! Contract of the store: a walk over a user's conversations shows everything at least once, whatever happens meanwhile.

use std::collections::BTreeMap;

use gateway::store::{MembershipChange, WalkPlace};
use shared::ConversationId;

use crate::store::{World, contract, conversation, new_group, say, silent, user};

contract!(
    a_walk_shows_everything_at_least_once,
    the_newest_activity_comes_first_and_what_became_active_comes_again,
    a_walk_of_one_page_ends_with_it,
);

async fn page(world: &World, place: Option<&WalkPlace>, limit: u32) -> (Vec<ConversationId>, Option<WalkPlace>) {
    let page = world.store.conversations(&user("a"), place, limit).await.expect("a page");
    assert!(page.items.len() <= usize::try_from(limit).expect("a small limit"));
    assert!(page.items.iter().all(|item| !item.members.is_empty()), "{:?}", page.items);
    (page.items.into_iter().map(|item| item.id).collect(), page.next)
}

/// Between two pages one conversation is left, and messages come into one that was shown and into one that was not.
async fn a_walk_shows_everything_at_least_once(world: World) {
    const COUNT: usize = 23;
    for round in 0..4_usize {
        let name = |number: usize| format!("r{round}-{number:02}");
        for number in 0..COUNT {
            new_group(&world.store, &name(number), &["a", "b"]).await;
        }
        let mut shown: BTreeMap<ConversationId, u32> = BTreeMap::new();
        let (mut place, mut pages, mut left) = (None, 0, Vec::new());
        loop {
            let (ids, next) = page(&world, place.as_ref(), 4).await;
            ids.into_iter().for_each(|id| *shown.entry(id).or_default() += 1);
            pages += 1;
            if next.is_none() {
                break;
            }
            place = next;
            if pages <= 3 {
                let (leaves, seen) = (name((pages * 7 + round) % COUNT), name((pages * 5 + round) % COUNT));
                let leave = MembershipChange::Leave;
                world
                    .store
                    .change_membership(&conversation(&leaves), &user("a"), &leave, silent())
                    .await
                    .expect("left");
                left.push(conversation(&leaves));
                say(&world.store, &seen, "b", "meanwhile").await;
                say(&world.store, &name(COUNT - pages), "b", "meanwhile").await;
            }
            assert!(pages < 60, "a walk ends");
        }
        for number in 0..COUNT {
            let id = conversation(&name(number));
            let times = shown.get(&id).copied().unwrap_or(0);
            assert!(left.contains(&id) || (1..=2).contains(&times), "{id} was shown {times} times");
        }
        for number in (0..COUNT).map(name).filter(|name| !left.contains(&conversation(name))) {
            let leave = MembershipChange::Leave;
            world.store.change_membership(&conversation(&number), &user("a"), &leave, silent()).await.expect("left");
        }
    }
}

async fn the_newest_activity_comes_first_and_what_became_active_comes_again(world: World) {
    for id in ["c1", "c2", "c3", "c4", "c5"] {
        new_group(&world.store, id, &["a", "b"]).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let expected = |ids: &[&str]| ids.iter().map(|id| conversation(id)).collect::<Vec<_>>();
    let (first, next) = page(&world, None, 2).await;
    assert_eq!(first, expected(&["c5", "c4"]));
    // It moves from the end of the list to its head.
    say(&world.store, "c1", "b", "meanwhile").await;
    let (second, next) = page(&world, next.as_ref(), 2).await;
    assert_eq!(second, expected(&["c3", "c2"]));
    let mut place = next;
    let mut rest = Vec::new();
    while let Some(at) = place {
        let (ids, next) = page(&world, Some(&at), 2).await;
        rest.extend(ids);
        place = next;
    }
    assert_eq!(rest.first(), Some(&conversation("c1")), "{rest:?}");
}

async fn a_walk_of_one_page_ends_with_it(world: World) {
    assert_eq!(page(&world, None, 3).await, (Vec::new(), None));
    for id in ["c1", "c2"] {
        new_group(&world.store, id, &["a"]).await;
    }
    let (ids, next) = page(&world, None, 3).await;
    assert_eq!((ids.len(), next), (2, None), "nothing comes again in a walk of one page");
}
