//! The cost of a connect, counted by Redis itself, so that no further call creeps in.

use std::time::Instant;

use crate::support::client::Client;
use crate::support::node::Node;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;

const USERS: i64 = 200;

/// How often Redis has carried out a command; what a script calls counts, too.
fn calls(redis: &Redis, command: &str) -> i64 {
    let info: String = redis::from_redis_value(redis.ask("INFO commandstats")).expect("text");
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_asks_redis_four_times_and_never_alone() {
    let (redis, database) = (Redis::start(), Postgres::database().await);
    let node = Node::serve(&redis.url(), &database.url, &[]).await;
    node.wait_ready(true).await;
    redis.ask("CONFIG RESETSTAT");
    let since = Instant::now();
    let joining: Vec<_> = (0..USERS)
        .map(|number| {
            let to = node.http;
            tokio::spawn(async move { Client::join(to, &format!("u{number}")).await })
        })
        .collect();
    let mut joined = Vec::new();
    for client in joining {
        joined.push(client.await.expect("it joined"));
    }
    // What the node's clocks ask by themselves: a probe, a beat, and looks for departures, push jobs, late messages.
    let beats = i64::try_from(since.elapsed().as_secs()).expect("few") + 1;
    for (command, of_a_connect, of_a_beat) in [
        // The script that lets somebody in, which looks for a revocation and opens the log.
        ("evalsha", 1, 2),
        ("get", 1, 0),
        // Presence.
        ("set", 1, 1),
        ("zadd", 1, 0),
        // Partners, of whom nobody has any.
        ("mget", 0, 0),
        // Many channels in one command.
        ("subscribe", 1, 0),
        // Connections of a pool are tried before each use.
        ("ping", 0, 4),
        ("unwatch", 0, 4),
    ] {
        let (counted, most) = (calls(&redis, command), USERS * of_a_connect + beats * of_a_beat);
        assert!(counted <= most, "{command}: {counted} calls of at most {most}");
    }
    drop(joined);
}
