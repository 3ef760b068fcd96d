//! A user's right to what is kept of them, and to its end.

use serde_json::{Value, json};

use crate::support::caller::{Caller, code, refused};
use crate::support::client::Client;
use crate::support::http::request;
use crate::support::node::API_KEY;
use crate::support::postgres::Postgres;
use crate::support::process::ServedNode;
use crate::support::redis::Redis;
use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded};

const SECRET: &str = "a-secret-content";
const NAME: &str = "name-of-gone";

/// The keys in which Redis has the text.
fn in_redis(redis: &Redis, text: &str) -> Vec<String> {
    let keys: Vec<String> = redis::from_redis_value(redis.ask("KEYS *")).expect("keys");
    let holds = |key: &String| {
        let kind: String = redis::from_redis_value(redis.ask(&format!("TYPE {key}"))).expect("a type");
        let value = match kind.as_str() {
            "stream" => redis.ask(&format!("XRANGE {key} - +")),
            "hash" => redis.ask(&format!("HGETALL {key}")),
            "zset" => redis.ask(&format!("ZRANGE {key} 0 -1")),
            "set" => redis.ask(&format!("SMEMBERS {key}")),
            "string" => redis.ask(&format!("GET {key}")),
            // It has expired meanwhile.
            "none" => return false,
            other => panic!("{key} is a {other}"),
        };
        format!("{value:?}").contains(text)
    };
    keys.into_iter().filter(holds).collect()
}

/// The tables in which the database has the text.
async fn in_database(client: &tokio_postgres::Client, text: &str) -> Vec<String> {
    let tables = "SELECT table_name::text FROM information_schema.tables \
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
    let mut found = Vec::new();
    for table in client.query(tables, &[]).await.expect("tables") {
        let table: String = table.get(0);
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} t WHERE strpos(t::text, $1) > 0)");
        if client.query_one(&sql, &[&text]).await.expect("rows").get(0) {
            found.push(table);
        }
    }
    found
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
        assert!(!in_redis(&cluster.redis, SECRET).is_empty() && !in_redis(&cluster.redis, NAME).is_empty());

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
        let names = ["username", "name"].map(|field| lines[0][field].as_str());
        assert_eq!((names, &lines[lines.len() - 1]["type"]), ([Some(NAME); 2], &json!("end")));

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
        assert_eq!(
            (in_redis(&cluster.redis, SECRET), in_redis(&cluster.redis, NAME)),
            (Vec::<String>::new(), Vec::new())
        );

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

/// An event of an owner that died before it published it, with what an erased user wrote.
async fn leave_unpublished(client: &tokio_postgres::Client) {
    let body = json!({ "type": "message.edited", "payload": { "message": {
        "id": "1", "conversationId": "g", "seq": 1, "rev": 9, "senderId": "gone", "kind": "text", "content": SECRET,
        "createdAt": "2026-01-01T00:00:00.000Z", "editedAt": "2026-01-01T00:00:01.000Z",
    } } });
    let events = json!([{ "users": ["o", "m"], "body": body.to_string() }]).to_string();
    let sql = "INSERT INTO outbox (id, owner, committed_at, events) \
        VALUES (9007199254740991, 'dead:1', now() - interval '1 minute', $1)";
    client.execute(sql, &[&events]).await.expect("left behind");
}

/// A message that was on its way when its sender was erased is stored afterwards, and is emptied too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_on_its_way_is_erased_too() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let group = json!({ "kind": "group", "id": "g", "members": ["gone"] });
        assert_eq!(acting(cluster.one.http, "POST", "/api/v1/conversations", "o", group).await.0, 201);
        let mut gone = Client::join(cluster.one.http, "gone").await;
        let mut other = cluster.database.client().await;
        let holding = other.transaction().await.expect("a transaction");
        holding.batch_execute("SELECT 1 FROM conversations WHERE id = 'g' FOR UPDATE").await.expect("it is held");
        gone.send("message.send", json!({ "conversationId": "g", "content": SECRET })).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let erase = async || Caller::backend().delete(&cluster.two, "/api/v1/users/gone").await;
        assert_eq!(erase().await, (200, json!({ "done": false })));
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        holding.rollback().await.expect("released");
        while erase().await.1["done"] != true {}
        let looking = cluster.database.client().await;
        let sql = "SELECT string_agg(content, ',') FROM messages";
        let contents: Option<String> = looking.query_one(sql, &[]).await.expect("a row").get(0);
        assert_eq!(contents.as_deref(), Some(""), "it was stored, and is empty");
    })
    .await;
}

