//! The seam between log and live events: resume on another node, joining under load, and the answers to a failed
//! resume.

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming};
use crate::support::node::token;
use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded, flood, flooded, position, say};

/// Events arrive while the socket joins: from the log or live, each comes once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_on_another_node_has_no_hole_at_the_seam() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let mut b = Follower::join(one, "b").await;
        let sending = tokio::spawn(async move { flood(two, "a", "b", 400).await });
        for round in 0..10 {
            for _ in 0..30 {
                b.until("message.new").await;
            }
            b = b.resume(if round % 2 == 0 { two } else { one }).await;
        }
        b.until_message("m399").await;
        assert_eq!(b.contents(), flooded(400));
        assert!(b.notices.is_empty(), "{:?}", b.notices);
        sending.await.expect("every message is acknowledged");
    })
    .await;
}

/// B1: a device that joins misses nothing of what the node passes on to the others meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_join_under_load_see_everything_from_their_position_on() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let mut first = Follower::join(one, "b").await;
        let sending = tokio::spawn(async move { flood(two, "a", "b", 300).await });
        let mut devices = Vec::new();
        for _ in 0..15 {
            first.until("message.new").await;
            devices.push((first.seq, Follower::join(one, "b").await));
        }
        first.until_message("m299").await;
        assert_eq!(first.contents(), flooded(300));
        for (seen_by_first, mut device) in devices {
            assert!(device.seq >= seen_by_first, "a position is never behind what the node has passed on");
            let begun = device.seq;
            device.until_message("m299").await;
            let of_first = &first.events[first.events.len() - device.events.len()..];
            assert_eq!(device.events, of_first, "from {begun} on the same as the first device");
        }
        sending.await.expect("every message is acknowledged");
    })
    .await;
}

/// Opens a socket with this `resume` and takes `auth_success` and, if it was refused, `resync`.
async fn resume(at: std::net::SocketAddr, position: &str) -> (Client, Value, Option<Value>) {
    let path = format!("/chat/ws?token={}&resume={position}", token("b"));
    let mut client = Client::open(at, &path, &[]).await.expect("an upgrade");
    let Incoming::Frame(success) = client.next().await else { panic!("auth_success comes first") };
    let success = success["payload"].clone();
    if success["resumed"] == true {
        return (client, success, None);
    }
    let Incoming::Frame(resync) = client.next().await else { panic!("resync comes second") };
    assert_eq!(resync["type"], "resync");
    (client, success, Some(resync["payload"].clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_resume_says_why_and_the_store_has_the_rest() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let mut b = Follower::join(one, "b").await;
        let (epoch, begun) = (b.epoch.clone(), b.seq);
        flood(two, "a", "b", 30).await;
        b.until_message("m29").await;
        cluster.redis.ask("XTRIM chat:log:{chat:user:b} MAXLEN 16");
        let last = b.seq;
        for (asked, reason) in [
            (format!("{epoch}:{begun}"), "trimmed"),
            (format!("{epoch}:{}", last + 1000), "future"),
            (format!("other.1:{last}"), "epoch"),
            ("nonsense".to_owned(), "invalid"),
            (format!("{epoch}:-1"), "invalid"),
        ] {
            let (mut client, success, resync) = resume(two, &asked).await;
            let resync = resync.unwrap_or_else(|| panic!("{asked} can't be served"));
            assert_eq!(resync["reason"], reason, "{asked}");
            assert_eq!(position(&resync), position(&success));
            assert_eq!(position(&resync), (b.epoch.clone(), b.seq), "the new position is the log's end");
            // From there on events come live.
            let again = say(one, "a", "b", reason).await;
            let new = client.expect("message.new").await;
            assert_eq!((&new["seq"], &new["payload"]["message"]["id"]), (&json!(b.seq + 1), &again["id"]));
            b.until_message(reason).await;
        }
        // What the log has no more, the store has: gapless by `seq`, and by `rev` for what changed.
        let conversation = b.events[1]["payload"]["message"]["conversationId"].as_str().expect("an id").to_owned();
        for (query, number) in [("after", "seq"), ("changedSince", "rev")] {
            let mut reached = 0;
            loop {
                let path = format!("/api/v1/conversations/{conversation}/messages?{query}={reached}&limit=100");
                let (status, page) = acting(two, "GET", &path, "b", Value::Null).await;
                assert_eq!(status, 200, "{page}");
                for message in page["items"].as_array().expect("a list") {
                    reached += 1;
                    assert_eq!(message[number], reached, "{query} leaves no gap");
                }
                if page.get("next").is_none() {
                    break;
                }
            }
            assert_eq!(reached, 35);
        }
    })
    .await;
}

/// A client may have got N without what travels behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_from_n_repeats_the_companions_of_n() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        for content in ["first", "second", "third"] {
            say(cluster.two.http, "a", "b", content).await;
        }
        let second = b.until_message("second").await;
        let updated = b.until("conversation.updated").await;
        let third = b.until_message("third").await;
        let (mut again, _, resync) = resume(cluster.two.http, &format!("{}:{}", b.epoch, second["seq"])).await;
        assert_eq!(resync, None);
        assert_eq!(again.next().await, Incoming::Frame(updated));
        // The count comes when it is loaded: it is that of now.
        let unread = again.expect("notification.unread").await;
        assert_eq!((&unread["payload"]["unread"], &unread["payload"]["totalUnread"]), (&json!(3), &json!(3)));
        assert_eq!(again.expect("message.new").await, third);
    })
    .await;
}

/// The log has more than the socket's queue takes: it comes in portions, and the socket isn't taken for a slow one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_larger_than_the_queue_comes_in_portions() {
    bounded(async {
        let cluster = TwoNodes::start(&[("SEND_QUEUE_BYTES", "65536")]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        say(cluster.two.http, "a", "b", "first").await;
        b.until_message("first").await;
        let asked = format!("{}:{}", b.epoch, b.seq);
        drop(b);
        let mut sender = Client::join(cluster.two.http, "a").await;
        let long = "x".repeat(1_000);
        for n in 0..200 {
            sender.send("message.send", json!({ "to": "b", "content": format!("{n} {long}") })).await;
            sender.expect("message.sent").await;
        }
        let (mut client, _, resync) = resume(cluster.two.http, &asked).await;
        assert_eq!(resync, None);
        for n in 0..200 {
            let new = client.expect("message.new").await;
            assert_eq!(new["payload"]["message"]["content"], format!("{n} {long}"));
        }
    })
    .await;
}

/// A resume in the `auth` frame is the same as one in the query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_auth_frame_resumes_too() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let mut b = Follower::join(cluster.one.http, "b").await;
        say(cluster.two.http, "a", "b", "first").await;
        b.until_message("first").await;
        let (epoch, seq) = (b.epoch.clone(), b.seq);
        drop(b);
        say(cluster.two.http, "a", "b", "second").await;
        let mut client = Client::open(cluster.two.http, "/chat/ws", &[]).await.expect("an upgrade");
        let asked = json!({ "epoch": epoch, "seq": seq });
        client.send("auth", json!({ "token": token("b"), "resume": asked })).await;
        let success = client.expect("auth_success").await;
        assert_eq!((&success["payload"]["resumed"], &success["payload"]["seq"]), (&json!(true), &json!(seq)));
        assert_eq!(client.expect("message.new").await["payload"]["message"]["content"], "second");
    })
    .await;
}
