//! A conversation that another transaction holds stops nobody else (NOLOSS.md, C5). The other end is a transaction that
//! stays open, as that of a node which was paused.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gateway::store::{
    ConversationChange, MembershipChange, MessageChange, Page, Receipt, ReceiptKind, SendOutcome, StoreError,
};
use shared::Role;

use crate::store::group_commit::{draft, line};
use crate::store::{World, batch, bounded, conversation, new_group, say, send, silent, stored, user};

/// How long the other transaction stays open.
const HELD: Duration = Duration::from_millis(2_500);
/// The latest moment at which everybody else's messages are stored, on a loaded machine.
const PROMPT: Duration = Duration::from_millis(1_500);

/// Sends into a held conversation, by several names, and beside it, and checks both.
async fn bystanders_go_on(hold: &str) {
    let world = World::postgres().await;
    let mut line = line(&world.store);
    let first = stored(line.commit.send(draft("@b", "a", "0")).await.expect("taken")).message;
    let held = first.conversation_id;
    new_group(&world.store, "free", &["a", "b", "c"]).await;
    let mut other = world.database.as_ref().expect("a database").client().await;
    let holding = other.transaction().await.expect("a transaction");
    holding.batch_execute(&hold.replace("HELD", held.as_str())).await.expect("it is held");

    let begun = Instant::now();
    let names = ["@b", held.as_str()];
    let waiting = async {
        // One batch has some of them, later ones the rest.
        let first = (1..=5).map(|n| line.commit.send(draft(names[n % 2], "a", &n.to_string())));
        let second = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            join_all((6..=9).map(|n| line.commit.send(draft(names[n % 2], "a", &n.to_string())))).await
        };
        let (mut first, second) = tokio::join!(join_all(first), second);
        first.extend(second);
        first
    };
    let bystanders = async {
        for _ in 0..4 {
            for outcome in join_all((0..20).map(|_| line.commit.send(draft("free", "c", "x")))).await {
                stored(outcome.expect("taken"));
            }
            stored(line.commit.send(draft("@d", "c", "to a stranger")).await.expect("taken"));
        }
        begun.elapsed()
    };
    let release = async {
        tokio::time::sleep(HELD).await;
        holding.commit().await.expect("released");
    };
    let (waited, prompt, ()) = tokio::join!(waiting, bystanders, release);
    assert!(prompt < PROMPT, "bystanders waited for {prompt:?}");
    assert!(begun.elapsed() >= HELD);
    let seqs: Vec<u64> = waited.into_iter().map(|outcome| stored(outcome.expect("taken")).message.seq).collect();
    assert_eq!(seqs, (2..=10).collect::<Vec<_>>(), "in the order in which they came");
    let page = world.store.messages(&held, Page::After(0), 100).await.expect("a page");
    let contents: Vec<&str> = page.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(contents, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "none twice");
    let free = world.store.messages(&conversation("free"), Page::After(0), 100).await.expect("a page");
    assert_eq!(free.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=80).collect::<Vec<_>>());
    line.commit.finish().await;
    // Each was handed on once, in its conversation's order.
    let mut told = Vec::new();
    while let Ok(batch) = line.batches.try_recv() {
        told.extend(batch.messages.into_iter().map(|stored| stored.message).filter(|it| it.conversation_id == held));
    }
    assert_eq!(told.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_conversation_stops_nobody_else() {
    bounded(bystanders_go_on("SELECT 1 FROM conversations WHERE id = 'HELD' FOR UPDATE")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_member_stops_nobody_else() {
    bounded(bystanders_go_on("SELECT 1 FROM members WHERE conversation_id = 'HELD' AND user_id = 'a' FOR UPDATE"))
        .await;
}

/// A pair that is held has no conversation yet: first messages wait for it, those to others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_pair_stops_nobody_else() {
    bounded(async {
        let world = World::postgres().await;
        let line = line(&world.store);
        let mut other = world.database.as_ref().expect("a database").client().await;
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute("SELECT parley_lock_pairs(ARRAY['a/b'])").await.expect("it is held");
        let begun = Instant::now();
        let waiting = join_all((0..3).map(|n| line.commit.send(draft(["@b", "@a"][n % 2], ["a", "b"][n % 2], "x"))));
        let bystanders = async {
            join_all((0..3).map(|n| line.commit.send(draft(&format!("@s{n}"), "a", "x")))).await;
            begun.elapsed()
        };
        let release = async {
            tokio::time::sleep(HELD).await;
            holding.commit().await.expect("released");
        };
        let (waited, prompt, ()) = tokio::join!(waiting, bystanders, release);
        assert!(prompt < PROMPT, "bystanders waited for {prompt:?}");
        let seqs: Vec<u64> = waited.into_iter().map(|outcome| stored(outcome.expect("taken")).message.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
    })
    .await;
}

/// What is held for too long is told in time, and is not stored afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_too_long_is_answered_and_not_stored() {
    bounded(async {
        let world = World::postgres().await;
        new_group(&world.store, "c", &["a"]).await;
        let line = line(&world.store);
        let mut other = world.database.as_ref().expect("a database").client().await;
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute("SELECT 1 FROM conversations WHERE id = 'c' FOR UPDATE").await.expect("it is held");
        let begun = Instant::now();
        let outcome = line.commit.send(draft("c", "a", "x")).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        holding.rollback().await.expect("released");
        assert_eq!(stored(line.commit.send(draft("c", "a", "y")).await.expect("taken")).message.seq, 1);
        line.commit.finish().await;
        assert_eq!(world.store.messages(&conversation("c"), Page::After(0), 9).await.expect("a page").len(), 1);
    })
    .await;
}

/// A repeated batch tells again what was busy: nothing of it was stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_batch_tells_again_what_was_busy() {
    bounded(async {
        let world = World::postgres().await;
        for id in ["c", "d"] {
            new_group(&world.store, id, &["a"]).await;
        }
        let mut other = world.database.as_ref().expect("a database").client().await;
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute("SELECT 1 FROM conversations WHERE id = 'c' FOR UPDATE").await.expect("it is held");
        let once = batch(&world.store, &[("c", "a", "t", "x"), ("d", "a", "", "y"), ("c", "a", "", "z")]).await;
        let sent = world.store.send(&once).await.expect("taken");
        let busy = SendOutcome::Busy(Some(conversation("c")));
        assert_eq!((&sent.outcomes[0], &sent.outcomes[2]), (&busy, &busy));
        stored(sent.outcomes[1].clone());
        holding.rollback().await.expect("released");
        let again = world.another().await.send(&once).await.expect("taken again");
        assert!(matches!((&again.outcomes[0], &again.outcomes[2]), (SendOutcome::Busy(_), SendOutcome::Busy(_))));
        assert_eq!(again.outcomes[1], sent.outcomes[1]);
    })
    .await;
}

/// NOLOSS.md, C10: a plain batch that is undone leaves `synchronous_commit` alone, which holds for the whole transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undone_batch_leaves_the_session_as_it_is() {
    bounded(async {
        let world = World::postgres().await;
        let mut client = world.database.as_ref().expect("a database").client().await;
        let change = client.transaction().await.expect("a transaction");
        change.batch_execute("SET LOCAL synchronous_commit = on").await.expect("set");
        let plain = "SELECT out_seqs IS NULL AS undone FROM parley_send_plain(1, 'o', '{2}', '{nowhere}', '{1}', '{1}', \
            '{a}', '{1}', '{1}', '{2}', '{1}', '{1}', '{a}', '{t}', '{text}', '{x}', NULL, NULL)";
        assert!(change.query_one(plain, &[]).await.expect("called").get::<_, bool>("undone"));
        for (setting, expected) in [("synchronous_commit", "on"), ("lock_timeout", "0")] {
            let found = change.query_one("SELECT current_setting($1)", &[&setting]).await.expect("a setting");
            assert_eq!(found.get::<_, &str>(0), expected, "{setting}");
        }
    })
    .await;
}

