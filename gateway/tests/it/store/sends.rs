//! Contract of the store: sending, paging, and hostile content.

use std::collections::HashSet;
use std::sync::Arc;

use gateway::store::{MessageChange, Page, Partner, Refusal, SendOutcome, Store};
use shared::command::Target;
use shared::{MessageId, Visibility};

use crate::store::{
    World, batch, contract, conversation, group_of, is_refused, new_group, positions, say, send, settled, silent,
    stored, user,
};

contract!(
    a_batch_is_numbered_without_gaps_and_seen_by_its_senders,
    a_temp_id_is_stored_once,
    another_message_under_a_used_temp_id_is_refused,
    a_refused_send_leaves_its_temp_id_free,
    a_temp_id_raced_on_two_nodes_is_stored_once,
    a_repeated_batch_gives_the_first_outcomes,
    racing_batches_leave_no_gap,
    refusals_stand_for_one_message_each,
    a_block_stops_the_direct_conversation_both_ways,
    a_direct_conversation_raced_is_one,
    pages_ascend,
    hostile_content_comes_back_as_it_went,
    ids_are_never_given_twice,
    partners_and_names,
);

async fn a_batch_is_numbered_without_gaps_and_seen_by_its_senders(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a", "b"]).await;
    new_group(store, "d", &["a"]).await;
    let outcomes =
        send(store, &[("c", "a", "", "1"), ("d", "a", "", "1"), ("c", "a", "", "2"), ("c", "b", "", "3")]).await;
    let messages: Vec<_> = outcomes.into_iter().map(|outcome| stored(outcome).message).collect();
    assert_eq!(messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 1, 2, 3]);
    assert_eq!(messages.iter().map(|message| message.rev).collect::<Vec<_>>(), [1, 1, 2, 3]);
    assert_eq!(store.messages(&conversation("d"), Page::Newest, 9).await.expect("a page"), [messages[1].clone()]);
    // a had read everything and leads with two; before b's own message stand two that b has not read.
    assert_eq!(positions(store, "c", "a").await, (2, 2));
    assert_eq!(positions(store, "c", "b").await, (0, 3));
    let view = store.conversation(&conversation("c"), Some(&user("a"))).await.expect("the conversation");
    assert_eq!((view.last_seq, view.unread, view.member_count), (3, Some(1), 2));
    // Many are asked for at once, and answered in their order.
    let counts = store.unread(&[user("b"), user("nobody"), user("a"), user("b")]).await.expect("counts");
    let counts: Vec<Vec<_>> = counts
        .iter()
        .map(|of_one| {
            of_one.iter().map(|count| (count.conversation.as_str(), count.last_seq, count.seen_seq)).collect()
        })
        .collect();
    assert_eq!(counts, [vec![("c", 3, 3)], vec![], vec![("c", 3, 2), ("d", 1, 1)], vec![("c", 3, 3)]]);
    let asked = ["b", "nobody", "a"].map(|name| (user(name), conversation("c")));
    let counts = store.unread_in(&asked).await.expect("counts");
    let counts = counts.iter().map(|count| count.as_ref().map(|count| (count.last_seq, count.seen_seq)));
    assert_eq!(counts.collect::<Vec<_>>(), [Some((3, 3)), None, Some((3, 2))]);
    assert_eq!(view.last_message.as_ref(), Some(&messages[3]));
    // a is not caught up now: a reply is seen, not read.
    say(store, "c", "a", "4").await;
    assert_eq!(positions(store, "c", "a").await, (2, 4));
}

async fn a_temp_id_is_stored_once(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a", "b"]).await;
    let outcomes = send(store, &[("c", "a", "t", "one"), ("c", "a", "t", "one"), ("c", "b", "t", "three")]).await;
    let first = stored(outcomes[0].clone()).message;
    assert_eq!(outcomes[1], SendOutcome::Duplicate(first.clone()));
    assert_eq!(stored(outcomes[2].clone()).message.seq, 2, "another sender's temp id is another one");
    let again = send(store, &[("c", "a", "t", "one"), ("c", "a", "u", "five")]).await;
    assert_eq!(again[0], SendOutcome::Duplicate(first));
    assert_eq!(stored(again[1].clone()).message.seq, 3);
}

