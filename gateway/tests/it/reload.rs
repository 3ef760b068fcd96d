//! What a front end fetches when it is opened anew: members, single messages, blocks, names, invitations, channels.

use serde_json::{Value, json};

use crate::support::caller::{Caller, code, refused};
use crate::support::client::Client;
use crate::support::node::Node;
use crate::support::two_nodes::acting;

async fn make(node: &Node, owner: &str, new: Value) {
    let (status, made) = acting(node.http, "POST", "/api/v1/conversations", owner, new).await;
    assert_eq!(status, 201, "{made}");
}

fn items(answer: &(u16, Value)) -> &Vec<Value> {
    assert_eq!(answer.0, 200, "{}", answer.1);
    answer.1["items"].as_array().expect("items")
}

fn ids<'a>(answer: &'a (u16, Value), field: &str) -> Vec<&'a str> {
    items(answer).iter().map(|item| item[field].as_str().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_in_pages_with_their_positions() {
    let node = Node::embedded(&[]).await;
    let (o, m) = (Caller::user("o"), Caller::user("m"));
    make(&node, "o", json!({ "kind": "channel", "id": "c", "members": ["m", "a+b|c", "z"] })).await;
    for (path, user) in [("invites", "inv"), ("bans", "ban")] {
        let (status, _) = o.post(&node, &format!("/api/v1/conversations/c/{path}"), json!({ "userId": user })).await;
        assert_eq!(status, 204);
    }
    let mut socket = Client::join(node.http, "m").await;
    let (_, sent) = o.post(&node, "/api/v1/messages", json!({ "conversationId": "c", "content": "hi" })).await;
    let id = sent["message"]["id"].clone();
    socket.send("message.delivered", json!({ "conversationId": "c", "upTo": id })).await;
    socket.settle().await;
    let list = "/api/v1/conversations/c/members";
    let all = m.get(&node, list).await;
    assert_eq!(ids(&all, "userId"), ["a+b|c", "m", "o", "z"]);
    let of = |user: &str| items(&all).iter().find(|member| member["userId"] == user).expect("a member").clone();
    let own = json!({ "userId": "m", "username": "name-of-m", "role": "member", "state": "accepted",
        "readSeq": 0, "deliveredSeq": 1 });
    assert_eq!(of("m"), own);
    assert_eq!((&of("o")["role"], &of("o")["readSeq"]), (&json!("owner"), &json!(1)));

    // In pages, also behind ids that a query would read as something else.
    let first = m.get(&node, &format!("{list}?limit=1")).await;
    assert_eq!(ids(&first, "userId"), ["a+b|c"]);
    let cursor = first.1["next"].as_str().expect("there is more").to_owned();
    let second = m.get(&node, &format!("{list}?limit=3&cursor={cursor}")).await;
    assert_eq!(ids(&second, "userId"), ["m", "o", "z"]);
    let last = second.1["next"].as_str().expect("it is full");
    let third = m.get(&node, &format!("{list}?cursor={last}")).await;
    assert_eq!((items(&third).len(), third.1.get("next")), (0, None));
    assert_eq!(code(m.get(&node, &format!("{list}?cursor=a%20b")).await), refused(400, "VALIDATION_ERROR"));

    // Who isn't in is listed for moderators and backends.
    for caller in [&o, &Caller::backend()] {
        let all = caller.get(&node, list).await;
        assert_eq!(ids(&all, "userId"), ["a+b|c", "ban", "inv", "m", "o", "z"]);
        let outside = items(&all).iter().find(|member| member["userId"] == "ban").expect("the banned user");
        assert_eq!((&outside["state"], outside.get("readSeq")), (&json!("banned"), None));
    }
    // Nobody else gets anything, and only backends see who is online.
    assert_eq!(code(Caller::user("x").get(&node, list).await), refused(403, "NOT_MEMBER"));
    assert_eq!(code(Caller::user("ban").get(&node, list).await), refused(403, "BANNED"));
    assert_eq!(code(m.get(&node, "/api/v1/conversations/nowhere/members").await), refused(404, "NOT_FOUND"));
    assert_eq!(code(o.get(&node, &format!("{list}?online=true")).await), refused(403, "FORBIDDEN"));
    let online = Caller::backend().get(&node, &format!("{list}?online=true")).await;
    assert_eq!(ids(&online, "userId"), ["m"]);
    let offline = Caller::backend().get(&node, &format!("{list}?online=false")).await;
    assert_eq!(ids(&offline, "userId"), ["a+b|c", "o", "z"], "members, and nobody else");

    // No position passes a block.
    assert_eq!(m.post(&node, "/api/v1/blocks", json!({ "userId": "o" })).await.0, 204);
    for (reader, hidden) in [(&m, "o"), (&o, "m")] {
        let all = reader.get(&node, list).await;
        let other = items(&all).iter().find(|member| member["userId"] == hidden).expect("a member");
        assert_eq!((other.get("readSeq"), other.get("deliveredSeq")), (None, None), "{other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_read_alone_and_amid_others_and_reacted_to() {
    let node = Node::embedded(&[]).await;
    let (o, m) = (Caller::user("o"), Caller::user("m"));
    make(&node, "o", json!({ "kind": "group", "id": "g", "members": ["m"] })).await;
    make(&node, "o", json!({ "kind": "group", "id": "other" })).await;
    let mut sent = Vec::new();
    for n in 1..=9 {
        let body = json!({ "conversationId": "g", "content": format!("m{n}") });
        let (status, answer) = o.post(&node, "/api/v1/messages", body).await;
        assert_eq!(status, 201);
        sent.push(answer["message"].clone());
    }
    let id = |n: usize| sent[n - 1]["id"].as_str().expect("an id").to_owned();
    assert_eq!(m.get(&node, &format!("/api/v1/messages/{}", id(5))).await, (200, sent[4].clone()));
    assert_eq!(code(Caller::user("x").get(&node, &format!("/api/v1/messages/{}", id(5))).await).1, "NOT_MEMBER");
    assert_eq!(code(m.get(&node, "/api/v1/messages/9007199254740991").await), refused(404, "NOT_FOUND"));

    for (middle, limit, seqs) in
        [(5, 4, vec![3, 4, 5, 6]), (1, 4, vec![1, 2, 3, 4]), (9, 5, vec![7, 8, 9]), (5, 1, vec![5])]
    {
        let path = format!("/api/v1/conversations/g/messages?around={}&limit={limit}", id(middle));
        let page = m.get(&node, &path).await;
        let found: Vec<u64> = items(&page).iter().filter_map(|message| message["seq"].as_u64()).collect();
        assert_eq!(found, seqs, "around {middle}, {limit}");
    }
    let elsewhere = format!("/api/v1/conversations/other/messages?around={}", id(5));
    assert_eq!(code(o.get(&node, &elsewhere).await), refused(404, "NOT_FOUND"));
    let both = format!("/api/v1/conversations/g/messages?around={}&before=3", id(5));
    assert_eq!(code(o.get(&node, &both).await), refused(400, "VALIDATION_ERROR"));

    let mut socket = Client::join(node.http, "o").await;
    let reactions = format!("/api/v1/messages/{}/reactions", id(5));
    let (status, reacted) = m.post(&node, &reactions, json!({ "emoji": "👍" })).await;
    assert_eq!((status, &reacted["reactions"]), (200, &json!({ "👍": ["m"] })));
    let told = socket.expect("reaction.updated").await;
    assert_eq!((&told["payload"]["userId"], &told["payload"]["added"]), (&json!("m"), &json!(true)));
    assert_eq!(m.post(&node, &reactions, json!({ "emoji": "👍" })).await.0, 200, "once more changes nothing");
    let (status, reacted) = m.delete(&node, &format!("{reactions}/%F0%9F%91%8D")).await;
    assert_eq!((status, reacted.get("reactions")), (200, None));
    assert_eq!(socket.expect("reaction.updated").await["payload"]["added"], false);
    let (status, wrong) = m.post(&node, &reactions, json!({ "emoji": "x" })).await;
    assert_eq!((status, &wrong["error"]["field"]), (400, &json!("emoji")));
    assert_eq!(code(m.delete(&node, &format!("{reactions}/x")).await), refused(400, "VALIDATION_ERROR"));
    let stranger = Caller::user("x");
    assert_eq!(code(stranger.post(&node, &reactions, json!({ "emoji": "👍" })).await), refused(403, "NOT_MEMBER"));
    let backend = Caller::backend().post(&node, &reactions, json!({ "emoji": "👍" })).await;
    assert_eq!(code(backend), refused(400, "VALIDATION_ERROR"), "a backend reacts for somebody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_names_and_invitations_are_there_after_a_reload() {
    let node = Node::embedded(&[]).await;
    let a = Caller::user("a");
    let mut socket = Client::join(node.http, "a").await;
    let b = Client::join(node.http, "b").await;
    for user in ["c", "b"] {
        assert_eq!(a.post(&node, "/api/v1/blocks", json!({ "userId": user })).await.0, 204);
        assert_eq!(socket.expect("block.added").await["payload"]["userId"], user);
    }
    assert_eq!(a.post(&node, "/api/v1/blocks", json!({ "userId": "b" })).await.0, 204, "once more changes nothing");
    assert_eq!(ids(&a.get(&node, "/api/v1/blocks").await, "userId"), ["b", "c"]);
    let first = a.get(&node, "/api/v1/blocks?limit=1").await;
    assert_eq!((ids(&first, "userId"), &first.1["next"]), (vec!["b"], &json!("b")));
    assert_eq!(ids(&a.get(&node, "/api/v1/blocks?cursor=b").await, "userId"), ["c"]);
    assert_eq!(ids(&Caller::user("b").get(&node, "/api/v1/blocks").await, "userId"), [""; 0], "not who blocked one");
    let refusal = Caller::user("b").post(&node, "/api/v1/messages", json!({ "to": "a", "content": "x" })).await;
    assert_eq!(code(refusal), refused(403, "BLOCKED"));
    assert_eq!(a.delete(&node, "/api/v1/blocks/b").await.0, 204);
    assert_eq!(socket.expect("block.removed").await["payload"]["userId"], "b");
    assert_eq!(code(a.post(&node, "/api/v1/blocks", json!({ "userId": "a" })).await), refused(400, "VALIDATION_ERROR"));
    assert_eq!(code(Caller::backend().get(&node, "/api/v1/blocks").await), refused(400, "VALIDATION_ERROR"));

    let names = a.get(&node, "/api/v1/users?ids=b,nobody,a").await;
    let named = |user: &str| json!({ "userId": user, "username": format!("name-of-{user}"), "name": format!("name-of-{user}") });
    assert_eq!(*items(&names), [named("b"), json!({ "userId": "nobody" }), named("a")]);
    assert_eq!(code(a.get(&node, "/api/v1/users?ids=a,,b").await), refused(400, "VALIDATION_ERROR"));
    assert_eq!(code(a.get(&node, "/api/v1/users").await), refused(400, "VALIDATION_ERROR"));
    drop(b);

    for id in ["g2", "g1"] {
        make(&node, "o", json!({ "kind": "group", "id": id, "title": format!("Title of {id}") })).await;
        let invites = format!("/api/v1/conversations/{id}/invites");
        assert_eq!(Caller::user("o").post(&node, &invites, json!({ "userId": "a" })).await.0, 204);
    }
    let invites = a.get(&node, "/api/v1/invites").await;
    assert_eq!(ids(&invites, "id"), ["g1", "g2"]);
    let first = &items(&invites)[0];
    assert_eq!((&first["title"], &first["members"], first.get("unread")), (&json!("Title of g1"), &json!([]), None));
    assert_eq!(a.post(&node, "/api/v1/conversations/g1/join", json!({})).await.0, 200);
    assert_eq!(ids(&a.get(&node, "/api/v1/invites").await, "id"), ["g2"]);
    assert_eq!(a.post(&node, "/api/v1/conversations/g2/leave", json!({})).await.0, 204);
    assert_eq!(items(&a.get(&node, "/api/v1/invites").await).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_shows_public_channels_only() {
    let node = Node::embedded(&[]).await;
    for new in [
        json!({ "kind": "channel", "id": "c1", "title": "Rust & Übung", "password": "s3cret" }),
        json!({ "kind": "channel", "id": "c2", "title": "Cooking", "members": ["m"] }),
        json!({ "kind": "channel", "id": "c3" }),
        json!({ "kind": "channel", "id": "hidden", "title": "Rust", "visibility": "private" }),
        json!({ "kind": "group", "id": "group", "title": "Rust", "visibility": "public" }),
        json!({ "kind": "channel", "id": "gone", "title": "Rust" }),
    ] {
        make(&node, "o", new).await;
    }
    assert_eq!(Caller::user("o").delete(&node, "/api/v1/conversations/gone").await.0, 204);
    let x = Caller::user("x");
    let all = x.get(&node, "/api/v1/channels").await;
    assert_eq!(ids(&all, "id"), ["c1", "c2", "c3"]);
    let locked = json!({ "id": "c1", "title": "Rust & Übung", "hasPassword": true, "memberCount": 1 });
    assert_eq!(items(&all)[0], locked);
    assert_eq!((&items(&all)[1]["memberCount"], items(&all)[2].get("title")), (&json!(2), None));
    assert_eq!(ids(&x.get(&node, "/api/v1/channels?query=%C3%BCBUNG").await, "id"), ["c1"]);
    assert_eq!(items(&x.get(&node, "/api/v1/channels?query=%25").await).len(), 0, "nothing stands for others");
    let first = x.get(&node, "/api/v1/channels?limit=2").await;
    assert_eq!((ids(&first, "id"), &first.1["next"]), (vec!["c1", "c2"], &json!("c2")));
    assert_eq!(ids(&x.get(&node, "/api/v1/channels?limit=2&cursor=c2").await, "id"), ["c3"]);
    assert_eq!(code(x.get(&node, "/api/v1/channels?query=").await), refused(400, "VALIDATION_ERROR"));
}
