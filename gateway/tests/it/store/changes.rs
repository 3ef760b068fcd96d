//! Contract of the store: edits, deletions and reactions.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::store::{
    EMOJIS_MAX, MembershipChange, MessageChange, MessageOutcome, OutboxRow, Page, REACTIONS_MAX, Refusal, SendOutcome,
    Store, StoreError,
};
use shared::{Message, MessageId, Role, UserId, Visibility};

use crate::store::{
    World, batch, contract, conversation, group_of, is_refused, new_group, say, send, silent, telling, user,
};

contract!(
    an_edit_keeps_what_was_said_before,
    a_deletion_leaves_the_place_and_nothing_else,
    reactions_come_and_go_once,
    who_may_change_a_message,
    a_message_has_so_many_reactions_and_no_more,
    what_is_read_shows_the_reactions,
    changes_and_sends_at_once_leave_nothing_out,
);

async fn change(world: &World, id: MessageId, by: &str, change: MessageChange) -> Result<MessageOutcome, StoreError> {
    world.store.change_message(id, Some(&user(by)), &change, silent()).await
}

async fn refused(world: &World, id: MessageId, by: &str, what: MessageChange, refusal: Refusal) {
    let result = change(world, id, by, what.clone()).await;
    assert!(is_refused(result, refusal), "{by} {what:?} must be {refusal:?}");
}

fn edit(content: &str) -> MessageChange {
    MessageChange::Edit { content: content.into() }
}

fn react(emoji: &str, on: bool) -> MessageChange {
    MessageChange::React { emoji: emoji.into(), on }
}

/// What the message said before, oldest first: no method of the trait tells it.
async fn earlier(world: &World, id: MessageId) -> Vec<String> {
    let sql = format!("SELECT content FROM edits WHERE message_id = {id} ORDER BY rev");
    match &world.database {
        Some(database) => {
            let rows = database.client().await.query(&sql, &[]).await.expect("rows");
            rows.iter().map(|row| row.get(0)).collect()
        }
        None => {
            let file = world.url.strip_prefix("sqlite:").expect("a file");
            let connection = rusqlite::Connection::open(file).expect("it opens");
            let mut statement = connection.prepare(&sql).expect("a statement");
            let rows = statement.query_map([], |row| row.get(0)).expect("rows");
            rows.collect::<Result<_, _>>().expect("texts")
        }
    }
}

async fn changed_since(world: &World, rev: u64) -> Vec<Message> {
    world.store.messages(&conversation("c"), Page::ChangedSince(rev), 100).await.expect("a page")
}

async fn an_edit_keeps_what_was_said_before(world: World) {
    new_group(&world.store, "c", &["a", "b"]).await;
    let first = say(&world.store, "c", "a", "frist").await.message;
    say(&world.store, "c", "b", "second").await;
    let row = world.store.reserve_ids(1).await.expect("ids").start;
    let outbox = telling(row, "b", |outcome: &MessageOutcome| outcome.message.content.clone());
    let editor = user("a");
    let outcome = world.store.change_message(first.id, Some(&editor), &edit("first"), outbox).await.expect("edited");
    assert!(outcome.changed && !outcome.is_last);
    assert_eq!(outcome.members.list.len(), 2);
    let after = &outcome.message;
    assert_eq!((after.content.as_str(), after.seq, after.rev), ("first", 1, 3));
    assert!(after.edited_at.is_some_and(|at| at >= first.created_at) && after.deleted_at.is_none());
    assert_eq!(changed_since(&world, 2).await, std::slice::from_ref(after));
    assert_eq!(world.store.conversation(&conversation("c"), None).await.expect("there").rev, 3);
    // What others are told was committed with it.
    let rows = world.store.take_unpublished(&"test:0".into(), 0, 0, (0, 10)).await.expect("rows");
    assert!(rows.iter().any(|pending| pending.id == row && pending.events[0].body == "first"));

    // The same content again changes nothing and tells nobody.
    let again = change(&world, first.id, "a", edit("first")).await.expect("taken");
    assert_eq!((again.changed, &again.message), (false, after));
    change(&world, first.id, "a", edit("the first")).await.expect("edited");
    assert_eq!(earlier(&world, first.id).await, ["frist", "first"]);
    // At most a hundred of them are kept.
    for n in 0..120 {
        change(&world, first.id, "a", edit(&n.to_string())).await.expect("edited");
    }
    let kept = earlier(&world, first.id).await;
    assert_eq!((kept.len(), kept[0].as_str(), kept[99].as_str()), (100, "19", "118"));
}

