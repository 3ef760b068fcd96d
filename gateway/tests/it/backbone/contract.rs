//! The contract of `Backbone`: one suite, run on Redis (with and without a namespace, and as the user of `deploy/README.md`),
//! on a Redis Cluster and on the local one.

use std::time::{Duration, Instant};

use gateway::backbone::{
    CarriedMessage, Control, DeliveryOutcome, Draw, Entrant, EntryOutcome, Grant, LogHead, RedisBackbone, SessionId,
    Settings, Ticket, TopicEvent, TopicPush, check_resume,
};
use shared::event::ResyncReason;
use shared::{ConversationId, Epoch, Position, Timestamp};

use crate::backbone::namespaces::in_namespace;
use crate::backbone::rig::{
    Node, Rig, Seen, bounded, conversation, deaf, empty_store, envelope, ephemeral, event, eventually, message,
    numbered, pushed, redone, said, settings, user, with,
};
use crate::support::redis::Redis;

macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod on_redis {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { bounded(async { super::$case(Rig::redis(settings()).await).await }).await; })+
        }
        mod in_a_namespace {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { bounded(async { super::$case(Rig::redis(in_namespace("blue")).await).await }).await; })+
        }
        mod with_the_rights_of_the_readme {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { bounded(async { super::$case(Rig::with_rights(settings()).await).await }).await; })+
        }
        mod on_cluster {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { bounded(async { super::$case(Rig::cluster(settings()).await).await }).await; })+
        }
        mod on_local {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { bounded(async { super::$case(Rig::local(settings()).await).await }).await; })+
        }
    };
}

contract!(
    events_arrive_as_published_with_a_gapless_seq,
    nothing_is_kept_for_whom_nobody_waits,
    a_log_is_kept_without_a_subscriber,
    a_log_is_cut_behind_what_names_a_user,
    a_user_is_forgotten,
    who_has_left_is_pushed_to_at_once,
    an_append_opens_a_log_for_a_subscriber,
    many_publishers_make_one_gapless_log,
    every_subscribed_node_gets_every_event,
    a_large_conversation_has_one_channel_for_all,
    a_message_of_a_large_conversation_makes_one_push_job,
    a_redo_is_recognised,
    a_redo_of_something_old_hides_nothing,
    messages_that_the_log_can_not_decide_get_a_marker,
    a_log_that_began_after_the_commit_decides_nothing,
    a_redo_that_finds_its_event_makes_the_push_job,
    logs_are_read_in_pages_and_trimmed,
    a_log_of_long_events_is_bounded_in_bytes,
    who_comes_in_finds_their_log,
    users_arrive_and_depart,
    a_user_on_two_nodes_stays_until_both_are_left,
    a_lost_node_is_noticed_by_the_missing_signs_of_life,
    a_return_within_the_grace_is_no_news,
    a_refresh_keeps_those_who_are_there_only,
    everybody_gets_broadcasts_and_orders,
    revoked_tokens_are_worthless,
    values_that_can_not_be_read_are_definite_answers,
    sessions_and_tickets,
    subscriptions_are_counted_and_linger,
    what_is_no_envelope_is_refused,
    closing_publishes_what_was_handed_over,
    nodes_are_counted,
    a_users_allowance_is_one_for_all_nodes,
    push_jobs_are_taken_kept_and_ended,
    a_flood_of_push_jobs_takes_nothing_from_others,
    push_jobs_are_for_users_who_were_here,
);

async fn events_arrive_as_published_with_a_gapless_seq(rig: Rig) {
    let ann = user("ann");
    let backbone = &rig.a.backbone;
    backbone.subscribe(&ann).await.expect("subscribed");
    let head = backbone.open(&ann).await.expect("opened");
    assert_eq!((head.floor, head.last), (0, 0));
    let mut first = event(&ann, 1);
    let body = envelope(1) + "\n{\"type\":\"conversation.updated\",\"payload\":{\"x\":\"ü\\n\\\"\"}}";
    first.body = body.clone().into();
    let typing = "{\"type\":\"typing\",\"payload\":{}}";
    let delivered = backbone.publish(vec![first, ephemeral(&ann, typing), event(&ann, 2)]).await.expect("published");
    assert_eq!(delivered, [DeliveryOutcome::To(1); 3]);
    assert_eq!(rig.a.payload(&ann).await, body.replacen('{', "{\"seq\":1,", 1));
    assert_eq!(rig.a.payload(&ann).await, typing);
    assert_eq!(rig.a.payload(&ann).await, numbered(2, 2));
    let again = backbone.open(&ann).await.expect("opened");
    assert_eq!((again.epoch.clone(), again.floor, again.last), (head.epoch, 0, 2));
    let page = backbone.read(&ann, 0, 10).await.expect("read");
    assert_eq!(page.head, again);
    assert_eq!(page.entries[0].1, body.replacen('{', "{\"seq\":1,", 1));
    assert_eq!(page.entries[1], (2, numbered(2, 2).into()));
}

async fn nothing_is_kept_for_whom_nobody_waits(rig: Rig) {
    let ann = user("ann");
    let push = pushed(event(&ann, 1), "c", 1, "sender");
    assert_eq!(rig.a.backbone.publish(vec![push]).await.expect("published"), [DeliveryOutcome::To(0)]);
    if let Some(redis) = &rig.redis {
        assert_eq!(redis.number(&rig.named("EXISTS chat:log:{chat:user:ann}")), 0);
        // Redis doesn't know ann, but the store does: it is asked meanwhile.
        eventually(Duration::from_secs(10), async || (redis.number(&rig.named("XLEN chat:push")) == 1).then_some(()))
            .await;
        let job = format!("{:?}", redis.ask(&rig.named("XRANGE chat:push - +")));
        assert!(job.contains("ann") && job.contains("message"), "{job}");
    }
    assert_eq!(rig.a.backbone.open(&ann).await.expect("opened").last, 0);
}

async fn a_log_is_kept_without_a_subscriber(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.open(&ann).await.expect("opened");
    assert_eq!(rig.b.backbone.publish(vec![event(&ann, 1)]).await.expect("published"), [DeliveryOutcome::To(0)]);
    let page = rig.a.backbone.read(&ann, 0, 10).await.expect("read");
    assert_eq!((page.head.last, page.entries), (1, vec![(1, numbered(1, 1).into())]));
}

