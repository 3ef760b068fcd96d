//! Two nodes on a Redis Cluster. Whatever happens to a master or a slot, acknowledged messages arrive once and in
//! order, or are announced by `resync` and found in the store. Users of other masters notice nothing (NOLOSS.md, A2,
//! A14).

use std::time::Duration;

use crate::backbone::failover_rig::{SETTINGS, nothing_is_lost};
use crate::support::cluster::RedisCluster;
use crate::support::node::Node;
use crate::support::postgres::Postgres;
use crate::support::two_nodes::{Follower, bounded, say};

const CHANNEL: &str = "chat:user:b";

/// Two nodes keep their promise while `harm` is done to the slot of `b`.
async fn nothing_is_lost_when(mut cluster: RedisCluster, harm: impl FnOnce(&mut RedisCluster, usize)) {
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
    nothing_is_lost(two.http, &mut b, &store, async |flood| {
        harm(&mut cluster, before);
        while !is_elsewhere(&cluster, before) {
            flood.run_for(Duration::from_millis(100)).await;
        }
        one.wait_ready(true).await;
        two.wait_ready(true).await;
    })
    .await;
    say(two.http, "a", &well, "all is well").await;
    other.until_message("all is well").await;
    assert_eq!(other.notices, Vec::<serde_json::Value>::new(), "users of other masters notice nothing");
}

/// Whether another master has the slot, and both nodes receive from it.
fn is_elsewhere(cluster: &RedisCluster, before: usize) -> bool {
    let now = cluster.try_owner(CHANNEL).filter(|now| *now != before);
    now.and_then(|now| cluster.servers[now].try_ask("PUBSUB SHARDNUMSUB chat:user:b").ok()).is_some_and(|answer| {
        redis::from_redis_value::<(String, i64)>(answer).is_ok_and(|(_, subscribed)| subscribed > 0)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_loses_nothing() {
    bounded(nothing_is_lost_when(RedisCluster::start_with_replicas(), |cluster, owner| cluster.servers[owner].kill()))
        .await;
}

/// It wakes up when its replica has taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_loses_nothing() {
    bounded(nothing_is_lost_when(RedisCluster::start_with_replicas(), |cluster, owner| {
        cluster.servers[owner].freeze();
        cluster.thaw_when_replaced(owner);
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing() {
    bounded(nothing_is_lost_when(RedisCluster::start_with_replicas(), |cluster, owner| {
        cluster.servers[RedisCluster::replica_of(owner)].ask("CLUSTER FAILOVER");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_loses_nothing() {
    bounded(nothing_is_lost_when(RedisCluster::start(), |cluster, owner| {
        cluster.migrate(CHANNEL, (owner + 1) % 3, || std::thread::sleep(Duration::from_millis(100)));
    }))
    .await;
}
