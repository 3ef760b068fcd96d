//! Contract of the store: how conversations become large and small again, and what somebody missed of one.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway::store::{Crossed, Crossing, Head, MISSED_MAX, MembershipChange, MessageChange, OwnLarge, Store};
use serde_json::{Value, json};
use shared::{Place, Role};

use crate::store::{World, contract, conversation, new_group, say, silent, telling, user};

contract!(
    a_conversation_crosses_once_and_tells_where,
    a_message_knows_the_way_that_its_commit_found,
    what_was_missed_is_what_is_left_of_it,
    users_are_told_of_their_large_conversations,
    those_are_found_whom_a_block_separates,
);

async fn kick(store: &Arc<dyn Store>, id: &str, who: &str) {
    let kick = MembershipChange::Kick { by: None };
    store.change_membership(&conversation(id), &user(who), &kick, silent()).await.expect("kicked");
}

async fn a_conversation_crosses_once_and_tells_where(world: World) {
    let store = &world.store;
    let id = new_group(store, "g", &["a", "b", "c"]).await;
    new_group(store, "small", &["a", "b"]).await;
    say(store, "g", "a", "one").await;
    assert_eq!(store.due_to_cross(3, 10).await.expect("ids"), []);
    assert!(!store.cross(&id, 3, silent()).await.expect("nothing to do"), "three are not more than three");
    assert_eq!(store.due_to_cross(2, 10).await.expect("ids"), std::slice::from_ref(&id));
    let before = store.members(&id).await.expect("members");
    let row = store.reserve_ids(2).await.expect("ids").next().expect("an id");
    let told = telling(row, "a", |crossed: &Crossed| {
        let members: Vec<&str> = crossed.members.iter().map(|user| user.as_str()).collect();
        let Crossed { conversation, .. } = crossed;
        json!({ "rev": conversation.rev, "seq": conversation.last_seq, "large": conversation.large, "to": members })
            .to_string()
    });
    assert!(store.cross(&id, 2, told).await.expect("crossed"));
    assert!(!store.cross(&id, 2, silent()).await.expect("asked"), "it is large already");
    assert_eq!(store.due_to_cross(2, 10).await.expect("ids"), []);
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    let rows = store.take_unpublished(&"test:0".into(), 0, 0, (0, 100)).await.expect("rows");
    let body = &rows.iter().find(|pending| pending.id == row).expect("the row").events[0].body;
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body, json!({ "rev": 1, "seq": 1, "large": true, "to": ["a", "b", "c"] }));
    let after = store.members(&id).await.expect("members");
    assert!(after.version > before.version, "whoever decided by the earlier version looks again");
    assert!(after.route.large && after.list.is_empty() && after.count() == 3, "{after:?}");
    assert_eq!(after.route.crossings, [Crossing { last_seq: 1, large: true }]);
    assert!(store.conversation(&id, Some(&user("a"))).await.expect("it is there").large);
    assert_eq!(store.role_in(&id, &user("b")).await.expect("asked"), Some(Role::Member));
    assert_eq!(store.role_in(&id, &user("x")).await.expect("asked"), None);
    // Small again only with less than half as many.
    kick(store, "g", "c").await;
    kick(store, "g", "b").await;
    assert!(!store.cross(&id, 2, silent()).await.expect("asked"), "one is half of two");
    kick(store, "g", "a").await;
    assert!(store.cross(&id, 2, silent()).await.expect("crossed"), "nobody is told, and it is small");
    assert!(!store.conversation(&id, None).await.expect("it is there").large);
}

async fn a_message_knows_the_way_that_its_commit_found(world: World) {
    let store = &world.store;
    let id = new_group(store, "g", &["a", "b", "c"]).await;
    say(store, "g", "a", "small").await;
    assert!(store.cross(&id, 2, silent()).await.expect("crossed"));
    let stored = say(store, "g", "a", "large").await;
    assert!(store.cross(&id, 0, silent()).await.expect("crossed"), "none is to be large");
    say(store, "g", "a", "small again").await;
    let members = store.members(&id).await.expect("members");
    assert_eq!([1, 2, 3].map(|seq| members.route.is_large_at(seq)), [false, true, false]);
    assert!(members.version >= stored.members_version && members.list.len() == 3);
}

