//! The contract of single look-ups, on both stores.

use gateway::store::MembershipChange;
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

    let seen = user("seen");
    store.set_last_seen(&[(seen.clone(), shared::Timestamp::now())]).await.expect("kept");
    let asked = [a.clone(), user("invented"), seen.clone(), b.clone()];
    let mut known = store.known_users(&asked).await.expect("looked up");
    known.sort();
    assert_eq!(known, [a.clone(), b.clone(), seen], "by a name, or because they were seen");
    assert_eq!(store.known_users(&[]).await.expect("looked up"), []);

    new_group(store, "g", &["a", "b"]).await;
    let id = say(store, "g", "a", "here").await.message.id;
    let place = store.conversation_of(id).await.expect("looked up");
    assert_eq!(place.map(|id| id.to_string()).as_deref(), Some("g"));
    let ban = MembershipChange::Ban { by: None };
    store.change_membership(&conversation("g"), &b, &ban, silent()).await.expect("banned");
    for (user, of, banned) in [(&b, "g", true), (&a, "g", false), (&user("nobody"), "g", false), (&b, "nowhere", false)]
    {
        assert_eq!(store.is_banned(&conversation(of), user).await.expect("looked up"), banned, "{user} of {of}");
    }
    let other = MessageId::new(id.get() + 1000).expect("an id");
    assert_eq!(store.conversation_of(other).await.expect("looked up"), None);
}
