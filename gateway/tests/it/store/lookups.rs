//! The contract of single look-ups, on both stores.

use gateway::store::{MembershipChange, Refusal};
use shared::MessageId;

use crate::store::{World, contract, conversation, new_group, say, silent, user};

contract!(names_and_places_are_looked_up);

async fn names_and_places_are_looked_up(world: World) {
    let store = &world.store;
    let (a, b) = (user("a"), user("b"));
    let given = [(a.clone(), "Zed".to_owned()), (a.clone(), "Ann".to_owned()), (b.clone(), "it's".to_owned())];
    store.remember_usernames(&given).await.expect("kept");
    assert_eq!(store.username(&a).await.expect("looked up").as_deref(), Some("Ann"), "of several the first");
    assert_eq!(store.username(&b).await.expect("looked up").as_deref(), Some("it's"));
    assert_eq!(store.username(&user("nobody")).await.expect("looked up"), None);

    new_group(store, "g", &["a", "b"]).await;
    let id = say(store, "g", "a", "here").await.message.id;
    let place = store.conversation_of(id).await.expect("looked up");
    assert_eq!(place.map(|id| id.to_string()).as_deref(), Some("g"));
    let ban = MembershipChange::Ban { by: None };
    store.change_membership(&conversation("g"), &b, &ban, silent()).await.expect("banned");
    for (user, of, refusal) in [
        (Some(&b), "g", Refusal::Banned),
        (Some(&user("nobody")), "g", Refusal::NotMember),
        (None, "g", Refusal::NotMember),
        (Some(&b), "nowhere", Refusal::NotFound),
        (None, "nowhere", Refusal::NotFound),
    ] {
        assert_eq!(store.outside(&conversation(of), user).await.expect("looked up"), refusal, "{user:?} of {of}");
    }
    let other = MessageId::new(id.get() + 1000).expect("an id");
    assert_eq!(store.conversation_of(other).await.expect("looked up"), None);
}
