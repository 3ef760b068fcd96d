//! Contract of the store: the events that a webhook is owed, from their change to their end.

use std::sync::Arc;
use std::time::Duration;

use gateway::store::{
    ConversationChange, DueEvent, MembershipChange, MessageChange, OutboxRow, OwedDetail, OwedEvent, OwedKind,
    RepeatFrom, SendBatch, Store, Wanted,
};
use shared::{ConversationId, Timestamp, Visibility};

use crate::store::{
    World, batch, contract, conversation, group_of, is_refused, new_group, owner, send, settled, silent, user,
};

contract!(
    messages_owe_events_in_the_order_of_rev,
    a_batch_that_is_tried_again_owes_each_event_once,
    every_change_owes_its_event_with_itself_or_not_at_all,
    without_the_setting_nothing_is_owed,
    delivered_events_are_owed_again_from_an_id_or_a_time,
    dead_events_are_kept_and_may_be_owed_again,
    one_node_at_a_time_delivers,
);

fn all() -> Wanted {
    Wanted::AllBut(Vec::new())
}

async fn due(store: &Arc<dyn Store>) -> Vec<DueEvent> {
    store.due_events(&all(), 1_000).await.expect("events")
}

fn kinds(events: &[DueEvent]) -> Vec<&'static str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn revs_of(events: &[DueEvent], id: &str) -> Vec<u64> {
    events.iter().filter(|event| event.conversation_id.as_str() == id).filter_map(|event| event.rev).collect()
}

/// A row that says nothing to members, and owes these events.
fn owing<T: 'static>(events: impl Fn(&T) -> Vec<OwedEvent> + Send + Sync + 'static) -> OutboxRow<T> {
    OutboxRow { owed: Some(Box::new(events)), ..silent() }
}

fn owed(kind: OwedKind, conversation: &ConversationId, rev: Option<u64>) -> Vec<OwedEvent> {
    let detail = OwedDetail { user_id: Some(user("who")), ..OwedDetail::default() };
    vec![OwedEvent { kind, conversation: conversation.clone(), rev, message: None, detail }]
}

