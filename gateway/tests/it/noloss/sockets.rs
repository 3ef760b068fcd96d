//! Sockets that are slow, revoked, or on a node that drains.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Incoming};
use crate::support::http::get;
use crate::support::node::{Node, in_seconds, token, token_with};
use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded, say};

/// Whoever doesn't read is closed with 4105; nobody else feels it. The log of such long messages holds only the last of
/// them, and the store the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_costs_only_itself() {
    bounded(async {
        // The default queue of 1 MiB; messages of 30 KB, which their companions repeat.
        let cluster = TwoNodes::start(&[("MAX_CONTENT_CHARS", "50000")]).await;
        let one = cluster.one.http;
        let mut slow = Follower::join(one, "b").await;
        let mut quick = Follower::join(one, "b").await;
        slow.settle().await;
        // 12 MB: more than the kernel keeps for a socket that isn't read, and more than the queue takes at once.
        let long = "x".repeat(30_000);
        let mut sender = Client::join(cluster.two.http, "a").await;
        for n in 0..200 {
            sender.send("message.send", json!({ "to": "b", "content": format!("{n} {long}") })).await;
            sender.expect("message.sent").await;
            quick.until("message.new").await;
        }
        assert_eq!(quick.contents().len(), 200);
        assert!(quick.notices.is_empty());
        let sockets = async {
            while cluster.one.app.node().registry.socket_count() > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), sockets)
            .await
            .expect("the slow socket is closed, the other stays");
        slow.until_closed().await;
        assert!(slow.contents().len() < 200, "the queue is bounded");
        let path = format!("/chat/ws?token={}&resume={}:{}", token("b"), slow.epoch, slow.seq);
        let mut again = Client::open(cluster.two.http, &path, &[]).await.expect("an upgrade");
        assert_eq!(again.expect("resync").await["payload"]["reason"], "trimmed");
        let mut contents = slow.contents();
        let conversation = &quick.events[1]["payload"]["message"]["conversationId"].as_str().expect("an id").to_owned();
        while contents.len() < 200 {
            let path = format!("/api/v1/conversations/{conversation}/messages?after={}", contents.len());
            let (status, page) = acting(cluster.two.http, "GET", &path, "b", json!(null)).await;
            assert_eq!(status, 200, "{page}");
            let items = page["items"].as_array().expect("a list");
            assert!(!items.is_empty(), "{} and no more", contents.len());
            contents.extend(items.iter().map(|message| message["content"].as_str().expect("text").to_owned()));
        }
        assert_eq!(contents, quick.contents());
    })
    .await;
}

/// Both sockets go within a second, and older tokens are worthless from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_node_within_a_second() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let old = token_with(json!({ "sub": "b", "exp": in_seconds(3600), "iat": in_seconds(-5) }));
        let (mut here, _) = Client::join_with(cluster.one.http, &old).await;
        let (mut there, _) = Client::join_with(cluster.two.http, &old).await;
        let mut other = Client::join(cluster.two.http, "c").await;
        let since = Instant::now();
        let order = json!({ "userId": "b" });
        assert_eq!(acting(cluster.one.http, "POST", "/api/v1/control/revoke", "x", order).await.0, 202);
        assert_eq!((here.expect_close().await, there.expect_close().await), (4002, 4002));
        assert!(since.elapsed() < Duration::from_secs(1), "took {:?}", since.elapsed());
        let mut again =
            Client::open(cluster.two.http, &format!("/chat/ws?token={old}"), &[]).await.expect("an upgrade");
        assert_eq!(again.expect("auth_failed").await["payload"]["code"], "UNAUTHENTICATED");
        assert_eq!(again.expect_close().await, 4002);
        let bearer = format!("Bearer {old}");
        assert_eq!(get(cluster.one.http, "/api/v1/conversations", &[("authorization", &bearer)]).await.0, 401);
        let newer = token_with(json!({ "sub": "b", "exp": in_seconds(3600), "iat": in_seconds(1) }));
        Client::join_with(cluster.one.http, &newer).await;
        other.settle().await;
    })
    .await;
}

