//! Connected users are re-checked: revocations that a node missed or Redis lost, sessions that were deleted.

use std::time::Duration;

use serde_json::json;

use crate::support::client::Client;
use crate::support::http::post;
use crate::support::node::{API_KEY, in_seconds, token, token_with};
use crate::support::two_nodes::TwoNodes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_a_revocation_closes_the_sockets_when_it_is_back() {
    let cluster = TwoNodes::start(&[]).await;
    cluster.redis.ask("SET session:s1 s");
    let (mut old, _) = Client::join_with(cluster.two.http, &token("b")).await;
    let newer = token_with(json!({ "sub": "b", "exp": in_seconds(3600), "iat": in_seconds(100) }));
    let (mut new, _) = Client::join_with(cluster.two.http, &newer).await;
    let mut other = Client::join(cluster.two.http, "c").await;
    let mut by_session =
        Client::open(cluster.two.http, "/chat/ws", &[("cookie", "session_id=s1")]).await.expect("open");
    by_session.expect("auth_success").await;

    // The order to close never reaches the node; the revocation stands where it looks when its connection is back.
    cluster.redis.ask(&format!("SET chat:revoked:b {}", in_seconds(1)));
    cluster.redis.ask("DEL session:s1");
    cluster.cut_off(&cluster.two);
    assert_eq!(old.expect_close().await, 4002);
    assert_eq!(by_session.expect_close().await, 4002);
    new.settle().await;
    other.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_forgets_no_revocation() {
    let mut cluster = TwoNodes::start(&[]).await;
    let old = token_with(json!({ "sub": "b", "exp": in_seconds(3600), "iat": in_seconds(-5) }));
    let backend = [("x-api-key", API_KEY)];
    let order = json!({ "userId": "b" });
    assert_eq!(post(cluster.one.http, "/api/v1/control/revoke", &backend, order).await.0, 202);
    cluster.redis.restart();
    cluster.one.wait_ready(true).await;
    cluster.two.wait_ready(true).await;
    let told = async {
        while cluster.redis.number("EXISTS chat:revoked:b") == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("the store remembers");
    let path = format!("/chat/ws?token={old}");
    let mut again = Client::open(cluster.two.http, &path, &[]).await.expect("upgrade");
    // With auth_failed before it, unless the recheck of the other users meets it first.
    assert_eq!(again.expect_close().await, 4002);
}
