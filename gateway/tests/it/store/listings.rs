//! Contract of the store: lists in order of id.

use gateway::store::MembershipChange;
use shared::message::MemberState;
use shared::{Role, Visibility};

use crate::store::{World, contract, conversation, group_of, named, new_group, say, silent, user};

contract!(members_are_listed_in_pages, messages_blocks_and_invitations_are_listed, public_channels_are_listed);

async fn members_are_listed_in_pages(world: World) {
    let store = &world.store;
    let id = conversation("c");
    store
        .create_conversation(&group_of("c", Visibility::Public, Some("o"), &["B", "a"]), silent())
        .await
        .expect("made");
    for (who, change) in [
        ("i", MembershipChange::Invite { by: None }),
        ("n", MembershipChange::Ban { by: None }),
        ("l", MembershipChange::Join),
        ("l", MembershipChange::Leave),
    ] {
        store.change_membership(&id, &user(who), &change, silent()).await.expect("changed");
    }
    store.remember_names(&[(user("o"), named("Zed")), (user("o"), named("Ann"))]).await.expect("kept");
    say(store, "c", "o", "hi").await;
    store.set_block(&user("a"), &user("o"), true, silent()).await.expect("blocked");
    let list = async |viewer: Option<&str>, outsiders, after: Option<&str>, limit| {
        let (viewer, after) = (viewer.map(user), after.map(user));
        let page = store.listed_members(&id, viewer.as_ref(), outsiders, after.as_ref(), limit).await;
        page.expect("a page")
    };
    let all = list(Some("B"), false, None, 9).await;
    let names: Vec<&str> = all.iter().map(|member| member.user_id.as_str()).collect();
    assert_eq!(names, ["B", "a", "o"], "byte by byte");
    let owner = &all[2];
    assert_eq!((owner.username.as_deref(), owner.role, owner.state), (Some("Ann"), Role::Owner, MemberState::Accepted));
    assert_eq!((owner.read_seq, owner.delivered_seq), (Some(1), Some(1)));
    assert_eq!(list(Some("a"), false, None, 9).await[2].read_seq, None, "no position passes a block");
    assert_eq!(list(None, false, None, 9).await[2].read_seq, Some(1), "a backend isn't held by blocks");
    let outside = list(None, true, Some("a"), 9).await;
    let states: Vec<(&str, MemberState)> =
        outside.iter().map(|member| (member.user_id.as_str(), member.state)).collect();
    assert_eq!(states, [("i", MemberState::Invited), ("n", MemberState::Banned), ("o", MemberState::Accepted)]);
    assert_eq!(list(None, true, Some("B"), 1).await.len(), 1);
}

async fn messages_blocks_and_invitations_are_listed(world: World) {
    let store = &world.store;
    new_group(store, "g", &["a", "b"]).await;
    let said = say(store, "g", "a", "here").await.message;
    assert_eq!(store.message(said.id).await.expect("looked up"), Some(said.clone()));
    let other = shared::MessageId::new(said.id.get() + 1000).expect("an id");
    assert_eq!(store.message(other).await.expect("looked up"), None);
    for other in ["d", "b", "c"] {
        store.set_block(&user("a"), &user(other), true, silent()).await.expect("blocked");
    }
    assert_eq!(store.blocked_by(&user("a"), None, 2).await.expect("a page"), [user("b"), user("c")]);
    assert_eq!(store.blocked_by(&user("a"), Some(&user("c")), 2).await.expect("a page"), [user("d")]);
    assert!(store.blocked_by(&user("b"), None, 2).await.expect("a page").is_empty());
    new_group(store, "h", &["a"]).await;
    for id in ["h", "g"] {
        let change = MembershipChange::Invite { by: None };
        store.change_membership(&conversation(id), &user("i"), &change, silent()).await.expect("invited");
    }
    let page = store.invitations(&user("i"), None, 1).await.expect("a page");
    assert_eq!(page.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["g"]);
    assert!(page[0].members.is_empty() && page[0].last_message.is_none() && page[0].member_count == 2);
    let page = store.invitations(&user("i"), Some(&conversation("g")), 9).await.expect("a page");
    assert_eq!(page.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["h"]);
    assert!(store.invitations(&user("a"), None, 9).await.expect("a page").is_empty());
}

async fn public_channels_are_listed(world: World) {
    let store = &world.store;
    for (id, kind, visibility) in [
        ("c2", shared::ConversationKind::Channel, Visibility::Public),
        ("c1", shared::ConversationKind::Channel, Visibility::Public),
        ("p", shared::ConversationKind::Channel, Visibility::Private),
        ("g", shared::ConversationKind::Group, Visibility::Public),
    ] {
        let new = gateway::store::NewConversation { kind, ..group_of(id, visibility, Some("o"), &["m"]) };
        store.create_conversation(&new, silent()).await.expect("made");
    }
    let page = store.public_channels(Some("TITLE"), None, 9).await.expect("a page");
    let found: Vec<(&str, u64)> = page.items.iter().map(|one| (one.id.as_str(), one.member_count)).collect();
    assert_eq!((found, page.next), (vec![("c1", 2), ("c2", 2)], None));
    let page = store.public_channels(None, None, 1).await.expect("a page");
    assert_eq!((page.items.len(), page.next), (1, Some(conversation("c1"))));
    let page = store.public_channels(None, Some(&conversation("c1")), 9).await.expect("a page");
    assert_eq!(page.items.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["c2"]);
    assert!(store.public_channels(Some("nothing"), None, 9).await.expect("a page").items.is_empty());
}