/// Nowhere: in no table, under no key, in no log; what was not yet published included. What counts as unread stays as told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_erased_user_is_anywhere() {
    bounded(async {
        let (redis, database) = (Redis::start(), Postgres::database().await);
        let folder = tempfile::tempdir().expect("a folder");
        let settings = [("RUST_LOG", "trace"), ("USER_COMMANDS_PER_SECOND", "0")];
        let node = ServedNode::start(&redis.url(), &database.url, &settings, folder.path(), "node").await;
        let group = json!({ "kind": "group", "id": "g", "title": "G", "members": ["gone", "m"] });
        assert_eq!(acting(node.http, "POST", "/api/v1/conversations", "o", group).await.0, 201);
        let mut gone = Client::join(node.http, "gone").await;
        let mut present = Client::join(node.http, "o").await;
        for n in 0..3 {
            let data = json!({ "note": SECRET, "mentions": ["o"] });
            gone.send("message.send", json!({ "conversationId": "g", "content": SECRET, "data": data })).await;
            let sent = gone.expect("message.sent").await["payload"]["message"]["id"].clone();
            gone.send("message.edit", json!({ "messageId": sent, "content": format!("{SECRET} {n}") })).await;
            gone.expect("message.edited").await;
        }
        gone.send("message.send", json!({ "to": "m", "content": SECRET })).await;
        gone.expect("message.sent").await;
        let backend = [("x-api-key", API_KEY)];
        let event = json!({ "type": "notification", "payload": { "text": SECRET } });
        let publish = json!({ "users": ["gone"], "event": event }).to_string();
        assert_eq!(request(node.http, "POST", "/api/v1/publish", &backend, publish).await.0, 202);
        gone.expect("notification").await;
        let client = database.client().await;
        // Another node, which is at work on what it has to publish.
        let at_work = "INSERT INTO leases VALUES ('dead:1', clock_timestamp()) \
            ON CONFLICT (owner) DO UPDATE SET beaten_at = excluded.beaten_at";
        client.execute(at_work, &[]).await.expect("a lease");
        leave_unpublished(&client).await;
        assert!(in_database(&client, SECRET).await.len() >= 4 && !in_redis(&redis, SECRET).is_empty());
        // Names are written some moments after they came.
        while in_database(&client, NAME).await.is_empty() {
            client.execute(at_work, &[]).await.expect("a lease");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }

        // As long as that is so no log is cut.
        let erase = async || request(node.http, "DELETE", "/api/v1/users/gone", &backend, "").await;
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_secs(9) {
            client.execute(at_work, &[]).await.expect("a lease");
            assert_eq!(erase().await, (200, json!({ "done": false })));
        }
        client.execute("DELETE FROM leases WHERE owner = 'dead:1'", &[]).await.expect("it dies");
        while erase().await.1["done"] != true {}
        assert_eq!(gone.expect_close().await, 4002);
        assert_eq!((in_redis(&redis, SECRET), in_redis(&redis, NAME)), (Vec::<String>::new(), Vec::new()));
        // Published rows are kept for a minute, which passes here at once.
        let aged = "UPDATE outbox SET published_at = published_at - interval '1 minute'";
        loop {
            client.execute(aged, &[]).await.expect("aged");
            let left = [in_database(&client, SECRET).await, in_database(&client, NAME).await].concat();
            if left.is_empty() {
                break;
            }
            assert!(left.iter().all(|table| table == "outbox"), "{left:?}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        assert_eq!((in_redis(&redis, SECRET), in_redis(&redis, NAME)), (Vec::<String>::new(), Vec::new()));

        // The conversation pages, and another message moves the same counts as before.
        let deleted = present.settle().await.iter().filter(|frame| frame["type"] == "message.deleted").count();
        assert_eq!(deleted, 3);
        let (status, answer) =
            acting(node.http, "POST", "/api/v1/messages", "m", json!({ "conversationId": "g", "content": "hi" })).await;
        assert_eq!(status, 201, "{answer}");
        let told = present.expect("notification.unread").await["payload"].clone();
        let (_, list) = acting(node.http, "GET", "/api/v1/conversations", "o", Value::Null).await;
        assert_eq!((&told["unread"], &told["totalUnread"]), (&list["items"][0]["unread"], &list["items"][0]["unread"]));
        let (_, page) = acting(node.http, "GET", "/api/v1/conversations/g/messages", "o", Value::Null).await;
        let contents: Vec<&str> =
            page["items"].as_array().expect("items").iter().filter_map(|item| item["content"].as_str()).collect();
        assert_eq!(contents, ["", "", "", "hi"]);
        let (_, said) = node.stop(std::time::Duration::from_secs(30)).await.expect("it ends");
        for text in [SECRET, NAME] {
            assert_eq!(said.lines().find(|line| line.contains(text)), None);
        }
    })
    .await;
}
