//! A node has a user's counts only once it needs them. Until then, and while the store is away, events and resumes go on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming};
use crate::support::node::token;
use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded, say};

/// Whoever reads members waits, as if the store were away; `COMMIT` ends it.
const LOCK: &str = "BEGIN; LOCK TABLE members IN ACCESS EXCLUSIVE MODE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_goes_on_without_the_store_and_its_counts_come_later() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut reader = Follower::join(cluster.one.http, "reader").await;
        let (epoch, seq) = (reader.epoch.clone(), reader.seq);
        for content in ["1", "2", "3"] {
            say(cluster.one.http, "friend", "reader", content).await;
        }
        reader.until_message("3").await;
        cluster.everything_is_published().await;
        let store = cluster.database.client().await;
        store.batch_execute(LOCK).await.expect("locked");
        let path = format!("/chat/ws?token={}&resume={epoch}:{seq}", token("reader"));
        let mut resumed = Client::open(cluster.two.http, &path, &[]).await.expect("an upgrade");
        assert_eq!(resumed.expect("auth_success").await["payload"]["resumed"], true);
        for content in ["1", "2", "3"] {
            assert_eq!(resumed.expect("message.new").await["payload"]["message"]["content"], content);
        }
        assert!(resumed.settle().await.iter().all(|frame| frame["type"] != "notification.unread"));
        store.batch_execute("COMMIT").await.expect("unlocked");
        let told = resumed.expect("notification.unread").await;
        assert_eq!((&told["payload"]["unread"], &told["payload"]["totalUnread"]), (&json!(3), &json!(3)));
    })
    .await;
}

/// The companions of several events may be lost with a connection, not only those of the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_repeats_the_counts_of_the_events_before_it() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut reader = Follower::join(cluster.one.http, "reader").await;
        for friend in ["ann", "bob", "cid"] {
            say(cluster.one.http, friend, "reader", friend).await;
        }
        reader.until_message("cid").await;
        let path = format!("/chat/ws?token={}&resume={}:{}", token("reader"), reader.epoch, reader.seq);
        let mut resumed = Client::open(cluster.two.http, &path, &[]).await.expect("an upgrade");
        let mut told = Vec::new();
        while told.len() < 3 {
            let frame = resumed.expect("notification.unread").await;
            told.push((frame["payload"]["unread"].clone(), frame["payload"]["totalUnread"].clone()));
        }
        assert_eq!(told, vec![(json!(1), json!(3)); 3]);
    })
    .await;
}

/// A flat socket is told no counts, so none are loaded for it; a canonical one that comes later is told those of now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_those_of_now_for_whoever_comes_after_a_pause() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let one = cluster.one.http;
        let mut flat = Client::open(one, &format!("/ws?token={}", token("reader")), &[]).await.expect("an upgrade");
        let mut reader = Client::join(one, "reader").await;
        say(one, "friend", "reader", "1").await;
        assert_eq!(reader.expect("notification.unread").await["payload"]["totalUnread"], 1);
        drop(reader);
        tokio::time::sleep(Duration::from_millis(200)).await;
        for content in ["2", "3"] {
            say(one, "friend", "reader", content).await;
        }
        while !matches!(flat.next().await, Incoming::Frame(frame) if frame["content"] == "3") {}
        let (status, _) = acting(one, "GET", "/api/v1/conversations", "reader", Value::Null).await;
        assert_eq!(status, 200);
        let mut reader = Client::join(one, "reader").await;
        say(one, "friend", "reader", "4").await;
        assert_eq!(reader.expect("notification.unread").await["payload"]["totalUnread"], 4);
    })
    .await;
}
