//! Wrong rights are refused with the same code over every dialect, over REST with a user's token, and over REST by a backend
//! in the user's name. One table: a row is a situation, a column a way.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::http::{bearer, post, request};
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};
use crate::support::two_nodes::{TwoNodes, acting, bounded, say};

/// Who tries everything.
const USER: &str = "7";
/// Whom the user has blocked, and who has blocked the user.
const BLOCKED_BY_USER: &str = "8";
const BLOCKER: &str = "9";

/// A situation, and how each way puts it. A dialect that has no frame for it has none here; what `chat.v1` calls it is then
/// no frame of that dialect (`UNKNOWN_EVENT`).
struct Row {
    situation: &'static str,
    code: &'static str,
    chat: Option<Value>,
    listings: Option<Value>,
    social: Vec<Value>,
    channels: Vec<Value>,
    rest: Vec<(&'static str, String, Value)>,
    /// A backend has this right itself, so that only the user is refused.
    privileged: bool,
}

impl Row {
    fn new(situation: &'static str, code: &'static str) -> Self {
        let (social, channels, rest) = (Vec::new(), Vec::new(), Vec::new());
        Self { situation, code, chat: None, listings: None, social, channels, rest, privileged: false }
    }

    fn chat(mut self, kind: &str, payload: Value) -> Self {
        self.chat = Some(json!({ "type": kind, "payload": payload }));
        self
    }

    fn listings(mut self, frame: Value) -> Self {
        self.listings = Some(frame);
        self
    }

    fn social(mut self, frame: Value) -> Self {
        self.social.push(frame);
        self
    }

    fn channels(mut self, frame: Value) -> Self {
        self.channels.push(frame);
        self
    }

    fn rest(mut self, method: &'static str, path: impl Into<String>, body: Value) -> Self {
        self.rest.push((method, path.into(), body));
        self
    }

    fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }
}

/// What the table is about.
struct Scene {
    /// A message of somebody else in `open`, where the user is a plain member.
    foreign: String,
    /// A message in `closed`, where the user is none.
    hidden: String,
    /// Messages where the user is banned, and of the user who blocked the user.
    banned: String,
    blocked: String,
    /// The user's own messages: where they are banned, where they are muted, and to who blocked them.
    own: [String; 3],
    /// The direct conversations with who blocked the user, and with whom the user blocked.
    direct: [String; 2],
}

async fn made(node: &Node, by: &str, conversation: Value) {
    let (status, made) = acting(node.http, "POST", "/api/v1/conversations", by, conversation).await;
    assert_eq!(status, 201, "{made}");
}

async fn said(node: &Node, by: &str, conversation: &str) -> String {
    let body = json!({ "conversationId": conversation, "content": "mine" });
    let (status, answer) = acting(node.http, "POST", "/api/v1/messages", by, body).await;
    assert_eq!(status, 201, "{answer}");
    answer["message"]["id"].as_str().expect("an id").to_owned()
}

