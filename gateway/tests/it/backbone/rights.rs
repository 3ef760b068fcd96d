//! The Redis user's rights: the rules in deploy/README.md are enough, and a node that lacks one says which, at its start
//! and later.

use std::time::Duration;

use futures_util::future::join_all;
use gateway::backbone::RedisBackbone;

use crate::backbone::rig::{Node, bounded, empty_store, recorder, settings};
use crate::support::redis::Redis;

/// The rules of deploy/README.md, without the name and the password.
fn rules() -> &'static str {
    let page = include_str!("../../../../deploy/README.md");
    let line = page.lines().find(|line| line.starts_with("user parley on >PASSWORD")).expect("the rules");
    line.trim_start_matches("user parley on >PASSWORD").trim()
}

/// A user with all the rules, and then one more.
fn give(redis: &Redis, user: &str, further: &str) -> String {
    redis.ask(&format!("ACL SETUSER {user} reset on >pw {} {further}", rules()));
    redis.url().replace("redis://", &format!("redis://{user}:pw@"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named_with_what_gives_it() {
    bounded(async {
        let redis = Redis::start();
        let cases = [
            ("-publish", "+publish"),
            ("-evalsha", "+evalsha"),
            ("-xadd", "+xadd"),
            ("-getdel -xack", "+xack +getdel"),
            ("-unsubscribe", "unsubscribe"),
            ("-info", "info"),
            ("resetchannels &chat:node:* &chat:control &chat:all", "&chat:*"),
            ("resetkeys ~chat:* ~session:*", "~online:*"),
        ];
        let starts = cases.iter().enumerate().map(|(place, (less, _))| {
            let url = give(&redis, &format!("less{place}"), less);
            async move { RedisBackbone::start(&*url, settings(), recorder().0, empty_store()).await.map(drop) }
        });
        for ((less, named), started) in cases.iter().zip(join_all(starts).await) {
            let fault = started.expect_err(less).to_string();
            assert!(fault.contains(named) && fault.contains("ACL SETUSER"), "{less}: {fault}");
            assert!(!fault.contains("is Redis running there"), "{less}: {fault}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rules_are_enough_and_a_right_that_is_taken_away_makes_the_node_unready() {
    bounded(async {
        let redis = Redis::start();
        let url = give(&redis, "parley", "");
        let node = Node::at(&url, settings(), &empty_store()).await;
        let ready = || async {
            while !node.backbone.health().ready {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready()).await.expect("the rules are enough");
        redis.ask("ACL SETUSER parley -xadd");
        let named = async {
            while node.backbone.health().ready || !node.backbone.health().detail.contains("+xadd") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(40), named).await.expect("it is noticed");
        redis.ask("ACL SETUSER parley +xadd");
        tokio::time::timeout(Duration::from_secs(20), ready()).await.expect("it goes on by itself");
    })
    .await;
}
