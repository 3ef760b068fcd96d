//! Two nodes on a master under Redis Sentinels. Whatever happens to the master, acknowledged messages arrive once and
//! in order, or are announced by `resync` and found in the store (NOLOSS.md, A1, A2).

use std::time::Duration;

use gateway::backbone::{RedisBackbone, Settings};

use crate::backbone::failover_rig::{SETTINGS, nothing_is_lost};
use crate::backbone::rig::{deaf, empty_store};
use crate::support::certificates::Authority;
use crate::support::node::Node;
use crate::support::postgres::Postgres;
use crate::support::sentinel::SentinelRig;
use crate::support::two_nodes::{Follower, bounded};

/// Two nodes keep their promise while the master changes.
async fn nothing_is_lost_when(harm: impl FnOnce(&mut SentinelRig)) {
    nothing_is_lost_of(SentinelRig::start(), &SETTINGS, harm).await;
}

async fn nothing_is_lost_of(
    mut guarded: SentinelRig,
    settings: &[(&'static str, &str)],
    harm: impl FnOnce(&mut SentinelRig),
) {
    let database = Postgres::database().await;
    let one = Node::serve(&guarded.url(), &database.url, settings).await;
    let two = Node::serve(&guarded.url(), &database.url, settings).await;
    one.wait_ready(true).await;
    two.wait_ready(true).await;
    let store = database.client().await;
    let mut b = Follower::join(one.http, "b").await;
    nothing_is_lost(two.http, &mut b, &store, async |flood| {
        harm(&mut guarded);
        while !guarded.is_promoted() || nodes_on(&guarded) < 2 {
            flood.run_for(Duration::from_millis(100)).await;
        }
        one.wait_ready(true).await;
        two.wait_ready(true).await;
    })
    .await;
}

/// How many nodes receive from the new master; none while it ends its clients' connections.
fn nodes_on(guarded: &SentinelRig) -> i64 {
    let answer = guarded.replica.try_ask("PUBSUB NUMSUB chat:all");
    answer.map_or(0, |answer| redis::from_redis_value::<(String, i64)>(answer).expect("a channel and its count").1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_loses_nothing() {
    bounded(nothing_is_lost_when(|guarded| guarded.master.kill())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_loses_nothing() {
    bounded(nothing_is_lost_when(|guarded| guarded.master.freeze())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing() {
    bounded(nothing_is_lost_when(|guarded| guarded.fail_over())).await;
}

/// The Sentinels and the replica lose a master that goes on serving the nodes: who stays longer than others publishes to
/// nobody, and nothing but the Sentinels tells that it is no longer the one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_answers_on_loses_nothing() {
    bounded(nothing_is_lost_when(|guarded| guarded.lock_out_sentinels())).await;
}

/// Sentinels, master and replica are spoken to over TLS, before and after the failover: their ports in the URL, and those that
/// the Sentinels tell, know nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_over_tls_loses_nothing() {
    let authority = Authority::new();
    let believed = authority.path("authority.pem");
    let settings = [SETTINGS[0], SETTINGS[1], ("REDIS_CA_FILE", &believed)];
    bounded(nothing_is_lost_of(SentinelRig::start_encrypted(&authority), &settings, |guarded| guarded.master.kill()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_nobody_vouches_for_are_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (guarded, plain) = (SentinelRig::start_encrypted(&authority), SentinelRig::start());
    let refused = async |url: String, authority: &Authority| {
        let believed = authority.path("authority.pem");
        let address = (&*url, Some(std::path::Path::new(&believed)));
        let started = RedisBackbone::start(address, Settings::new("a", "b"), deaf(), empty_store()).await;
        started.err().expect("it does not start").0
    };
    let (issuer, name, unencrypted) = tokio::join!(
        refused(guarded.url(), &other),
        refused(guarded.url().replace("127.0.0.1", "localhost"), &authority),
        refused(plain.url().replace("redis-", "rediss-"), &authority)
    );
    assert!(
        issuer.contains("invalid peer certificate") && issuer.contains("REDIS_CA_FILE"),
        "another authority: {issuer}"
    );
    assert!(name.contains("must name the host"), "another name: {name}");
    assert!(unencrypted.contains("no Sentinel names the master"), "Sentinels without TLS: {unencrypted}");
}