async fn set_scene(node: &Node) -> Scene {
    made(node, "1", json!({ "id": "closed", "kind": "group", "members": ["2"] })).await;
    made(node, "1", json!({ "id": "locked", "kind": "channel", "password": "s3cret" })).await;
    made(node, "1", json!({ "id": "open", "kind": "channel", "members": ["2", USER] })).await;
    made(node, "1", json!({ "id": "strict", "kind": "channel", "members": [USER] })).await;
    made(node, "1", json!({ "id": "secret", "kind": "group", "members": [USER] })).await;
    made(node, "1", json!({ "id": "muted", "kind": "channel", "members": [USER] })).await;
    made(node, "1", json!({ "id": "ended", "kind": "group", "members": [USER] })).await;
    assert_eq!(acting(node.http, "DELETE", "/api/v1/conversations/ended", "1", Value::Null).await.0, 204);
    made(node, "1", json!({ "id": "ruled", "kind": "group", "members": ["2", USER] })).await;
    for admin in ["2", USER] {
        let path = format!("/api/v1/conversations/ruled/members/{admin}");
        assert_eq!(acting(node.http, "PATCH", &path, "1", json!({ "role": "admin" })).await.0, 200);
    }
    let (while_in, unmuted) = (said(node, USER, "strict").await, said(node, USER, "muted").await);
    let mute = json!({ "userId": USER, "untilSeconds": 3600 });
    let (status, answer) = acting(node.http, "POST", "/api/v1/conversations/muted/mutes", "1", mute).await;
    assert_eq!(status, 204, "{answer}");
    made(node, USER, json!({ "id": "own", "kind": "group", "members": ["2"] })).await;
    for group in ["strict", "secret"] {
        let path = format!("/api/v1/conversations/{group}/bans");
        let (status, answer) = acting(node.http, "POST", &path, "1", json!({ "userId": USER })).await;
        assert_eq!(status, 204, "{answer}");
    }
    let mut direct = [String::new(), String::new()];
    let mut to_other = String::new();
    for (place, other) in [BLOCKED_BY_USER, BLOCKER].into_iter().enumerate() {
        let sent = say(node.http, USER, other, "hello").await;
        direct[1 - place] = sent["conversationId"].as_str().expect("an id").to_owned();
        to_other = sent["id"].as_str().expect("an id").to_owned();
    }
    let blocked = say(node.http, BLOCKER, USER, "soon blocked").await["id"].as_str().expect("an id").to_owned();
    for (by, whom) in [(BLOCKER, USER), (USER, BLOCKED_BY_USER)] {
        let mut client = Client::join(node.http, by).await;
        client.send("block.add", json!({ "userId": whom })).await;
        client.expect("block.added").await;
    }
    let (foreign, hidden) = (said(node, "1", "open").await, said(node, "1", "closed").await);
    let own = [while_in, unmuted, to_other];
    Scene { foreign, hidden, banned: said(node, "1", "strict").await, blocked, own, direct }
}

/// Saying something in a conversation, over each way.
fn saying(situation: &'static str, code: &'static str, to: &str) -> Row {
    Row::new(situation, code)
        .chat("message.send", json!({ "conversationId": to, "content": "forbidden" }))
        .listings(json!({ "type": "send_message", "chat_id": to, "content": "forbidden" }))
        .social(json!({ "type": "group", "group_id": to, "content": "forbidden" }))
        .channels(json!({ "type": "chat_message", "channel_id": to, "content": "forbidden" }))
        .rest("POST", "/api/v1/messages", json!({ "conversationId": to, "content": "forbidden" }))
}

/// Writing to a user. Channels know none.
fn writing(situation: &'static str, to: &str) -> Row {
    Row::new(situation, "BLOCKED")
        .chat("message.send", json!({ "to": to, "content": "forbidden" }))
        .listings(json!({ "type": "send_message", "receiver_id": to, "content": "forbidden" }))
        .social(json!({ "type": "private", "to": to, "content": "forbidden" }))
        .rest("POST", "/api/v1/messages", json!({ "to": to, "content": "forbidden" }))
}

/// Joining, with or without a password. Listings have no frame for it, and social rooms none for a password.
fn joining(situation: &'static str, code: &'static str, to: &str, password: Option<&str>) -> Row {
    Row::new(situation, code)
        .chat("conversation.join", json!({ "conversationId": to, "password": password }))
        .social(json!({ "type": "join_room", "room": to }))
        .channels(json!({ "type": "join_channel", "channel_id": to, "password": password }))
        .channels(json!({ "type": "join_room", "room": to, "password": password }))
        .rest("POST", format!("/api/v1/conversations/{to}/join"), json!({ "password": password }))
}

fn leaving(situation: &'static str, code: &'static str, from: &str) -> Row {
    Row::new(situation, code)
        .chat("conversation.leave", json!({ "conversationId": from }))
        .social(json!({ "type": "leave_room", "room": from }))
        .channels(json!({ "type": "leave_channel", "channel_id": from }))
        .channels(json!({ "type": "leave_room", "room": from }))
        .rest("POST", format!("/api/v1/conversations/{from}/leave"), Value::Null)
}

