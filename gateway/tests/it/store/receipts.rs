//! Contract of the store: read and delivered positions.

use gateway::store::{MembershipChange, Receipt, ReceiptChange, ReceiptKind, Refusal};
use shared::{MessageId, Role, Visibility};

use crate::store::{World, contract, conversation, group_of, new_group, positions, say, silent, telling, user};

contract!(
    a_read_marks_what_others_wrote,
    a_reply_leaves_the_earlier_messages_unread_for_receipts,
    delivered_moves_alone,
    receipts_of_one_batch_follow_each_other,
    refused_receipts_stand_alone,
    a_receipt_lists_the_newest_hundred,
    receipts_go_to_members_of_now_and_not_across_a_block,
);

fn receipt(kind: ReceiptKind, by: &str, up_to: Option<MessageId>) -> Receipt {
    Receipt { kind, user: user(by), conversation: conversation("c"), up_to }
}

async fn apply(world: &World, receipts: &[Receipt]) -> Vec<Result<ReceiptChange, Refusal>> {
    world.store.receipts(receipts, silent()).await.expect("the receipts are taken")
}

async fn read(world: &World, by: &str, up_to: Option<MessageId>) -> ReceiptChange {
    apply(world, &[receipt(ReceiptKind::Read, by, up_to)]).await.remove(0).expect("a member's receipt")
}

async fn a_read_marks_what_others_wrote(world: World) {
    new_group(&world.store, "c", &["a", "b", "r"]).await;
    let mut ids = Vec::new();
    for sender in ["a", "b", "a", "a"] {
        ids.push(say(&world.store, "c", sender, "x").await.message.id);
    }
    let first = read(&world, "r", Some(ids[2])).await;
    assert_eq!(
        (first.up_to_seq, first.up_to, first.marked_count, first.last_seq, first.moved),
        (3, Some(ids[2]), 3, 4, true)
    );
    assert_eq!(first.by_sender, [(user("a"), vec![ids[0], ids[2]]), (user("b"), vec![ids[1]])]);
    assert_eq!(positions(&world.store, "c", "r").await, (3, 3));
    // An older position and the same one move nothing.
    for up_to in [ids[0], ids[2]] {
        let again = read(&world, "r", Some(up_to)).await;
        assert_eq!((again.up_to_seq, again.up_to, again.marked_count, again.moved), (3, Some(ids[2]), 0, false));
        assert!(again.by_sender.is_empty());
    }
    let rest = read(&world, "r", None).await;
    assert_eq!((rest.up_to_seq, rest.marked_count, rest.moved), (4, 1, true));
}

async fn a_reply_leaves_the_earlier_messages_unread_for_receipts(world: World) {
    new_group(&world.store, "c", &["a", "r"]).await;
    let asked = say(&world.store, "c", "a", "a question").await.message.id;
    say(&world.store, "c", "r", "an answer").await;
    assert_eq!(positions(&world.store, "c", "r").await, (0, 2), "seen, not read");
    let late = read(&world, "r", None).await;
    assert_eq!((late.marked_count, late.moved), (1, true));
    assert_eq!(late.by_sender, [(user("a"), vec![asked])]);
}

async fn delivered_moves_alone(world: World) {
    new_group(&world.store, "c", &["a", "r"]).await;
    say(&world.store, "c", "a", "1").await;
    say(&world.store, "c", "a", "2").await;
    let delivered = apply(&world, &[receipt(ReceiptKind::Delivered, "r", None)]).await.remove(0).expect("taken");
    assert_eq!((delivered.up_to_seq, delivered.marked_count, delivered.moved), (2, 2, true));
    assert_eq!(positions(&world.store, "c", "r").await, (0, 0));
    assert_eq!(read(&world, "r", None).await.marked_count, 2);
    // What is read was delivered.
    say(&world.store, "c", "a", "3").await;
    read(&world, "r", None).await;
    let delivered = apply(&world, &[receipt(ReceiptKind::Delivered, "r", None)]).await.remove(0).expect("taken");
    assert!(!delivered.moved);
    // A conversation without a message.
    new_group(&world.store, "empty", &["r"]).await;
    let empty = Receipt { conversation: conversation("empty"), ..receipt(ReceiptKind::Read, "r", None) };
    let change = apply(&world, &[empty]).await.remove(0).expect("taken");
    assert_eq!((change.up_to_seq, change.up_to, change.moved), (0, None, false));
}

