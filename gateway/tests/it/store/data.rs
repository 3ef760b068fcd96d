//! Contract of the store: data beside messages' contents.

use gateway::store::{MessageChange, Page, Refusal, SendOutcome};
use shared::MessageData;

use crate::store::{World, batch, contract, conversation, new_group, silent, stored, user};

contract!(data_is_kept_with_its_message, a_batch_that_comes_again_has_its_data);

fn some(json: &str) -> Option<MessageData> {
    Some(MessageData::parse(json).expect("an object"))
}

async fn data_is_kept_with_its_message(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a", "b"]).await;
    let mut three = batch(store, &[("c", "a", "t", "one"), ("c", "b", "", "two"), ("c", "a", "u", "three")]).await;
    three.messages[0].data = some(r#"{"n":1}"#);
    three.messages[2].data = some(r#"{"mentions":["b"]}"#);
    let said: Vec<_> =
        store.send(&three).await.expect("taken").outcomes.into_iter().map(|outcome| stored(outcome).message).collect();
    let kept = store.messages(&conversation("c"), Page::Newest, 9).await.expect("a page");
    assert_eq!(kept, said);
    assert_eq!(kept[0].data, three.messages[0].data);
    assert_eq!((&kept[1].data, &kept[2].data), (&None, &three.messages[2].data));

    // What is refused, or was stored before, takes nothing with it.
    let mut mixed =
        batch(store, &[("c", "a", "t", "one"), ("c", "a", "t", "one"), ("c", "x", "", "no"), ("c", "b", "", "four")])
            .await;
    mixed.messages[0].data = some(r#"{"n":1}"#);
    mixed.messages[1].data = some(r#"{"n":2}"#);
    mixed.messages[2].data = some(r#"{"n":3}"#);
    mixed.messages[3].data = some(r#"{"n":4}"#);
    let outcomes = store.send(&mixed).await.expect("taken").outcomes;
    assert_eq!(outcomes[0], SendOutcome::Duplicate(kept[0].clone()));
    assert_eq!(outcomes[1], SendOutcome::Refused(Refusal::UsedTempId), "other data is another message");
    assert_eq!(outcomes[2], SendOutcome::Refused(Refusal::NotMember));
    let fourth = stored(outcomes[3].clone()).message;
    assert_eq!((fourth.seq, &fourth.data), (4, &mixed.messages[3].data));
    assert_eq!(store.message(fourth.id).await.expect("looked up"), Some(fourth));

    // An edit leaves it, and a deletion takes it.
    let id = kept[0].id;
    let edit = MessageChange::Edit { content: "ONE".into() };
    let edited = store.change_message(id, Some(&user("a")), &edit, silent()).await.expect("edited").message;
    assert_eq!(edited.data, kept[0].data);
    assert_eq!(store.message(id).await.expect("looked up"), Some(edited));
    let deleted = store.change_message(id, Some(&user("a")), &MessageChange::Delete, silent()).await.expect("deleted");
    assert_eq!(deleted.message.data, None);
    assert_eq!(store.message(id).await.expect("looked up"), Some(deleted.message));
}

/// The answer to a commit was lost: the same batch comes again.
async fn a_batch_that_comes_again_has_its_data(world: World) {
    let store = &world.store;
    new_group(store, "c", &["a"]).await;
    let mut one = batch(store, &[("c", "a", "", "one")]).await;
    one.messages[0].data = some(r#"{"n":1}"#);
    let first = store.send(&one).await.expect("taken");
    assert_eq!(store.send(&one).await.expect("taken"), first);
    let id = one.messages[0].id;
    store.change_message(id, None, &MessageChange::Delete, silent()).await.expect("deleted");
    store.send(&one).await.expect("taken");
    assert_eq!(store.message(id).await.expect("looked up").expect("it is there").data, None, "it doesn't come back");
}
