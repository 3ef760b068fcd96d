//! Contract of the store: other titles of conversations, and their end.

use std::sync::Arc;
use std::time::Duration;

use gateway::store::{
    ConversationChange, ConversationChanged, ConversationDeleted, MembershipChange, Page, Receipt, ReceiptKind,
    Refusal, SendOutcome, Store, StoreError,
};
use serde_json::{Value, json};
use shared::{Conversation, Visibility};

use crate::store::{World, contract, conversation, group_of, is_refused, say, send, silent, stored, telling, user};

contract!(
    a_change_is_made_once_and_by_those_who_may,
    what_is_deleted_takes_and_shows_nothing,
    a_long_history_is_emptied_in_steps,
);

fn title(title: &str) -> ConversationChange {
    ConversationChange { title: Some(Some(title.to_owned())), ..ConversationChange::default() }
}

/// What the row tells.
async fn body_of(store: &Arc<dyn Store>, row: u64) -> Value {
    tokio::time::sleep(Duration::from_millis(3)).await;
    let rows = store.take_unpublished(&"test:0".into(), 0, 0, (0, 100)).await.expect("rows");
    let found = rows.into_iter().find(|pending| pending.id == row).expect("the row");
    serde_json::from_str(&found.events[0].body).expect("JSON")
}

async fn a_change_is_made_once_and_by_those_who_may(world: World) {
    let store = &world.store;
    let id = conversation("c");
    store.create_conversation(&group_of("c", Visibility::Private, Some("o"), &["m"]), silent()).await.expect("a group");
    let row = store.reserve_ids(2).await.expect("ids").next().expect("an id");
    let told = telling(row, "m", |outcome: &ConversationChanged| {
        let Conversation { rev, last_seq, title, .. } = &outcome.conversation;
        json!({ "type": "x", "payload": { "rev": rev, "lastSeq": last_seq, "title": title } }).to_string()
    });
    let owner = user("o");
    say(store, "c", "m", "hi").await;
    let changed = store.change_conversation(&id, Some(&owner), &title("New"), told).await.expect("changed");
    assert!(changed.changed && changed.members.list.len() == 2);
    let after = &changed.conversation;
    assert_eq!((after.title.as_deref(), after.rev, after.last_seq), (Some("New"), 2, 1));
    assert_eq!(
        body_of(store, row).await,
        json!({ "type": "x", "payload": { "rev": 2, "lastSeq": 1, "title": "New" } })
    );
    let again = store.change_conversation(&id, Some(&owner), &title("New"), silent()).await.expect("as it was");
    assert!(!again.changed && again.conversation.rev == 2);
    let locked = ConversationChange { password_hash: Some(Some("hash".into())), ..ConversationChange::default() };
    assert!(store.change_conversation(&id, None, &locked, silent()).await.expect("by a backend").changed);
    let open =
        ConversationChange { title: Some(None), visibility: Some(Visibility::Public), password_hash: Some(None) };
    let opened = store.change_conversation(&id, Some(&owner), &open, silent()).await.expect("opened").conversation;
    assert_eq!((opened.title, opened.has_password, opened.visibility), (None, false, Visibility::Public));
    for (who, refusal) in [("m", Refusal::Forbidden), ("x", Refusal::NotMember)] {
        let result = store.change_conversation(&id, Some(&user(who)), &title("x"), silent()).await;
        assert!(is_refused(result, refusal), "{who}");
    }
    let nowhere = store.change_conversation(&conversation("nowhere"), None, &title("x"), silent()).await;
    assert!(is_refused(nowhere, Refusal::NotFound));
    let pair = (&user("a"), &user("b"));
    let (direct, _) = store.open_direct(None, pair, &conversation("d"), silent()).await.expect("opened");
    let refused = store.change_conversation(&direct.id, None, &title("x"), silent()).await;
    assert!(is_refused(refused, Refusal::Forbidden), "the two have no title");
}