/// A send whose commit is under way when the node goes down is acknowledged before its socket is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_is_under_way_is_acknowledged_before_the_close() {
    bounded(async {
        let cluster = TwoNodes::start(&[("DRAIN_SECONDS", "4")]).await;
        let TwoNodes { one, two, database, .. } = cluster;
        say(two.http, "b", "a", "first").await;
        let mut a = Client::join(one.http, "a").await;
        let mut blocker = database.client().await;
        let lock = blocker.transaction().await.expect("a transaction");
        lock.execute("SELECT 1 FROM conversations FOR UPDATE", &[]).await.expect("locked");
        a.send("message.send", json!({ "to": "b", "content": "held", "tempId": "held" })).await;
        let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let watch = database.client().await;
        while watch.query(waiting, &[]).await.expect("asked").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let drained = tokio::spawn(one.app.drain());
        a.expect("goaway").await;
        // Time enough for the first batches.
        tokio::time::sleep(Duration::from_millis(150)).await;
        lock.rollback().await.expect("unlocked");
        assert_eq!(a.expect("message.sent").await["payload"]["tempId"], "held");
        assert_eq!(a.expect_close().await, 4200);
        drained.await.expect("it ends well").expect("and every part of it");
    })
    .await;
}

/// Who connects while the node goes down is served or told 4200, until nobody listens there any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_during_the_drain_are_told() {
    bounded(async {
        let cluster = TwoNodes::start(&[("DRAIN_SECONDS", "3"), ("DRAIN_DELAY_SECONDS", "1")]).await;
        let Node { app, http, ops } = cluster.one;
        let mut settled = Client::join(http, "a").await;
        let drained = tokio::spawn(app.drain());
        let (mut served, mut told) = (0, 0);
        let path = format!("/chat/ws?token={}", token("b"));
        while !drained.is_finished() {
            let Ok(mut client) = Client::open(http, &path, &[]).await else { break };
            match client.next().await {
                Incoming::Frame(frame) => {
                    assert_eq!(frame["type"], "auth_success");
                    served += 1;
                }
                Incoming::Closed(code, _) => {
                    assert_eq!(code, 4200);
                    told += 1;
                }
                Incoming::Vanished => panic!("reset after {served} served and {told} told"),
            }
            if served == 1 {
                assert_eq!(get(ops, "/readyz", &[]).await.0, 503, "it was unready first");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let goaway = settled.expect("goaway").await;
        assert!(goaway["payload"]["reconnectWindowMs"].as_u64().is_some_and(|window| (1..=2000).contains(&window)));
        assert_eq!(settled.expect_close().await, 4200);
        assert!(served > 0 && told > 0, "{served} served, {told} told");
        drained.await.expect("it ends well").expect("and every part of it");
    })
    .await;
}

/// A herd waits for its turn; who waits too long, or meets a node without Redis, is told when to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_can_not_join_are_sent_away_at_different_times() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let path = format!("/chat/ws?token={}", token("b"));
        let open = async || Client::open(cluster.one.http, &path, &[]).await.expect("an upgrade");
        let joining = &cluster.one.app.node().joining;
        let all = u32::try_from(joining.available_permits()).expect("a number of places");
        let places = joining.acquire_many(all).await.expect("places");
        let mut waiting = [open().await, open().await, open().await, open().await];
        let mut waits = Vec::new();
        for client in &mut waiting {
            waits.push(client.expect("error").await["payload"]["retryAfterMs"].as_u64().expect("a time"));
            assert_eq!(client.expect_close().await, 4100);
        }
        waits.dedup();
        assert!(waits.len() > 1 && waits.iter().all(|wait| (500..=5_000).contains(wait)), "{waits:?}");
        drop(places);
        Client::join(cluster.one.http, "b").await;

        cluster.redis.freeze();
        let mut frozen = open().await;
        let error = frozen.expect("error").await;
        assert_eq!((&error["payload"]["code"], &error["payload"]["retryable"]), (&json!("UNAVAILABLE"), &json!(true)));
        assert!(error["payload"]["retryAfterMs"].is_u64());
        assert_eq!(frozen.expect_close().await, 4104);
        cluster.redis.thaw();
    })
    .await;
}
