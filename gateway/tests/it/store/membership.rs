//! Contract of the store: the members of a conversation, and the right to change them.

use std::sync::Arc;

use gateway::store::{MembershipChange, MembershipOutcome, NewConversation, Refusal, Store, StoreError};
use shared::{Role, Visibility};

use crate::store::{World, contract, conversation, group_of, is_refused, say, silent, telling, user};

contract!(
    who_may_come_in,
    who_may_go,
    who_may_moderate,
    the_last_owner_stays,
    a_direct_conversation_keeps_its_two,
    every_change_raises_the_version_and_tells,
    what_a_viewer_sees,
    an_id_is_taken_once,
    who_was_in_is_remembered,
);

async fn change(store: &Arc<dyn Store>, who: &str, change: MembershipChange) -> Result<MembershipOutcome, StoreError> {
    store.change_membership(&conversation("c"), &user(who), &change, silent()).await
}

/// Whether the change was carried out and changed something.
async fn changes(store: &Arc<dyn Store>, who: &str, what: MembershipChange) -> bool {
    change(store, who, what).await.expect("allowed").changed
}

async fn refuses(store: &Arc<dyn Store>, who: &str, what: MembershipChange, refusal: Refusal) {
    let result = change(store, who, what.clone()).await;
    assert!(is_refused(result, refusal), "{who} {what:?} must be {refusal:?}");
}

async fn make(store: &Arc<dyn Store>, visibility: Visibility, owner: Option<&str>, members: &[&str]) {
    store.create_conversation(&group_of("c", visibility, owner, members), silent()).await.expect("a group");
}

fn add(by: Option<&str>, role: Role) -> MembershipChange {
    MembershipChange::Add { by: by.map(user), role }
}
fn invite(by: &str) -> MembershipChange {
    MembershipChange::Invite { by: Some(user(by)) }
}
fn kick(by: &str) -> MembershipChange {
    MembershipChange::Kick { by: Some(user(by)) }
}
fn ban(by: &str) -> MembershipChange {
    MembershipChange::Ban { by: Some(user(by)) }
}
fn unban(by: &str) -> MembershipChange {
    MembershipChange::Unban { by: Some(user(by)) }
}
fn role(by: Option<&str>, role: Role) -> MembershipChange {
    MembershipChange::SetRole { by: by.map(user), role }
}

async fn who_may_come_in(world: World) {
    let store = &world.store;
    make(store, Visibility::Private, Some("o"), &[]).await;
    let id = conversation("c");
    refuses(store, "s", MembershipChange::Join, Refusal::Forbidden).await;
    assert!(is_refused(store.join_password(&id, &user("s")).await, Refusal::Forbidden));
    assert!(changes(store, "s", invite("o")).await);
    assert!(!changes(store, "s", invite("o")).await);
    assert_eq!(store.join_password(&id, &user("s")).await.expect("invited"), None);
    let outcome = change(store, "s", MembershipChange::Join).await.expect("invited");
    assert!(outcome.changed && !outcome.was_member && outcome.is_member);
    assert_eq!(outcome.members.role(&user("s")), Some(Role::Member));
    assert!(!changes(store, "s", MembershipChange::Join).await);
    assert!(changes(store, "s", ban("o")).await);
    refuses(store, "s", MembershipChange::Join, Refusal::Banned).await;
    refuses(store, "s", add(Some("o"), Role::Member), Refusal::Banned).await;
    refuses(store, "s", invite("o"), Refusal::Banned).await;
    assert!(is_refused(store.join_password(&id, &user("s")).await, Refusal::Banned));
    assert!(changes(store, "s", unban("o")).await);
    assert!(!changes(store, "s", unban("o")).await);
    assert!(changes(store, "s", add(Some("o"), Role::Admin)).await);

    let guarded =
        NewConversation { password_hash: Some("$phc".into()), ..group_of("p", Visibility::Public, None, &[]) };
    assert!(store.create_conversation(&guarded, silent()).await.expect("a group").has_password);
    let hash = store.join_password(&conversation("p"), &user("s")).await.expect("public");
    assert_eq!(hash.as_deref(), Some("$phc"));
    assert!(is_refused(store.join_password(&conversation("nowhere"), &user("s")).await, Refusal::NotFound));
}