async fn what_is_deleted_takes_and_shows_nothing(world: World) {
    let store = &world.store;
    let (id, o) = (conversation("c"), user("o"));
    store.create_conversation(&group_of("c", Visibility::Public, Some("o"), &["m"]), silent()).await.expect("a group");
    for (who, change) in [("i", MembershipChange::Invite { by: None }), ("b", MembershipChange::Ban { by: None })] {
        store.change_membership(&id, &user(who), &change, silent()).await.expect("changed");
    }
    let first = stored(send(store, &[("c", "m", "t", "secret")]).await.remove(0)).message;
    for (who, refusal) in [("m", Refusal::Forbidden), ("x", Refusal::NotMember), ("b", Refusal::Banned)] {
        assert!(is_refused(store.delete_conversation(&id, Some(&user(who)), silent()).await, refusal), "{who}");
    }
    let row = store.reserve_ids(2).await.expect("ids").next().expect("an id");
    let told = telling(row, "m", |outcome: &ConversationDeleted| json!(outcome.last_seq).to_string());
    let deleted = store.delete_conversation(&id, Some(&o), told).await.expect("deleted");
    assert_eq!(body_of(store, row).await, json!(1));
    assert_eq!((deleted.members, deleted.invited, deleted.last_seq), (vec![user("m"), o.clone()], vec![user("i")], 1));

    for viewer in [None, Some(&o)] {
        assert!(is_refused(store.conversation(&id, viewer).await, Refusal::NotFound));
        assert!(is_refused(store.delete_conversation(&id, viewer, silent()).await, Refusal::NotFound));
        assert!(is_refused(store.change_conversation(&id, viewer, &title("x"), silent()).await, Refusal::NotFound));
        assert_eq!(store.outside(&id, viewer).await.expect("looked up"), Refusal::NotFound);
        assert!(is_refused(store.listed_members(&id, viewer, true, None, 9).await, Refusal::NotFound));
    }
    let join = store.change_membership(&id, &user("i"), &MembershipChange::Join, silent()).await;
    assert!(is_refused(join, Refusal::NotFound));
    assert!(is_refused(store.join_password(&id, &user("z")).await, Refusal::NotFound));
    assert!(is_refused(store.add_members(&id, &[user("z")], None, silent()).await, Refusal::NotFound));
    let refused = send(store, &[("c", "o", "", "late")]).await.remove(0);
    assert_eq!(refused, SendOutcome::Refused(Refusal::NotMember), "`outside` tells why");
    let read = Receipt { kind: ReceiptKind::Read, user: o.clone(), conversation: id.clone(), up_to: None };
    assert_eq!(store.receipts(&[read], silent()).await.expect("judged"), [Err(Refusal::NotMember)]);
    assert!(is_refused(
        store.change_message(first.id, None, &gateway::store::MessageChange::Delete, silent()).await,
        Refusal::NotFound
    ));
    assert_eq!(store.message(first.id).await.expect("looked up"), None);
    assert!(store.conversations(&o, None, 9).await.expect("a page").items.is_empty());
    let left = store.messages(&id, Page::Newest, 9).await.expect("the rows stay");
    assert_eq!((left.len(), left[0].content.as_str(), left[0].deleted_at.is_some()), (1, "", true));
    assert_eq!(
        store.members_at(&id, 1).await.expect("who was in"),
        [user("m"), o.clone()],
        "for what is published late"
    );
    let members = store.members(&id).await.expect("for what is published late");
    assert!(members.list.is_empty());

    let taken = store.create_conversation(&group_of("c", Visibility::Public, Some("o"), &[]), silent()).await;
    assert!(is_refused(taken, Refusal::Conflict));
    let pair = (&user("a"), &user("b"));
    let (direct, _) = store.open_direct(None, pair, &conversation("d"), silent()).await.expect("opened");
    let refused = store.delete_conversation(&direct.id, Some(&user("a")), silent()).await;
    assert!(is_refused(refused, Refusal::Forbidden));
    store.delete_conversation(&direct.id, None, silent()).await.expect("a backend may");
    let (other, made) = store.open_direct(None, pair, &conversation("d2"), silent()).await.expect("opened");
    assert!(made && other.id == conversation("d2"));
}

async fn a_long_history_is_emptied_in_steps(world: World) {
    const MESSAGES: usize = 1_201;
    let store = &world.store;
    let id = conversation("c");
    store.create_conversation(&group_of("c", Visibility::Public, Some("o"), &[]), silent()).await.expect("a group");
    let drafts = vec![("c", "o", "", "secret"); 400];
    for _ in 0..3 {
        send(store, &drafts).await;
    }
    say(store, "c", "o", "secret").await;
    store.delete_conversation(&id, None, silent()).await.expect("deleted");
    let full = async || {
        let mut count = 0;
        let mut after = 0;
        loop {
            let page = store.messages(&id, Page::After(after), 500).await.expect("a page");
            let Some(last) = page.last() else { return count };
            after = last.seq;
            count += page.iter().filter(|message| !message.content.is_empty()).count();
        }
    };
    let mut before = full().await;
    assert!(before < MESSAGES, "the first step goes with the deletion");
    while store.empty_deleted().await.expect("a step") {
        let now = full().await;
        assert!(before - now <= 500 && now < before, "{before} {now}");
        before = now;
    }
    assert_eq!(before, 0);
    let nothing: Result<bool, StoreError> = store.empty_deleted().await;
    assert!(!nothing.expect("nothing is left"));
}