/// Another content, kind, answer or conversation under a used temp id is refused, in the batch of the first and later.
async fn another_message_under_a_used_temp_id_is_refused(world: World) {
    let store = &world.store;
    for id in ["c", "d"] {
        new_group(store, id, &["a", "b"]).await;
    }
    let refused = SendOutcome::Refused(Refusal::UsedTempId);
    let of_one_batch = [("c", "a", "t", "one"), ("c", "a", "t", "two"), ("d", "a", "t", "one"), ("c", "a", "t", "one")];
    let once = batch(store, &of_one_batch).await;
    let outcomes = store.send(&once).await.expect("taken").outcomes;
    let first = stored(outcomes[0].clone()).message;
    let same = SendOutcome::Duplicate(first.clone());
    assert_eq!(outcomes[1..], [refused.clone(), refused.clone(), same.clone()]);
    let repeated = store.send(&once).await.expect("taken again").outcomes;
    assert_eq!(repeated[1..], [refused.clone(), refused.clone(), same.clone()]);

    let mut later = batch(store, &[("c", "a", "t", "one"); 5]).await;
    later.messages[0].content = "two".into();
    later.messages[1].kind = "image".into();
    later.messages[2].reply_to = Some(first.id);
    later.messages[3].target = Target::Conversation(conversation("d"));
    let outcomes = store.send(&later).await.expect("taken").outcomes;
    assert_eq!(outcomes, [refused.clone(), refused.clone(), refused.clone(), refused.clone(), same]);

    // After an edit or a deletion the conversation alone counts.
    for change in [MessageChange::Edit { content: "three".into() }, MessageChange::Delete] {
        store.change_message(first.id, Some(&user("a")), &change, silent()).await.expect("changed");
        let outcomes = send(store, &[("c", "a", "t", "one"), ("c", "a", "t", "two"), ("d", "a", "t", "one")]).await;
        for outcome in &outcomes[..2] {
            assert!(matches!(outcome, SendOutcome::Duplicate(message) if message.id == first.id), "{outcome:?}");
        }
        assert_eq!(outcomes[2], refused);
    }
    assert_eq!((assert_gapless(store, "c").await, assert_gapless(store, "d").await), (1, 0));
}

/// A refused send leaves its temp id to the next one, also in its own batch.
async fn a_refused_send_leaves_its_temp_id_free(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a"]).await;
    let outcomes = send(store, &[("nowhere", "a", "t", "one"), ("c", "a", "t", "two")]).await;
    assert_eq!(outcomes[0], SendOutcome::Refused(Refusal::NotFound));
    assert_eq!(stored(outcomes[1].clone()).message.content, "two");
    assert_eq!(send(store, &[("c", "b", "t", "one")]).await, [SendOutcome::Refused(Refusal::NotMember)]);
    let add = gateway::store::MembershipChange::Add { by: None, role: shared::Role::Member };
    store.change_membership(&conversation("c"), &user("b"), &add, silent()).await.expect("b comes in");
    assert_eq!(stored(send(store, &[("c", "b", "t", "two")]).await.remove(0)).message.content, "two");
}

async fn a_temp_id_raced_on_two_nodes_is_stored_once(world: World) {
    let other = world.another().await;
    for conversations in [["c", "c"], ["d", "e"]] {
        for id in conversations.iter().collect::<HashSet<_>>() {
            new_group(&world.store, id, &["a"]).await;
        }
        for round in 0..20 {
            let temp_id = format!("{}-{round}", conversations[0]);
            let here = batch(&world.store, &[(conversations[0], "a", &temp_id, "here")]).await;
            let there = batch(&other, &[(conversations[1], "a", &temp_id, "there")]).await;
            let (here, there) = tokio::join!(settled(&world.store, &here), settled(&other, &there));
            let outcomes = [here.outcomes[0].clone(), there.outcomes[0].clone()];
            let stored_count = outcomes.iter().filter(|one| matches!(one, SendOutcome::Stored(_))).count();
            assert_eq!(stored_count, 1, "{outcomes:?}");
        }
        for id in conversations {
            assert_gapless(&world.store, id).await;
        }
    }
}

