//! A user's right to what is kept of them, and to its end.

use serde_json::{Value, json};

use crate::support::caller::{Caller, code, refused};
use crate::support::client::Client;
use crate::support::http::request;
use crate::support::node::API_KEY;
use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded};

const SECRET: &str = "a-secret-content";
const NAME: &str = "name-of-gone";

/// Whether Redis has the text anywhere.
fn in_redis(cluster: &TwoNodes, text: &str) -> Vec<String> {
    let keys: Vec<String> = redis::from_redis_value(cluster.redis.ask("KEYS *")).expect("keys");
    let holds = |key: &String| {
        let kind: String = redis::from_redis_value(cluster.redis.ask(&format!("TYPE {key}"))).expect("a type");
        let value = match kind.as_str() {
            "stream" => cluster.redis.ask(&format!("XRANGE {key} - +")),
            "hash" => cluster.redis.ask(&format!("HGETALL {key}")),
            "zset" => cluster.redis.ask(&format!("ZRANGE {key} 0 -1")),
            "string" => cluster.redis.ask(&format!("GET {key}")),
            other => panic!("{key} is a {other}"),
        };
        format!("{value:?}").contains(text)
    };
    keys.into_iter().filter(holds).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_user_leaves_no_content_and_no_name() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (&cluster.one, &cluster.two);
        let group = json!({ "kind": "group", "id": "g", "title": "G", "members": ["gone", "m"] });
        assert_eq!(acting(one.http, "POST", "/api/v1/conversations", "o", group).await.0, 201);
        let mut gone = Client::join(one.http, "gone").await;
        let away = Follower::join(two.http, "m").await;
        let mut present = Client::join(two.http, "o").await;
        let say = json!({ "conversationId": "g", "content": SECRET, "data": { "note": SECRET } });
        gone.send("message.send", say).await;
        let sent = gone.expect("message.sent").await["payload"]["message"].clone();
        gone.send("message.send", json!({ "to": "o", "content": SECRET, "tempId": "t" })).await;
        gone.expect("message.sent").await;
        gone.send("message.edit", json!({ "messageId": sent["id"], "content": format!("{SECRET} edited") })).await;
        gone.expect("message.edited").await;
        gone.send("block.add", json!({ "userId": "x" })).await;
        gone.expect("block.added").await;
        let event = json!({ "type": "notification", "payload": { "text": SECRET } });
        let publish = json!({ "users": ["gone"], "event": event });
        assert_eq!(Caller::backend().post(one, "/api/v1/publish", publish).await.0, 202);
        gone.expect("notification").await;
        let others = json!({ "conversationId": "g", "content": "by another" });
        assert_eq!(Caller::user("m").post(one, "/api/v1/messages", others).await.0, 201);
        for _ in 0..2 {
            present.expect("message.new").await;
        }
        assert!(!in_redis(&cluster, SECRET).is_empty() && !in_redis(&cluster, NAME).is_empty());

        // What is kept of them, for them: one JSON object a line, whole if the last says so.
        let export = "/api/v1/users/gone/export";
        for nobody in [Caller::user("gone"), Caller::user("o")] {
            assert_eq!(code(nobody.get(one, export).await), refused(403, "FORBIDDEN"));
            assert_eq!(code(nobody.delete(one, "/api/v1/users/gone").await), refused(403, "FORBIDDEN"));
        }
        let (status, text) = request(one.http, "GET", export, &[("x-api-key", API_KEY)], "").await;
        let text = text.as_str().expect("several lines are no JSON").to_owned();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        let count = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
        assert_eq!(status, 200);
        let counts = ["user", "block", "conversation", "message", "notification", "end"].map(count);
        assert_eq!(counts, [1, 1, 2, 2, 1, 1], "{text}");
        assert_eq!((lines[0]["username"].as_str(), &lines[lines.len() - 1]["type"]), (Some(NAME), &json!("end")));

        // Erased: sockets end, and whoever asks again is told when it is done.
        let erased = async {
            loop {
                let (status, answer) = Caller::backend().delete(two, "/api/v1/users/gone").await;
                assert_eq!(status, 200, "{answer}");
                if answer["done"] == true {
                    break;
                }
            }
        };
        erased.await;
        assert_eq!(gone.expect_close().await, 4002);
        for _ in 0..2 {
            present.expect("message.deleted").await;
        }
        // The last deletions were published behind the cut; once more finds nothing to do and cuts again.
        assert_eq!(Caller::backend().delete(one, "/api/v1/users/gone").await.1, json!({ "done": true }));
        assert_eq!((in_redis(&cluster, SECRET), in_redis(&cluster, NAME)), (Vec::<String>::new(), Vec::new()));

        let client = cluster.database.client().await;
        let sql = "SELECT (SELECT string_agg(m::text, ' ') FROM messages m) || \
            coalesce((SELECT string_agg(e::text, ' ') FROM edits e), '') || \
            coalesce((SELECT string_agg(u::text, ' ') FROM usernames u), '') || \
            coalesce((SELECT string_agg(n::text, ' ') FROM notifications n), '') || \
            coalesce((SELECT string_agg(b::text, ' ') FROM blocks b), '') || \
            coalesce((SELECT string_agg(u::text, ' ') FROM users u), '') || \
            coalesce((SELECT string_agg(a::text, ' ') FROM audit a), '')";
        let all: String = client.query_one(sql, &[]).await.expect("rows").get(0);
        assert!(!all.contains(SECRET) && !all.contains(NAME), "{all}");
        let left = client.query_one("SELECT count(*) FROM erasures", &[]).await.expect("a count");
        assert_eq!(left.get::<_, i64>(0), 0);

        // The conversation still pages, and who was away is told to fetch.
        let (_, page) = Caller::user("m").get(one, "/api/v1/conversations/g/messages").await;
        let contents: Vec<&str> =
            page["items"].as_array().expect("items").iter().filter_map(|item| item["content"].as_str()).collect();
        assert_eq!(contents, ["", "by another"]);
        let path = format!("/chat/ws?token={}&resume={}:{}", crate::support::node::token("m"), away.epoch, away.seq);
        let mut back = Client::open(one.http, &path, &[]).await.expect("an upgrade");
        assert_eq!(back.expect("auth_success").await["payload"]["resumed"], false);
        assert!(
            ["trimmed", "epoch"]
                .contains(&back.expect("resync").await["payload"]["reason"].as_str().expect("a reason"))
        );
    })
    .await;
}
