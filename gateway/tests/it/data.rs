//! Data beside a message's content: it goes wherever the content goes.

use serde_json::{Value, json};

use crate::support::caller::Caller;
use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::node::Node;
use crate::support::two_nodes::{Follower, TwoNodes, acting, bounded};

fn data() -> Value {
    json!({ "attachments": [{ "url": "https://files.test/a\n", "bytes": 7 }], "mentions": ["b", "z"] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_wherever_the_content_goes() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let mut a = Client::join(one, "a").await;
        let mut b = Client::join(two, "b").await;
        let mut flat = Flat::join(two, "/ws/chat", "b").await;
        let away = Follower::join(two, "b").await;
        let send = json!({ "to": "b", "content": "look", "tempId": "t1", "data": data() });
        a.send("message.send", send.clone()).await;
        let sent = a.expect("message.sent").await["payload"]["message"].clone();
        assert_eq!(sent["data"], data());
        assert_eq!(b.expect("message.new").await["payload"]["message"], sent);
        let updated = b.expect("conversation.updated").await;
        assert_eq!(updated["payload"]["lastMessage"]["data"], data());
        let shown = flat.expect("new_message").await["message"].clone();
        assert_eq!((&shown["content"], &shown["data"]), (&json!("look"), &data()));

        // Sent again it is the same; with other data, or none, it is another.
        a.send("message.send", send).await;
        let again = a.expect("message.sent").await;
        assert_eq!((&again["payload"]["duplicate"], &again["payload"]["message"]), (&json!(true), &sent));
        for other in [json!({}), Value::Null] {
            let send = json!({ "to": "b", "content": "look", "tempId": "t1", "data": other });
            a.send("message.send", send).await;
            let error = a.expect("error").await;
            assert_eq!((&error["payload"]["code"], &error["payload"]["field"]), (&json!("CONFLICT"), &json!("tempId")));
        }

        // History, a resume, one message, an edit, and over REST.
        let conversation = sent["conversationId"].as_str().expect("an id");
        let message = format!("/api/v1/messages/{}", sent["id"].as_str().expect("an id"));
        let caller = Caller::user("a");
        let history = format!("/api/v1/conversations/{conversation}/messages");
        assert_eq!(caller.get(&cluster.two, &history).await.1["items"][0], sent);
        assert_eq!(caller.get(&cluster.two, &message).await.1, sent);
        let mut resumed = away.resume(one).await;
        let missed = resumed.until("message.new").await;
        assert_eq!(missed["payload"]["message"], sent);
        let (status, edited) = caller.patch(&cluster.one, &message, json!({ "content": "look here" })).await;
        assert_eq!((status, &edited["data"]), (200, &data()), "an edit leaves it");
        assert_eq!(b.expect("message.edited").await["payload"]["message"]["data"], data());
        let rest = json!({ "to": "b", "content": "by REST", "data": { "n": 1.5 } });
        let (status, answer) = caller.post(&cluster.one, "/api/v1/messages", rest).await;
        assert_eq!((status, &answer["message"]["data"]), (201, &json!({ "n": 1.5 })));

        assert_eq!(caller.delete(&cluster.one, &message).await.0, 204);
        let gone = caller.get(&cluster.two, &message).await.1;
        assert_eq!((gone.get("data"), &gone["content"]), (None, &json!("")), "it goes with the content");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_is_no_small_object_is_refused() {
    let node = Node::embedded(&[]).await;
    let mut a = Client::join(node.http, "a").await;
    let caller = Caller::user("a");
    let mut deep = json!(1);
    for _ in 0..17 {
        deep = json!({ "x": deep });
    }
    for data in [json!([]), json!("{}"), json!(7), deep, json!({ "x": "y".repeat(4096) }), json!({ "mentions": "b" })] {
        let send = json!({ "to": "b", "content": "x", "data": data });
        a.send("message.send", send.clone()).await;
        let error = a.expect("error").await;
        assert_eq!(
            (&error["payload"]["code"], &error["payload"]["field"]),
            (&json!("VALIDATION_ERROR"), &json!("data"))
        );
        let (status, answer) = caller.post(&node, "/api/v1/messages", send).await;
        assert_eq!((status, &answer["error"]["field"]), (400, &json!("data")), "{answer}");
    }
    a.send("message.send", json!({ "to": "b", "content": "x", "data": null })).await;
    let sent = a.expect("message.sent").await;
    assert_eq!(sent["payload"]["message"].get("data"), None, "null is none");
}

/// The documents of the flat dialects know no such field; their front ends may send it, and are shown it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flat_dialects_take_and_show_data() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        let group = json!({ "kind": "group", "id": "7", "members": ["b"] });
        assert_eq!(acting(one, "POST", "/api/v1/conversations", "a", group).await.0, 201);
        let mut reader = Client::join(two, "b").await;
        let mut shown = [
            Flat::join(two, "/ws/chat", "b").await,
            Flat::join(two, "/ws", "b").await,
            Flat::join(two, "/ws/channels", "b").await,
        ];
        for (path, kind, to) in [
            ("/ws/chat", "send_message", "chat_id"),
            ("/ws", "group", "group_id"),
            ("/ws/channels", "chat_message", "channel_id"),
        ] {
            let mut sender = Flat::join(one, path, "a").await;
            sender.send(json!({ "type": kind, to: "7", "content": path, "data": data() })).await;
            let message = reader.expect("message.new").await["payload"]["message"].clone();
            assert_eq!((&message["content"], &message["data"]), (&json!(path), &data()));
            let [listings, social, channels] = &mut shown;
            assert_eq!(listings.expect("new_message").await["message"]["data"], data(), "{path}");
            assert_eq!(social.expect("group").await["data"], data(), "{path}");
            assert_eq!(channels.expect("chat_message").await["data"], data(), "{path}");
            let wrong = json!({ "type": kind, to: "7", "content": "x", "data": [] });
            assert_eq!(sender.refused(wrong).await, "VALIDATION_ERROR", "{path}");
            // A message without any is shown without the field.
            sender.send(json!({ "type": kind, to: "7", "content": "none" })).await;
            reader.expect("message.new").await;
            assert_eq!(listings.expect("new_message").await["message"].get("data"), None, "{path}");
            assert_eq!(social.expect("group").await.get("data"), None, "{path}");
            assert_eq!(channels.expect("chat_message").await.get("data"), None, "{path}");
        }
    })
    .await;
}

/// Push jobs name whom a message mentions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_job_names_the_mentioned() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        // Users who were never here get no jobs.
        cluster.redis.ask("SET chat:last_seen:b 1");
        let caller = Caller::user("a");
        for body in [json!({ "to": "b", "content": "x", "data": data() }), json!({ "to": "b", "content": "y" })] {
            assert_eq!(caller.post(&cluster.one, "/api/v1/messages", body).await.0, 201);
        }
        let jobs: Vec<(String, Vec<(String, String)>)> = loop {
            let jobs: Vec<_> = redis::from_redis_value(cluster.redis.ask("XRANGE chat:push - +")).expect("jobs");
            if jobs.len() == 2 {
                break jobs;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        let mentioned = |job: usize| {
            let field = jobs[job].1.iter().find(|(name, _)| name == "mentions");
            field.map(|(_, value)| value.clone())
        };
        assert_eq!((mentioned(0).as_deref(), mentioned(1)), (Some("b,z"), None));
    })
    .await;
}
