//! Joins and leaves of a channel: however many there are, they cost the members' logs little, and members know who is there.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming};
use crate::support::http::post;
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::TwoNodes;

/// Makes a channel with one member; their client, gone again, and its position.
async fn channel_with_a_member(node: &Node) -> (String, u64) {
    let channel = json!({ "kind": "channel", "id": "open", "members": ["m"] });
    assert_eq!(post(node.http, "/api/v1/conversations", &[("x-api-key", API_KEY)], channel).await.0, 201);
    let (_, welcome) = Client::join_with(node.http, &token("m")).await;
    let (epoch, seq) = (&welcome["epoch"], &welcome["seq"]);
    (epoch.as_str().expect("an epoch").to_owned(), seq.as_u64().expect("a position"))
}

/// A hundred messages for the member.
async fn a_hundred_messages(node: &Node) {
    for n in 0..100 {
        let message = json!({ "to": "m", "content": format!("message {n}") });
        let headers = [("x-api-key", API_KEY), ("x-user-id", "friend")];
        assert_eq!(post(node.http, "/api/v1/messages", &headers, message).await.0, 201);
    }
}

async fn join_and_leave(client: &mut Client, times: usize) {
    for _ in 0..times {
        client.send("conversation.join", json!({ "conversationId": "open" })).await;
        client.expect("conversation.joined").await;
        client.send("conversation.leave", json!({ "conversationId": "open" })).await;
        client.expect("conversation.left").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the member gets who resumes there, until `last` is in the channel.
async fn resumed(node: &Node, (epoch, seq): &(String, u64), last: &str) -> Vec<Value> {
    let path = format!("/chat/ws?token={}&resume={epoch}:{seq}", token("m"));
    let mut member = Client::open(node.http, &path, &[]).await.expect("an upgrade");
    let welcome = member.expect("auth_success").await;
    assert_eq!(welcome["payload"]["resumed"], true, "{welcome}");
    let mut frames = Vec::new();
    loop {
        match member.next().await {
            Incoming::Frame(frame) => {
                let is_last = frame["type"] == "member.joined" && frame["payload"]["userId"] == last;
                frames.push(frame);
                if is_last {
                    return frames;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn count(frames: &[Value], kind: &str) -> usize {
    frames.iter().filter(|frame| frame["type"] == kind).count()
}

/// The channel's members by the last event about each user.
fn here(frames: &[Value]) -> BTreeSet<&str> {
    let mut newest = std::collections::BTreeMap::new();
    for frame in frames {
        let is_here = match frame["type"].as_str() {
            Some("member.joined") => true,
            Some("member.left") => false,
            _ => continue,
        };
        let version = frame["payload"]["version"].as_u64().expect("a version");
        let of_one = newest.entry(frame["payload"]["userId"].as_str().expect("a user")).or_insert((version, is_here));
        *of_one = (*of_one).max((version, is_here));
    }
    newest.into_iter().filter(|(_, (_, is_here))| *is_here).map(|(user, _)| user).collect()
}

/// The log's entries that tell of comings and goings.
fn entries(frames: &[Value]) -> usize {
    let of_members = |frame: &&Value| frame["type"].as_str().is_some_and(|kind| kind.starts_with("member."));
    frames.iter().filter(of_members).filter(|frame| frame["seq"].is_u64()).count()
}

async fn stay(node: &Node, user: &str) -> Client {
    let mut client = Client::join(node.http, user).await;
    client.send("conversation.join", json!({ "conversationId": "open" })).await;
    client.expect("conversation.joined").await;
    client
}

/// Everything that was committed is published, too: nothing is left for the sweep.
async fn nothing_is_left(node: &Node) {
    let published = async {
        while node.app.node().store.outbox_age_ms().await.expect("asked") > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), published).await.expect("every row is marked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_and_leaves_cost_members_logs_little() {
    let rates = [("USER_COMMANDS_PER_SECOND", "0"), ("COMMANDS_PER_SECOND", "0")];
    let node = Node::embedded(&rates).await;
    let position = channel_with_a_member(&node).await;
    a_hundred_messages(&node).await;
    // 150 joins and leaves by one outsider, then by thirty at a time.
    let mut outsider = Client::join(node.http, "outsider").await;
    let started = std::time::Instant::now();
    join_and_leave(&mut outsider, 75).await;
    let mut outsiders = tokio::task::JoinSet::new();
    for n in 0..30 {
        let mut client = Client::join(node.http, &format!("o{n}")).await;
        outsiders.spawn(async move { join_and_leave(&mut client, 5).await });
    }
    outsiders.join_all().await;
    let seconds = usize::try_from(started.elapsed().as_secs()).expect("not for ever");
    let _stays = stay(&node, "stays").await;
    let frames = resumed(&node, &position, "stays").await;
    assert_eq!(count(&frames, "message.new"), 100, "nothing of what was missed is trimmed");
    let entries = entries(&frames);
    // Thirty users make two entries of a second.
    assert!(entries <= 2 * seconds + 6, "{entries} entries in {seconds} s, of 450 changes");
    assert_eq!(here(&frames), BTreeSet::from(["stays"]), "who came and went is not there");
    nothing_is_left(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stays_is_known_on_every_node() {
    let cluster = TwoNodes::start(&[("USER_COMMANDS_PER_SECOND", "0"), ("COMMANDS_PER_SECOND", "0")]).await;
    let (one, two) = (&cluster.one, &cluster.two);
    let position = channel_with_a_member(one).await;
    let mut stays = Vec::new();
    for n in 0..10 {
        // Each joins and leaves on one node, and joins on the other at once.
        let user = format!("u{n}");
        let mut first = stay(one, &user).await;
        first.send("conversation.leave", json!({ "conversationId": "open" })).await;
        first.expect("conversation.left").await;
        stays.push((first, stay(two, &user).await));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _last = stay(one, "last").await;
    let frames = resumed(two, &position, "last").await;
    let expected: BTreeSet<String> = (0..10).map(|n| format!("u{n}")).chain(["last".to_owned()]).collect();
    assert_eq!(here(&frames), expected.iter().map(String::as_str).collect(), "{frames:#?}");
    nothing_is_left(one).await;
}