async fn send_owing(store: &Arc<dyn Store>, drafts: &[crate::store::Draft<'_>]) -> SendBatch {
    let batch = SendBatch { owes_events: true, ..batch(store, drafts).await };
    settled(store, &batch).await;
    batch
}

async fn messages_owe_events_in_the_order_of_rev(world: World) {
    let store = &world.store;
    for id in ["a", "b"] {
        new_group(store, id, &["u", "v"]).await;
    }
    send_owing(store, &[("b", "v", "", "1"), ("a", "u", "t", "2"), ("b", "u", "", "3"), ("a", "v", "", "4")]).await;
    // A judged batch: one is a repetition, and one is refused.
    send_owing(store, &[("a", "u", "t", "2"), ("a", "stranger", "", "no"), ("a", "u", "", "5")]).await;
    // The first message of two users opens their conversation; so does a batch that is judged.
    send_owing(store, &[("@v", "u", "", "6"), ("a", "u", "", "7")]).await;
    send_owing(store, &[("a", "stranger", "", "no"), ("@w", "u", "", "8"), ("@u", "w", "", "9")]).await;
    let events = due(store).await;
    assert_eq!((revs_of(&events, "a"), revs_of(&events, "b")), (vec![1, 2, 3, 4], vec![1, 2]));
    let created: Vec<&DueEvent> = events.iter().filter(|event| event.kind == OwedKind::ConversationCreated).collect();
    assert_eq!(created.len(), 2, "{events:?}");
    for opened in created {
        let first = events
            .iter()
            .find(|event| event.conversation_id == opened.conversation_id && event.kind == OwedKind::MessageCreated);
        assert!(first.is_some_and(|first| first.id > opened.id && first.rev == Some(1)));
        assert_eq!(opened.conversation.as_ref().map(|shown| shown.members.len()), Some(2));
    }
    for event in &events {
        let Some(message) = &event.message else { continue };
        assert_eq!((Some(message.id), Some(message.rev)), (event.message_id, event.rev));
        assert_eq!(event.at, message.created_at);
    }
    let contents: usize = events.iter().filter(|event| event.message.is_some()).count();
    assert_eq!(contents, 9);
    // A message is shown as it is now.
    let first = events.iter().find(|event| event.kind == OwedKind::MessageCreated).and_then(|event| event.message_id);
    store.change_message(first.expect("an id"), None, &MessageChange::Delete, silent()).await.expect("deleted");
    let events = due(store).await;
    let shown = events.iter().find(|event| event.message_id == first).and_then(|event| event.message.clone());
    assert!(shown.is_some_and(|message| message.deleted_at.is_some() && message.content.is_empty()));
}

async fn a_batch_that_is_tried_again_owes_each_event_once(world: World) {
    let store = &world.store;
    new_group(store, "g", &["u"]).await;
    let plain = send_owing(store, &[("g", "u", "", "1"), ("@v", "u", "", "2")]).await;
    let count = due(store).await.len();
    assert_eq!(count, 3);
    store.send(&plain).await.expect("once more, after an uncertain commit");
    assert_eq!(due(store).await.len(), count);
}

async fn every_change_owes_its_event_with_itself_or_not_at_all(world: World) {
    let store = &world.store;
    let (id, other) = (conversation("g"), conversation("d"));
    let new = group_of("g", Visibility::Private, Some("o"), &["m"]);
    let made = |kind: OwedKind| owing(move |made: &shared::Conversation| owed(kind, &made.id, None));
    store.create_conversation(&new, made(OwedKind::ConversationCreated)).await.expect("made");
    assert!(is_refused(
        store.create_conversation(&new, made(OwedKind::ConversationCreated)).await,
        gateway::store::Refusal::Conflict
    ));
    let pair = (&user("x"), &user("y"));
    store.open_direct(None, pair, &other, made(OwedKind::ConversationCreated)).await.expect("opened");
    store.open_direct(None, pair, &conversation("e"), made(OwedKind::ConversationCreated)).await.expect("there");
    let message = crate::store::say(store, "g", "m", "one").await.message;
    let changed = |kind: OwedKind| {
        owing(move |outcome: &gateway::store::MessageOutcome| {
            let message = &outcome.message;
            let detail = OwedDetail::default();
            let (conversation, rev) = (message.conversation_id.clone(), Some(message.rev));
            vec![OwedEvent { kind, conversation, rev, message: Some(message.id), detail }]
        })
    };
    let edit = MessageChange::Edit { content: "two".into() };
    store.change_message(message.id, Some(&user("m")), &edit, changed(OwedKind::MessageEdited)).await.expect("edited");
    store.change_message(message.id, Some(&user("z")), &edit, changed(OwedKind::MessageEdited)).await.expect_err("no");
    let react = MessageChange::React { emoji: "🦜".into(), on: true };
    for _ in 0..2 {
        let done = changed(OwedKind::ReactionUpdated);
        store.change_message(message.id, Some(&user("o")), &react, done).await.expect("it is there");
    }
    let title = ConversationChange { title: Some(Some("new".into())), ..ConversationChange::default() };
    for _ in 0..2 {
        let row = owing(|outcome: &gateway::store::ConversationChanged| {
            owed(OwedKind::ConversationChanged, &outcome.conversation.id, Some(outcome.conversation.rev))
        });
        store.change_conversation(&id, Some(&user("o")), &title, row).await.expect("changed");
    }
    let member = |kind: OwedKind| {
        owing(move |outcome: &gateway::store::MembershipOutcome| match outcome.changed {
            true => owed(kind, &outcome.conversation.id, None),
            false => Vec::new(),
        })
    };
    let ban = MembershipChange::Ban { by: Some(user("o")) };
    for _ in 0..2 {
        store.change_membership(&id, &user("m"), &ban, member(OwedKind::MemberBanned)).await.expect("banned");
    }
    let joined = owing(|outcome: &gateway::store::MembersAdded| {
        outcome.added.iter().flat_map(|_| owed(OwedKind::MemberJoined, &outcome.conversation.id, None)).collect()
    });
    let users = [user("1"), user("2"), user("m")];
    store.add_members(&id, &users, Some(&user("o")), joined).await.expect("added");
    let gone = conversation("g");
    let row = owing(move |_: &gateway::store::ConversationDeleted| owed(OwedKind::ConversationDeleted, &gone, None));
    store.delete_conversation(&id, None, row).await.expect("deleted");
    let events = due(store).await;
    let expected = [
        "conversation.created",
        "conversation.created",
        "message.edited",
        "reaction.updated",
        "conversation.changed",
        "member.banned",
        "member.joined",
        "member.joined",
        "conversation.deleted",
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(revs_of(&events, "g"), [2, 3, 4]);
    assert!(events.iter().all(|event| event.detail.user_id.is_some() == event.message_id.is_none()));
    assert!(events.iter().filter(|event| event.conversation_id == id).all(|event| event.conversation.is_none()));
}

async fn without_the_setting_nothing_is_owed(world: World) {
    let store = &world.store;
    new_group(store, "g", &["u"]).await;
    send(store, &[("g", "u", "", "1"), ("@v", "u", "", "2"), ("g", "stranger", "", "3")]).await;
    assert!(due(store).await.is_empty());
}

/// On PostgreSQL alone: SQLite is for one node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_two_nodes_keep_the_order_of_each_conversation() {
    let world = World::postgres().await;
    let (one, two) = (Arc::clone(&world.store), world.another().await);
    for id in ["a", "b", "c"] {
        new_group(&one, id, &["u", "v"]).await;
    }
    let flood = |store: Arc<dyn Store>| async move {
        for n in 0..30 {
            let content = n.to_string();
            let drafts: Vec<_> = ["c", "a", "b", "a"].iter().map(|id| (*id, "u", "", content.as_str())).collect();
            send_owing(&store, &drafts).await;
        }
    };
    tokio::join!(flood(one), flood(two));
    let store = &world.store;
    let mut events: Vec<DueEvent> = Vec::new();
    loop {
        let page = store.due_events(&all(), 50).await.expect("events");
        if page.is_empty() {
            break;
        }
        store.mark_delivered(&page.iter().map(|event| event.id).collect::<Vec<_>>()).await.expect("marked");
        events.extend(page);
    }
    for (id, count) in [("a", 120), ("b", 60), ("c", 60)] {
        assert_eq!(revs_of(&events, id), (1..=count).collect::<Vec<u64>>(), "{id}");
    }
}

async fn delivered_events_are_owed_again_from_an_id_or_a_time(world: World) {
    let store = &world.store;
    for id in ["a", "b"] {
        new_group(store, id, &["u"]).await;
    }
    let begun = Timestamp::from_unix_ms(Timestamp::now().unix_ms() - 60_000);
    for _ in 0..3 {
        send_owing(store, &[("a", "u", "", "x"), ("b", "u", "", "x")]).await;
    }
    let events = due(store).await;
    let ids: Vec<u64> = events.iter().map(|event| event.id).collect();
    let lag = store.events_lag().await.expect("a lag");
    assert_eq!((lag.owed, lag.dead), (6, 0));
    let only = Wanted::Only(vec![conversation("a")], ids[3]);
    let some = store.due_events(&only, 9).await.expect("events");
    assert!(some.len() == 2 && some.iter().all(|event| event.conversation_id.as_str() == "a" && event.id <= ids[3]));
    let rest = Wanted::AllBut(vec![conversation("a")]);
    assert_eq!(store.due_events(&rest, 9).await.expect("events").len(), 3);

    store.mark_delivered(&ids).await.expect("marked");
    assert!(due(store).await.is_empty() && store.events_lag().await.expect("a lag").oldest_ms == 0);
    assert_eq!(store.repeat_events(RepeatFrom::Id(ids[4])).await.expect("repeated"), (2, Some(ids[5])));
    assert_eq!(due(store).await.len(), 2);
    assert_eq!(store.repeat_events(RepeatFrom::Time(begun)).await.expect("repeated"), (4, Some(ids[3])));
    let again: Vec<DueEvent> = due(store).await.into_iter().map(|event| DueEvent { age_ms: 0, ..event }).collect();
    let before: Vec<DueEvent> = events.into_iter().map(|event| DueEvent { age_ms: 0, ..event }).collect();
    assert_eq!(again, before);
    let later = Timestamp::from_unix_ms(Timestamp::now().unix_ms() + 60_000);
    store.mark_delivered(&ids).await.expect("marked");
    assert_eq!(store.repeat_events(RepeatFrom::Time(later)).await.expect("none"), (0, None));
    assert!(!store.prune_events(60_000, 60_000).await.expect("nothing is old"));
    assert_eq!(store.repeat_events(RepeatFrom::Id(0)).await.expect("repeated").0, 6);
    store.mark_delivered(&ids[1..]).await.expect("marked");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!store.prune_events(10, 60_000).await.expect("a step"));
    assert_eq!(store.repeat_events(RepeatFrom::Id(0)).await.expect("none is left"), (0, None));
    assert_eq!(due(store).await.len(), 1, "an owed event is never pruned");
}

