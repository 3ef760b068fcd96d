//! Contract of the store: the first message to a user opens the direct conversation of the two, in its own transaction.

use std::sync::Arc;
use std::time::Duration;

use gateway::store::{OpenedDirect, Page, Refusal, SendOutcome, SentBatch, Store};
use shared::{ConversationId, ConversationKind};

use crate::store::group_commit::{draft, line};
use crate::store::{
    World, batch, bounded, contract, conversation, is_refused, new_group, owner, positions, say, send, settled, silent,
    stored, user,
};

contract!(
    a_batch_opens_what_is_missing_once,
    a_conversation_is_one_by_whatever_name,
    what_is_opened_looks_like_what_a_request_opens,
    a_repeated_batch_tells_again_what_it_opened,
    a_refused_first_message_opens_nothing,
    a_repeated_first_message_is_a_duplicate,
    first_messages_raced_on_two_nodes_open_one_conversation,
);

async fn sent(store: &Arc<dyn Store>, drafts: &[crate::store::Draft<'_>]) -> SentBatch {
    settled(store, &batch(store, drafts).await).await
}

/// The conversation and the place of each message, all of which must be stored.
fn places(sent: &SentBatch) -> Vec<(ConversationId, u64)> {
    let place = |outcome: &SendOutcome| {
        let message = stored(outcome.clone()).message;
        (message.conversation_id, message.seq)
    };
    sent.outcomes.iter().map(place).collect()
}

async fn direct(store: &Arc<dyn Store>, one: &str, other: &str) -> Option<ConversationId> {
    store.direct((&user(one), &user(other))).await.expect("looked up")
}

async fn a_batch_opens_what_is_missing_once(world: World) {
    let store = &world.store;
    new_group(store, "g", &["a", "z"]).await;
    let drafts = [
        ("@b", "a", "", "1"),
        ("g", "a", "", "x"),
        ("@a", "b", "", "2"),
        ("@c", "a", "", "1"),
        ("@a", "a", "", "note"),
    ];
    let sent = sent(store, &drafts).await;
    let (ab, ac, aa) = (direct(store, "b", "a").await, direct(store, "a", "c").await, direct(store, "a", "a").await);
    let (ab, ac, aa) = (ab.expect("opened"), ac.expect("opened"), aa.expect("opened"));
    let group = conversation("g");
    assert_eq!(places(&sent), [(ab.clone(), 1), (group, 1), (ab.clone(), 2), (ac.clone(), 1), (aa.clone(), 1)]);
    assert!([&ab, &ac, &aa].iter().all(|id| id.is_reserved()), "no application can have chosen it");
    let mut opened: Vec<_> = sent.opened.iter().map(|direct| direct.id.clone()).collect();
    opened.sort();
    let mut expected = vec![ab.clone(), ac.clone(), aa.clone()];
    expected.sort();
    assert_eq!(opened, expected, "each once");

    let view = store.conversation(&ab, Some(&user("b"))).await.expect("the conversation");
    assert_eq!((view.kind, view.last_seq, view.rev, view.member_count), (ConversationKind::Direct, 2, 2, 2));
    assert_eq!((positions(store, ab.as_str(), "a").await, positions(store, ab.as_str(), "b").await), ((1, 1), (0, 2)));
    assert_eq!(store.conversation(&aa, Some(&user("a"))).await.expect("the conversation").member_count, 1);
    let of_ab = sent.opened.iter().find(|direct| direct.id == ab).expect("it was opened");
    assert_eq!(store.members(&ab).await.expect("members"), of_ab.members());

    // The outbox row says what was opened, so that whoever publishes it does so in front of the messages.
    tokio::time::sleep(Duration::from_millis(3)).await;
    let rows = store.take_unpublished(&owner("test:0"), 0, 0, (0, 100)).await.expect("rows");
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].opened, rows[0].messages.len()), (&sent.opened, 5));
    assert!(self::sent(store, &[("@b", "a", "", "3")]).await.opened.is_empty());
}