async fn what_was_missed_is_what_is_left_of_it(world: World) {
    let store = &world.store;
    let id = new_group(store, "g", &["a", "b", "c"]).await;
    let first = say(store, "g", "a", "one").await;
    store.cross(&id, 2, silent()).await.expect("crossed");
    let second = say(store, "g", "a", "two").await;
    let edit = MessageChange::Edit { content: "two, edited".to_owned() };
    let edited = store.change_message(second.message.id, Some(&user("a")), &edit, silent()).await.expect("edited");
    assert!(edited.members.route.large && edited.members.list.is_empty() && edited.members.count() == 3);
    say(store, "g", "b", "three").await;
    let missed = store.missed(&id, 1).await.expect("missed");
    assert_eq!(missed.head, Some(Head { place: Place { rev: 4, seq: 3 }, large: true }));
    let rows: Vec<_> = missed.messages.iter().map(|(message, large)| (message.rev, message.seq, *large)).collect();
    assert_eq!((missed.floor, rows), (1, vec![(3, 2, true), (4, 3, true)]));
    let missed = store.missed(&id, 0).await.expect("missed");
    assert_eq!(missed.messages.first().map(|(message, large)| (message.id, *large)), Some((first.message.id, false)));
    let missed = store.missed(&id, 4).await.expect("missed");
    assert!(missed.messages.is_empty() && missed.head.is_some());
    let nothing = store.missed(&conversation("nowhere"), 0).await.expect("missed");
    assert!(nothing.head.is_none() && nothing.messages.is_empty());
    for n in 0..MISSED_MAX {
        say(store, "g", "a", &n.to_string()).await;
    }
    let missed = store.missed(&id, 2).await.expect("missed");
    assert_eq!((missed.messages.len(), missed.floor), (MISSED_MAX as usize, 4), "the newest, and where they begin");
    let heads = store.heads(&[id.clone(), conversation("nowhere")]).await.expect("heads");
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[&id].place.seq, u64::from(MISSED_MAX) + 3);
    store.delete_conversation(&id, None, silent()).await.expect("deleted");
    assert!(store.heads(std::slice::from_ref(&id)).await.expect("heads").is_empty());
    assert!(store.missed(&id, 0).await.expect("missed").head.is_none());
}

async fn users_are_told_of_their_large_conversations(world: World) {
    let store = &world.store;
    let large = new_group(store, "g", &["a", "b", "c"]).await;
    let small = new_group(store, "s", &["a", "b"]).await;
    store.cross(&large, 2, silent()).await.expect("crossed");
    kick(store, "g", "c").await;
    say(store, "g", "a", "one").await;
    let head = |at, large| Head { place: Place { rev: at, seq: at }, large };
    let own = |conversation: &shared::ConversationId, head| OwnLarge { conversation: conversation.clone(), head };
    let named = BTreeSet::from([small.clone(), large.clone()]);
    let asked = [user("a"), user("b"), user("c")];
    let found = store.large_of(&asked, &[BTreeSet::new(), named.clone(), named]).await.expect("asked");
    let mut of_b = found[1].clone();
    of_b.sort_by(|one, other| one.conversation.as_str().cmp(other.conversation.as_str()));
    assert_eq!(found[0], [own(&large, head(1, true))]);
    assert_eq!(of_b, [own(&large, head(1, true)), own(&small, head(0, false))]);
    assert_eq!(found[2], [], "who was kicked is told nothing, whatever they name");
}

async fn those_are_found_whom_a_block_separates(world: World) {
    let store = &world.store;
    let id = new_group(store, "g", &["a", "b", "c", "d"]).await;
    for (by, whom) in [("a", "c"), ("d", "a"), ("a", "outside"), ("b", "d")] {
        store.set_block(&user(by), &user(whom), true, silent()).await.expect("blocked");
    }
    assert_eq!(store.blocked_in(&id, &user("a")).await.expect("asked"), [user("c"), user("d")]);
    assert_eq!(store.blocked_in(&id, &user("c")).await.expect("asked"), [user("a")]);
    kick(store, "g", "c").await;
    assert_eq!(store.blocked_in(&id, &user("a")).await.expect("asked"), [user("d")]);
}
