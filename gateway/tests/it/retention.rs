//! Messages and the audit trail are kept for so many days.

use std::time::Duration;

use serde_json::json;

use crate::support::caller::Caller;
use crate::support::node::Node;
use crate::support::two_nodes::{TwoNodes, bounded};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_its_days_goes_and_the_rest_stays() {
    bounded(async {
        let settings = [("MESSAGE_RETENTION_DAYS", "30"), ("AUDIT_RETENTION_DAYS", "7")];
        let cluster = TwoNodes::start(&[]).await;
        let caller = Caller::user("a");
        let mut conversation = String::new();
        for n in 1..=4 {
            let (_, sent) =
                caller.post(&cluster.one, "/api/v1/messages", json!({ "to": "b", "content": format!("m{n}") })).await;
            conversation = sent["message"]["conversationId"].as_str().expect("an id").to_owned();
        }
        let client = cluster.database.client().await;
        client
            .batch_execute(
                "UPDATE messages SET created_at = now() - interval '31 days' WHERE seq <= 2; \
                 INSERT INTO audit (at, kind) VALUES (now() - interval '8 days', 'old'), (now(), 'young')",
            )
            .await
            .expect("older rows");
        // A node without these settings deletes nothing.
        let kept = async || -> (i64, i64) {
            let sql =
                "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM audit WHERE kind IN ('old', 'young'))";
            let row = client.query_one(sql, &[]).await.expect("counts");
            (row.get(0), row.get(1))
        };
        assert_eq!(kept().await, (4, 2));
        let TwoNodes { redis, database, one, two } = cluster;
        for node in [one, two] {
            node.app.drain().await.expect("it ends");
        }
        // Else it stayed with one of them for half a minute.
        client.execute("DELETE FROM upkeep", &[]).await.expect("nobody has it");
        let node = Node::serve(&redis.url(), &database.url, &settings).await;
        let done = async {
            while kept().await != (2, 1) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), done).await.expect("in time");
        let (status, page) = caller.get(&node, &format!("/api/v1/conversations/{conversation}/messages")).await;
        let seqs: Vec<u64> =
            page["items"].as_array().expect("items").iter().filter_map(|item| item["seq"].as_u64()).collect();
        assert_eq!((status, seqs), (200, vec![3, 4]));
        let (status, sent) = caller.post(&node, "/api/v1/messages", json!({ "to": "b", "content": "on" })).await;
        assert_eq!((status, &sent["message"]["seq"]), (201, &json!(5)), "the count goes on");
    })
    .await;
}
