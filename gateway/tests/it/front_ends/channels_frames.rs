//! Seed 003 over its own socket: `channels.v1` on `/ws/channels`. The frames one by one are golden tests of the codec.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::{bearer, patiently};
use crate::support::node::{Node, in_seconds, token, token_with};
use crate::support::two_nodes::{TwoNodes, acting};

const PATH: &str = "/ws/channels";

/// Connects with the token in the header, and takes `connected`.
async fn join(to: std::net::SocketAddr, user: &str) -> Client {
    let (name, value) = bearer(&token(user));
    let mut client = Client::open(to, PATH, &[(name, &value)]).await.expect("an upgrade");
    assert_eq!(client.expect("connected").await["user_id"], user);
    client
}

async fn say(client: &mut Client, frame: Value) {
    client.send_text(&frame.to_string()).await;
}

async fn create(node: &Node, owner: &str, new: Value) {
    let make = || acting(node.http, "POST", "/api/v1/conversations", owner, new.clone());
    let (status, made) = patiently(make).await;
    assert_eq!(status, 201, "{made}");
}

/// A frame without its time, which must be there.
fn timeless(mut frame: Value) -> Value {
    let at = frame.as_object_mut().expect("an object").remove("timestamp").expect("a time");
    assert!(at.as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')), "{at}");
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_from_joining_to_leaving_on_two_nodes() {
    let cluster = TwoNodes::start(&[]).await;
    create(&cluster.one, "ann", json!({ "kind": "channel", "id": "lounge" })).await;
    let mut ann = join(cluster.one.http, "ann").await;
    let mut bob = join(cluster.two.http, "bob").await;
    let mut bob_phone = join(cluster.one.http, "bob").await;

    // Everybody is told who came, by name; both of bob's connections are in.
    say(&mut bob, json!({ "type": "join_channel", "channel_id": "lounge" })).await;
    let members = json!([{ "user_id": "ann", "role": "owner" }, { "user_id": "bob", "role": "member" }]);
    let joined = json!({ "type": "joined_channel", "channel_id": "lounge", "members": members });
    assert_eq!(bob.expect("joined_channel").await, joined);
    assert_eq!(bob_phone.expect("joined_channel").await, joined);
    let about_bob =
        |kind: &str| json!({ "type": kind, "channel_id": "lounge", "user_id": "bob", "username": "name-of-bob" });
    assert_eq!(timeless(ann.expect("user_joined").await), about_bob("user_joined"));

    // Typing goes to the others alone; the message to everybody, the sender's connections included.
    say(&mut bob, json!({ "type": "typing", "channel_id": "lounge", "is_typing": true })).await;
    let mut typing = about_bob("typing");
    typing["is_typing"] = true.into();
    assert_eq!(ann.expect("typing").await, typing);
    say(&mut bob, json!({ "type": "chat_message", "channel_id": "lounge", "content": "Hello\n\tall" })).await;
    let at_ann = ann.expect("chat_message").await;
    assert_eq!(bob.expect("chat_message").await, at_ann);
    assert_eq!(bob_phone.expect("chat_message").await, at_ann);
    assert!(at_ann["id"].is_string());
    let mut shown = timeless(at_ann.clone());
    shown.as_object_mut().expect("an object").remove("id");
    let mut expected = about_bob("chat_message");
    expected["content"] = "Hello\n\tall".into();
    assert_eq!(shown, expected);
    typing["is_typing"] = false.into();
    assert_eq!(ann.expect("typing").await, typing, "the message ends it");

    // A repeated send is one message.
    let again = json!({ "type": "chat_message", "channel_id": "lounge", "content": "once", "temp_id": "t" });
    say(&mut ann, again.clone()).await;
    let first = ann.expect("chat_message").await;
    say(&mut ann, again.clone()).await;
    assert_eq!(ann.expect("chat_message").await["id"], first["id"]);
    let mut other = again;
    other["content"] = "another".into();
    say(&mut ann, other).await;
    assert_eq!(ann.expect("error").await["code"], "CONFLICT");
    assert_eq!(bob.expect("chat_message").await["id"], first["id"]);

    say(&mut bob, json!({ "type": "leave_room", "room": "lounge" })).await;
    assert_eq!(bob.expect("left_channel").await, json!({ "type": "left_channel", "channel_id": "lounge" }));
    bob_phone.expect("left_channel").await;
    assert_eq!(timeless(ann.expect("user_left").await), about_bob("user_left"));
    say(&mut bob, json!({ "type": "chat_message", "channel_id": "lounge", "content": "x" })).await;
    assert_eq!(bob.expect("error").await["code"], "NOT_MEMBER");
    say(&mut bob, json!({ "type": "ping" })).await;
    timeless(bob.expect("pong").await);
    say(&mut ann, json!({ "type": "ping" })).await;
    ann.expect("pong").await;
    let own_typing = ann.kept().iter().chain(bob.kept()).chain(bob_phone.kept()).any(|frame| frame["type"] == "typing");
    assert!(!own_typing, "nobody is told of their own typing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_faults_have_their_error_and_the_connection_stays() {
    let node = Node::embedded(&[("COMMANDS_PER_SECOND", "0")]).await;
    create(&node, "ann", json!({ "kind": "channel", "id": "guarded", "password": "s3cret" })).await;
    create(&node, "ann", json!({ "kind": "channel", "id": "closed", "visibility": "private" })).await;
    let mut bob = join(node.http, "bob").await;
    let long = "x".repeat(4001);
    for (frame, code, field) in [
        (json!({ "type": "join_channel", "channel_id": "guarded" }), "PASSWORD_REQUIRED", None),
        (json!({ "type": "join_room", "room": "guarded", "password": "no" }), "PASSWORD_REQUIRED", None),
        (json!({ "type": "join_channel", "channel_id": "closed" }), "FORBIDDEN", None),
        (json!({ "type": "join_channel", "channel_id": "nowhere" }), "NOT_FOUND", None),
        (json!({ "type": "leave_channel", "channel_id": "guarded" }), "NOT_MEMBER", None),
        (json!({ "type": "typing", "channel_id": "guarded", "is_typing": true }), "NOT_MEMBER", None),
        (json!({ "type": "chat_message", "channel_id": "guarded", "content": "x" }), "NOT_MEMBER", None),
        (
            json!({ "type": "chat_message", "channel_id": "guarded", "content": long }),
            "VALIDATION_ERROR",
            Some("content"),
        ),
        (
            json!({ "type": "chat_message", "channel_id": "guarded", "content": "\u{1b}[2J" }),
            "VALIDATION_ERROR",
            Some("content"),
        ),
        (json!({ "type": "chat_message", "channel_id": {}, "content": "x" }), "VALIDATION_ERROR", Some("channel_id")),
        (json!({ "type": "nonsense" }), "UNKNOWN_EVENT", Some("type")),
        (json!("nonsense"), "INVALID_MESSAGE", None),
    ] {
        say(&mut bob, frame.clone()).await;
        let error = bob.expect("error").await;
        assert_eq!((&error["code"], error["field"].as_str()), (&json!(code), field), "{frame}");
        assert!(error["message"].is_string());
    }
    bob.send_text("{\"type\":").await;
    assert_eq!(bob.expect("error").await["code"], "INVALID_MESSAGE");
    say(&mut bob, json!({ "type": "join_room", "room": "guarded", "password": "s3cret" })).await;
    assert_eq!(bob.expect("joined_channel").await["channel_id"], "guarded");

    // A new channel's members are in it at once, wherever they are connected.
    create(&node, "ann", json!({ "kind": "channel", "id": "new", "members": ["bob"] })).await;
    assert_eq!(bob.expect("joined_channel").await["channel_id"], "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_by_header_or_cookie_and_can_be_renewed() {
    let node = Node::embedded(&[]).await;
    let cookie = format!("token={}", token("ann"));
    let mut ann = Client::open(node.http, PATH, &[("cookie", &cookie)]).await.expect("an upgrade");
    assert_eq!(timeless(ann.expect("connected").await), json!({ "type": "connected", "user_id": "ann" }));

    let refused = Client::open(node.http, PATH, &[("cookie", "token=nonsense")]).await.err().expect("no upgrade");
    assert!(refused.0.contains("401"), "{refused:?}");

    let short = |user: &str| token_with(json!({ "sub": user, "exp": in_seconds(3), "iat": in_seconds(0) }));
    let (name, value) = bearer(&short("bob"));
    let mut bob = Client::open(node.http, PATH, &[(name, &value)]).await.expect("an upgrade");
    bob.expect("connected").await;
    let (name, value) = bearer(&short("eve"));
    let mut eve = Client::open(node.http, PATH, &[(name, &value)]).await.expect("an upgrade");
    eve.expect("connected").await;
    say(&mut bob, json!({ "type": "auth", "token": token("eve") })).await;
    assert_eq!(bob.expect("error").await["code"], "FORBIDDEN", "another's token is no renewal");
    say(&mut bob, json!({ "type": "auth", "token": token("bob") })).await;
    assert_eq!(bob.expect("connected").await["user_id"], "bob");
    assert_eq!(eve.expect_close().await, 4300);
    // Bob's first token has expired as well.
    say(&mut bob, json!({ "type": "ping" })).await;
    bob.expect("pong").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_ends_by_itself() {
    let node = Node::embedded(&[]).await;
    create(&node, "ann", json!({ "kind": "channel", "id": "c", "members": ["bob"] })).await;
    let (mut ann, mut bob) = (join(node.http, "ann").await, join(node.http, "bob").await);
    let started = Instant::now();
    say(&mut bob, json!({ "type": "typing", "channel_id": "c", "is_typing": true })).await;
    assert_eq!(ann.expect("typing").await["is_typing"], true);
    assert_eq!(ann.expect("typing").await["is_typing"], false);
    assert!(started.elapsed() >= Duration::from_secs(4), "not before its time: {:?}", started.elapsed());
    // Gone with the last connection.
    say(&mut bob, json!({ "type": "typing", "channel_id": "c", "is_typing": true })).await;
    assert_eq!(ann.expect("typing").await["is_typing"], true);
    drop(bob);
    assert_eq!(ann.expect("typing").await["is_typing"], false);
}