/// Typing goes over sockets alone, and social networks have none.
fn typing(situation: &'static str, code: &'static str, to: &str) -> Row {
    Row::new(situation, code)
        .chat("typing", json!({ "conversationId": to, "isTyping": true }))
        .listings(json!({ "type": "typing", "chat_id": to, "is_typing": true }))
        .channels(json!({ "type": "typing", "channel_id": to, "is_typing": true }))
}

/// Only listings and `chat.v1` mark messages as read.
fn reading(situation: &'static str, code: &'static str, what: &str) -> Row {
    Row::new(situation, code)
        .chat("message.read", json!({ "conversationId": what }))
        .listings(json!({ "type": "mark_read", "chat_id": what }))
        .rest("POST", format!("/api/v1/conversations/{what}/read"), json!({}))
        .rest("GET", format!("/api/v1/conversations/{what}/messages"), Value::Null)
        .rest("GET", format!("/api/v1/conversations/{what}/messages?around=1"), Value::Null)
        .rest("GET", format!("/api/v1/conversations/{what}/members"), Value::Null)
        .rest("GET", format!("/api/messages/group?group={what}"), Value::Null)
}

/// Conversations are looked at over REST alone.
fn looking(situation: &'static str, code: &'static str, at: &str) -> Row {
    Row::new(situation, code).rest("GET", format!("/api/v1/conversations/{at}"), Value::Null)
}

/// Edits, deletions and reactions: no document but 002 has them.
fn changing(situation: &'static str, code: &'static str, message: &str) -> [Row; 2] {
    let path = format!("/api/v1/messages/{message}");
    [
        Row::new(situation, code).chat("message.edit", json!({ "messageId": message, "content": "forbidden" })).rest(
            "PATCH",
            &path,
            json!({ "content": "forbidden" }),
        ),
        Row::new(situation, code).chat("message.delete", json!({ "messageId": message })).rest(
            "DELETE",
            path,
            Value::Null,
        ),
    ]
}

