//! Two nodes on a master that Redis Sentinels look after: whatever becomes of it, what was acknowledged is delivered once and
//! in order, or told by `resync` and found in the store (NOLOSS A1, A2).

use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use gateway::backbone::{RedisBackbone, Settings};
use serde_json::json;

use crate::backbone_rig::{deaf, empty_store};
use crate::noloss_rig::{Follower, bounded};
use crate::support::certificates::Authority;
use crate::support::client::Client;
use crate::support::node::Node;
use crate::support::postgres::Postgres;
use crate::support::sentinel::Guarded;

pub(crate) const SETTINGS: [(&str, &str); 2] = [("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")];

/// What the last message says.
pub(crate) const END: &str = "the end";

/// Sends a message every 20 ms while the master changes, and judges what a follower on the other node knows in the end: what
/// came as an event, and what the store had whenever it was told `resync`.
async fn nothing_is_lost_when(harm: impl FnOnce(&mut Guarded)) {
    nothing_is_lost_of(Guarded::start(), &SETTINGS, harm).await;
}

async fn nothing_is_lost_of(mut guarded: Guarded, settings: &[(&'static str, &str)], harm: impl FnOnce(&mut Guarded)) {
    let database = Postgres::database().await;
    let one = Node::serve(&guarded.url(), &database.url, settings).await;
    let two = Node::serve(&guarded.url(), &database.url, settings).await;
    one.wait_ready(true).await;
    two.wait_ready(true).await;
    let store = database.client().await;
    let mut b = Follower::join(one.http, "b").await;
    let mut a = Client::join(two.http, "a").await;

    let sending = async {
        let mut sent = 0;
        flood_for(&mut a, &mut sent, Duration::from_millis(500)).await;
        harm(&mut guarded);
        // Until both nodes are on the new master, and some more.
        while !guarded.is_promoted() || nodes_on(&guarded) < 2 {
            flood_for(&mut a, &mut sent, Duration::from_millis(100)).await;
        }
        one.wait_ready(true).await;
        two.wait_ready(true).await;
        let settled_at = sent;
        flood_for(&mut a, &mut sent, Duration::from_millis(500)).await;
        a.send("message.send", json!({ "to": "b", "content": END })).await;
        (settled_at, sent, acknowledged(&mut a, sent + 1).await)
    };
    let ((settled_at, sent, acked), fetched) = tokio::join!(sending, fetched_until_the_end(&mut b, &store));

    nothing_is_missed(&mut b, &acked, &fetched, settled_at..sent).await;
    let stored = stored(&store).await;
    assert!(acked.iter().all(|content| stored.contains(content)), "what was acknowledged is in the store");
}

/// Follows `b` to the [`END`]: what the store had when it was last told `resync`.
pub(crate) async fn fetched_until_the_end(b: &mut Follower, store: &tokio_postgres::Client) -> HashSet<String> {
    let mut fetched = HashSet::new();
    loop {
        let frame = b.step().await;
        if frame["type"] == "resync" {
            fetched = stored(store).await;
        }
        if frame["seq"].is_u64() && frame["payload"]["message"]["content"] == END {
            return fetched;
        }
    }
}

/// What was acknowledged came once as an event or was fetched, the messages of `settled` in order, as events; and `b` was told
/// that the log is another.
pub(crate) async fn nothing_is_missed(
    b: &mut Follower,
    acked: &HashSet<String>,
    fetched: &HashSet<String>,
    settled: Range<usize>,
) {
    // What could not be published meanwhile is redone behind what could: the follower checks the order of the log.
    let missed = |b: &Follower| {
        let got = b.contents();
        let is_missed = |content: &&String| !got.contains(content) && !fetched.contains(*content);
        acked.iter().filter(is_missed).cloned().collect::<Vec<_>>()
    };
    let since = Instant::now();
    while !missed(b).is_empty() && since.elapsed() < Duration::from_secs(15) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        b.settle().await;
    }
    assert_eq!(missed(b), Vec::<String>::new(), "acknowledged, and neither an event nor told; {:?}", b.notices);
    let got = b.contents();
    let distinct: HashSet<&String> = got.iter().collect();
    assert_eq!(distinct.len(), got.len(), "each comes once: {got:?}");
    let later: Vec<usize> = got.iter().filter_map(|content| content.strip_prefix('m')?.parse().ok()).collect();
    let later: Vec<usize> = later.into_iter().filter(|n| *n >= settled.start).collect();
    assert_eq!(later, settled.collect::<Vec<_>>(), "afterwards everything comes as before");
    assert!(b.notices.iter().any(|notice| notice["type"] == "resync"), "the log is another: {:?}", b.notices);
}

/// What the store holds.
async fn stored(store: &tokio_postgres::Client) -> HashSet<String> {
    let rows = store.query("SELECT content FROM messages", &[]).await.expect("the store answers");
    let contents: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(contents.len(), rows.len(), "each is stored once");
    contents
}

/// How many nodes receive from the new master; none while it ends its clients' connections.
fn nodes_on(guarded: &Guarded) -> i64 {
    let answer = guarded.replica.try_ask("PUBSUB NUMSUB chat:all");
    answer.map_or(0, |answer| redis::from_redis_value::<(String, i64)>(answer).expect("a channel and its count").1)
}

pub(crate) async fn flood_for(sender: &mut Client, sent: &mut usize, time: Duration) {
    let since = Instant::now();
    while since.elapsed() < time {
        let n = *sent;
        *sent += 1;
        sender.send("message.send", json!({ "to": "b", "content": format!("m{n}"), "tempId": format!("t{n}") })).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The contents of those that were acknowledged; each of the `sent` has an answer.
pub(crate) async fn acknowledged(sender: &mut Client, sent: usize) -> HashSet<String> {
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
    bounded(nothing_is_lost_of(Guarded::start_encrypted(&authority), &settings, |guarded| guarded.master.kill())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_nobody_vouches_for_are_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (guarded, plain) = (Guarded::start_encrypted(&authority), Guarded::start());
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
