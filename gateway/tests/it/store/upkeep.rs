//! Contract of the store: upkeep, by one node at a time and in small steps.

use std::time::Duration;

use gateway::store::{AuditAct, AuditEntry, Giver, Page};
use shared::{ConversationId, Timestamp};

use crate::store::{World, contract, conversation, new_group, owner, say, send, user};

contract!(
    one_node_at_a_time_does_the_upkeep,
    old_messages_go_in_steps_and_young_ones_stay,
    the_audit_trail_is_cut_in_steps,
);

async fn one_node_at_a_time_does_the_upkeep(world: World) {
    let (store, other) = (&world.store, world.another().await);
    assert!(store.take_upkeep(&owner("a:1"), 60_000).await.expect("taken"));
    assert!(!other.take_upkeep(&owner("b:1"), 60_000).await.expect("asked"));
    assert!(store.take_upkeep(&owner("a:1"), 50).await.expect("kept"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(other.take_upkeep(&owner("b:1"), 60_000).await.expect("taken over"));
    assert!(!store.take_upkeep(&owner("a:1"), 60_000).await.expect("asked"));
}

async fn old_messages_go_in_steps_and_young_ones_stay(world: World) {
    let store = &world.store;
    for id in ["a", "b", "empty"] {
        new_group(store, id, &["u"]).await;
    }
    for _ in 0..3 {
        send(store, &vec![("a", "u", "", "old"); 400]).await;
    }
    send(store, &[("b", "u", "", "old")]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    say(store, "a", "u", "young").await;
    let walk = async |age_ms: u64| {
        let (mut deleted, mut after): (u64, Option<ConversationId>) = (0, None);
        loop {
            let step = store.expire_messages(age_ms, after.as_ref()).await.expect("a step");
            assert!(step.deleted <= 500);
            deleted += step.deleted;
            after = step.after;
            if step.is_last {
                return deleted;
            }
        }
    };
    assert_eq!(walk(86_400_000).await, 0);
    assert_eq!(walk(1_200).await, 1_201);
    let left = store.messages(&conversation("a"), Page::Newest, 9).await.expect("a page");
    assert_eq!((left.len(), left[0].seq, left[0].content.as_str()), (1, 1_201, "young"));
    assert_eq!(walk(1_200).await, 0);
    assert_eq!(say(store, "b", "u", "on").await.message.seq, 2, "the count goes on");
}

async fn the_audit_trail_is_cut_in_steps(world: World) {
    let store = &world.store;
    let entry = |age_ms: i64| AuditEntry {
        at: Timestamp::from_unix_ms(Timestamp::now().unix_ms() - age_ms),
        user: Some(user("u")),
        conversation: None,
        connection: None,
        act: AuditAct::Unmuted { by: Giver::backend() },
    };
    let lines: Vec<AuditEntry> = (0..700).map(|_| entry(86_400_000)).chain([entry(0)]).collect();
    store.write_audit(&lines).await.expect("written");
    assert!(store.expire_audit(3_600_000).await.expect("a step"), "there is more");
    assert!(!store.expire_audit(3_600_000).await.expect("a step"));
    if let Some(database) = &world.database {
        let left = database.client().await.query_one("SELECT count(*) FROM audit", &[]).await.expect("a count");
        assert_eq!(left.get::<_, i64>(0), 1);
    }
}
