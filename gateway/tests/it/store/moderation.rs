//! Contract of the store: mutes, and walks over the messages of one user.

use std::time::Duration;

use gateway::store::{AuthorPlace, Authored, MembershipChange, MessageChange, Refusal, SendOutcome};
use shared::{Timestamp, Visibility};

use crate::store::{World, contract, conversation, group_of, is_refused, new_group, say, send, silent, stored, user};

contract!(a_muted_member_is_refused_by_the_commit, the_messages_of_one_user_are_found_in_steps);

const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

async fn a_muted_member_is_refused_by_the_commit(world: World) {
    let store = &world.store;
    let id = conversation("c");
    store
        .create_conversation(&group_of("c", Visibility::Public, Some("o"), &["m", "n"]), silent())
        .await
        .expect("made");
    let said = say(store, "c", "m", "before").await.message;
    assert_eq!(store.muted_ms(&id, &user("m")).await.expect("looked up"), 0);
    assert!(store.mute(&id, &user("m"), Some(&user("o")), HOUR).await.expect("muted"));
    let left = store.muted_ms(&id, &user("m")).await.expect("looked up");
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
    let outcomes = send(store, &[("c", "n", "", "others"), ("c", "m", "t", "no"), ("c", "o", "", "write")]).await;
    assert_eq!(outcomes[1], SendOutcome::Refused(Refusal::Muted));
    let seqs: Vec<u64> = [0, 2].map(|place: usize| stored(outcomes[place].clone()).message.seq).to_vec();
    assert_eq!(seqs, [2, 3]);
    assert_eq!(send(store, &[("c", "m", "", "alone")]).await, [SendOutcome::Refused(Refusal::Muted)]);
    let edit = MessageChange::Edit { content: "an edit".into() };
    assert!(is_refused(store.change_message(said.id, Some(&user("m")), &edit, silent()).await, Refusal::Muted));

    for change in [MembershipChange::Leave, MembershipChange::Join] {
        store.change_membership(&id, &user("m"), &change, silent()).await.expect("changed");
    }
    assert_eq!(send(store, &[("c", "m", "t", "no")]).await, [SendOutcome::Refused(Refusal::Muted)], "it outlasts that");
    assert!(store.mute(&id, &user("m"), None, None).await.expect("a backend may"));
    assert!(!store.mute(&id, &user("m"), None, None).await.expect("once more changes nothing"));
    assert_eq!(say(store, "c", "m", "again").await.message.seq, 4);
    assert!(store.mute(&id, &user("m"), None, Some(Duration::from_millis(50))).await.expect("muted"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(say(store, "c", "m", "later").await.message.seq, 5);

    let role = MembershipChange::SetRole { by: None, role: shared::Role::Admin };
    store.change_membership(&id, &user("n"), &role, silent()).await.expect("an admin");
    for (by, whom, refusal) in [
        ("m", "o", Refusal::Forbidden),
        ("n", "o", Refusal::Forbidden),
        ("x", "m", Refusal::NotMember),
        ("o", "x", Refusal::NotFound),
    ] {
        assert!(is_refused(store.mute(&id, &user(whom), Some(&user(by)), HOUR).await, refusal), "{by} {whom}");
    }
    assert!(is_refused(store.mute(&conversation("nowhere"), &user("m"), None, HOUR).await, Refusal::NotFound));
}

async fn the_messages_of_one_user_are_found_in_steps(world: World) {
    let store = &world.store;
    new_group(store, "a", &["s", "t"]).await;
    new_group(store, "b", &["s", "t"]).await;
    new_group(store, "z", &["t"]).await;
    let drafts: Vec<_> = (0..300).flat_map(|_| [("a", "s", "", "spam"), ("a", "t", "", "ham")]).collect();
    send(store, &drafts).await;
    send(store, &[("b", "s", "", "spam"), ("z", "t", "", "ham")]).await;
    store
        .change_membership(&conversation("b"), &user("s"), &MembershipChange::Ban { by: None }, silent())
        .await
        .expect("banned");
    let walk = async |of: &Authored| {
        let (mut found, mut place): (Vec<AuthorPlace>, Option<AuthorPlace>) = (Vec::new(), None);
        loop {
            let page = store.authored(of, place.as_ref()).await.expect("a step");
            assert!(page.messages.len() <= 500);
            let places = page.messages.iter().map(|message| {
                assert_eq!((message.sender_id.as_str(), message.content.as_str()), ("s", "spam"));
                AuthorPlace { conversation: message.conversation_id.clone(), seq: message.seq }
            });
            found.extend(places);
            place = page.next;
            if place.is_none() {
                return found;
            }
        }
    };
    let all = Authored { user: user("s"), conversation: None, since: None };
    let found = walk(&all).await;
    assert_eq!(found.len(), 301);
    assert!(found.iter().take(300).map(|place| place.seq).eq((1..=600).step_by(2)));
    assert_eq!(found[300], AuthorPlace { conversation: conversation("b"), seq: 1 });
    assert_eq!(walk(&Authored { conversation: Some(conversation("b")), ..all.clone() }).await.len(), 1);
    let later = Timestamp::from_unix_ms(Timestamp::now().unix_ms() + 3_600_000);
    assert!(walk(&Authored { since: Some(later), ..all.clone() }).await.is_empty());
    assert!(walk(&Authored { user: user("nobody"), ..all }).await.is_empty());
}
