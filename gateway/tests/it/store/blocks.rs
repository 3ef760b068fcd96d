//! Contract of the store: what a block between two forbids, whichever of them made it.

use std::sync::Arc;

use gateway::store::{MembershipChange, Partner, Receipt, ReceiptKind, Refusal, SendOutcome, Store};
use shared::{Role, UserId, Visibility};

use crate::store::{World, contract, conversation, group_of, is_refused, new_group, send, silent, user};

contract!(
    blocks_are_found_from_both_sides,
    nobody_is_brought_in_across_a_block,
    of_many_the_blocked_stay_out,
    a_backend_opens_what_is_blocked_and_the_block_holds_in_it,
    partners_tell_of_blocks,
    positions_are_not_shown_across_a_block,
);

async fn block(store: &Arc<dyn Store>, blocker: &str, blocked: &str) {
    assert!(store.set_block(&user(blocker), &user(blocked), true, silent()).await.expect("a block"));
}

fn users(ids: &[&str]) -> Vec<UserId> {
    ids.iter().map(|id| user(id)).collect()
}

async fn blocks_are_found_from_both_sides(world: World) {
    let store = &world.store;
    block(store, "a", "b").await;
    block(store, "c", "a").await;
    block(store, "a", "d").await;
    block(store, "d", "a").await;
    block(store, "x", "y").await;
    let others = users(&["y", "d", "c", "a", "b", "stranger"]);
    let found = async |of: &str| store.blocked_with(&user(of), &others).await.expect("looked up");
    assert_eq!(found("a").await, users(&["b", "c", "d"]));
    assert_eq!(found("b").await, users(&["a"]));
    assert_eq!(found("c").await, users(&["a"]));
    assert_eq!(found("x").await, users(&["y"]));
    assert!(found("stranger").await.is_empty());
    assert!(store.blocked_with(&user("a"), &[]).await.expect("looked up").is_empty());
    assert!(store.set_block(&user("a"), &user("d"), false, silent()).await.expect("lifted"));
    assert_eq!(found("d").await, users(&["a"]), "the other's block stays");
    assert!(store.set_block(&user("d"), &user("a"), false, silent()).await.expect("lifted"));
    assert!(found("d").await.is_empty());
}

async fn nobody_is_brought_in_across_a_block(world: World) {
    let store = &world.store;
    store.create_conversation(&group_of("c", Visibility::Public, Some("o"), &["m"]), silent()).await.expect("a group");
    block(store, "o", "by-owner").await;
    block(store, "of-owner", "o").await;
    block(store, "m", "other").await;
    block(store, "o", "m").await;
    let change = async |who: &str, change: MembershipChange| {
        store.change_membership(&conversation("c"), &user(who), &change, silent()).await
    };
    let add = |by: Option<&str>| MembershipChange::Add { by: by.map(user), role: Role::Member };
    let invite = |by: Option<&str>| MembershipChange::Invite { by: by.map(user) };
    for who in ["by-owner", "of-owner"] {
        assert!(is_refused(change(who, add(Some("o"))).await, Refusal::Blocked), "{who} added");
        assert!(is_refused(change(who, invite(Some("o"))).await, Refusal::Blocked), "{who} invited");
        assert!(is_refused(change(who, add(Some("m"))).await, Refusal::Forbidden), "rights come first");
    }
    assert!(change("other", add(Some("o"))).await.expect("a block of others").changed);
    assert!(change("by-owner", MembershipChange::Join).await.expect("by oneself").changed);
    assert!(change("of-owner", invite(None)).await.expect("by a backend").changed);
    assert!(change("of-owner", MembershipChange::Join).await.expect("invited").changed);
    // Those who are in stay in, and are moderated as ever.
    assert!(!change("by-owner", add(Some("o"))).await.expect("a member").changed);
    assert!(
        change("m", MembershipChange::SetRole { by: Some(user("o")), role: Role::Admin }).await.expect("o").changed
    );
    assert!(change("by-owner", MembershipChange::Kick { by: Some(user("o")) }).await.expect("o").changed);
    assert!(change("by-owner", add(None)).await.expect("by a backend").changed);
}