async fn who_may_go(world: World) {
    let store = &world.store;
    make(store, Visibility::Private, Some("o"), &["m"]).await;
    refuses(store, "s", MembershipChange::Leave, Refusal::NotMember).await;
    assert!(changes(store, "s", invite("o")).await);
    let declined = change(store, "s", MembershipChange::Leave).await.expect("declined");
    assert!(declined.changed && !declined.was_member && !declined.is_member);
    let gone = change(store, "m", MembershipChange::Leave).await.expect("gone");
    assert!(gone.changed && gone.was_member && !gone.is_member);
    assert_eq!(gone.conversation.member_count, 1);
    assert!(!changes(store, "m", MembershipChange::Leave).await, "a repeated leave changes nothing");
    refuses(store, "m", MembershipChange::Join, Refusal::Forbidden).await;
    assert!(store.unread(&[user("m")]).await.expect("counts")[0].is_empty());
    assert!(store.conversations(&user("m"), None, 9).await.expect("a list").items.is_empty());
}

async fn who_may_moderate(world: World) {
    let store = &world.store;
    make(store, Visibility::Public, Some("o"), &["m", "n"]).await;
    assert!(changes(store, "a", add(Some("o"), Role::Admin)).await);
    for what in [kick("m"), ban("m"), unban("m"), invite("m"), add(Some("m"), Role::Member)] {
        refuses(store, "n", what, Refusal::Forbidden).await;
    }
    refuses(store, "n", kick("stranger"), Refusal::NotMember).await;
    refuses(store, "o", kick("a"), Refusal::Forbidden).await;
    refuses(store, "o", ban("a"), Refusal::Forbidden).await;
    refuses(store, "x", add(Some("a"), Role::Admin), Refusal::Forbidden).await;
    refuses(store, "x", add(Some("o"), Role::Owner), Refusal::Forbidden).await;
    refuses(store, "x", add(None, Role::Owner), Refusal::Forbidden).await;
    refuses(store, "n", role(Some("a"), Role::Admin), Refusal::Forbidden).await;
    refuses(store, "x", role(Some("o"), Role::Admin), Refusal::NotFound).await;
    refuses(store, "x", kick("o"), Refusal::NotFound).await;
    assert!(changes(store, "n", kick("a")).await);
    assert!(!changes(store, "n", kick("a")).await);
    assert!(changes(store, "stranger", ban("a")).await, "a stranger can be banned");
    assert!(!changes(store, "stranger", ban("a")).await);
    refuses(store, "m", kick("stranger"), Refusal::Banned).await;
    assert!(changes(store, "m", role(Some("o"), Role::Admin)).await);
    assert!(!changes(store, "m", role(Some("o"), Role::Admin)).await);
    assert!(changes(store, "m", ban("o")).await);
    refuses(store, "m", kick("stranger"), Refusal::Banned).await;
}

async fn the_last_owner_stays(world: World) {
    let store = &world.store;
    make(store, Visibility::Private, Some("o"), &["m"]).await;
    refuses(store, "o", MembershipChange::Leave, Refusal::LastOwner).await;
    refuses(store, "o", kick("o"), Refusal::LastOwner).await;
    refuses(store, "o", role(Some("o"), Role::Member), Refusal::LastOwner).await;
    refuses(store, "o", role(None, Role::Member), Refusal::LastOwner).await;
    refuses(store, "o", ban("o"), Refusal::LastOwner).await;
    // Several may be, named by an owner or by a backend; no admin names one.
    assert!(changes(store, "m", role(Some("o"), Role::Admin)).await);
    refuses(store, "m", role(Some("m"), Role::Owner), Refusal::Forbidden).await;
    assert!(changes(store, "m", role(Some("o"), Role::Owner)).await);
    assert!(!changes(store, "m", role(None, Role::Owner)).await);
    assert!(changes(store, "o", role(Some("m"), Role::Member)).await);
    assert!(changes(store, "o", role(None, Role::Owner)).await);
    assert!(changes(store, "o", role(Some("o"), Role::Member)).await);
    assert!(changes(store, "o", MembershipChange::Leave).await);
    assert!(changes(store, "m", MembershipChange::Leave).await, "alone, even the last owner may go");
    let members = store.members(&conversation("c")).await.expect("members");
    assert!(members.list.is_empty());
}

async fn a_direct_conversation_keeps_its_two(world: World) {
    let store = &world.store;
    store.open_direct(Some(&user("a")), (&user("a"), &user("b")), &conversation("c"), silent()).await.expect("opened");
    refuses(store, "a", MembershipChange::Leave, Refusal::Forbidden).await;
    refuses(store, "x", add(None, Role::Member), Refusal::Forbidden).await;
    refuses(store, "b", MembershipChange::Ban { by: None }, Refusal::Forbidden).await;
    refuses(store, "x", MembershipChange::Join, Refusal::NotFound).await;
    refuses(store, "x", kick("y"), Refusal::NotMember).await;
}