fn rows(scene: &Scene) -> Vec<Row> {
    let [by_other, by_user] = &scene.direct;
    let mut rows = vec![
        saying("not a member: says", "NOT_MEMBER", "closed"),
        typing("not a member: types", "NOT_MEMBER", "closed"),
        reading("not a member: reads", "NOT_MEMBER", "closed"),
        looking("not a member: looks", "NOT_MEMBER", "closed"),
        leaving("not a member: leaves", "NOT_MEMBER", "closed"),
        Row::new("not a member: reads a message", "NOT_MEMBER")
            .listings(json!({ "type": "mark_read", "message_id": scene.hidden })),
        Row::new("not a member: has received", "NOT_MEMBER")
            .chat("message.delivered", json!({ "conversationId": "closed", "upTo": scene.hidden })),
        Row::new("not a member: reacts", "NOT_MEMBER")
            .chat("reaction.add", json!({ "messageId": scene.hidden, "emoji": "👍" }))
            .rest("POST", format!("/api/v1/messages/{}/reactions", scene.hidden), json!({ "emoji": "👍" }))
            .rest("DELETE", format!("/api/v1/messages/{}/reactions/:a:", scene.hidden), Value::Null)
            .rest("GET", format!("/api/v1/messages/{}", scene.hidden), Value::Null),
        Row::new("banned: reacts", "BANNED")
            .chat("reaction.add", json!({ "messageId": scene.banned, "emoji": "👍" }))
            .rest("POST", format!("/api/v1/messages/{}/reactions", scene.banned), json!({ "emoji": "👍" }))
            .rest("GET", format!("/api/v1/messages/{}", scene.banned), Value::Null),
        Row::new("blocked: reacts", "BLOCKED")
            .chat("reaction.add", json!({ "messageId": scene.blocked, "emoji": "👍" }))
            .rest("POST", format!("/api/v1/messages/{}/reactions", scene.blocked), json!({ "emoji": "👍" })),
        Row::new("a direct conversation: changes it", "FORBIDDEN")
            .rest("PATCH", format!("/api/v1/conversations/{by_other}"), json!({ "title": "forbidden" }))
            .rest("DELETE", format!("/api/v1/conversations/{by_other}"), Value::Null),
        Row::new("no backend: who is online", "FORBIDDEN").privileged().rest(
            "GET",
            "/api/v1/conversations/open/members?online=true",
            Value::Null,
        ),
        saying("muted: says", "FORBIDDEN", "muted"),
        joining("not invited", "FORBIDDEN", "closed", None),
        joining("a wrong password", "PASSWORD_REQUIRED", "locked", Some("wrong")),
        joining("no password", "PASSWORD_REQUIRED", "locked", None),
        saying("banned: says", "BANNED", "strict"),
        typing("banned: types", "BANNED", "strict"),
        reading("banned: reads", "BANNED", "strict"),
        saying("banned: says in private", "BANNED", "secret"),
        reading("banned: reads in private", "BANNED", "secret"),
        joining("banned: joins in private", "BANNED", "secret", None),
        looking("banned: looks at what is private", "BANNED", "secret"),
        joining("banned: joins", "BANNED", "strict", None),
        leaving("banned: leaves", "BANNED", "strict"),
        writing("blocked: writes", BLOCKER),
        writing("has blocked: writes", BLOCKED_BY_USER),
        saying("blocked: says", "BLOCKED", by_other),
        saying("has blocked: says", "BLOCKED", by_user),
        saying("there is none: says", "NOT_FOUND", "nowhere"),
        typing("there is none: types", "NOT_FOUND", "nowhere"),
        reading("there is none: reads", "NOT_FOUND", "nowhere"),
        joining("there is none: joins", "NOT_FOUND", "nowhere", None),
        looking("there is none: looks", "NOT_FOUND", "nowhere"),
        leaving("there is none: leaves", "NOT_FOUND", "nowhere"),
    ];
    rows.extend(changing("someone else's message", "FORBIDDEN", &scene.foreign));
    rows.extend(changing("a message of others", "NOT_MEMBER", &scene.hidden));
    rows.extend(changing("no message", "NOT_FOUND", "9007199254740991"));
    let [while_in, unmuted, to_other] = &scene.own;
    rows.extend(changing("banned: their own message", "BANNED", while_in));
    rows.extend(changing("banned: someone else's message", "BANNED", &scene.banned));
    rows.extend(changing("blocked: their own message", "BLOCKED", to_other));
    rows.push(
        Row::new("muted: edits", "FORBIDDEN")
            .chat("message.edit", json!({ "messageId": unmuted, "content": "forbidden" }))
            .rest("PATCH", format!("/api/v1/messages/{unmuted}"), json!({ "content": "forbidden" })),
    );
    rows.push(typing("blocked: types", "BLOCKED", by_other));
    rows.push(typing("has blocked: types", "BLOCKED", by_user));
    rows.extend([BLOCKER, BLOCKED_BY_USER].map(bringing_in));
    rows.push(ruling());
    rows.extend([
        saying("it was deleted: says", "NOT_FOUND", "ended"),
        typing("it was deleted: types", "NOT_FOUND", "ended"),
        reading("it was deleted: reads", "NOT_FOUND", "ended"),
        joining("it was deleted: joins", "NOT_FOUND", "ended", None),
        looking("it was deleted: looks", "NOT_FOUND", "ended"),
        leaving("it was deleted: leaves", "NOT_FOUND", "ended"),
        moderating("it was deleted: moderates", "NOT_FOUND", "ended"),
    ]);
    rows.push(moderating("a plain member", "FORBIDDEN", "open"));
    rows.push(moderating("not a member", "NOT_MEMBER", "closed"));
    rows.push(moderating("banned", "BANNED", "strict"));
    rows.push(administrating());
    rows.push(leaving("the last owner: leaves", "CONFLICT", "own"));
    rows.push(stepping_down());
    rows.push(
        Row::new("chooses an id", "FORBIDDEN")
            .privileged()
            .rest("POST", "/api/v1/conversations", json!({ "id": "chosen", "kind": "group" }))
            .rest("POST", "/api/v1/conversations", json!({ "id": "chosen", "kind": "channel" }))
            .rest("POST", "/api/v1/conversations", json!({ "id": "chosen", "kind": "direct", "members": ["3"] })),
    );
    rows
}

