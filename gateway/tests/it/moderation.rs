//! Moderation: mutes, and the removal of all that somebody wrote.

use serde_json::{Value, json};

use crate::support::caller::{Caller, code, refused};
use crate::support::client::Client;
use crate::support::node::{Node, in_seconds, token_with};
use crate::support::two_nodes::{TwoNodes, acting, bounded};

async fn make(node: &Node, owner: &str, new: Value) {
    let (status, made) = acting(node.http, "POST", "/api/v1/conversations", owner, new).await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_member_reads_and_does_not_write_on_any_node() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        let (one, two) = (&cluster.one, &cluster.two);
        let (o, a, m) = (Caller::user("o"), Caller::user("a"), Caller::user("m"));
        make(one, "o", json!({ "kind": "channel", "id": "c", "members": ["a", "m", "n"] })).await;
        assert_eq!(o.patch(one, "/api/v1/conversations/c/members/a", json!({ "role": "admin" })).await.0, 200);
        let say = |content: &str| json!({ "conversationId": "c", "content": content });
        let (_, before) = m.post(two, "/api/v1/messages", say("before")).await;
        let mutes = "/api/v1/conversations/c/mutes";
        let mute = |user: &str, seconds: i64| json!({ "userId": user, "untilSeconds": seconds });
        assert_eq!(a.post(one, mutes, mute("m", 3600)).await.0, 204);
        let mut socket = Client::join(two.http, "m").await;
        for node in [one, two] {
            let (status, answer) = m.post(node, "/api/v1/messages", say("no")).await;
            let error = &answer["error"];
            assert_eq!((status, &error["code"], &error["retryable"]), (403, &json!("FORBIDDEN"), &json!(false)));
            let left = error["retryAfterMs"].as_u64().expect("how long it lasts");
            assert!((3_000_000..=3_600_000).contains(&left), "{answer}");
        }
        socket.send("message.send", say("no")).await;
        assert!(socket.expect("error").await["payload"]["retryAfterMs"].is_u64());
        let own = format!("/api/v1/messages/{}", before["message"]["id"].as_str().expect("an id"));
        let (status, answer) = m.patch(one, &own, json!({ "content": "an edit speaks too" })).await;
        assert_eq!((status, answer["error"]["retryAfterMs"].is_u64()), (403, true), "{answer}");
        assert_eq!(m.get(two, "/api/v1/conversations/c/messages").await.0, 200, "reading goes on");
        let (_, others) = a.post(two, "/api/v1/messages", say("others write")).await;
        assert_eq!(socket.expect("message.new").await["payload"]["message"], others["message"]);

        // Leaving and coming back is no way out.
        assert_eq!(m.post(one, "/api/v1/conversations/c/leave", json!({})).await.0, 204);
        assert_eq!(m.post(one, "/api/v1/conversations/c/join", json!({})).await.0, 200);
        assert_eq!(code(m.post(two, "/api/v1/messages", say("no")).await), refused(403, "FORBIDDEN"));
        assert_eq!(a.delete(two, &format!("{mutes}/m")).await.0, 204);
        assert_eq!(m.post(one, "/api/v1/messages", say("again")).await.0, 201);

        // It ends by itself.
        assert_eq!(Caller::backend().post(one, mutes, mute("m", 1)).await.0, 204);
        assert_eq!(code(m.post(two, "/api/v1/messages", say("no")).await), refused(403, "FORBIDDEN"));
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        assert_eq!(m.post(two, "/api/v1/messages", say("later")).await.0, 201);

        // By whom, and whom.
        assert_eq!(code(m.post(one, mutes, mute("n", 60)).await), refused(403, "FORBIDDEN"));
        assert_eq!(code(a.post(one, mutes, mute("o", 60)).await), refused(403, "FORBIDDEN"));
        assert_eq!(code(a.post(one, mutes, mute("stranger", 60)).await), refused(404, "NOT_FOUND"));
        assert_eq!(code(Caller::user("x").post(one, mutes, mute("m", 60)).await), refused(403, "NOT_MEMBER"));
        assert_eq!(o.post(one, mutes, mute("a", 60)).await.0, 204);
        for seconds in [json!(0), json!(-1), json!(31_536_001), json!(1.5), json!("60"), Value::Null] {
            let body = json!({ "userId": "m", "untilSeconds": seconds });
            let (status, answer) = o.post(one, mutes, body).await;
            assert_eq!((status, &answer["error"]["field"]), (400, &json!("untilSeconds")), "{answer}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_wrote_is_removed_everywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("parley.db");
    let node = Node::embedded(&[("DATABASE_URL", &format!("sqlite:{}", file.display()))]).await;
    let spammer = Caller::acting_for("s");
    for id in ["g1", "g2"] {
        make(&node, "o", json!({ "kind": "group", "id": id, "members": ["s", "m"] })).await;
        for n in 0..3 {
            for who in ["s", "o"] {
                let body = json!({ "conversationId": id, "content": format!("{who} {n}") });
                assert_eq!(Caller::acting_for(who).post(&node, "/api/v1/messages", body).await.0, 201);
            }
        }
    }
    // One conversation from which the user was removed meanwhile.
    assert_eq!(Caller::backend().post(&node, "/api/v1/conversations/g2/bans", json!({ "userId": "s" })).await.0, 204);
    let path = "/api/v1/users/s/messages";
    for nobody in [&Caller::user("o"), &Caller::user("s")] {
        assert_eq!(code(nobody.delete(&node, path).await), refused(403, "FORBIDDEN"));
    }
    let mut member = Client::join(node.http, "m").await;
    let remove = async |query: &str| {
        let claims = json!({ "sub": "boss", "scope": "admin", "exp": in_seconds(60), "iat": in_seconds(0) });
        let admin = Caller(vec![crate::support::http::bearer(&token_with(claims))]);
        let (mut deleted, mut cursor) = (0, String::new());
        loop {
            let (status, answer) = admin.delete(&node, &format!("{path}?{query}{cursor}")).await;
            assert_eq!(status, 200, "{answer}");
            deleted += answer["deleted"].as_u64().expect("a number");
            match answer["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return deleted,
            }
        }
    };
    assert_eq!(remove("since=2100-01-01T00:00:00.000Z").await, 0);
    assert_eq!(remove("conversationId=g1").await, 3);
    for _ in 0..3 {
        assert_eq!(member.expect("message.deleted").await["payload"]["conversationId"], "g1");
    }
    assert_eq!(remove("").await, 3, "those of the other one");
    assert_eq!(remove("").await, 0);
    for id in ["g1", "g2"] {
        let (_, page) = spammer.get(&node, "/api/v1/conversations/g1/messages").await;
        let contents: Vec<&str> =
            page["items"].as_array().expect("items").iter().filter_map(|message| message["content"].as_str()).collect();
        assert_eq!(contents, ["", "o 0", "", "o 1", "", "o 2"], "{id}");
    }
    assert_eq!(
        code(Caller::backend().delete(&node, &format!("{path}?cursor=x")).await),
        refused(400, "VALIDATION_ERROR")
    );

    // Both stand in the audit trail.
    let mute = json!({ "userId": "s", "untilSeconds": 60 });
    assert_eq!(Caller::acting_for("o").post(&node, "/api/v1/conversations/g1/mutes", mute).await.0, 204);
    node.app.drain().await.expect("it ends");
    let database = rusqlite::Connection::open(&file).expect("the file");
    let mut lines = database
        .prepare(
            "SELECT kind, user_id, detail FROM audit WHERE kind IN ('muted', 'delete_messages_ordered') ORDER BY id",
        )
        .expect("a statement");
    let lines: Vec<(String, String, Value)> = lines
        .query_map([], |row| {
            let detail: String = row.get(2)?;
            Ok((row.get(0)?, row.get(1)?, serde_json::from_str(&detail).expect("JSON")))
        })
        .expect("rows")
        .map(|line| line.expect("a line"))
        .collect();
    let removed: Vec<&Value> = lines.iter().filter(|line| line.0 != "muted").map(|line| &line.2).collect();
    assert!(removed.iter().all(|detail| detail["by"] == "boss"), "{removed:?}");
    assert_eq!(removed.iter().filter_map(|detail| detail["order"]["deleted"].as_u64()).sum::<u64>(), 6);
    let muted = lines.iter().find(|line| line.0 == "muted").expect("a mute");
    assert_eq!(
        (muted.1.as_str(), &muted.2),
        ("s", &json!({ "by": null, "backend": true, "actingFor": "o", "seconds": 60 }))
    );
}
