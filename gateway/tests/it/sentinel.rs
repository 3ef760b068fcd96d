//! Two nodes on a master that Redis Sentinels look after: whatever becomes of it, what was acknowledged is delivered once and
//! in order, or told by `resync` and found in the store (NOLOSS A1, A2).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::noloss_rig::{Follower, bounded};
use crate::support::client::Client;
use crate::support::node::Node;
use crate::support::postgres::Postgres;
use crate::support::sentinel::Guarded;

const SETTINGS: [(&str, &str); 2] = [("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")];

/// Sends a message every 20 ms while the master changes, and judges what a follower on the other node got.
async fn nothing_is_lost_when(harm: impl FnOnce(&mut Guarded)) {
    let (mut guarded, database) = (Guarded::start(), Postgres::database().await);
    let one = Node::serve(&guarded.url(), &database.url, &SETTINGS).await;
    let two = Node::serve(&guarded.url(), &database.url, &SETTINGS).await;
    one.wait_ready(true).await;
    two.wait_ready(true).await;
    let mut b = Follower::join(two.http, "b").await;
    let mut a = Client::join(one.http, "a").await;

    let mut sent = 0;
    flood_for(&mut a, &mut sent, Duration::from_millis(500)).await;
    harm(&mut guarded);
    let flooding = async {
        loop {
            flood_for(&mut a, &mut sent, Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = flooding => {}
        () = guarded.wait_promoted() => {}
    }
    // Until both nodes are on the new master, and some more.
    let settled = async {
        while nodes_on(&guarded) < 2 {
            flood_for(&mut a, &mut sent, Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("both nodes go to the new master");
    one.wait_ready(true).await;
    two.wait_ready(true).await;
    let settled_at = sent;
    flood_for(&mut a, &mut sent, Duration::from_millis(500)).await;
    let acked = acknowledged(&mut a, sent).await;

    let last = format!("m{}", sent - 1);
    b.settle_until(Duration::from_secs(20), |b| b.contents().contains(&last)).await;
    let got = b.contents();
    let numbers: Vec<usize> = got.iter().map(|content| content[1..].parse().expect("a number")).collect();
    // What could not be published meanwhile is redone behind what could: the follower checks the order of the log.
    let later: Vec<usize> = numbers.iter().copied().filter(|n| *n >= settled_at).collect();
    assert_eq!(later, (settled_at..sent).collect::<Vec<_>>(), "afterwards everything comes as before");
    let count = got.len();
    let got: HashSet<String> = got.into_iter().collect();
    assert_eq!(got.len(), count, "each comes once: {numbers:?}");
    let client = database.client().await;
    let rows = client.query("SELECT content FROM messages", &[]).await.expect("the store answers");
    let stored: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(stored.len(), rows.len(), "each is stored once");
    let missed: Vec<&String> = acked.iter().filter(|content| !got.contains(*content)).collect();
    assert!(acked.iter().all(|content| stored.contains(content)), "what was acknowledged is in the store");
    let told = b.notices.iter().any(|notice| notice["type"] == "resync");
    assert!(told || missed.is_empty(), "missed without a word: {missed:?}");
    assert!(told, "the log is another: {:?}", b.notices);
}

/// How many nodes receive from the new master.
fn nodes_on(guarded: &Guarded) -> i64 {
    let (_, count): (String, i64) =
        redis::from_redis_value(guarded.replica.ask("PUBSUB NUMSUB chat:all")).expect("a channel and its count");
    count
}

async fn flood_for(sender: &mut Client, sent: &mut usize, time: Duration) {
    let since = Instant::now();
    while since.elapsed() < time {
        let n = *sent;
        *sent += 1;
        sender.send("message.send", json!({ "to": "b", "content": format!("m{n}"), "tempId": format!("t{n}") })).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The contents of those that were acknowledged; each of the `sent` has an answer.
async fn acknowledged(sender: &mut Client, sent: usize) -> HashSet<String> {
    let mut acked = HashSet::new();
    while acked.len() < sent {
        let ack = sender.expect("message.sent").await;
        acked.insert(ack["payload"]["message"]["content"].as_str().expect("text").to_owned());
    }
    acked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_loses_nothing() {
    bounded(nothing_is_lost_when(|guarded| guarded.master.kill())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_loses_nothing() {
    bounded(nothing_is_lost_when(|guarded| guarded.master.freeze())).await;
}

/// The old master answers on for a while: who stays longer than others publishes to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing() {
    bounded(nothing_is_lost_when(|guarded| guarded.fail_over())).await;
}