async fn receipts_of_one_batch_follow_each_other(world: World) {
    new_group(&world.store, "c", &["a", "r"]).await;
    let one = say(&world.store, "c", "a", "1").await.message.id;
    say(&world.store, "c", "a", "2").await;
    let batch = [
        receipt(ReceiptKind::Read, "r", Some(one)),
        receipt(ReceiptKind::Read, "r", None),
        receipt(ReceiptKind::Read, "r", Some(one)),
        receipt(ReceiptKind::Delivered, "r", None),
    ];
    let row = world.store.reserve_ids(1).await.expect("ids").start;
    let outbox = telling(row, "a", |changes: &Vec<Result<ReceiptChange, Refusal>>| changes.len().to_string());
    let changes = world.store.receipts(&batch, outbox).await.expect("taken");
    let told = changes
        .into_iter()
        .map(|change| change.expect("a member's"))
        .map(|change| (change.up_to_seq, change.marked_count));
    assert_eq!(told.collect::<Vec<_>>(), [(1, 1), (2, 1), (2, 0), (2, 0)]);
    assert_eq!(positions(&world.store, "c", "r").await, (2, 2));
    let pending = world.store.take_unpublished(&"test:0".into(), 0, 0, (0, 10)).await.expect("rows");
    let row = pending.iter().find(|pending| pending.id == row).expect("written with the change");
    assert_eq!(row.events[0].body, "4");
}

async fn refused_receipts_stand_alone(world: World) {
    new_group(&world.store, "c", &["a", "k"]).await;
    new_group(&world.store, "d", &["a"]).await;
    say(&world.store, "c", "a", "1").await;
    let elsewhere = say(&world.store, "d", "a", "1").await.message.id;
    let kick = MembershipChange::Kick { by: None };
    world.store.change_membership(&conversation("c"), &user("k"), &kick, silent()).await.expect("k goes");
    let nowhere = Receipt { conversation: conversation("nowhere"), ..receipt(ReceiptKind::Read, "a", None) };
    let changes = apply(
        &world,
        &[
            nowhere,
            receipt(ReceiptKind::Read, "stranger", None),
            receipt(ReceiptKind::Read, "k", None),
            receipt(ReceiptKind::Read, "a", Some(elsewhere)),
            receipt(ReceiptKind::Read, "a", None),
        ],
    )
    .await;
    let refusals: Vec<_> = changes.into_iter().map(Result::err).collect();
    let not_found = Some(Refusal::NotFound);
    assert_eq!(refusals, [not_found, Some(Refusal::NotMember), Some(Refusal::NotMember), not_found, None]);
    assert!(apply(&world, &[]).await.is_empty());
}

async fn a_receipt_lists_the_newest_hundred(world: World) {
    new_group(&world.store, "c", &["a", "r"]).await;
    let drafts = vec![("c", "a", "", "x"); 130];
    crate::store::send(&world.store, &drafts).await;
    let change = read(&world, "r", None).await;
    assert_eq!(change.marked_count, 130);
    let (_, ids) = change.by_sender.first().expect("a sender");
    assert_eq!((ids.len(), ids.last().copied()), (100, change.up_to));
    // A newcomer begins at the newest message.
    let add = MembershipChange::Add { by: None, role: Role::Member };
    world.store.change_membership(&conversation("c"), &user("n"), &add, silent()).await.expect("n comes");
    assert_eq!(positions(&world.store, "c", "n").await, (130, 130));
    assert_eq!(read(&world, "n", None).await.marked_count, 0);
}

async fn receipts_go_to_members_of_now_and_not_across_a_block(world: World) {
    let senders = ["banned", "blocked", "blocker", "gone", "kicked", "stays"];
    let group = group_of("c", Visibility::Public, None, &[&senders[..], &["r"]].concat());
    world.store.create_conversation(&group, silent()).await.expect("a group");
    for sender in senders {
        say(&world.store, "c", sender, "x").await;
    }
    let changes = [
        ("banned", MembershipChange::Ban { by: None }),
        ("gone", MembershipChange::Leave),
        ("kicked", MembershipChange::Kick { by: None }),
    ];
    for (who, change) in changes {
        world.store.change_membership(&conversation("c"), &user(who), &change, silent()).await.expect("changed");
    }
    world.store.set_block(&user("r"), &user("blocked"), true, silent()).await.expect("a block");
    world.store.set_block(&user("blocker"), &user("r"), true, silent()).await.expect("a block");
    for kind in [ReceiptKind::Delivered, ReceiptKind::Read] {
        let change = apply(&world, &[receipt(kind, "r", None)]).await.remove(0).expect("a member's receipt");
        let told: Vec<_> = change.by_sender.iter().map(|(sender, _)| sender.as_str()).collect();
        assert_eq!((change.marked_count, change.moved, told), (6, true, vec!["stays"]), "{kind:?}");
    }
    // Whoever comes back, or is no longer blocked, learns of the next one.
    world
        .store
        .change_membership(&conversation("c"), &user("gone"), &MembershipChange::Join, silent())
        .await
        .expect("in");
    world.store.set_block(&user("r"), &user("blocked"), false, silent()).await.expect("no block");
    for sender in ["blocked", "blocker", "gone"] {
        say(&world.store, "c", sender, "y").await;
    }
    let change = read(&world, "r", None).await;
    let told: Vec<_> = change.by_sender.iter().map(|(sender, _)| sender.as_str()).collect();
    assert_eq!((change.marked_count, told), (3, vec!["blocked", "gone"]));
}
