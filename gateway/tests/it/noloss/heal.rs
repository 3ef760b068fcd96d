//! Events that Redis didn't bring: the node heals the gap in place, or notifies the client.

use std::time::Duration;

use serde_json::json;

use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded, flood, flooded, say};

/// A node finds silent loss within this time: its check of every user's log comes round in ten seconds.
const CHECKED_WITHIN: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_that_were_lost_are_healed_in_place() {
    bounded(async {
        // A log that holds more than is missed.
        let cluster = TwoNodes::start(&[("RESUME_EVENTS", "1000")]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let mut devices = [Follower::join(one, "b").await, Follower::join(one, "b").await];
        let sending = tokio::spawn(async move { flood(two, "a", "b", 400).await });
        for _ in 0..3 {
            devices[0].until("message.new").await;
            cluster.cut_off(&cluster.one);
            cluster.one.wait_ready(false).await;
            cluster.one.wait_ready(true).await;
        }
        sending.await.expect("every message is acknowledged");
        for device in &mut devices {
            device.until_message("m399").await;
            assert_eq!(device.contents(), flooded(400));
            assert!(device.notices.is_empty(), "{:?}", device.notices);
        }
    })
    .await;
}

/// The log has an event that was never published: nothing else comes that would show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_loss_is_found_without_a_new_event() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        let seq = b.seq;
        // As the append writes it: without its first character.
        let body = r#""type":"notification","payload":{"n":1}}"#;
        cluster.redis.ask(&format!("XADD chat:log:{{chat:user:b}} 1-* i 1:x d {body}"));
        b.settle_until(CHECKED_WITHIN, |b| b.seq > seq).await;
        assert_eq!(b.events.last().map(|event| &event["payload"]), Some(&json!({ "n": 1 })));
        assert!(b.notices.is_empty(), "{:?}", b.notices);
    })
    .await;
}

/// An event whose push was lost shows with the next one, and is read from the log before that is passed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_healed_at_once() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        say(cluster.two.http, "a", "b", "before").await;
        b.until_message("before").await;
        cluster.redis.ask(r#"XADD chat:log:{chat:user:b} 1-* i 1:x d "type":"notification","payload":{}}"#);
        say(cluster.two.http, "a", "b", "after").await;
        // Well before the check of every log comes round.
        tokio::time::timeout(Duration::from_secs(5), b.until_message("after")).await.expect("at once");
        let kinds: Vec<_> = b.events.iter().rev().take(2).map(|event| event["type"].clone()).collect();
        assert_eq!(kinds, [json!("message.new"), json!("notification")]);
        assert!(b.notices.is_empty(), "{:?}", b.notices);
    })
    .await;
}

/// Another program has written into a log: its entries are a hole, of which sockets are told, and the log goes on behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_into_a_log_is_told_as_a_hole() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        // One, one that looks like ours, and more than a page of them.
        let entries = [(1, "foo bar"), (1, "i 1:x d nonsense"), (70, "foo bar")];
        for (round, (count, entry)) in entries.into_iter().enumerate() {
            say(cluster.two.http, "a", "b", "before").await;
            b.until_message("before").await;
            let (epoch, seq) = (b.epoch.clone(), b.seq);
            for _ in 0..count {
                cluster.redis.ask(&format!("XADD chat:log:{{chat:user:b}} 1-* {entry}"));
            }
            say(cluster.two.http, "a", "b", "behind").await;
            let told = tokio::time::timeout(CHECKED_WITHIN, b.until("resync")).await.expect("it is not silent");
            assert_eq!((&told["payload"]["reason"], b.notices.len()), (&json!("trimmed"), round + 1));
            assert_eq!((&b.epoch, b.seq), (&epoch, seq + count + 1));
            say(cluster.two.http, "a", "b", "after").await;
            b.until_message("after").await;
            b = b.resume(cluster.two.http).await;
        }
    })
    .await;
}

/// A5: nobody knows what the log held, so the client fetches what it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_vanishes_under_a_subscription_is_told_as_a_resync() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        say(cluster.two.http, "a", "b", "before").await;
        b.until_message("before").await;
        let epoch = b.epoch.clone();
        cluster.redis.ask("FLUSHALL");
        say(cluster.two.http, "a", "b", "after").await;
        let new = b.until_message("after").await;
        assert_eq!(new["seq"], 1);
        assert_eq!(b.notices.len(), 1, "{:?}", b.notices);
        assert_eq!((&b.notices[0]["type"], &b.notices[0]["payload"]["seq"]), (&json!("resync"), &json!(0)));
        assert_ne!(b.epoch, epoch);
        let resumed = b.resume(cluster.two.http).await;
        assert!(resumed.notices.len() == 1);
    })
    .await;
}