async fn of_many_the_blocked_stay_out(world: World) {
    let store = &world.store;
    store.create_conversation(&group_of("c", Visibility::Private, Some("o"), &["m"]), silent()).await.expect("a group");
    block(store, "o", "x").await;
    block(store, "y", "o").await;
    block(store, "o", "m").await;
    let asked = users(&["y", "a", "m", "x", "b"]);
    let by = user("o");
    let outcome = store.add_members(&conversation("c"), &asked, Some(&by), silent()).await.expect("added");
    assert_eq!((&outcome.added, &outcome.blocked), (&users(&["a", "b"]), &users(&["y", "x"])));
    assert!(outcome.banned.is_empty() && outcome.conversation.member_count == 4);
    let nobody = store.add_members(&conversation("c"), &users(&["x"]), Some(&by), silent()).await.expect("nobody");
    assert_eq!((nobody.added, nobody.blocked), (Vec::new(), users(&["x"])));
    let outcome = store.add_members(&conversation("c"), &asked, None, silent()).await.expect("by a backend");
    assert_eq!((outcome.added, outcome.blocked), (users(&["y", "x"]), Vec::new()));
}

async fn a_backend_opens_what_is_blocked_and_the_block_holds_in_it(world: World) {
    let store = &world.store;
    let (a, b) = (user("a"), user("b"));
    block(store, "a", "b").await;
    for by in [&a, &b] {
        let refused = store.open_direct(Some(by), (&a, &b), &conversation("ab"), silent()).await;
        assert!(is_refused(refused, Refusal::Blocked), "{by}");
    }
    let (made, is_new) = store.open_direct(None, (&a, &b), &conversation("ab"), silent()).await.expect("a backend");
    assert!(is_new && made.member_count == 2);
    assert!(store.members(&conversation("ab")).await.expect("members").blocked);
    let outcomes = send(store, &[("ab", "a", "", "x"), ("ab", "b", "", "y")]).await;
    assert!(outcomes.iter().all(|outcome| *outcome == SendOutcome::Refused(Refusal::Blocked)), "{outcomes:?}");
    store.set_block(&a, &b, false, silent()).await.expect("lifted");
    crate::store::say(store, "ab", "b", "again").await;
}

async fn partners_tell_of_blocks(world: World) {
    let store = &world.store;
    new_group(store, "g", &["a", "b", "c", "d"]).await;
    block(store, "a", "b").await;
    block(store, "c", "a").await;
    let asked = users(&["a", "b", "d"]);
    let partners = store.partners(&asked, 10).await.expect("partners");
    let told = |of: &[Partner]| of.iter().map(|p| (p.user.to_string(), p.blocked)).collect::<Vec<_>>();
    let expected = |list: &[(&str, bool)]| list.iter().map(|(id, on)| ((*id).to_owned(), *on)).collect::<Vec<_>>();
    assert_eq!(told(&partners[0]), expected(&[("b", true), ("c", true), ("d", false)]));
    assert_eq!(told(&partners[1]), expected(&[("a", true), ("c", false), ("d", false)]));
    assert_eq!(told(&partners[2]), expected(&[("a", false), ("b", false), ("c", false)]));
}

async fn positions_are_not_shown_across_a_block(world: World) {
    let store = &world.store;
    new_group(store, "g", &["a", "b", "c"]).await;
    crate::store::say(store, "g", "a", "read by its sender").await;
    crate::store::say(store, "g", "b", "not by this one").await;
    let receipts = ["a", "b", "c"].map(|reader| Receipt {
        kind: ReceiptKind::Read,
        user: user(reader),
        conversation: conversation("g"),
        up_to: None,
    });
    store.receipts(&receipts, silent()).await.expect("taken");
    block(store, "a", "b").await;
    let positions = async |viewer: Option<&str>| {
        let viewer = viewer.map(user);
        let one = store.conversation(&conversation("g"), viewer.as_ref()).await.expect("seen").members;
        if let Some(viewer) = viewer {
            let listed = store.conversations(&viewer, None, 9).await.expect("a list").items.remove(0).members;
            assert_eq!(listed, one);
        }
        one.iter().map(|member| member.read_seq).collect::<Vec<_>>()
    };
    assert_eq!(positions(Some("a")).await, [2, 0, 2]);
    assert_eq!(positions(Some("b")).await, [0, 2, 2]);
    assert_eq!(positions(Some("c")).await, [2, 2, 2]);
    assert_eq!(positions(None).await, [2, 2, 2]);
}