async fn a_deletion_leaves_the_place_and_nothing_else(world: World) {
    new_group(&world.store, "c", &["a", "b"]).await;
    let said = say(&world.store, "c", "a", "secret").await.message;
    change(&world, said.id, "a", edit("another secret")).await.expect("edited");
    change(&world, said.id, "b", react("👍", true)).await.expect("reacted");
    let outcome = change(&world, said.id, "a", MessageChange::Delete).await.expect("deleted");
    assert!(outcome.changed && outcome.is_last);
    let gone = outcome.message;
    assert_eq!((gone.content.as_str(), gone.seq, gone.rev, gone.reactions.len()), ("", 1, 4, 0));
    assert!(gone.deleted_at.is_some());
    assert_eq!(earlier(&world, said.id).await, Vec::<String>::new());
    assert_eq!(
        world.store.messages(&conversation("c"), Page::Newest, 9).await.expect("a page"),
        std::slice::from_ref(&gone)
    );
    // Deleting it again is the same answer.
    let again = change(&world, said.id, "a", MessageChange::Delete).await.expect("taken");
    assert_eq!((again.changed, again.message), (false, gone));
    refused(&world, said.id, "a", edit("back"), Refusal::Conflict).await;
    refused(&world, said.id, "b", react("👍", true), Refusal::Conflict).await;
    refused(&world, said.id, "b", react("👍", false), Refusal::Conflict).await;
    // It can still be answered.
    let mut answer = batch(&world.store, &[("c", "b", "", "re")]).await;
    answer.messages[0].reply_to = Some(said.id);
    let outcomes = world.store.send(&answer).await.expect("taken").outcomes;
    assert!(matches!(&outcomes[0], SendOutcome::Stored(stored) if stored.message.seq == 2 && stored.message.rev == 5));
}

async fn reactions_come_and_go_once(world: World) {
    new_group(&world.store, "c", &["a", "b"]).await;
    let id = say(&world.store, "c", "a", "x").await.message.id;
    for (by, emoji, on, changes, left) in [
        ("b", "👍", true, true, vec![("👍", vec!["b"])]),
        ("b", "👍", true, false, vec![("👍", vec!["b"])]),
        ("a", "👍", true, true, vec![("👍", vec!["b", "a"])]),
        ("a", "🎉", true, true, vec![("🎉", vec!["a"]), ("👍", vec!["b", "a"])]),
        ("b", "👍", false, true, vec![("🎉", vec!["a"]), ("👍", vec!["a"])]),
        ("b", "👍", false, false, vec![("🎉", vec!["a"]), ("👍", vec!["a"])]),
        ("a", "👍", false, true, vec![("🎉", vec!["a"])]),
    ] {
        let outcome = change(&world, id, by, react(emoji, on)).await.expect("a member's reaction");
        assert_eq!(outcome.changed, changes, "{by} {emoji} {on}");
        let left: BTreeMap<String, Vec<UserId>> =
            left.into_iter().map(|(emoji, users)| (emoji.to_owned(), users.into_iter().map(user).collect())).collect();
        assert_eq!(outcome.message.reactions, left, "{by} {emoji} {on}");
        assert_eq!(outcome.message.edited_at, None);
    }
    assert_eq!(changed_since(&world, 5).await[0].rev, 6, "one rev for each of the five changes");
}

async fn who_may_change_a_message(world: World) {
    let store = &world.store;
    let members = ["a", "b", "m", "k", "x"];
    store.create_conversation(&group_of("c", Visibility::Private, Some("o"), &members), silent()).await.expect("made");
    let id = conversation("c");
    let set = async |who: &str, what| store.change_membership(&id, &user(who), &what, silent()).await.expect("done");
    set("m", MembershipChange::SetRole { by: None, role: Role::Admin }).await;
    let mine = say(store, "c", "a", "mine").await.message.id;
    let kicked = say(store, "c", "k", "theirs").await.message.id;
    let banned = say(store, "c", "x", "theirs").await.message.id;
    set("k", MembershipChange::Kick { by: None }).await;
    set("x", MembershipChange::Ban { by: None }).await;

    for other in ["b", "m", "o"] {
        refused(&world, mine, other, edit("not mine"), Refusal::Forbidden).await;
    }
    refused(&world, mine, "b", MessageChange::Delete, Refusal::Forbidden).await;
    for what in [edit("x"), MessageChange::Delete, react("👍", true)] {
        refused(&world, mine, "stranger", what.clone(), Refusal::NotMember).await;
        refused(&world, kicked, "k", what.clone(), Refusal::NotMember).await;
        refused(&world, banned, "x", what.clone(), Refusal::Banned).await;
        let nowhere = MessageId::new(1 << 50).expect("an id");
        refused(&world, nowhere, "a", what, Refusal::NotFound).await;
    }
    for what in [edit("x"), react("👍", true)] {
        let result = store.change_message(mine, None, &what, silent()).await;
        assert!(is_refused(result, Refusal::Forbidden), "a backend only deletes");
    }
    // An admin, an owner and a backend may delete what others wrote.
    assert!(change(&world, kicked, "m", MessageChange::Delete).await.expect("an admin").changed);
    assert!(change(&world, banned, "o", MessageChange::Delete).await.expect("the owner").changed);
    let outcome = store.change_message(mine, None, &MessageChange::Delete, silent()).await.expect("a backend");
    assert!(outcome.changed && outcome.message.deleted_at.is_some());

    // Between two of whom one has blocked the other nothing passes.
    let pair = (&user("a"), &user("b"));
    store.open_direct(Some(pair.0), pair, &conversation("d"), silent()).await.expect("made");
    let direct = say(store, "d", "a", "hi").await.message.id;
    store.set_block(pair.1, pair.0, true, silent()).await.expect("blocked");
    for what in [edit("x"), MessageChange::Delete, react("👍", true)] {
        refused(&world, direct, "a", what, Refusal::Blocked).await;
    }
    store.set_block(pair.1, pair.0, false, silent()).await.expect("lifted");
    change(&world, direct, "a", edit("hello")).await.expect("edited");
}