/// A5: not an append but a device on another node opens the new log. The other node's sockets are told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_another_device_opens_anew_is_announced() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        for n in 0..5 {
            say(cluster.two.http, "a", "b", &format!("before {n}")).await;
        }
        b.until_message("before 4").await;
        cluster.redis.ask("FLUSHALL");
        let mut second = Follower::join(cluster.two.http, "b").await;
        say(cluster.two.http, "a", "b", "after").await;
        // Well before the check of every log comes round.
        tokio::time::timeout(Duration::from_secs(5), b.until_message("after")).await.expect("at once");
        second.until_message("after").await;
        assert_eq!(b.notices.len(), 1, "{:?}", b.notices);
        assert_eq!((&b.notices[0]["type"], &b.notices[0]["payload"]["seq"]), (&json!("resync"), &json!(0)));
        assert_eq!((&b.epoch, b.seq), (&second.epoch, second.seq));
    })
    .await;
}

/// A5: nobody announces the new log, and its first events look old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_begun_anew_unseen_is_found() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        for n in 0..5 {
            say(cluster.two.http, "a", "b", &format!("before {n}")).await;
        }
        b.until_message("before 4").await;
        let (server, _) = b.epoch.split_once('.').expect("an epoch names its server");
        cluster.redis.ask("FLUSHALL");
        cluster.redis.ask(&format!("XGROUP CREATE chat:log:{{chat:user:b}} {server}.unseen 1-0 MKSTREAM"));
        cluster.redis.ask("XSETID chat:log:{chat:user:b} 1-0");
        let mut second = Follower::join(cluster.two.http, "b").await;
        assert_ne!(second.epoch, b.epoch);
        say(cluster.two.http, "a", "b", "after").await;
        assert_eq!(second.until_message("after").await["seq"], 1);
        b.settle_until(CHECKED_WITHIN, |b| !b.notices.is_empty()).await;
        assert_eq!((&b.notices[0]["type"], &b.notices[0]["payload"]["reason"]), (&json!("resync"), &json!("epoch")));
        assert_eq!((&b.epoch, b.seq), (&second.epoch, second.seq), "both devices are at the same place again");
    })
    .await;
}

/// B5: a count that restarted with an empty Redis would say 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_counts_are_rebuilt_when_redis_comes_back_empty() {
    bounded(async {
        let mut cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        for content in ["1", "2", "3"] {
            say(cluster.two.http, "a", "b", content).await;
        }
        say(cluster.two.http, "c", "b", "4").await;
        b.until_message("4").await;
        cluster.redis.kill();
        cluster.two.wait_ready(false).await;
        cluster.redis.restart();
        cluster.two.wait_ready(true).await;
        b.until("resync").await;
        say(cluster.two.http, "a", "b", "5").await;
        b.until_message("5").await;
        let unread = b.until("notification.unread").await;
        assert_eq!((&unread["payload"]["unread"], &unread["payload"]["totalUnread"]), (&json!(4), &json!(5)));
    })
    .await;
}

/// C4: what others wrote into a log is a hole, of which sockets and polls are told, and behind which they go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_nobody_can_read_is_told_as_a_hole() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let mut b = Follower::join(one, "b").await;
        say(two, "a", "b", "before").await;
        b.until_message("before").await;
        let trimmed = json!(["resync", "trimmed"]);
        let told = |b: &Follower| b.notices.last().map(|last| json!([last["type"], last["payload"]["reason"]]));
        for (round, fields) in [("one", "foo bar"), ("two", "i 1:x d nonsense"), ("three", "i x d \"a\":1}")] {
            let since = format!("{}:{}", b.epoch, b.seq);
            cluster.redis.ask(&format!("XADD chat:log:{{chat:user:b}} 1-{} {fields}", b.seq + 1));
            say(two, "a", "b", round).await;
            b.settle_until(Duration::from_secs(10), |b| told(b).as_ref() == Some(&trimmed)).await;
            let (status, moved) = acting(two, "GET", &format!("/api/v1/events?since={since}"), "b", json!(null)).await;
            assert_eq!(
                (status, &moved["reason"], moved["seq"].as_u64()),
                (409, &json!("trimmed"), Some(b.seq)),
                "{moved}"
            );
            b.notices.clear();
            say(two, "a", "b", "next").await;
            b.until_message("next").await;
        }
        // Nothing comes behind it: the check of every log finds it.
        let seq = b.seq + 1;
        cluster.redis.ask(&format!("XADD chat:log:{{chat:user:b}} 1-{seq} foo bar"));
        b.settle_until(CHECKED_WITHIN, |b| !b.notices.is_empty()).await;
        assert_eq!((told(&b), b.seq), (Some(trimmed), seq));
        // One behind which nothing can be appended: the log is begun anew, and everybody is told.
        cluster.redis.ask("XADD chat:log:{chat:user:b} 2-1 foo bar");
        say(two, "a", "b", "anew").await;
        let new = b.until_message("anew").await;
        assert_eq!((&new["seq"], told(&b)), (&json!(1), Some(json!(["resync", "epoch"]))));
    })
    .await;
}