async fn a_repeated_batch_gives_the_first_outcomes(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a"]).await;
    say(store, "c", "a", "before").await;
    send(store, &[("c", "a", "known", "x")]).await;
    let drafts = [("c", "a", "", "1"), ("c", "b", "", "no"), ("c", "a", "known", "x"), ("c", "a", "t", "2")];
    let once = batch(store, &drafts).await;
    let first = store.send(&once).await.expect("taken").outcomes;
    assert!(matches!(first[1], SendOutcome::Refused(Refusal::NotMember)));
    assert!(matches!(first[2], SendOutcome::Duplicate(_)));
    // b comes in meanwhile: a repeated call still stores nothing new.
    let add = gateway::store::MembershipChange::Add { by: None, role: shared::Role::Member };
    store.change_membership(&conversation("c"), &user("b"), &add, silent()).await.expect("b comes in");
    let second = world.another().await.send(&once).await.expect("taken again").outcomes;
    let without_version = |outcomes: Vec<SendOutcome>| -> Vec<SendOutcome> {
        let strip = |outcome| match outcome {
            SendOutcome::Stored(mut stored) => {
                stored.members_version = 0;
                SendOutcome::Stored(stored)
            }
            other @ (SendOutcome::Duplicate(_) | SendOutcome::Refused(_) | SendOutcome::Busy(_)) => other,
        };
        outcomes.into_iter().map(strip).collect()
    };
    assert_eq!(without_version(first), without_version(second));
    assert_eq!(assert_gapless(store, "c").await, 4);
}