async fn every_change_raises_the_version_and_tells(world: World) {
    let store = &world.store;
    make(store, Visibility::Public, Some("o"), &["b"]).await;
    let mut version = store.members(&conversation("c")).await.expect("members").version;
    let row = store.reserve_ids(9).await.expect("ids").start;
    let steps =
        [MembershipChange::Join, MembershipChange::Leave, ban("o"), unban("o"), invite("o"), MembershipChange::Join];
    for (place, step) in (0u64..).zip(steps) {
        let outbox = telling(row + place, "o", |outcome: &MembershipOutcome| outcome.members.version.to_string());
        let outcome = store.change_membership(&conversation("c"), &user("m"), &step, outbox).await.expect("allowed");
        let members = store.members(&conversation("c")).await.expect("members");
        assert_eq!(*outcome.members, members, "{step:?}");
        assert_eq!(members.version, version + 1);
        version = members.version;
        let sent = say(store, "c", "o", "x").await;
        assert_eq!(sent.members_version, version, "a send tells the version that it saw");
    }
    let rows = store.take_unpublished(&"test:0".into(), 0, 0, (0, 99)).await.expect("rows");
    let told: Vec<_> = rows.iter().flat_map(|row| &row.events).map(|event| event.body.clone()).collect();
    assert_eq!(told, (version - 5..=version).map(|version| version.to_string()).collect::<Vec<_>>());
    assert!(is_refused(store.members(&conversation("nowhere")).await, Refusal::NotFound));
}

async fn what_a_viewer_sees(world: World) {
    let store = &world.store;
    make(store, Visibility::Private, Some("o"), &["m"]).await;
    say(store, "c", "o", "secret").await;
    let id = conversation("c");
    assert!(is_refused(store.conversation(&id, Some(&user("s"))).await, Refusal::NotMember));
    assert!(is_refused(store.conversation(&conversation("nowhere"), None).await, Refusal::NotFound));
    let member = store.conversation(&id, Some(&user("m"))).await.expect("a member sees it");
    assert_eq!((member.unread, member.members.len(), member.title.as_deref()), (Some(1), 2, Some("A title")));
    let backend = store.conversation(&id, None).await.expect("a backend sees it");
    assert_eq!((backend.unread, backend.members.len()), (None, 2));
    assert_eq!(backend.last_message, member.last_message);
    assert!(changes(store, "s", invite("o")).await);
    let invited = store.conversation(&id, Some(&user("s"))).await.expect("who is invited sees it");
    assert_eq!((invited.last_message, invited.members.len(), invited.member_count), (None, 0, 2));
}

async fn an_id_is_taken_once(world: World) {
    let store = &world.store;
    let new = group_of("c", Visibility::Public, Some("o"), &["m", "o", "m"]);
    let made = store.create_conversation(&new, silent()).await.expect("made");
    let roles: Vec<_> = made.members.iter().map(|member| (member.user_id.as_str(), member.role)).collect();
    assert_eq!(roles, [("m", Role::Member), ("o", Role::Owner)]);
    assert!(is_refused(store.create_conversation(&new, silent()).await, Refusal::Conflict));
}

/// However often somebody leaves and comes back: for each message it is known who was in when it was said.
async fn who_was_in_is_remembered(world: World) {
    let store = &world.store;
    make(store, Visibility::Public, Some("o"), &["a"]).await;
    let id = conversation("c");
    let mut expected = Vec::new();
    let steps = [
        ("m", MembershipChange::Join),
        ("s", invite("o")),
        ("m", MembershipChange::Leave),
        ("m", MembershipChange::Join),
        ("a", MembershipChange::Leave),
        ("m", kick("o")),
        ("m", MembershipChange::Join),
        ("m", ban("o")),
        ("x", ban("o")),
        ("m", unban("o")),
        ("m", add(Some("o"), Role::Admin)),
        ("m", role(Some("o"), Role::Member)),
        ("s", MembershipChange::Join),
        ("s", MembershipChange::Leave),
        ("s", invite("o")),
    ];
    for step in 0..=steps.len() {
        // In turn with messages in between and without.
        if step % 3 != 1 {
            let seq = say(store, "c", "o", "x").await.message.seq;
            let members = store.members(&id).await.expect("members");
            assert!(members.since_seq < seq, "the members of now are those that it was for");
            expected.push((seq, members.list.into_iter().map(|(user, _)| user).collect::<Vec<_>>()));
        }
        if let Some((who, what)) = steps.get(step) {
            assert!(changes(store, who, what.clone()).await, "{who} {what:?}");
        }
    }
    for (seq, then) in expected {
        assert_eq!(store.members_at(&id, seq).await.expect("members"), then, "message {seq}");
    }
    assert!(store.members_at(&conversation("nowhere"), 1).await.expect("nobody").is_empty());
}