/// The last owner gives the rights up in any other way than by leaving.
fn stepping_down() -> Row {
    let path = |rest: &str| format!("/api/v1/conversations/own/{rest}");
    Row::new("the last owner: steps down", "CONFLICT")
        .rest("PATCH", path("members/7"), json!({ "role": "member" }))
        .rest("PATCH", path("members/7"), json!({ "role": "admin" }))
        .rest("DELETE", path("members/7"), Value::Null)
        .rest("POST", path("bans"), json!({ "userId": USER }))
}

/// Nobody brings in a user with whom there is a block.
fn bringing_in(other: &str) -> Row {
    let path = |rest: &str| format!("/api/v1/conversations/own/{rest}");
    Row::new("a block: brings in", "BLOCKED")
        .rest("POST", path("members"), json!({ "userId": other }))
        .rest("POST", path("invites"), json!({ "userId": other }))
        .rest("POST", "/api/groups/invite", json!({ "group_id": "own", "user_id": other }))
        .rest("POST", "/api/v1/conversations", json!({ "kind": "group", "members": [other] }))
}

/// What owners do, admins may not; nor may they touch owners and one another.
fn ruling() -> Row {
    let path = |rest: &str| format!("/api/v1/conversations/ruled{rest}");
    let mut row = Row::new("an admin: rules", "FORBIDDEN")
        .rest("DELETE", path(""), Value::Null)
        .rest("POST", path("/members"), json!({ "userId": "3", "role": "admin" }))
        .rest("POST", path("/members"), json!({ "userId": "3", "role": "owner" }))
        .rest("PATCH", path("/members/2"), json!({ "role": "member" }))
        .rest("PATCH", path(&format!("/members/{USER}")), json!({ "role": "owner" }));
    for other in ["1", "2"] {
        row = row
            .rest("DELETE", path(&format!("/members/{other}")), Value::Null)
            .rest("POST", path("/bans"), json!({ "userId": other }))
            .rest("POST", path("/mutes"), json!({ "userId": other, "untilSeconds": 60 }))
            .rest("DELETE", path(&format!("/mutes/{other}")), Value::Null);
    }
    row
}

/// What moderators do, they do over REST: no dialect has frames for it.
fn moderating(situation: &'static str, code: &'static str, of: &str) -> Row {
    let path = |rest: &str| format!("/api/v1/conversations/{of}/{rest}");
    Row::new(situation, code)
        .rest("POST", path("members"), json!({ "userId": "3" }))
        .rest("POST", path("members"), json!({ "userIds": ["3", "4"] }))
        .rest("PATCH", path("members/2"), json!({ "role": "admin" }))
        .rest("PATCH", path(&format!("members/{USER}")), json!({ "role": "owner" }))
        .rest("DELETE", path("members/1"), Value::Null)
        .rest("DELETE", path("members/2"), Value::Null)
        .rest("POST", path("bans"), json!({ "userId": "2" }))
        .rest("DELETE", path("bans/3"), Value::Null)
        .rest("POST", path("mutes"), json!({ "userId": "2", "untilSeconds": 60 }))
        .rest("DELETE", path("mutes/2"), Value::Null)
        .rest("POST", path("invites"), json!({ "userId": "3" }))
        .rest("PATCH", format!("/api/v1/conversations/{of}"), json!({ "title": "forbidden" }))
        .rest("DELETE", format!("/api/v1/conversations/{of}"), Value::Null)
        .rest("POST", "/api/groups/invite", json!({ "group_id": of, "user_id": "3" }))
}