/// By its id, by a user, in either direction: messages are numbered in the order in which they came.
async fn a_conversation_is_one_by_whatever_name(world: World) {
    let store = &world.store;
    let first = places(&sent(store, &[("@b", "a", "", "1"), ("@b", "a", "", "2")]).await);
    let ab = first[0].0.clone();
    assert_eq!(first, [(ab.clone(), 1), (ab.clone(), 2)]);
    let mixed = sent(store, &[("@b", "a", "", "3"), (ab.as_str(), "b", "", "4"), ("@a", "b", "", "5")]).await;
    assert_eq!(places(&mixed), [(ab.clone(), 3), (ab.clone(), 4), (ab.clone(), 5)]);
    let page = store.messages(&ab, Page::After(0), 10).await.expect("a page");
    assert_eq!(page.iter().map(|message| message.content.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
    // Known names among new ones.
    let mixed =
        sent(store, &[("@b", "a", "", "6"), ("@c", "b", "", "1"), ("@a", "c", "", "1"), ("@b", "c", "", "2")]).await;
    let (bc, ac) = (direct(store, "b", "c").await.expect("opened"), direct(store, "a", "c").await.expect("opened"));
    assert_eq!(places(&mixed), [(ab, 6), (bc.clone(), 1), (ac, 1), (bc, 2)]);
    assert_eq!(mixed.opened.len(), 2);
}

/// Its event says the same as that of a conversation which a request opened.
async fn what_is_opened_looks_like_what_a_request_opens(world: World) {
    let store = &world.store;
    for (one, other) in [("y", "x"), ("x", "x")] {
        let (by, id) = (user(one), conversation(&format!("{one}{other}")));
        let (made, _) = store.open_direct(Some(&by), (&by, &user(other)), &id, silent()).await.expect("opened");
        let seen = store.conversation(&id, Some(&by)).await.expect("the conversation");
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        let direct = OpenedDirect { id, pair: (user(first), user(second)), at: seen.created_at };
        assert_eq!((direct.conversation(), made), (seen.clone(), seen));
    }
}

/// NOLOSS.md, A9 and B8: the retry after an uncertain commit is told what the first try opened.
async fn a_repeated_batch_tells_again_what_it_opened(world: World) {
    let store = &world.store;
    let once = batch(store, &[("@b", "a", "", "1"), ("@c", "a", "t", "1"), ("nowhere", "a", "", "x")]).await;
    let first = store.send(&once).await.expect("taken");
    assert_eq!(first.outcomes[2], SendOutcome::Refused(Refusal::NotFound));
    assert_eq!(first.opened.len(), 2);
    let again = world.another().await.send(&once).await.expect("taken again");
    let sorted = |mut sent: SentBatch| {
        sent.opened.sort_by(|one, other| one.id.cmp(&other.id));
        sent
    };
    assert_eq!(sorted(again), sorted(first));
}

async fn a_refused_first_message_opens_nothing(world: World) {
    let store = &world.store;
    store.set_block(&user("b"), &user("a"), true, silent()).await.expect("blocked");
    new_group(store, "g", &["a"]).await;
    let answered = say(store, "g", "a", "x").await.message.id;
    send(store, &[("g", "a", "used", "x")]).await;
    let mut all = batch(store, &[("@b", "a", "", "x"), ("@c", "a", "", "x"), ("@d", "a", "used", "x")]).await;
    all.messages[1].reply_to = Some(answered);
    let sent = store.send(&all).await.expect("taken");
    let refusals = [Refusal::Blocked, Refusal::NotFound, Refusal::UsedTempId].map(SendOutcome::Refused);
    assert_eq!((sent.outcomes.as_slice(), sent.opened.len()), (refusals.as_slice(), 0));
    for other in ["b", "c", "d"] {
        assert_eq!(direct(store, "a", other).await, None, "{other}");
    }
    // Those beside them are stored, and a block holds in both directions.
    let sent = self::sent(store, &[("@a", "b", "", "x"), ("@c", "a", "", "x")]).await;
    assert_eq!(sent.outcomes[0], SendOutcome::Refused(Refusal::Blocked));
    assert_eq!((stored(sent.outcomes[1].clone()).message.seq, sent.opened.len()), (1, 1));
    store.set_block(&user("c"), &user("a"), true, silent()).await.expect("blocked");
    assert_eq!(send(store, &[("@c", "a", "", "x")]).await, [SendOutcome::Refused(Refusal::Blocked)]);
    assert!(is_refused(
        store.open_direct(Some(&user("a")), (&user("a"), &user("b")), &conversation("ab"), silent()).await,
        Refusal::Blocked
    ));
}

async fn a_repeated_first_message_is_a_duplicate(world: World) {
    let store = &world.store;
    let first = sent(store, &[("@b", "a", "t", "1"), ("@b", "a", "t", "1"), ("@b", "a", "t", "other")]).await;
    let original = stored(first.outcomes[0].clone()).message;
    assert_eq!(first.outcomes[1], SendOutcome::Duplicate(original.clone()));
    assert_eq!(first.outcomes[2], SendOutcome::Refused(Refusal::UsedTempId));
    let again = sent(store, &[("@b", "a", "t", "1"), (original.conversation_id.as_str(), "a", "t", "1")]).await;
    assert_eq!(again.outcomes, [SendOutcome::Duplicate(original.clone()), SendOutcome::Duplicate(original)]);
    assert_eq!(send(store, &[("@c", "a", "t", "1")]).await, [SendOutcome::Refused(Refusal::UsedTempId)]);
    assert_eq!((direct(store, "a", "c").await, first.opened.len()), (None, 1));
}

async fn first_messages_raced_on_two_nodes_open_one_conversation(world: World) {
    const PAIRS: usize = 12;
    let other = world.another().await;
    for round in 0..10 {
        // Each node names the pairs from the other end, and in another order.
        let names: Vec<(String, String)> =
            (0..PAIRS).map(|pair| (format!("{round}-a{pair}"), format!("{round}-b{pair}"))).collect();
        let to_b: Vec<String> = names.iter().map(|(_, b)| format!("@{b}")).collect();
        let to_a: Vec<String> = names.iter().rev().map(|(a, _)| format!("@{a}")).collect();
        let here: Vec<_> = names.iter().zip(&to_b).map(|((a, _), to)| (to.as_str(), a.as_str(), "", "here")).collect();
        let there: Vec<_> =
            names.iter().rev().zip(&to_a).map(|((_, b), to)| (to.as_str(), b.as_str(), "", "there")).collect();
        let (here, there) = (batch(&world.store, &here).await, batch(&other, &there).await);
        let (here, there) = tokio::join!(settled(&world.store, &here), settled(&other, &there));
        assert_eq!(here.opened.len() + there.opened.len(), PAIRS);
        let mut places: Vec<_> = places(&here).into_iter().chain(places(&there)).collect();
        places.sort();
        assert_eq!(places.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1, 2].repeat(PAIRS));
    }
}

/// A block and a first message can't cross: whoever comes second sees what the first has done. The other end is a
/// transaction that stays open meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_and_a_first_message_do_not_cross() {
    bounded(async {
        let world = World::postgres().await;
        let mut other = world.database.as_ref().expect("a database").client().await;
        // The block is first.
        let blocking = other.transaction().await.expect("a transaction");
        let block = "SELECT parley_lock_pairs(ARRAY['a/b']); INSERT INTO blocks VALUES ('b', 'a', now())";
        blocking.batch_execute(block).await.expect("a block");
        let line = line(&world.store);
        let commit = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            blocking.commit().await.expect("committed");
        };
        let (sent, ()) = tokio::join!(line.commit.send(draft("@b", "a", "x")), commit);
        assert_eq!(sent.expect("taken"), SendOutcome::Refused(Refusal::Blocked));
        assert_eq!(direct(&world.store, "a", "b").await, None);

        // The message is first.
        let opening = other.transaction().await.expect("a transaction");
        let open = "SELECT parley_lock_pairs(ARRAY['c/d']); \
            SELECT parley_open_pairs(ARRAY['4503599627370497'], ARRAY['c/d'], ARRAY['c'], ARRAY['d'], now())";
        opening.batch_execute(open).await.expect("opened");
        let (one, two) = (user("c"), user("d"));
        let commit = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            opening.commit().await.expect("committed");
        };
        let (blocked, ()) = tokio::join!(world.store.set_block(&two, &one, true, silent()), commit);
        assert!(blocked.expect("blocked"));
        assert!(world.store.members(&conversation("4503599627370497")).await.expect("members").blocked);
    })
    .await;
}
