//! Contract of the store: the audit trail, adding many members, and operators' queries about channels.

use gateway::store::{
    AuditAct, AuditEntry, AuditOrder, ChannelCount, Giver, MEMBERS_MAX, MembersAdded, MembershipChange,
    NewConversation, Refusal, StoreError,
};
use shared::{ConversationKind, MessageId, Role, Timestamp, UserId, Visibility};

use crate::store::{World, contract, conversation, group_of, is_refused, new_group, say, silent, telling, user};

contract!(
    lines_stand_as_they_were_given,
    many_come_in_at_once,
    a_full_conversation_takes_nobody,
    how_busy_a_channel_is
);

/// `(kind, user, conversation, connection, detail)` of every line, by id.
type Line = (String, Option<String>, Option<String>, Option<String>, Option<String>);

async fn lines(world: &World) -> Vec<Line> {
    let sql = "SELECT kind, user_id, conversation_id, connection_id, detail FROM audit ORDER BY id";
    if let Some(database) = &world.database {
        let rows = database.client().await.query(sql, &[]).await.expect("the table is there");
        return rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    }
    let file = world.url.strip_prefix("sqlite:").expect("a file");
    let connection = rusqlite::Connection::open(file).expect("the file is there");
    let mut statement = connection.prepare(sql).expect("the table is there");
    let line = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    statement.query_map([], line).expect("rows").collect::<Result<_, _>>().expect("lines")
}

/// A backend, in its own name or for a user.
fn backend(acts_for: Option<&str>) -> Giver {
    Giver { user: acts_for.map(user), is_backend: true }
}

fn entry(act: AuditAct) -> AuditEntry {
    AuditEntry { at: Timestamp::now(), user: Some(user("u")), conversation: None, connection: None, act }
}