/// What admins and backends do. A broadcast can be asked for over `social.v1` alone.
fn administrating() -> Row {
    let event = json!({ "type": "broadcast", "payload": { "content": "forbidden" } });
    Row::new("not an admin", "FORBIDDEN")
        .privileged()
        .social(json!({ "type": "broadcast", "content": "forbidden" }))
        .rest("POST", "/api/v1/broadcast", json!({ "event": event }))
        .rest("POST", "/api/v1/publish", json!({ "users": ["1"], "event": event }))
        .rest("POST", "/api/v1/control/disconnect", json!({ "userId": "1" }))
        .rest("POST", "/api/v1/control/revoke", json!({ "userId": "1" }))
        .rest("DELETE", "/api/v1/users/1/messages", Value::Null)
        .rest("DELETE", "/api/v1/users/1", Value::Null)
        .rest("GET", "/api/v1/users/1/export", Value::Null)
        .rest("GET", "/api/v1/internal/chat/ws/stats", Value::Null)
}

/// The user's sockets, on two nodes.
struct Ways {
    chat: Client,
    listings: Flat,
    social: Flat,
    channels: Flat,
}

impl Ways {
    async fn open(cluster: &TwoNodes) -> Self {
        let (one, two) = (cluster.one.http, cluster.two.http);
        Self {
            chat: Client::join(one, USER).await,
            listings: Flat::join(two, "/ws/chat", USER).await,
            social: Flat::join(one, "/ws", USER).await,
            channels: Flat::join(two, "/ws/channels", USER).await,
        }
    }

    async fn refuse(&mut self, row: &Row) {
        let (situation, code) = (row.situation, row.code);
        if let Some(frame) = &row.chat {
            assert_eq!(self.chat(frame).await, code, "{situation}: chat.v1 {frame}");
        }
        if let Some(frame) = &row.listings {
            assert_eq!(self.listings.refused(frame.clone()).await, code, "{situation}: listings.v1 {frame}");
        }
        for frame in &row.social {
            assert_eq!(self.social.refused(frame.clone()).await, code, "{situation}: social.v1 {frame}");
        }
        for frame in &row.channels {
            assert_eq!(self.channels.refused(frame.clone()).await, code, "{situation}: channels.v1 {frame}");
        }
        self.nothing_else(row).await;
    }

    /// A dialect without a frame for it doesn't know another dialect's name for it either.
    async fn nothing_else(&mut self, row: &Row) {
        let name = |frame: &Value| json!({ "type": frame["type"] });
        let Some(canonical) = row.chat.as_ref().map(name) else {
            for frame in row.social.iter().chain(&row.listings).map(name) {
                assert_eq!(self.chat(&frame).await, "UNKNOWN_EVENT", "{}: chat.v1 {frame}", row.situation);
                assert_eq!(self.channels.refused(frame.clone()).await, "UNKNOWN_EVENT", "{}: {frame}", row.situation);
            }
            return;
        };
        let lacking = [
            (row.listings.is_none(), &mut self.listings),
            (row.social.is_empty(), &mut self.social),
            (row.channels.is_empty(), &mut self.channels),
        ];
        for (_, flat) in lacking.into_iter().filter(|(lacks, _)| *lacks) {
            assert_eq!(flat.refused(canonical.clone()).await, "UNKNOWN_EVENT", "{}: {canonical}", row.situation);
        }
    }

    async fn chat(&mut self, frame: &Value) -> String {
        self.chat.send_text(&frame.to_string()).await;
        self.chat.expect("error").await["payload"]["code"].as_str().expect("a code").to_owned()
    }
}

