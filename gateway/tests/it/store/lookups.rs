//! The contract of single look-ups, on both stores.

use gateway::store::{MembershipChange, Names, Refusal};
use shared::MessageId;

use crate::store::{World, contract, conversation, new_group, say, silent, user};

contract!(names_and_places_are_looked_up, a_username_stays_with_the_first_who_came_with_it);

async fn names_and_places_are_looked_up(world: World) {
    let store = &world.store;
    let (a, b) = (user("a"), user("b"));
    let shown = |name: &str| Names { username: None, shown: Some(name.to_owned()) };
    for given in [vec![(a.clone(), shown("Zed"))], vec![(a.clone(), shown("Ann")), (b.clone(), shown("it's"))]] {
        store.remember_names(&given).await.expect("kept");
    }
    store.remember_names(&[(a.clone(), Names::default())]).await.expect("nothing to keep");
    assert_eq!(store.username(&a).await.expect("looked up").as_deref(), Some("Ann"), "of several the last");
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

async fn a_username_stays_with_the_first_who_came_with_it(world: World) {
    let store = &world.store;
    let came = async |who: &str, username: &str| {
        let names = Names { username: Some(username.to_owned()), shown: Some("Ann".to_owned()) };
        store.remember_names(&[(user(who), names)]).await.expect("kept");
    };
    let of = async |name: &str| store.user_by_name(name).await.expect("looked up").map(|user| user.to_string());
    came("a", "ann").await;
    came("impostor", "ann").await;
    assert_eq!(of("ann").await.as_deref(), Some("a"));
    assert_eq!(of("Ann").await, None, "what is shown is not looked up, and case counts");
    // Who comes with another gives the first up, even for one that is taken.
    came("a", "anna").await;
    assert_eq!((of("ann").await, of("anna").await.as_deref()), (None, Some("a")));
    came("b", "ann").await;
    came("a", "ann").await;
    assert_eq!((of("ann").await.as_deref(), of("anna").await), (Some("b"), None));
    // Names that can't be kept, and users without a name, change nothing.
    for bad in ["", "\0", &"n".repeat(100_000)] {
        came("b", bad).await;
        assert_eq!(of(bad).await, None, "{bad:.9}");
    }
    let nameless = Names { username: None, shown: Some("Bob".to_owned()) };
    store.remember_names(&[(user("b"), nameless)]).await.expect("kept");
    assert_eq!(of("ann").await.as_deref(), Some("b"));
    // Two who come together with a name, and two who exchange theirs.
    let both = |one: &str, other: &str| {
        [("x", one), ("y", other)]
            .map(|(who, name)| (user(who), Names { username: Some(name.to_owned()), shown: None }))
    };
    store.remember_names(&both("same", "same")).await.expect("kept");
    assert!(of("same").await.is_some());
    store.remember_names(&both("one", "two")).await.expect("kept");
    store.remember_names(&both("two", "one")).await.expect("kept");
    assert_eq!((of("one").await.as_deref(), of("two").await.as_deref()), (Some("y"), Some("x")));
    assert_eq!(store.username(&user("x")).await.expect("looked up"), None, "nothing to show");
    store.remember_names(&[]).await.expect("nothing to keep");
}