/// What named the user is gone, and who resumes from before is told so; what comes later goes on under the same epoch.
async fn a_log_is_cut_behind_what_names_a_user(rig: Rig) {
    let (ann, bob, zed) = (user("ann"), user("bob"), user("zed"));
    let backbone = &rig.a.backbone;
    let naming = |of: &str, n: u64, who: &str| {
        let body = format!(r#"{{"type":"x","payload":{{"n":{n},"senderId":"{who}"}}}}"#);
        gateway::backbone::Delivery { body: body.into(), ..event(&user(of), n) }
    };
    let before = backbone.open(&ann).await.expect("opened");
    backbone.open(&bob).await.expect("opened");
    let events = vec![naming("ann", 1, "zed"), naming("ann", 2, "zed2"), naming("ann", 3, "zed"), event(&ann, 4)];
    backbone.publish(events).await.expect("published");
    backbone.publish(vec![naming("bob", 1, "zed2"), naming("bob", 2, "zed")]).await.expect("published");
    for _ in 0..2 {
        rig.b.backbone.cut_logs(&[ann.clone(), bob.clone(), user("none")], &zed).await.expect("cut");
    }
    let page = backbone.read(&ann, 0, 10).await.expect("read");
    assert_eq!((page.head.floor, page.head.last, &page.head.epoch), (3, 4, &before.epoch));
    assert_eq!(page.entries, [(4, numbered(4, 4).into())]);
    let old = Position { epoch: before.epoch.clone(), seq: 2 };
    assert_eq!(check_resume(&old, &page.head), Err(ResyncReason::Trimmed));
    backbone.publish(vec![event(&ann, 5)]).await.expect("published");
    assert_eq!(backbone.read(&ann, 4, 10).await.expect("read").entries, [(5, numbered(5, 5).into())]);
    assert!(matches!(redone(&rig.a, vec![event(&ann, 5)]).await[..], [DeliveryOutcome::Again(_)]));
    // Its newest entry named the user: nothing of it is left.
    assert!(backbone.read(&bob, 0, 10).await.expect("read").entries.is_empty());
}

async fn a_user_is_forgotten(rig: Rig) {
    let ann = user("ann");
    let backbone = &rig.a.backbone;
    backbone.subscribe(&ann).await.expect("subscribed");
    backbone.open(&ann).await.expect("opened");
    backbone.arrived(&ann).await.expect("arrived");
    backbone.publish(vec![event(&ann, 1)]).await.expect("published");
    backbone.unsubscribe(&ann);
    backbone.departed(&ann).await.expect("departed");
    for _ in 0..2 {
        rig.b.backbone.forget_user(&ann).await.expect("forgotten");
    }
    let presence = backbone.presence(std::slice::from_ref(&ann)).await.expect("asked");
    assert_eq!((presence[0].online, presence[0].last_seen), (false, None));
    assert!(backbone.read(&ann, 0, 10).await.expect("read").entries.is_empty());
}

/// B12: a channel that lingers must not count as somebody who got the message.
async fn who_has_left_is_pushed_to_at_once(rig: Rig) {
    let ann = user("ann");
    let backbone = &rig.a.backbone;
    backbone.subscribe(&ann).await.expect("subscribed");
    backbone.open(&ann).await.expect("opened");
    backbone.arrived(&ann).await.expect("arrived");
    backbone.unsubscribe(&ann);
    backbone.departed(&ann).await.expect("departed");
    let since = Instant::now();
    left(&rig.a, &ann).await;
    assert!(since.elapsed() < Duration::from_millis(1_500), "took {:?}, as long as it lingers", since.elapsed());
    let push = pushed(event(&ann, 1), "c", 1, "sender");
    assert_eq!(rig.b.backbone.publish(vec![push]).await.expect("published"), [DeliveryOutcome::To(0)]);
    if let Some(redis) = &rig.redis {
        assert_eq!(redis.number(&rig.named("XLEN chat:push")), 1);
    }
    // Who comes back is subscribed anew, and what lingered before doesn't end that.
    backbone.subscribe(&ann).await.expect("subscribed");
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    assert_eq!(rig.b.backbone.publish(vec![event(&ann, 2)]).await.expect("published"), [DeliveryOutcome::To(1)]);
}

async fn an_append_opens_a_log_for_a_subscriber(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    rig.b.backbone.publish(vec![event(&ann, 1), event(&ann, 2)]).await.expect("published");
    let payload = rig.a.payload(&ann).await;
    let head = rig.a.backbone.open(&ann).await.expect("opened");
    assert_eq!(payload, format!("{{\"epoch\":\"{}\",\"seq\":0}}\n{}", head.epoch, numbered(1, 1)));
    assert_eq!(rig.a.payload(&ann).await, numbered(2, 2));
    assert_eq!((head.floor, head.last), (0, 2));
}

async fn many_publishers_make_one_gapless_log(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    rig.a.backbone.open(&ann).await.expect("opened");
    let publishers = (0..8).map(|publisher: u64| {
        let (backbone, ann) = (if publisher.is_multiple_of(2) { &rig.a } else { &rig.b }.backbone.clone(), ann.clone());
        tokio::spawn(async move {
            for n in 0..25 {
                backbone.publish(vec![event(&ann, publisher * 1000 + n)]).await.expect("published");
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("the publisher ends");
    }
    let mut last = [None::<u64>; 8];
    for seq in 1..=200 {
        let payload = rig.a.payload(&ann).await;
        let rest = payload.strip_prefix(&format!("{{\"seq\":{seq},")).expect("the next seq");
        let digits: String =
            rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        let n: u64 = digits.parse().expect("the number of the event");
        let last = &mut last[usize::try_from(n / 1000).expect("small")];
        assert!(last.is_none_or(|last| last < n), "each publisher's events stay in order");
        *last = Some(n);
    }
    assert!(rig.a.is_quiet().await);
}

async fn every_subscribed_node_gets_every_event(rig: Rig) {
    let ann = user("ann");
    rig.b.backbone.open(&ann).await.expect("opened");
    for node in [&rig.a, &rig.b] {
        node.backbone.subscribe(&ann).await.expect("subscribed");
    }
    let delivered = rig.b.backbone.publish(vec![event(&ann, 1)]).await.expect("published");
    assert_eq!(delivered, [DeliveryOutcome::To(rig.both())]);
    assert_eq!(rig.a.payload(&ann).await, numbered(1, 1));
    if rig.is_shared() {
        assert_eq!(rig.b.payload(&ann).await, numbered(1, 1));
    }
}

async fn a_large_conversation_has_one_channel_for_all(rig: Rig) {
    let (one, other) = (conversation("c"), conversation("d"));
    let topic = |conversation: &ConversationId, rev: u64| TopicEvent {
        conversation: conversation.clone(),
        body: format!(r#"{{"rev":{rev},"type":"x","payload":{{}}}}"#).into(),
        push: None,
    };
    let seen = |rev| Seen::Topic("c".to_owned(), topic(&one, rev).body);
    for node in [&rig.a, &rig.b] {
        node.backbone.subscribe_topic(&one).await.expect("subscribed");
    }
    // A user of the same name has a channel of their own.
    rig.a.backbone.subscribe(&user("c")).await.expect("subscribed");
    rig.b.backbone.publish_topics(&[topic(&other, 7), topic(&one, 1), topic(&one, 2)]).await.expect("published");
    for node in if rig.is_shared() { vec![&rig.a, &rig.b] } else { vec![&rig.a] } {
        assert_eq!((node.next().await, node.next().await), (seen(1), seen(2)));
    }
    // Counted: two subscriptions need two ends.
    rig.a.backbone.subscribe_topic(&one).await.expect("subscribed");
    rig.a.backbone.unsubscribe_topic(&one);
    rig.b.backbone.publish_topics(&[topic(&one, 3)]).await.expect("published");
    assert_eq!(rig.a.next().await, seen(3));
    rig.b.backbone.publish_topics(&[]).await.expect("nothing to do");
}

/// Who of its members is connected nowhere, the receiver asks when it is told of the message.
async fn a_message_of_a_large_conversation_makes_one_push_job(rig: Rig) {
    let message = message(7);
    let push = TopicPush {
        message: CarriedMessage { id: message, conversation: conversation("c"), seq: 3 },
        sender: user("sender"),
        mentions: vec![user("ann"), user("bob")],
    };
    let said = TopicEvent { conversation: conversation("c"), body: "{}".into(), push: Some(push) };
    let edited = TopicEvent { push: None, ..said.clone() };
    rig.a.backbone.publish_topics(&[said, edited]).await.expect("published");
    let jobs = rig.b.backbone.take_push_jobs(10).await.expect("taken");
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((&job.user, job.message, &job.conversation, job.seq), (&None, message, &conversation("c"), 3));
    assert_eq!((&job.mentions, &job.sender), (&vec![user("ann"), user("bob")], &Some(user("sender"))));
    rig.b.backbone.bury_push_job(job, "a reason").await.expect("buried");
    assert_eq!(rig.b.backbone.buried_push_jobs().await.expect("counted"), 1);
}

async fn a_redo_is_recognised(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    rig.a.backbone.open(&ann).await.expect("opened");
    let events = (1..=40).map(|n| event(&ann, n)).collect();
    rig.a.backbone.publish(events).await.expect("published");
    let again = vec![event(&ann, 3), event(&ann, 40), event(&ann, 41)];
    let delivered = redone(&rig.b, again).await;
    assert_eq!(delivered, [DeliveryOutcome::Again(1), DeliveryOutcome::Again(1), DeliveryOutcome::To(1)]);
    assert_eq!(redone(&rig.b, vec![event(&ann, 41)]).await, [DeliveryOutcome::Again(1)]);
    // It is published as it stands in the log.
    for n in 1..=40 {
        assert_eq!(rig.a.payload(&ann).await, numbered(n, n));
    }
    for payload in [numbered(3, 3), numbered(40, 40)] {
        assert_eq!(rig.a.payload(&ann).await, payload);
    }
    for _ in 0..2 {
        assert_eq!(rig.a.payload(&ann).await, numbered(41, 41));
    }
    let page = rig.a.backbone.read(&ann, 39, 10).await.expect("read");
    assert_eq!(page.entries, [(40, numbered(40, 40).into()), (41, numbered(41, 41).into())]);
}

/// An old event that a redo appended stands behind younger ones; the next redo has to look past it.
async fn a_redo_of_something_old_hides_nothing(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    rig.a.backbone.open(&ann).await.expect("opened");
    let at = |delivery, minutes_ago: i64| {
        let committed_at = Timestamp::from_unix_ms(Timestamp::now().unix_ms() - minutes_ago * 60_000);
        with(delivery, |durable| durable.committed_at = committed_at)
    };
    rig.a.backbone.publish(vec![at(event(&ann, 2), 0)]).await.expect("published");
    assert_eq!(redone(&rig.a, vec![at(event(&ann, 1), 10)]).await, [DeliveryOutcome::To(1)]);
    let again = vec![at(event(&ann, 2), 0), at(event(&ann, 1), 10)];
    assert_eq!(redone(&rig.b, again).await, [DeliveryOutcome::Again(1), DeliveryOutcome::Again(1)]);
}

/// A marker of these messages, as it is published.
fn marker(seq: u64, epoch: &Epoch, messages: &str) -> String {
    format!(
        r#"{{"seq":{seq},"type":"resync","payload":{{"reason":"trimmed","epoch":"{epoch}","seq":{seq},{messages}}}}}"#
    )
}

/// C1: whether the log had them can't be told, because it was trimmed. A marker stands for both.
async fn messages_that_the_log_can_not_decide_get_a_marker(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    let before = rig.a.backbone.open(&ann).await.expect("opened");
    let events = (1..=600).map(|n| said(&ann, n, 0)).collect();
    rig.a.backbone.publish(events).await.expect("published");
    for seq in 1..=600 {
        assert_eq!(rig.a.payload(&ann).await, numbered(seq, seq));
    }
    let asked = || vec![said(&ann, 1, 0), event(&ann, 1_000), said(&ann, 2, 0), said(&ann, 600, 0)];
    let marked = DeliveryOutcome::Marked(1);
    let first = redone(&rig.b, asked()).await;
    assert_eq!(first, [marked, DeliveryOutcome::To(1), marked, DeliveryOutcome::Again(1)]);
    let marker = marker(601, &before.epoch, r#""conversationId":"c","messageIds":["1","2"]"#);
    let expected = [marker.clone(), numbered(602, 1_000), numbered(600, 600)];
    for payload in &expected {
        assert_eq!(rig.a.payload(&ann).await, *payload);
    }
    // The next redo finds the marker by either of its messages.
    let again = DeliveryOutcome::Again(1);
    assert_eq!(redone(&rig.a, asked()).await, [again; 4]);
    for payload in [&expected[0], &expected[1], &expected[0], &expected[2]] {
        assert_eq!(rig.a.payload(&ann).await, *payload);
    }
    let page = rig.b.backbone.read(&ann, 600, 10).await.expect("read");
    assert_eq!((&page.head.epoch, page.head.last), (&before.epoch, 602));
    assert_eq!(page.entries[0], (601, marker.into()));
}

/// C1: a log that is younger than the commit proves nothing; one that is certainly older does.
async fn a_log_that_began_after_the_commit_decides_nothing(rig: Rig) {
    let (ann, bob) = (user("ann"), user("bob"));
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    let epoch = rig.a.backbone.open(&ann).await.expect("opened").epoch;
    assert_eq!(redone(&rig.a, vec![said(&ann, 1, 0)]).await, [DeliveryOutcome::Marked(1)], "at the same time");
    assert_eq!(rig.a.payload(&ann).await, marker(1, &epoch, r#""conversationId":"c","messageId":"1""#));
    assert_eq!(redone(&rig.a, vec![said(&ann, 2, -6_000)]).await, [DeliveryOutcome::To(1)], "six seconds older");
    assert_eq!(rig.a.payload(&ann).await, numbered(2, 2));
    // Without a log there is none that could decide it. It is opened if somebody is there.
    let job = |n| pushed(said(&bob, n, 0), "c", n, "sender");
    assert_eq!(redone(&rig.a, vec![job(3), job(4)]).await, [DeliveryOutcome::Marked(0); 2]);
    let jobs = rig.a.backbone.take_push_jobs(10).await.expect("taken");
    assert_eq!(jobs.iter().map(|job| job.message).collect::<Vec<_>>(), [message(3), message(4)]);
    rig.a.backbone.subscribe(&bob).await.expect("subscribed");
    assert_eq!(redone(&rig.b, vec![job(3)]).await, [DeliveryOutcome::Marked(1)]);
    let epoch = rig.a.backbone.open(&bob).await.expect("opened").epoch;
    let opened = format!("{{\"epoch\":\"{epoch}\",\"seq\":0}}\n");
    assert_eq!(rig.a.payload(&bob).await, opened + &marker(1, &epoch, r#""conversationId":"c","messageId":"3""#));
}

/// C1, hole 32: the event is in the log, but its publisher died before it could make the job.
async fn a_redo_that_finds_its_event_makes_the_push_job(rig: Rig) {
    let ann = user("ann");
    let message_to_ann = |push: bool| match push {
        true => pushed(said(&ann, 1, 0), "c", 1, "sender"),
        false => said(&ann, 1, 0),
    };
    rig.a.backbone.open(&ann).await.expect("opened");
    rig.a.backbone.publish(vec![message_to_ann(false)]).await.expect("published");
    assert_eq!(redone(&rig.b, vec![message_to_ann(true)]).await, [DeliveryOutcome::Again(0)]);
    let jobs = rig.a.backbone.take_push_jobs(10).await.expect("taken");
    assert_eq!(jobs.iter().map(|job| job.message).collect::<Vec<_>>(), [message(1)]);
}

async fn logs_are_read_in_pages_and_trimmed(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.open(&ann).await.expect("opened");
    rig.a.backbone.publish((1..=600).map(|n| event(&ann, n)).collect()).await.expect("published");
    let head = rig.a.backbone.open(&ann).await.expect("opened");
    assert_eq!(head.last, 600);
    assert!((200..=344).contains(&head.floor), "some 256 are kept, not {}", 600 - head.floor);
    let mut read = head.floor;
    while read < head.last {
        let page = rig.b.backbone.read(&ann, read, 100).await.expect("read");
        assert_eq!(page.head, head);
        assert!(!page.entries.is_empty() && page.entries.len() <= 100);
        for (seq, payload) in page.entries {
            read += 1;
            assert_eq!((seq, payload), (read, numbered(read, read).into()));
        }
    }
    assert!(rig.a.backbone.read(&ann, 600, 100).await.expect("read").entries.is_empty());
    let at = |seq| Position { epoch: head.epoch.clone(), seq };
    assert_eq!(check_resume(&at(head.floor + 1), &head), Ok(()));
    assert_eq!(check_resume(&at(head.floor), &head), Err(ResyncReason::Trimmed), "its companions are gone");
    let young = LogHead { floor: 0, ..head.clone() };
    assert_eq!(check_resume(&at(0), &young), Ok(()));
    assert_eq!(check_resume(&at(600), &head), Ok(()));
    assert_eq!(check_resume(&at(head.floor - 1), &head), Err(ResyncReason::Trimmed));
    assert_eq!(check_resume(&at(601), &head), Err(ResyncReason::Future));
    let elsewhere: Position = "00000000.1:1".parse().expect("a position");
    assert_eq!(check_resume(&elsewhere, &head), Err(ResyncReason::Epoch));
}

async fn a_log_of_long_events_is_bounded_in_bytes(rig: Rig) {
    let ann = user("ann");
    let before = rig.a.backbone.open(&ann).await.expect("opened");
    let long = |n| {
        let mut delivery = event(&ann, n);
        delivery.body = format!("{{\"type\":\"x\",\"payload\":{{\"n\":\"{}\"}}}}", "x".repeat(20_000)).into();
        delivery
    };
    rig.a.backbone.publish((1..=30).map(|n| event(&ann, n)).collect()).await.expect("published");
    rig.a.backbone.publish((31..=200).map(long).collect()).await.expect("published");
    let page = rig.a.backbone.read(&ann, 0, 1_000).await.expect("read");
    let bytes: usize = page.entries.iter().map(|(_, payload)| payload.len()).sum();
    assert!((1_000_000..=1_060_000).contains(&bytes), "{bytes} bytes in {} events", page.entries.len());
    let (head, count) = (page.head, u64::try_from(page.entries.len()).expect("a count"));
    assert_eq!((&head.epoch, head.last, head.floor), (&before.epoch, 200, 200 - count));
    let at = |seq| Position { epoch: head.epoch.clone(), seq };
    assert_eq!(check_resume(&at(head.floor + 1), &head), Ok(()));
    assert_eq!(check_resume(&at(head.floor - 1), &head), Err(ResyncReason::Trimmed));
    if let Some(redis) = &rig.redis {
        let taken = redis.number(&rig.named("MEMORY USAGE chat:log:{chat:user:ann} SAMPLES 0"));
        assert!(taken < 1_400_000, "Redis takes {taken} bytes");
    }
    // Short ones are counted as before.
    rig.a.backbone.publish((201..=300).map(|n| event(&ann, n)).collect()).await.expect("published");
    assert_eq!(rig.a.backbone.open(&ann).await.expect("opened").floor, head.floor);
}

async fn who_comes_in_finds_their_log(rig: Rig) {
    let ann = user("ann");
    let entrant = |asked| Entrant { user: ann.clone(), issued_at: None, asked };
    let backbone = &rig.a.backbone;
    backbone.subscribe(&ann).await.expect("subscribed");
    let EntryOutcome::At { head, before } = backbone.enter(entrant(Some(1))).await.expect("in") else {
        panic!("an empty log is opened")
    };
    assert_eq!((head.floor, head.last, before.len()), (0, 0, 0));
    rig.b.backbone.publish((1..=20).map(|n| event(&ann, n)).collect()).await.expect("published");
    for (asked, found) in [(None, 0..0), (Some(0), 0..0), (Some(1), 1..2), (Some(2), 1..3), (Some(20), 5..21)] {
        let entered = backbone.enter(entrant(asked)).await.expect("in");
        let head = LogHead { last: 20, ..head.clone() };
        let before = found.rev().map(|seq| (seq, numbered(seq, seq).into())).collect();
        assert_eq!(entered, EntryOutcome::At { head, before }, "{asked:?}");
    }
    if let Some(redis) = &rig.redis {
        redis.ask(&rig.named("EXPIRE chat:log:{chat:user:ann} 5"));
        backbone.enter(entrant(None)).await.expect("in");
        assert!(redis.number(&rig.named("TTL chat:log:{chat:user:ann}")) > 5, "who comes in keeps the log");
        redis.ask("SCRIPT FLUSH");
        backbone.enter(entrant(None)).await.expect("the script is loaded anew");
    }
    let crowd: Vec<_> =
        (0..300).map(|n| Entrant { user: user(&format!("u{n}")), issued_at: None, asked: None }).collect();
    let entering: Vec<_> = crowd
        .into_iter()
        .map(|entrant| {
            let backbone = backbone.clone();
            tokio::spawn(async move { backbone.enter(entrant).await })
        })
        .collect();
    for entered in entering {
        assert!(matches!(entered.await.expect("no panic").expect("in"), EntryOutcome::At { .. }));
    }
}

async fn users_arrive_and_depart(rig: Rig) {
    let (ann, bob) = (user("ann"), user("bob"));
    let backbone = &rig.a.backbone;
    backbone.subscribe(&ann).await.expect("subscribed");
    assert!(backbone.arrived(&ann).await.expect("arrived"));
    assert!(!rig.b.backbone.arrived(&ann).await.expect("arrived"));
    assert!(rig.b.backbone.arrived(&bob).await.expect("arrived"));
    let presence = backbone.presence(&[ann.clone(), user("nobody"), bob]).await.expect("asked");
    assert_eq!(presence.iter().map(|p| p.online).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(presence[1].last_seen, None);
    let before = Timestamp::now().unix_ms();
    backbone.unsubscribe(&ann);
    backbone.departed(&ann).await.expect("departed");
    let gone = backbone.presence(std::slice::from_ref(&ann)).await.expect("asked").remove(0);
    assert!(!gone.online, "at once, though the channel lingers");
    let seen = gone.last_seen.expect("known").unix_ms();
    assert!((seen - before).abs() < 2_000);
    assert!(backbone.take_offline(10).await.expect("asked").is_empty(), "not within the grace");
    let offline = taken_offline(&rig.b).await;
    assert_eq!(offline, (ann.clone(), Timestamp::from_unix_ms(seen)));
    // The check when the channel is left finds nothing new.
    left(&rig.a, &ann).await;
    let gone = backbone.presence(std::slice::from_ref(&ann)).await.expect("asked").remove(0);
    assert_eq!(gone.last_seen, Some(Timestamp::from_unix_ms(seen)));
}

/// Waits until nobody is subscribed for the user.
async fn left(node: &Node, user: &shared::UserId) {
    let nobody = async || {
        let delivered = node.backbone.publish(vec![ephemeral(user, &envelope(0))]).await.expect("published");
        (delivered == [DeliveryOutcome::To(0)]).then_some(())
    };
    eventually(Duration::from_secs(10), nobody).await;
}

/// The next user that is announced offline.
async fn taken_offline(node: &Node) -> (shared::UserId, Timestamp) {
    eventually(Duration::from_secs(10), async || node.backbone.take_offline(1).await.expect("asked").pop()).await
}

async fn a_user_on_two_nodes_stays_until_both_are_left(rig: Rig) {
    let ann = user("ann");
    for node in [&rig.a, &rig.b] {
        node.backbone.subscribe(&ann).await.expect("subscribed");
    }
    rig.a.backbone.arrived(&ann).await.expect("arrived");
    rig.a.backbone.unsubscribe(&ann);
    rig.a.backbone.departed(&ann).await.expect("departed");
    let online = async || rig.b.backbone.presence(std::slice::from_ref(&ann)).await.expect("asked")[0].online;
    assert!(online().await);
    rig.b.backbone.unsubscribe(&ann);
    // No word of the second departure: it shows when the channel is left.
    let left = Instant::now();
    eventually(Duration::from_secs(10), async || (!online().await).then_some(())).await;
    assert!(left.elapsed() > Duration::from_secs(1));
    assert_eq!(taken_offline(&rig.a).await.0, ann);
}

async fn a_lost_node_is_noticed_by_the_missing_signs_of_life(rig: Rig) {
    let ann = user("ann");
    let before = Timestamp::now().unix_ms();
    rig.a.backbone.arrived(&ann).await.expect("arrived");
    let (gone, seen) = taken_offline(&rig.b).await;
    assert_eq!(gone, ann);
    assert!((seen.unix_ms() - before).abs() < 1_500, "the last sign of life");
    let presence = rig.b.backbone.presence(&[ann]).await.expect("asked").remove(0);
    assert_eq!((presence.online, presence.last_seen), (false, Some(seen)));
}

async fn a_return_within_the_grace_is_no_news(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.arrived(&ann).await.expect("arrived");
    rig.a.backbone.departed(&ann).await.expect("departed");
    rig.b.backbone.subscribe(&ann).await.expect("subscribed");
    assert!(!rig.b.backbone.arrived(&ann).await.expect("arrived"));
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        rig.b.backbone.refresh(std::slice::from_ref(&ann)).await.expect("refreshed");
        assert!(rig.a.backbone.take_offline(10).await.expect("asked").is_empty());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn a_refresh_keeps_those_who_are_there_only(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    rig.a.backbone.arrived(&ann).await.expect("arrived");
    rig.a.backbone.unsubscribe(&ann);
    rig.a.backbone.departed(&ann).await.expect("departed");
    rig.a.backbone.refresh(std::slice::from_ref(&ann)).await.expect("refreshed");
    assert!(!rig.a.backbone.presence(&[ann]).await.expect("asked")[0].online);
}

async fn everybody_gets_broadcasts_and_orders(rig: Rig) {
    let envelope = "{\"type\":\"notification\",\"payload\":{}}";
    rig.a.backbone.broadcast(envelope.into()).await.expect("sent");
    assert_eq!(rig.b.next().await, Seen::Broadcast(envelope.into()));
    let orders = [
        Control::Disconnect { user_id: user("ann"), revoked: true, revoked_s: Some(1_763_730_000) },
        Control::MembersChanged { conversation_id: conversation("c") },
    ];
    for order in orders {
        rig.a.backbone.control(&order).await.expect("sent");
        assert_eq!(rig.b.next().await, Seen::Control(order));
    }
}

async fn revoked_tokens_are_worthless(rig: Rig) {
    let ann = user("ann");
    assert!(!rig.a.backbone.is_revoked(&ann, None).await.expect("asked"));
    let at = rig.a.backbone.revoke(&ann).await.expect("revoked");
    assert!((at - Timestamp::now().unix_seconds()).abs() <= 1);
    for (issued_at, revoked) in [(None, true), (Some(at - 10), true), (Some(at), true), (Some(at + 1), false)] {
        assert_eq!(rig.b.backbone.is_revoked(&ann, issued_at).await.expect("asked"), revoked, "{issued_at:?}");
        let entered = rig.b.backbone.enter(Entrant { user: ann.clone(), issued_at, asked: None }).await.expect("asked");
        assert_eq!(entered == EntryOutcome::Revoked, revoked, "{issued_at:?}: {entered:?}");
    }
    assert!(!rig.b.backbone.is_revoked(&user("bob"), None).await.expect("asked"));

    // What the store remembers comes back, but never in the place of something newer.
    let (bob, now_s) = (user("bob"), at);
    let put_back = [(ann.clone(), at - 100), (bob.clone(), at - 50)];
    rig.b.backbone.restore_revocations(&put_back).await.expect("put back");
    let known = rig.a.backbone.revoked_at(&[bob, user("cid"), ann]).await.expect("asked");
    assert_eq!(known, [Some(now_s - 50), None, Some(at)]);
}

/// Anybody may write to Redis. An answer that is the same for ever is a definite one.
async fn values_that_can_not_be_read_are_definite_answers(rig: Rig) {
    let Some(redis) = &rig.redis else { return };
    let (id, backbone) = (SessionId::parse("s-1").expect("an id"), &rig.b.backbone);
    redis.set_bytes(&rig.named("session:s-1"), b"J\xfcrgen");
    assert_eq!(backbone.session(&id).await.expect("a definite answer"), None);
    redis.ask(&rig.named("DEL session:s-1"));
    redis.ask(&rig.named("HSET session:s-1 user ann"));
    assert_eq!(backbone.session(&id).await.expect("a definite answer"), None);
    let ann = user("ann");
    for value in [&b"soon"[..], b"nan", b"0x7fffffff", b"1e12", b"\xff", b""] {
        redis.set_bytes(&rig.named("chat:revoked:ann"), value);
        for issued_at in [None, Some(1), Some(i64::from(u32::MAX))] {
            assert!(backbone.is_revoked(&ann, issued_at).await.expect("a definite answer"), "{value:?}");
            let entrant = Entrant { user: ann.clone(), issued_at, asked: None };
            assert_eq!(backbone.enter(entrant).await.expect("a definite answer"), EntryOutcome::Revoked, "{value:?}");
        }
    }
    redis.ask(&rig.named("DEL chat:revoked:ann"));
    redis.ask(&rig.named("LPUSH chat:revoked:ann x"));
    assert!(backbone.is_revoked(&ann, Some(1)).await.expect("a definite answer"));
    let entrant = Entrant { user: ann.clone(), issued_at: Some(1), asked: None };
    assert_eq!(backbone.enter(entrant).await.expect("a definite answer"), EntryOutcome::Revoked);
    backbone.restore_revocations(&[(ann.clone(), 7)]).await.expect("what can't be read gives way");
    assert!(!backbone.is_revoked(&ann, Some(8)).await.expect("asked"));
}

async fn sessions_and_tickets(rig: Rig) {
    let id = SessionId::parse("s-1").expect("an id");
    assert_eq!(rig.a.backbone.session(&id).await.expect("asked"), None);
    rig.a.backbone.set_session(&id, Some("42")).await.expect("written");
    assert_eq!(rig.b.backbone.session(&id).await.expect("asked").as_deref(), Some("42"));
    rig.b.backbone.set_session(&id, None).await.expect("deleted");
    assert_eq!(rig.a.backbone.session(&id).await.expect("asked"), None);

    let (ticket, late) = (Ticket::random(), Ticket::random());
    rig.a.backbone.put_ticket(&ticket, "who", 30).await.expect("kept");
    let (one, other) = tokio::join!(rig.a.backbone.take_ticket(&ticket), rig.b.backbone.take_ticket(&ticket));
    let mut taken = [one.expect("asked"), other.expect("asked")];
    taken.sort();
    assert_eq!(taken, [None, Some("who".to_owned())], "exactly one of two gets it");
    rig.a.backbone.put_ticket(&late, "who", 1).await.expect("kept");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(rig.b.backbone.take_ticket(&late).await.expect("asked"), None);
}

async fn subscriptions_are_counted_and_linger(rig: Rig) {
    let ann = user("ann");
    let backbone = &rig.a.backbone;
    let receivers = async || match backbone.publish(vec![ephemeral(&ann, &envelope(1))]).await.expect("published")[..] {
        [DeliveryOutcome::To(receivers)] => receivers,
        _ => panic!("one answer"),
    };
    let (one, two) = tokio::join!(backbone.subscribe(&ann), backbone.subscribe(&ann));
    one.and(two).expect("subscribed");
    backbone.unsubscribe(&ann);
    assert_eq!(receivers().await, 1);
    backbone.unsubscribe(&ann);
    assert_eq!(receivers().await, 1, "it lingers");
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    backbone.subscribe(&ann).await.expect("subscribed");
    backbone.unsubscribe(&ann);
    let since = Instant::now();
    left(&rig.a, &ann).await;
    assert!(since.elapsed() >= Duration::from_millis(1_900), "for two seconds after the last");
    backbone.subscribe(&ann).await.expect("subscribed");
    assert_eq!(receivers().await, 1);
}

async fn what_is_no_envelope_is_refused(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    rig.a.backbone.open(&ann).await.expect("opened");
    for body in ["", "x", "{", "{}", "[1]", "\n{\"a\":1}"] {
        let mut bad = event(&ann, 1);
        bad.body = body.to_owned().into();
        assert!(rig.a.backbone.publish(vec![bad]).await.is_err(), "{body:?}");
    }
    let mut odd = event(&ann, 1);
    odd.body = vec![b'{', b'"', 0, 255, b'\r', b'\n', b'\'', b'\\'].into();
    assert_eq!(
        rig.a.backbone.publish(vec![odd, event(&ann, 2)]).await.expect("published"),
        [DeliveryOutcome::To(1); 2]
    );
    let Seen::User(_, payload) = rig.a.next().await else { panic!("an event") };
    assert_eq!(&payload[..], b"{\"seq\":1,\"\0\xff\r\n'\\");
    assert_eq!(rig.a.payload(&ann).await, numbered(2, 2));
    assert!(rig.a.backbone.publish(Vec::new()).await.expect("nothing to do").is_empty());
}

async fn closing_publishes_what_was_handed_over(rig: Rig) {
    let ann = user("ann");
    rig.a.backbone.subscribe(&ann).await.expect("subscribed");
    rig.a.backbone.open(&ann).await.expect("opened");
    let (published, ()) = tokio::join!(biased;
        rig.a.backbone.publish((1..=2000).map(|n| event(&ann, n)).collect()),
        rig.a.backbone.close(),
    );
    assert_eq!(published.expect("published").len(), 2000);
    assert!(rig.a.backbone.publish(vec![event(&ann, 1)]).await.is_err());
}

async fn nodes_are_counted(rig: Rig) {
    let is = async |nodes: u64| {
        eventually(Duration::from_secs(10), async || (u64::from(rig.a.backbone.nodes()) == nodes).then_some(())).await;
    };
    is(rig.both()).await;
    if rig.is_shared() {
        rig.b.backbone.close().await;
        is(1).await;
    }
}

#[tokio::test]
async fn a_backbone_without_server_does_not_start() {
    let mut redis = Redis::start();
    redis.kill();
    let start = async |url: &str, settings: Settings| {
        RedisBackbone::start(url, settings, deaf(), empty_store()).await.err().expect("it does not start")
    };
    assert!(start(&redis.url(), settings()).await.0.contains("Redis is away"));
    let refused = start("http://user:secret@host", settings()).await;
    assert!(!refused.0.contains("secret"), "{refused}");
    start(&redis.url(), Settings::new("a node", "b")).await;
}

async fn a_users_allowance_is_one_for_all_nodes(rig: Rig) {
    let (ann, bob) = (user("ann"), user("bob"));
    // One in ten seconds, twenty at once: nothing comes back while this runs.
    let draw = Draw { cost_us: 10_000_000, burst_us: 200_000_000, debt_us: 200_000_000, wanted: 6, least: 1, owed: 0 };
    assert_eq!(rig.a.backbone.draw(&ann, draw).await.expect("drawn"), Grant::Granted(6));
    assert_eq!(rig.b.backbone.draw(&ann, draw).await.expect("drawn"), Grant::Granted(6));
    let owing = Draw { owed: 4, ..draw };
    assert_eq!(rig.a.backbone.draw(&ann, owing).await.expect("drawn"), Grant::Granted(4), "what is owed is paid first");
    let Grant::Refused { wait_ms } = rig.b.backbone.draw(&ann, draw).await.expect("drawn") else {
        panic!("nothing is left")
    };
    assert!((30_000..=60_000).contains(&wait_ms), "{wait_ms}");
    // However much is owed, no more than a whole burst is taken in advance.
    assert!(matches!(
        rig.b.backbone.draw(&ann, Draw { owed: 1000, ..draw }).await.expect("drawn"),
        Grant::Refused { wait_ms: ..=60_000 }
    ));
    assert_eq!(rig.b.backbone.draw(&bob, draw).await.expect("drawn"), Grant::Granted(6), "each has their own");
    if let Some(redis) = &rig.redis {
        let life_s = redis.number(&rig.named("TTL chat:rate:ann"));
        assert!((100..=201).contains(&life_s), "it goes when it is whole again, not in {life_s} s");
        redis.ask(&rig.named("SET chat:rate:bob nonsense"));
        assert_eq!(rig.a.backbone.draw(&bob, draw).await.expect("drawn"), Grant::Granted(6));
    }
}

async fn push_jobs_are_taken_kept_and_ended(rig: Rig) {
    let (a, b) = (&rig.a.backbone, &rig.b.backbone);
    let job = |name: &str, n: u64| pushed(event(&user(name), n), "c", n, "sender");
    assert_eq!(a.take_push_jobs(10).await.expect("taken"), []);
    for name in ["ann", "bob", "cid"] {
        a.open(&user(name)).await.expect("opened");
    }
    a.publish(vec![job("ann", 1), job("bob", 2), job("cid", 3)]).await.expect("published");
    if let Some(redis) = &rig.redis {
        redis.ask(&rig.named("XADD chat:push * user ann message nonsense"));
    }
    let mut first = a.take_push_jobs(2).await.expect("taken");
    let rest = b.take_push_jobs(10).await.expect("taken");
    assert_eq!((first.len(), rest.len()), (2, 1), "each job is at one node, and what is no job at none");
    let facts = |job: &gateway::backbone::PushJob| (job.user.clone(), job.message, job.conversation.clone(), job.seq);
    assert_eq!(facts(&first[0]), (Some(user("ann")), message(1), conversation("c"), 1));
    assert_eq!(facts(&rest[0]), (Some(user("cid")), message(3), conversation("c"), 3));
    let handles: Vec<String> = first.iter().map(|job| job.handle.clone()).collect();
    a.keep_push_jobs(&handles).await.expect("kept");
    let last = first.pop().expect("two");
    a.bury_push_job(&last, "a reason").await.expect("buried");
    a.finish_push_job(&first[0]).await.expect("finished");
    b.finish_push_job(&rest[0]).await.expect("finished");
    assert_eq!(a.buried_push_jobs().await.expect("counted"), 1);
    assert_eq!(a.take_push_jobs(10).await.expect("taken"), []);
    if let Some(redis) = &rig.redis {
        assert_eq!(redis.number(&rig.named("XLEN chat:push")), 0);
        let dead = format!("{:?}", redis.ask(&rig.named("XRANGE chat:push:dead - +")));
        assert!(dead.contains("bob") && dead.contains("a reason"), "{dead}");
    }
}

/// A job about message `n`, from one user to another.
fn push(from: &str, to: &str, conversation: &str, n: u64) -> gateway::backbone::Delivery {
    pushed(event(&user(to), n), conversation, n, from)
}

async fn a_flood_of_push_jobs_takes_nothing_from_others(rig: Rig) {
    let backbone = &rig.a.backbone;
    let honest = |n: u64| push(&format!("h{n}"), "ann", &format!("c{n}"), n);
    let flood = |conversation: &str, from: u64| {
        let job = |n: u64| push("mallory", "bob", conversation, n);
        (from..from + 400).map(job).collect::<Vec<_>>()
    };
    for name in ["ann", "bob"] {
        backbone.open(&user(name)).await.expect("opened");
    }
    backbone.publish((1..=20).map(honest).collect()).await.expect("published");
    // One conversation; then the same sender in another one; then others who flood together.
    backbone.publish(flood("flood", 1_000)).await.expect("published");
    backbone.publish(flood("other", 2_000)).await.expect("published");
    for n in 0..20 {
        let others = (0..100).map(|k| push(&format!("m{n}"), "bob", &format!("f{n}"), 10_000 + 100 * n + k));
        backbone.publish(others.collect()).await.expect("published");
    }
    backbone.publish((21..=40).map(honest).collect()).await.expect("published");
    let jobs = rig.b.backbone.take_push_jobs(10_000).await.expect("taken");
    let of = |from: &str| jobs.iter().filter(|job| job.sender == Some(user(from))).count();
    assert!(jobs.len() <= 900, "{}", jobs.len());
    assert!((80..=100).contains(&of("mallory")), "{}", of("mallory"));
    assert!(jobs.iter().all(|job| job.conversation != conversation("other")), "a sender has one share");
    let names: std::collections::BTreeSet<&str> = jobs.iter().map(|job| job.conversation.as_str()).collect();
    let missing: Vec<u64> = (1..=40).filter(|n| !names.contains(&*format!("c{n}"))).collect();
    assert_eq!(missing, [0; 0], "every honest job is there, those before the floods and those after them");
    // What is done makes room.
    for job in &jobs {
        rig.b.backbone.finish_push_job(job).await.expect("finished");
        rig.b.backbone.finish_push_job(job).await.expect("finished, and counted once");
    }
    if let Some(redis) = &rig.redis {
        assert_eq!(redis.number(&rig.named("XLEN chat:push")), 0);
        assert_eq!(redis.number(&rig.named("EXISTS chat:push:shares:{chat:push}")), 0, "nothing stays counted");
    }
    backbone.publish(vec![push("mallory", "bob", "flood", 9)]).await.expect("published");
    assert_eq!(backbone.take_push_jobs(10).await.expect("taken").len(), 1);
}

async fn push_jobs_are_for_users_who_were_here(rig: Rig) {
    let backbone = &rig.a.backbone;
    let invented = (0..500).map(|n| push("mallory", &format!("invented{n}"), "c", n + 1));
    backbone.publish(invented.collect()).await.expect("published");
    // The store knows this one, and is asked after the others.
    backbone.publish(vec![push("ann", "old", "d", 1)]).await.expect("published");
    let taken = async || Some(backbone.take_push_jobs(10).await.expect("taken")).filter(|jobs| !jobs.is_empty());
    let jobs = eventually(Duration::from_secs(10), taken).await;
    assert_eq!(jobs.iter().filter_map(|job| job.user.as_ref()).collect::<Vec<_>>(), [&user("old")]);
    assert_eq!(jobs[0].sender, Some(user("ann")));
    assert_eq!(backbone.take_push_jobs(10).await.expect("taken"), []);
}