/// The store, not a dialect, knows who may do what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forbidden_is_refused_alike() {
    bounded(async {
        let cluster = TwoNodes::start(&[("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")]).await;
        let node = &cluster.one;
        let scene = set_scene(node).await;
        // What the scene has told is published, so that nobody takes it for what the refused have done.
        cluster.everything_is_published().await;
        let mut ways = Ways::open(&cluster).await;
        let mut others = Vec::new();
        for user in ["1", "2", BLOCKED_BY_USER, BLOCKER] {
            let mut client = Client::join(cluster.two.http, user).await;
            client.settle().await;
            others.push(client);
        }
        let (name, value) = bearer(&token(USER));
        let mut wrong = Vec::new();
        for row in rows(&scene) {
            ways.refuse(&row).await;
            for (method, path, body) in &row.rest {
                let text = if body.is_null() { String::new() } else { body.to_string() };
                let (_, answer) = request(node.http, method, path, &[(name, &value)], text).await;
                let mut answers = vec![("themselves", answer)];
                if !row.privileged {
                    answers.push(("by a backend", acting(node.http, method, path, USER, body.clone()).await.1));
                }
                answers.retain(|(_, answer)| answer["error"]["code"] != row.code);
                let faults = answers.iter().map(|(by, answer)| {
                    format!("{}: {method} {path} {body} {by}: {answer} is not {}", row.situation, row.code)
                });
                wrong.extend(faults);
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
        may_not_look(node, (name, &value)).await;
        may_not_as_admin(node).await;
        // Nobody has noticed anything of it.
        for client in &mut others {
            let noticed = client.settle().await;
            assert!(noticed.iter().all(|frame| frame["type"] == "user.online"), "{noticed:?}");
        }
    })
    .await;
}

/// Some rights are a backend's alone: an admin's token doesn't have them.
async fn may_not_as_admin(node: &Node) {
    let claims = json!({ "sub": "boss", "scope": "admin", "exp": in_seconds(60), "iat": in_seconds(-5) });
    let (name, value) = bearer(&token_with(claims));
    for (method, path) in [
        ("DELETE", "/api/v1/users/1"),
        ("GET", "/api/v1/users/1/export"),
        ("GET", "/api/v1/conversations/open/members?online=true"),
    ] {
        let (status, answer) = request(node.http, method, path, &[(name, &value)], "").await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("FORBIDDEN")), "{method} {path}");
    }
}

/// The operators' listener asks for rights as well, and a moderator may look at their own channel alone.
async fn may_not_look(node: &Node, bearer: (&str, &str)) {
    for (path, code) in [
        ("/api/v1/admin/connections", "FORBIDDEN"),
        ("/api/v1/admin/webhook", "FORBIDDEN"),
        ("/api/v1/admin/channels/open", "FORBIDDEN"),
        ("/api/v1/admin/channels/closed", "NOT_MEMBER"),
    ] {
        let (status, answer) = request(node.ops, "GET", path, &[bearer], "").await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!(code)), "{path}");
    }
}

/// Who shows nothing, or a key that isn't the key, gets nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_nobody_is_refused_everywhere() {
    let node = Node::embedded(&[]).await;
    let (_, document) = crate::support::http::get(node.http, "/openapi.json", &[]).await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            if operation["security"].as_array().is_none_or(Vec::is_empty) {
                continue;
            }
            let asked = path.replace("{id}", "7").replace("{user}", "u").replace("{emoji}", "%F0%9F%91%8D");
            for headers in [vec![], vec![("x-api-key", "wrong")], vec![("authorization", "Bearer wrong")]] {
                let (status, answer) = request(node.http, &method.to_uppercase(), &asked, &headers, "{}").await;
                let found = (status, answer["error"]["code"].as_str());
                assert_eq!(found, (401, Some("UNAUTHENTICATED")), "{method} {path} {headers:?}");
            }
        }
    }
    let (status, _) =
        post(node.http, "/api/v1/conversations", &[("x-api-key", API_KEY)], json!({ "kind": "group" })).await;
    assert_eq!(status, 201, "the right key does");
}