async fn a_message_has_so_many_reactions_and_no_more(world: World) {
    let members: Vec<String> = (0..30).map(|n| format!("u{n}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    new_group(&world.store, "c", &members).await;
    let id = say(&world.store, "c", "u0", "x").await.message.id;
    for n in 0..EMOJIS_MAX {
        change(&world, id, "u0", react(&format!("e{n}"), true)).await.expect("room for another emoji");
    }
    refused(&world, id, "u0", react("one-more", true), Refusal::Limit).await;
    let mut count = EMOJIS_MAX;
    'full: for member in &members[1..] {
        for n in 0..EMOJIS_MAX {
            if count == REACTIONS_MAX {
                refused(&world, id, member, react(&format!("e{n}"), true), Refusal::Limit).await;
                break 'full;
            }
            change(&world, id, member, react(&format!("e{n}"), true)).await.expect("room for another");
            count += 1;
        }
    }
    assert_eq!(count, REACTIONS_MAX);
    change(&world, id, "u0", react("e0", false)).await.expect("less is always possible");
    change(&world, id, "u0", react("e0", true)).await.expect("room again");
}

async fn what_is_read_shows_the_reactions(world: World) {
    new_group(&world.store, "c", &["a", "b"]).await;
    let sent = send(&world.store, &[("c", "a", "t", "x")]).await.remove(0);
    let id = crate::store::stored(sent).message.id;
    let seen = change(&world, id, "b", react("👍", true)).await.expect("reacted").message;
    assert_eq!(seen.reactions.len(), 1);
    let view = world.store.conversation(&conversation("c"), Some(&user("b"))).await.expect("there");
    assert_eq!(view.last_message.as_ref(), Some(&seen));
    let list = world.store.conversations(&user("a"), None, 9).await.expect("a list").items;
    assert_eq!(list[0].last_message.as_ref(), Some(&seen));
    assert_eq!(
        world.store.messages(&conversation("c"), Page::Newest, 9).await.expect("a page"),
        std::slice::from_ref(&seen)
    );
    // The retry of the send gets the message as it is now, and so does a publication that is made up for.
    let again = send(&world.store, &[("c", "a", "t", "x")]).await.remove(0);
    assert_eq!(again, SendOutcome::Duplicate(seen.clone()));
    let rows = world.store.take_unpublished(&"test:0".into(), 0, 0, (0, 10)).await.expect("rows");
    assert_eq!(rows[0].messages[0].message, seen);
}

/// NOLOSS.md, B9: a reader that asks for the changes since its highest `rev` ends up with everything, while sends,
/// edits, reactions and deletions of several nodes go on.
async fn changes_and_sends_at_once_leave_nothing_out(world: World) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 25;
    new_group(&world.store, "c", &["a", "b"]).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = if writer % 2 == 0 { Arc::clone(&world.store) } else { world.another().await };
        writers.spawn(async move { write_much(&store, ROUNDS).await });
    }
    // The reader keeps what it was told, by seq, and never asks for more than what follows.
    let mut seen: BTreeMap<u64, Message> = BTreeMap::new();
    let mut rev = 0;
    let mut done = false;
    loop {
        let page = world.store.messages(&conversation("c"), Page::ChangedSince(rev), 7).await.expect("a page");
        if page.is_empty() && done {
            break;
        }
        for message in page {
            assert!(message.rev > rev, "ascending, each rev once");
            rev = message.rev;
            seen.insert(message.seq, message);
        }
        match writers.try_join_next() {
            Some(ended) => ended.expect("a writer ends well"),
            None => done = writers.is_empty(),
        }
    }
    let expected = WRITERS * ROUNDS;
    let all = world.store.messages(&conversation("c"), Page::After(0), 200).await.expect("all");
    assert_eq!(all.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=expected as u64).collect::<Vec<_>>());
    let mut revs: Vec<u64> = all.iter().map(|message| message.rev).collect();
    revs.sort_unstable();
    revs.dedup();
    assert_eq!(revs.len(), expected, "no rev twice");
    assert_eq!(seen.into_values().collect::<Vec<_>>(), all);
    assert_eq!(world.store.conversation(&conversation("c"), None).await.expect("there").rev, rev);
}

async fn write_much(store: &Arc<dyn Store>, rounds: usize) {
    let by = user("a");
    let apply = async |id, change| {
        let outbox: OutboxRow<MessageOutcome> = silent();
        assert!(store.change_message(id, Some(&by), &change, outbox).await.expect("taken").changed);
    };
    for round in 0..rounds {
        let id = say(store, "c", "a", "x").await.message.id;
        apply(id, edit("y")).await;
        apply(id, react("👍", true)).await;
        if round % 3 == 0 {
            apply(id, MessageChange::Delete).await;
        }
    }
}
