//! Two nodes on a Redis Cluster: whatever becomes of a master, or of a slot, what was acknowledged is delivered once and in
//! order, or told by `resync` and found in the store; users of other masters notice nothing (NOLOSS A2, A14).

use std::time::Duration;

use serde_json::json;

use crate::noloss_rig::{Follower, bounded};
use crate::sentinel::{END, SETTINGS, acknowledged, fetched_until_the_end, flood_for, nothing_is_missed};
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::node::Node;
use crate::support::postgres::Postgres;

const CHANNEL: &str = "chat:user:b";

/// Sends a message every 20 ms while `harm` is done to the slot of `b`, and judges what a follower on the other node knows in
/// the end: what came as an event, and what the store had whenever it was told `resync`.
async fn nothing_is_lost_when(mut cluster: Cluster, harm: impl FnOnce(&mut Cluster, usize)) {
    let database = Postgres::database().await;
    let before = cluster.owner(CHANNEL);
    let elsewhere = (0..200).map(|n| format!("c{n}"));
    let well = elsewhere.into_iter().find(|name| cluster.owner(&format!("chat:user:{name}")) != before).expect("one");
    let one = Node::serve(&cluster.url(), &database.url, &SETTINGS).await;
    let two = Node::serve(&cluster.url(), &database.url, &SETTINGS).await;
    one.wait_ready(true).await;
    two.wait_ready(true).await;
    let store = database.client().await;
    let mut b = Follower::join(one.http, "b").await;
    let mut other = Follower::join(one.http, &well).await;
    let mut a = Client::join(two.http, "a").await;

    let sending = async {
        let mut sent = 0;
        flood_for(&mut a, &mut sent, Duration::from_millis(500)).await;
        harm(&mut cluster, before);
        // Until both nodes are on the new master, and some more.
        while !is_elsewhere(&cluster, before) {
            flood_for(&mut a, &mut sent, Duration::from_millis(100)).await;
        }
        one.wait_ready(true).await;
        two.wait_ready(true).await;
        flood_for(&mut a, &mut sent, Duration::from_millis(500)).await;
        let settled_at = sent;
        flood_for(&mut a, &mut sent, Duration::from_millis(500)).await;
        a.send("message.send", json!({ "to": "b", "content": END })).await;
        a.send("message.send", json!({ "to": well, "content": END })).await;
        (settled_at, sent, acknowledged(&mut a, sent + 1).await)
    };
    let ((settled_at, sent, acked), fetched) = tokio::join!(sending, fetched_until_the_end(&mut b, &store));
    nothing_is_missed(&mut b, &acked, &fetched, settled_at..sent).await;
    other.until_message(END).await;
    assert_eq!(other.notices, Vec::<serde_json::Value>::new(), "users of other masters notice nothing");
}

/// Whether another master has the slot, and both nodes receive from it.
fn is_elsewhere(cluster: &Cluster, before: usize) -> bool {
    let now = cluster.try_owner(CHANNEL).filter(|now| *now != before);
    now.and_then(|now| cluster.servers[now].try_ask("PUBSUB SHARDNUMSUB chat:user:b").ok()).is_some_and(|answer| {
        redis::from_redis_value::<(String, i64)>(answer).is_ok_and(|(_, subscribed)| subscribed > 0)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_loses_nothing() {
    bounded(nothing_is_lost_when(Cluster::start_with_replicas(), |cluster, owner| cluster.servers[owner].kill())).await;
}

/// It wakes up when its replica has taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_loses_nothing() {
    bounded(nothing_is_lost_when(Cluster::start_with_replicas(), |cluster, owner| {
        cluster.servers[owner].freeze();
        cluster.thaw_when_replaced(owner);
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing() {
    bounded(nothing_is_lost_when(Cluster::start_with_replicas(), |cluster, owner| {
        cluster.servers[Cluster::replica_of(owner)].ask("CLUSTER FAILOVER");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_loses_nothing() {
    bounded(nothing_is_lost_when(Cluster::start(), |cluster, owner| {
        cluster.migrate(CHANNEL, (owner + 1) % 3, || std::thread::sleep(Duration::from_millis(100)));
    }))
    .await;
}