/// NOLOSS.md, A13, B7: eight tasks on two nodes, overlapping conversations in every order.
async fn racing_batches_leave_no_gap(world: World) {
    const TASKS: usize = 8;
    const ROUNDS: usize = 25;
    let ids = ["c0", "c1", "c2", "c3", "c4"];
    let members: Vec<String> = (0..TASKS).map(|task| format!("u{task}")).collect();
    for id in ids {
        new_group(&world.store, id, &members.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let stores = [world.store.clone(), world.another().await];
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = stores[task % stores.len()].clone();
        tasks.spawn(async move {
            let sender = format!("u{task}");
            for round in 0..ROUNDS {
                let mut order: Vec<&str> = (0..ids.len()).map(|place| ids[(place * (task + 1) + round) % 5]).collect();
                order.extend_from_slice(&ids[..task % 3]);
                let temp_ids: Vec<String> = (0..order.len()).map(|place| format!("{round}-{place}")).collect();
                let drafts: Vec<_> =
                    order.iter().zip(&temp_ids).map(|(id, temp)| (*id, sender.as_str(), temp.as_str(), "x")).collect();
                let outcomes = send(&store, &drafts).await;
                assert!(outcomes.iter().all(|outcome| matches!(outcome, SendOutcome::Stored(_))));
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a task ends well");
    }
    let mut all = 0;
    for id in ids {
        all += assert_gapless(&world.store, id).await;
    }
    let extra: usize = (0..TASKS).map(|task| task % 3).sum();
    assert_eq!(all, u64::try_from(ROUNDS * (TASKS * ids.len() + extra)).expect("a count"));
    assert_no_deadlock(world, stores).await;
}

/// A deadlock would be retried in silence; but PostgreSQL counts it, at the latest when a connection ends.
async fn assert_no_deadlock(world: World, stores: [Arc<dyn Store>; 2]) {
    let World { store, database, .. } = world;
    drop((store, stores));
    let Some(database) = database else { return };
    let client = database.client().await;
    let others =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'parley'";
    while client.query_one(others, &[]).await.expect("connections").get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(client.query_one(sql, &[]).await.expect("statistics").get::<_, i64>(0), 0);
}

/// How many messages the conversation has, each in its place.
async fn assert_gapless(store: &Arc<dyn Store>, id: &str) -> u64 {
    let last = store.conversation(&conversation(id), None).await.expect("the conversation").last_seq;
    let page = store.messages(&conversation(id), Page::After(0), 100_000).await.expect("all messages");
    assert_eq!(page.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>(), "{id}");
    last
}

async fn refusals_stand_for_one_message_each(world: World) {
    let store = &world.store;
    new_group(store, "private", &["a"]).await;
    let public = group_of("public", Visibility::Public, Some("a"), &["x"]);
    store.create_conversation(&public, silent()).await.expect("a group");
    let ban = gateway::store::MembershipChange::Ban { by: None };
    store.change_membership(&conversation("public"), &user("x"), &ban, silent()).await.expect("x is banned");
    let kick = gateway::store::MembershipChange::Kick { by: None };
    let add = gateway::store::MembershipChange::Add { by: None, role: shared::Role::Member };
    store.change_membership(&conversation("private"), &user("k"), &add, silent()).await.expect("k comes");
    store.change_membership(&conversation("private"), &user("k"), &kick, silent()).await.expect("k goes");
    let elsewhere = say(store, "public", "a", "elsewhere").await.message.id;
    let mut mixed = batch(
        store,
        &[
            ("nowhere", "a", "", "x"),
            ("private", "b", "", "x"),
            ("private", "k", "", "x"),
            ("public", "b", "", "x"),
            ("public", "x", "", "x"),
            ("private", "a", "", "x"),
            ("private", "a", "", "good"),
        ],
    )
    .await;
    mixed.messages[5].reply_to = Some(elsewhere);
    let outcomes = store.send(&mixed).await.expect("taken").outcomes;
    let refusals: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            SendOutcome::Refused(refusal) => Some(*refusal),
            SendOutcome::Stored(_) | SendOutcome::Duplicate(_) | SendOutcome::Busy(_) => None,
        })
        .collect();
    let expected = [
        Some(Refusal::NotFound),
        Some(Refusal::NotMember),
        Some(Refusal::NotMember),
        Some(Refusal::NotMember),
        Some(Refusal::Banned),
        Some(Refusal::NotFound),
        None,
    ];
    assert_eq!(refusals, expected);
    let good = stored(outcomes[6].clone()).message;
    assert_eq!(good.seq, 1);
    let mut reply = batch(store, &[("private", "a", "", "an answer")]).await;
    reply.messages[0].reply_to = Some(good.id);
    let reply = stored(store.send(&reply).await.expect("taken").outcomes.remove(0)).message;
    assert_eq!((reply.reply_to, reply.seq), (Some(good.id), 2));
}

async fn a_block_stops_the_direct_conversation_both_ways(world: World) {
    let store = &world.store;
    let (a, b, c) = (user("a"), user("b"), user("c"));
    store.open_direct(Some(&a), (&a, &b), &conversation("ab"), silent()).await.expect("opened");
    let before = store.members(&conversation("ab")).await.expect("members");
    assert!(!before.blocked);
    assert!(store.set_block(&b, &a, true, silent()).await.expect("blocked"));
    assert!(!store.set_block(&b, &a, true, silent()).await.expect("blocked before"));
    let after = store.members(&conversation("ab")).await.expect("members");
    assert!(after.blocked && after.version > before.version);
    let outcomes = send(store, &[("ab", "a", "", "x"), ("ab", "b", "", "y")]).await;
    assert!(outcomes.iter().all(|outcome| *outcome == SendOutcome::Refused(Refusal::Blocked)), "{outcomes:?}");
    assert!(!store.open_direct(Some(&a), (&a, &b), &conversation("other"), silent()).await.expect("it is there").1);
    assert!(store.set_block(&b, &a, false, silent()).await.expect("unblocked"));
    say(store, "ab", "a", "again").await;
    // Without a conversation a block keeps one from being opened.
    store.set_block(&a, &c, true, silent()).await.expect("blocked");
    assert!(is_refused(store.open_direct(Some(&c), (&c, &a), &conversation("ca"), silent()).await, Refusal::Blocked));
    assert!(is_refused(store.set_block(&a, &a, true, silent()).await, Refusal::Conflict));
}

async fn a_direct_conversation_raced_is_one(world: World) {
    let other = world.another().await;
    for round in 0..10 {
        let (a, b) = (user(&format!("a{round}")), user(&format!("b{round}")));
        let (left, right) = (conversation(&format!("l{round}")), conversation(&format!("r{round}")));
        let (one, two) = tokio::join!(
            world.store.open_direct(Some(&a), (&a, &b), &left, silent()),
            other.open_direct(Some(&b), (&b, &a), &right, silent())
        );
        let ((one, made_one), (two, made_two)) = (one.expect("opened"), two.expect("opened"));
        assert_eq!(one.id, two.id);
        assert!(made_one != made_two, "made once");
        assert_eq!(one.members.iter().map(|member| &member.user_id).collect::<Vec<_>>(), [&a, &b]);
    }
    let a = user("alone");
    let (own, _) = world.store.open_direct(Some(&a), (&a, &a), &conversation("own"), silent()).await.expect("opened");
    assert_eq!(own.member_count, 1);
    say(&world.store, "own", "alone", "a note").await;
    let (b, taken) = (user("b"), conversation("own"));
    assert!(is_refused(world.store.open_direct(Some(&a), (&a, &b), &taken, silent()).await, Refusal::Conflict));
}

async fn pages_ascend(world: World) {
    let store = &world.store;
    let id = new_group(store, "c", &["a"]).await;
    for count in 1..=10 {
        say(store, "c", "a", &count.to_string()).await;
    }
    let cases = [
        (Page::Newest, 3, vec![8, 9, 10]),
        (Page::Before(8), 3, vec![5, 6, 7]),
        (Page::Before(2), 3, vec![1]),
        (Page::After(0), 3, vec![1, 2, 3]),
        (Page::After(9), 3, vec![10]),
        (Page::After(10), 3, vec![]),
        (Page::ChangedSince(8), 3, vec![9, 10]),
        (Page::Newest, 0, vec![]),
    ];
    for (page, limit, expected) in cases {
        let messages = store.messages(&id, page, limit).await.expect("a page");
        assert_eq!(messages.iter().map(|message| message.seq).collect::<Vec<_>>(), expected, "{page:?}");
    }
    assert!(store.messages(&conversation("nowhere"), Page::Newest, 3).await.expect("a page").is_empty());
    // The newest activity comes first.
    new_group(store, "quiet", &["a"]).await;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    say(store, "c", "a", "louder").await;
    let list = store.conversations(&user("a"), None, 10).await.expect("a list").items;
    assert_eq!(list.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["c", "quiet"]);
}

async fn hostile_content_comes_back_as_it_went(world: World) {
    let store = &world.store;
    let id = new_group(store, "c", &["a"]).await;
    let long = "🦜".repeat(200_000);
    let contents =
        ["'; DROP TABLE messages; --", "\"\\{}[]\r\n\t", "\u{feff}\u{202e}\u{0301}\u{1}\u{7f}", "$1 ?1 NULL", &long];
    for content in contents {
        let temp_id = content.chars().take(20).collect::<String>();
        let mut one = batch(store, &[("c", "a", &temp_id, content)]).await;
        one.messages[0].kind = "it's \"odd\"".into();
        let sent = stored(store.send(&one).await.expect("taken").outcomes.remove(0)).message;
        let read = store.messages(&id, Page::Newest, 1).await.expect("a page").remove(0);
        assert_eq!((read.content.as_str(), &read), (content, &sent));
        let mut again = batch(store, &[("c", "a", &temp_id, content)]).await;
        again.messages[0].kind.clone_from(&sent.kind);
        assert_eq!(store.send(&again).await.expect("taken").outcomes, [SendOutcome::Duplicate(sent)]);
    }
}

async fn ids_are_never_given_twice(world: World) {
    let other = world.another().await;
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let (here, there) = tokio::join!(world.store.reserve_ids(7), other.reserve_ids(3));
        for id in here.expect("ids").chain(there.expect("ids")) {
            assert!(MessageId::new(id).is_some() && seen.insert(id), "{id}");
        }
    }
    assert_eq!(seen.len(), 200);
}

async fn partners_and_names(world: World) {
    let store = &world.store;
    let (a, b) = (user("a"), user("b"));
    new_group(store, "g", &["a", "x", "y"]).await;
    store.open_direct(Some(&a), (&a, &b), &conversation("ab"), silent()).await.expect("opened");
    say(store, "g", "a", "newer than the direct one").await;
    let names = |partners: &Vec<Partner>| partners.iter().map(|other| other.user.to_string()).collect::<Vec<_>>();
    let partners = async |limit| {
        let users = [user("nobody"), a.clone(), b.clone(), a.clone(), user("x")];
        store.partners(&users, limit).await.expect("partners").iter().map(names).collect::<Vec<_>>()
    };
    let of_a = vec!["b", "x", "y"];
    assert_eq!(partners(10).await, [vec![], of_a.clone(), vec!["a"], of_a.clone(), vec!["a", "y"]]);
    assert_eq!(partners(2).await, [vec![], vec!["b", "x"], vec!["a"], vec!["b", "x"], vec!["a", "y"]]);
    // A conversation of more others is none to be told of, instead of being told in part.
    assert_eq!(partners(1).await, [vec![], vec!["b"], vec!["a"], vec!["b"], vec![]]);
    assert!(store.partners(&[], 2).await.expect("partners").is_empty());

    store
        .set_last_seen(&[(a.clone(), shared::Timestamp::now()), (a, shared::Timestamp::default())])
        .await
        .expect("kept");
}