async fn lines_stand_as_they_were_given(world: World) {
    let mut all = vec![
        entry(AuditAct::ConnectionOpened { dialect: "chat.v1" }),
        entry(AuditAct::ConnectionClosed { open_s: 7, code: Some(4200) }),
        entry(AuditAct::ConnectionClosed { open_s: 7, code: None }),
        entry(AuditAct::Joined { by: Giver::user(&user("u")) }),
        entry(AuditAct::Left { by: backend(Some("u")) }),
        entry(AuditAct::Added { by: Giver::user(&user("o")), role: Role::Admin }),
        entry(AuditAct::Invited { by: Giver::user(&user("o")) }),
        entry(AuditAct::Kicked { by: Giver::user(&user("o")) }),
        entry(AuditAct::Banned { by: backend(None) }),
        entry(AuditAct::Unbanned { by: backend(Some("o")) }),
        entry(AuditAct::RoleChanged { by: Giver::user(&user("o")), role: Role::Owner }),
        entry(AuditAct::Message { id: MessageId::new(12).expect("an id") }),
        entry(AuditAct::MessageEdited { id: MessageId::new(12).expect("an id") }),
        entry(AuditAct::MessageDeleted { id: MessageId::new(12).expect("an id"), by: Giver::user(&user("o")) }),
        entry(AuditAct::Ordered { order: AuditOrder::Revoke, by: Giver { user: Some(user("o")), is_backend: false } }),
        entry(AuditAct::Ordered {
            order: AuditOrder::Disconnect { reason: Some("spam".into()) },
            by: Giver { user: Some(user("o")), is_backend: true },
        }),
    ];
    all[0].connection = Some("boot-1".into());
    all[3].conversation = Some(conversation("c"));
    world.store.write_audit(&all).await.expect("written");
    world.store.write_audit(&[]).await.expect("nothing is no fault");
    let found = lines(&world).await;
    let kinds: Vec<&str> = found.iter().map(|line| line.0.as_str()).collect();
    let expected = [
        "connection_opened",
        "connection_closed",
        "connection_closed",
        "joined",
        "left",
        "added",
        "invited",
        "kicked",
        "banned",
        "unbanned",
        "role_changed",
        "message",
        "message_edited",
        "message_deleted",
        "revoke_ordered",
        "disconnect_ordered",
    ];
    assert_eq!(kinds, expected);
    assert!(found.iter().all(|line| line.1.as_deref() == Some("u")));
    assert_eq!((found[0].3.as_deref(), found[0].4.as_deref()), (Some("boot-1"), Some(r#"{"dialect":"chat.v1"}"#)));
    assert_eq!((found[3].2.as_deref(), found[3].4.as_deref()), (Some("c"), None));
    assert_eq!(found[1].4.as_deref(), Some(r#"{"code":4200,"openSeconds":7}"#));
    assert_eq!(found[8].4.as_deref(), Some(r#"{"actingFor":null,"backend":true,"by":null}"#));
    assert_eq!(found[7].4.as_deref(), Some(r#"{"by":"o"}"#));
    assert_eq!(found[9].4.as_deref(), Some(r#"{"actingFor":"o","backend":true,"by":null}"#));
    assert_eq!(found[4].4.as_deref(), Some(r#"{"actingFor":"u","backend":true,"by":null}"#));
    assert_eq!(found[11].4.as_deref(), Some(r#"{"messageId":"12"}"#));
    assert_eq!(found[12].4, found[11].4);
    assert_eq!(found[13].4.as_deref(), Some(r#"{"by":"o","messageId":"12"}"#));
    assert_eq!(found[14].4.as_deref(), Some(r#"{"actingFor":null,"backend":false,"by":"o","order":{}}"#));
    let acting = r#"{"actingFor":"o","backend":true,"by":null,"order":{"reason":"spam"}}"#;
    assert_eq!(found[15].4.as_deref(), Some(acting));

    let kind = "notification".to_owned();
    let order = AuditOrder::Broadcast { kind };
    let all = AuditAct::Ordered { order, by: Giver { user: None, is_backend: true } };
    world.store.write_audit(&[AuditEntry { user: None, ..entry(all) }]).await.expect("written");
    let line = lines(&world).await.pop().expect("a line");
    assert_eq!((line.0.as_str(), line.1), ("broadcast_ordered", None));
}

async fn add(world: &World, users: &[&str], by: Option<&str>) -> Result<MembersAdded, StoreError> {
    let users: Vec<UserId> = users.iter().map(|id| user(id)).collect();
    world.store.add_members(&conversation("c"), &users, by.map(user).as_ref(), silent()).await
}

async fn many_come_in_at_once(world: World) {
    let store = &world.store;
    store.create_conversation(&group_of("c", Visibility::Private, Some("o"), &["m"]), silent()).await.expect("a group");
    say(store, "c", "o", "before").await;
    let ban = MembershipChange::Ban { by: Some(user("o")) };
    for banned in ["x", "moderator"] {
        store.change_membership(&conversation("c"), &user(banned), &ban, silent()).await.expect("banned");
    }
    let left = MembershipChange::Leave;
    store.change_membership(&conversation("c"), &user("m"), &left, silent()).await.expect("gone");
    let before = store.members(&conversation("c")).await.expect("members").version;

    let row = store.reserve_ids(1).await.expect("ids").start;
    let outbox = telling(row, "o", |added: &MembersAdded| added.added.len().to_string());
    let asked = ["a", "b", "m", "o", "x"].map(user);
    let outcome = store.add_members(&conversation("c"), &asked, Some(&user("o")), outbox).await.expect("allowed");
    assert_eq!((outcome.added, outcome.banned), (["a", "b", "m"].map(user).to_vec(), vec![user("x")]));
    assert_eq!((outcome.conversation.member_count, outcome.conversation.unread), (4, Some(0)));
    assert_eq!(outcome.members.version, before + 3);
    assert_eq!(*outcome.members, store.members(&conversation("c")).await.expect("members"));
    let rows = store.take_unpublished(&"test:0".into(), 0, 0, (0, 99)).await.expect("rows");
    assert!(rows.iter().flat_map(|row| &row.events).any(|event| event.body == "3"), "{rows:?}");
    assert_eq!(store.conversations(&user("a"), None, 9).await.expect("a list").items.len(), 1);
    let then = store.members_at(&conversation("c"), 1).await.expect("who was in");
    assert_eq!(then, ["m", "o"].map(user), "newcomers were not there before, and who came back was");

    assert!(add(&world, &["a"], None).await.expect("nothing new").added.is_empty());
    assert!(is_refused(add(&world, &["z"], Some("a")).await, Refusal::Forbidden));
    assert!(is_refused(add(&world, &["z"], Some("stranger")).await, Refusal::NotMember));
    assert!(is_refused(add(&world, &["x"], Some("moderator")).await, Refusal::Banned));
    let nowhere = store.add_members(&conversation("nowhere"), &[user("a")], None, silent()).await;
    assert!(is_refused(nowhere, Refusal::NotFound));
    store.open_direct(Some(&user("a")), (&user("a"), &user("b")), &conversation("d"), silent()).await.expect("opened");
    let third = store.add_members(&conversation("d"), &[user("z")], None, silent()).await;
    assert!(is_refused(third, Refusal::Forbidden), "a direct conversation keeps its two");
}

async fn a_full_conversation_takes_nobody(world: World) {
    let store = &world.store;
    let members: Vec<String> = (1..MEMBERS_MAX - 1).map(|n| format!("u{n}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let group = group_of("c", Visibility::Public, Some("o"), &members);
    let made = store.create_conversation(&group, silent()).await.expect("a large group");
    assert_eq!(made.member_count, MEMBERS_MAX as u64 - 1);
    assert!(is_refused(add(&world, &["y", "z"], Some("o")).await, Refusal::Full), "they don't both fit");
    assert_eq!(store.members(&conversation("c")).await.expect("members").list.len(), MEMBERS_MAX - 1);
    let join = |who: &'static str| async move {
        store.change_membership(&conversation("c"), &user(who), &MembershipChange::Join, silent()).await
    };
    assert!(join("y").await.expect("the last place").changed);
    assert!(is_refused(join("z").await, Refusal::Full));
    assert!(!join("y").await.expect("a member already").changed);
    let invited = MembershipChange::Add { by: Some(user("o")), role: Role::Member };
    assert!(is_refused(
        store.change_membership(&conversation("c"), &user("z"), &invited, silent()).await,
        Refusal::Full
    ));
    let kick = MembershipChange::Kick { by: Some(user("o")) };
    assert!(store.change_membership(&conversation("c"), &user("y"), &kick, silent()).await.expect("allowed").changed);
    assert!(join("z").await.expect("there is room again").changed);
}

async fn how_busy_a_channel_is(world: World) {
    let store = &world.store;
    new_group(store, "one", &["a", "b", "c"]).await;
    new_group(store, "two", &["a", "b"]).await;
    let channel =
        NewConversation { kind: ConversationKind::Channel, ..group_of("three", Visibility::Public, None, &["c"]) };
    store.create_conversation(&channel, silent()).await.expect("a channel");
    store
        .open_direct(Some(&user("a")), (&user("a"), &user("b")), &conversation("direct"), silent())
        .await
        .expect("opened");
    let count = |channel: &str, users, connections| ChannelCount { channel: conversation(channel), users, connections };
    let here = [(user("a"), 3), (user("b"), 1), (user("stranger"), 9)];
    assert_eq!(store.busiest(&here, 9).await.expect("counts"), vec![count("one", 2, 4), count("two", 2, 4)]);
    assert_eq!(store.busiest(&[(user("c"), 1)], 1).await.expect("counts"), vec![count("one", 1, 1)]);
    assert!(store.busiest(&[], 9).await.expect("counts").is_empty());
    let of = store.channels_of(&[user("b"), user("c"), user("stranger")], 1).await.expect("channels");
    assert_eq!(of, vec![(user("b"), conversation("one")), (user("c"), conversation("one"))]);

    let quiet = store.activity(&conversation("two")).await.expect("numbers");
    assert_eq!((quiet.last_message_at, quiet.last_hour, quiet.senders_last_hour), (None, 0, 0));
    say(store, "one", "a", "x").await;
    let last = say(store, "one", "b", "y").await;
    let busy = store.activity(&conversation("one")).await.expect("numbers");
    assert_eq!(busy.last_message_at, Some(last.message.created_at));
    assert_eq!((busy.last_minute, busy.last_hour, busy.senders_last_hour), (2, 2, 2));
    assert_eq!(store.activity(&conversation("nowhere")).await.expect("numbers"), quiet);
}