async fn dead_events_are_kept_and_may_be_owed_again(world: World) {
    let store = &world.store;
    new_group(store, "g", &["u"]).await;
    send_owing(store, &[("g", "u", "", "1"), ("g", "u", "", "2")]).await;
    let events = due(store).await;
    store.bury_event(events[0].id, "410 Gone").await.expect("buried");
    store.bury_event(events[0].id, "410 Gone").await.expect("buried before");
    assert_eq!(due(store).await.len(), 1);
    let lag = store.events_lag().await.expect("a lag");
    assert_eq!((lag.owed, lag.dead), (1, 1));
    assert_eq!(store.repeat_events(RepeatFrom::Id(events[0].id)).await.expect("raised"), (1, Some(events[0].id)));
    let again = due(store).await;
    assert_eq!(again.iter().map(|event| event.id).collect::<Vec<_>>(), [events[0].id, events[1].id]);
    assert_eq!(again[0].message, events[0].message);
    store.bury_event(events[0].id, "no").await.expect("buried");
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.prune_events(60_000, 10).await.expect("a step");
    assert_eq!(store.events_lag().await.expect("a lag").dead, 0);
}

async fn one_node_at_a_time_delivers(world: World) {
    let (store, other) = (&world.store, world.another().await);
    assert!(store.take_webhook(&owner("a:1"), 60_000).await.expect("taken"));
    assert!(!other.take_webhook(&owner("b:1"), 60_000).await.expect("asked"));
    assert!(store.take_webhook(&owner("a:1"), 50).await.expect("kept"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(other.take_webhook(&owner("b:1"), 60_000).await.expect("taken over"));
    assert!(!store.take_webhook(&owner("a:1"), 60_000).await.expect("asked"));
    assert!(other.take_webhook(&owner("b:1"), 0).await.expect("given back"));
    assert!(store.take_webhook(&owner("a:1"), 60_000).await.expect("taken at once"));
}

/// On PostgreSQL alone, because the rows are made by its SQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_events_are_repeated_by_one_order() {
    let world = World::postgres().await;
    let client = world.database.as_ref().expect("PostgreSQL").client().await;
    let sql = "INSERT INTO webhook_events (kind, conversation_id, delivered_at) \
        SELECT 'conversation.deleted', 'c', now() FROM generate_series(1, 10010)";
    client.batch_execute(sql).await.expect("rows");
    let (repeated, last) = world.store.repeat_events(RepeatFrom::Id(0)).await.expect("repeated");
    assert_eq!((repeated, last), (10_000, Some(10_000)));
    assert_eq!(world.store.events_lag().await.expect("a lag").owed, 10_000);
    assert_eq!(world.store.repeat_events(RepeatFrom::Id(10_001)).await.expect("repeated").0, 10);
}