/// Each change of a conversation is one call: no session ever holds locks while it waits for its node. Changes that race
/// are all made, each once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_waits_for_its_node_under_a_lock() {
    const ROUNDS: usize = 12;
    bounded(async {
        let world = World::postgres().await;
        let store = &world.store;
        new_group(store, "c", &["a", "b", "o"]).await;
        let message = say(store, "c", "a", "x").await.message;
        let change = async |by: &str, change: MessageChange| {
            store.change_message(message.id, Some(&user(by)), &change, silent()).await.expect("changed")
        };
        let reactions = async {
            for n in 0..ROUNDS {
                assert!(change("b", MessageChange::React { emoji: "👍".into(), on: n % 2 == 0 }).await.changed);
            }
        };
        let edits = async {
            for n in 0..ROUNDS {
                assert!(change("a", MessageChange::Edit { content: format!("x{n}") }).await.changed);
            }
        };
        let messages = async {
            for n in 0..ROUNDS {
                send(store, &[("c", "a", "", "more")]).await;
                let receipt = |user: &str| Receipt {
                    kind: ReceiptKind::Read,
                    user: crate::store::user(user),
                    conversation: conversation("c"),
                    up_to: None,
                };
                let both = store.receipts(&[receipt("a"), receipt("b")], silent()).await.expect("taken");
                assert!(both.iter().all(Result::is_ok), "{n} {both:?}");
            }
        };
        let members = async {
            for n in 0..ROUNDS {
                let (m, many) = (user("m"), [user(&format!("m{n}")), user(&format!("n{n}"))]);
                let add = MembershipChange::Add { by: None, role: Role::Member };
                assert!(store.change_membership(&conversation("c"), &m, &add, silent()).await.expect("added").changed);
                let many = store.add_members(&conversation("c"), &many, None, silent()).await.expect("added");
                assert_eq!(many.added.len(), 2);
                let kick = MembershipChange::Kick { by: None };
                assert!(store.change_membership(&conversation("c"), &m, &kick, silent()).await.expect("gone").changed);
                assert!(store.set_block(&user("a"), &m, n % 2 == 0, silent()).await.expect("blocked"));
                let id = conversation(&format!("d{n}"));
                let (a, d) = (user("a"), user(&format!("d{n}")));
                assert!(store.open_direct(None, (&a, &d), &id, silent()).await.expect("opened").1);
            }
        };
        for n in 0..ROUNDS {
            new_group(store, &format!("e{n}"), &["a"]).await;
        }
        let whole = async {
            for n in 0..ROUNDS {
                let (c, b, gone) = (conversation("c"), user("b"), user(&format!("gone{n}")));
                let title = Some(Some(format!("title {n}")));
                let change = ConversationChange { title, ..ConversationChange::default() };
                let changed = store.change_conversation(&c, None, &change, silent()).await.expect("changed");
                assert!(changed.changed);
                let time = (n % 2 == 0).then_some(Duration::from_secs(60));
                assert!(store.mute(&c, &b, None, time).await.expect("muted"));
                let ended = conversation(&format!("e{n}"));
                say(store, ended.as_str(), "a", "x").await;
                assert_eq!(store.delete_conversation(&ended, None, silent()).await.expect("deleted").last_seq, 1);
                assert!(!store.empty_deleted().await.expect("a look"));
                store.set_block(&gone, &b, true, silent()).await.expect("blocked");
                store.begin_erasure(&gone).await.expect("begun");
            }
        };
        let client = world.database.as_ref().expect("a database").client().await;
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parley' \
            AND datname = current_database() AND state LIKE 'idle in transaction%'";
        let watching = async {
            loop {
                assert_eq!(client.query_one(idle, &[]).await.expect("sessions").get::<_, i64>(0), 0);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            () = watching => {}
            _ = async { tokio::join!(reactions, edits, messages, members, whole) } => {}
        }
        let rounds = u64::try_from(ROUNDS).expect("a count");
        let view = store.conversation(&conversation("c"), None).await.expect("the conversation");
        assert_eq!((view.last_seq, view.rev, view.member_count), (1 + rounds, 1 + 4 * rounds, 3 + 2 * rounds));
    })
    .await;
}
