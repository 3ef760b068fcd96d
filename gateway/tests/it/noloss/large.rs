//! Large conversations: one publication for all members, and nothing lost, doubled or out of order on any socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Incoming};
use crate::support::http::{patiently, request};
use crate::support::node::{API_KEY, Node};
use crate::support::two_nodes::{TwoNodes, acting, bounded, open, position};

/// More than two members are many.
const SETTINGS: &[(&str, &str)] = &[("LARGE_CONVERSATION_MEMBERS", "2")];

/// A node finds a lost publication within this time, if nothing else shows it.
const CHECKED_WITHIN: Duration = Duration::from_secs(15);

/// A device of a member of the group `g`, which insists on the order of what it sees.
struct Member {
    client: Client,
    user: &'static str,
    log: (String, u64),
    /// Its place in the group, once that was large.
    place: Option<(u64, u64)>,
    is_large: bool,
    /// The contents of new messages of the group, in order, over all connections.
    contents: Vec<String>,
    /// What came by the group's own channel.
    events: Vec<Value>,
    notices: Vec<Value>,
}

impl Member {
    async fn join(to: SocketAddr, user: &'static str) -> Self {
        let (client, success) = open(to, user, "").await;
        let log = position(&success);
        Self {
            client,
            user,
            log,
            place: None,
            is_large: false,
            contents: Vec::new(),
            events: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Joins, and waits until it is told its place in the group.
    async fn placed(to: SocketAddr, user: &'static str) -> Self {
        let mut member = Self::join(to, user).await;
        member.until(|member| member.place.is_some()).await;
        member
    }

    /// Drops the connection without a word, and resumes with what it names.
    async fn resume(self, to: SocketAddr) -> Self {
        let at = self.place.map(|(rev, seq)| format!("g:{rev}:{seq}")).unwrap_or_default();
        let query = format!("&resume={}:{}&at={at}", self.log.0, self.log.1);
        let Self { client, user, log, place, is_large, contents, events, notices } = self;
        drop(client);
        let (client, success) = open(to, user, &query).await;
        assert_eq!(success["resumed"], true, "{success}");
        Self { client, user, log, place, is_large, contents, events, notices }
    }

    fn see(&mut self, frame: Value) {
        let payload = &frame["payload"];
        let seq_in = |payload: &Value| payload["message"]["seq"].as_u64();
        if let Some(seq) = frame["seq"].as_u64() {
            assert_eq!(seq, self.log.1 + 1, "{}: a gapless order, not {frame}", self.user);
            self.log.1 = seq;
        }
        if let Some(rev) = frame["rev"].as_u64() {
            let (at, seen) = self.place.expect("a place before the first event of the group");
            assert!(rev > at, "{}: behind {at}, not {frame}", self.user);
            if frame["type"] == "message.new" || frame["type"] == "message.sent" {
                let seq = seq_in(payload).expect("a seq");
                assert_eq!(seq, seen + 1, "{}: each message once and in order, not {frame}", self.user);
            }
            self.place = Some((rev, seen.max(seq_in(payload).unwrap_or(0))));
            self.events.push(frame.clone());
        }
        match frame["type"].as_str().expect("a type") {
            "message.new" | "message.sent" if payload["message"]["conversationId"] == "g" => {
                self.contents.push(payload["message"]["content"].as_str().expect("text").to_owned());
            }
            "conversation.position" | "conversation.resync" => {
                self.place =
                    Some((payload["rev"].as_u64().expect("a rev"), payload["lastSeq"].as_u64().expect("a seq")));
                if frame["type"] == "conversation.resync" {
                    self.notices.push(frame);
                }
            }
            "conversation.changed" if payload["rev"].is_u64() => {
                self.is_large = payload["conversation"]["large"] == true;
                if self.is_large {
                    let number = |name: &str| payload[name].as_u64().expect("a number");
                    self.place = Some((number("rev"), number("lastSeq")));
                }
            }
            "resync" => {
                self.log = position(payload);
                self.notices.push(frame);
            }
            _ => {}
        }
    }

    /// Reads until `enough`.
    async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        self.until_within(Duration::from_secs(20), enough).await;
    }

    async fn until_within(&mut self, within: Duration, enough: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !enough(self) {
            assert!(
                since.elapsed() < within,
                "{} not within {within:?}: {:?} at {:?}, notices {:?}",
                self.user,
                self.contents,
                self.place,
                self.notices
            );
            let next = tokio::time::timeout(Duration::from_millis(200), self.client.next()).await;
            match next {
                Ok(Incoming::Frame(frame)) => self.see(frame),
                Ok(other) => panic!("{}: {other:?} after {:?}", self.user, self.contents),
                Err(_) => {}
            }
        }
    }

    async fn has(&mut self, contents: &[&str]) {
        self.until(|member| member.contents.len() >= contents.len()).await;
        assert_eq!(self.contents, contents, "{}", self.user);
    }

    /// Reads what is there.
    async fn settle(&mut self) {
        self.client.send_ref("ping", json!({}), json!("settled")).await;
        loop {
            match self.client.next().await {
                Incoming::Frame(frame) if frame["ref"] == "settled" => return,
                Incoming::Frame(frame) => self.see(frame),
                other => panic!("{}: {other:?}", self.user),
            }
        }
    }
}

/// A backend's request.
async fn backend(at: SocketAddr, method: &str, path: &str, body: Value) -> Value {
    let headers = [("x-api-key", API_KEY), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = patiently(|| request(at, method, path, &headers, body.clone())).await;
    assert!(status < 300, "{method} {path}: {status} {answer}");
    answer
}

/// The same in the name of a user.
async fn act(at: SocketAddr, method: &str, path: &str, user: &str, body: Value) -> Value {
    let (status, answer) = patiently(|| acting(at, method, path, user, body.clone())).await;
    assert!(status < 300, "{method} {path}: {status} {answer}");
    answer
}

async fn group(at: SocketAddr, members: &[&str]) {
    backend(at, "POST", "/api/v1/conversations", json!({ "id": "g", "kind": "group", "members": members })).await;
}

async fn say(at: SocketAddr, user: &str, content: &str) -> Value {
    let body = json!({ "conversationId": "g", "content": content });
    act(at, "POST", "/api/v1/messages", user, body).await["message"].clone()
}

/// A message that is committed and never published, as by a node that dies, but marked.
async fn commit_silently(cluster: &TwoNodes, id: i64, content: &str) {
    let client = cluster.database.client().await;
    let insert = "INSERT INTO messages (id, conversation_id, seq, rev, sender_id, kind, content, created_at) \
        SELECT $1, id, last_seq, rev, 'a', 'text', $2, now() FROM conversations WHERE id = 'g'";
    let raise = "UPDATE conversations SET last_seq = last_seq + 1, rev = rev + 1 WHERE id = 'g'";
    client.execute(raise, &[]).await.expect("raised");
    client.execute(insert, &[&id, &content]).await.expect("stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_publication_reaches_every_member_and_no_log() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c", "d"]).await;
        let mut a = Member::placed(one, "a").await;
        let mut other = Member::placed(two, "a").await;
        let (mut b, mut c) = (Member::placed(one, "b").await, Member::placed(two, "c").await);
        let before = cluster.redis.number("XLEN chat:log:{chat:user:b}");
        a.client.send("message.send", json!({ "conversationId": "g", "content": "m0", "tempId": "t0" })).await;
        a.has(&["m0"]).await;
        other.has(&["m0"]).await;
        for device in [&a, &other] {
            assert_eq!(device.events[0]["type"], "message.sent", "to all the sender's devices");
            assert_eq!(device.events[0]["payload"]["tempId"], "t0");
        }
        let sent = say(two, "c", "m1").await;
        for member in [&mut a, &mut other, &mut b, &mut c] {
            member.has(&["m0", "m1"]).await;
        }
        assert_eq!(b.events[1]["payload"]["senderName"], "name-of-c");
        let path = format!("/api/v1/messages/{}", sent["id"].as_str().expect("an id"));
        act(one, "PATCH", &path, "c", json!({ "content": "m1, edited" })).await;
        act(one, "POST", &format!("{path}/reactions"), "a", json!({ "emoji": "👍" })).await;
        act(one, "DELETE", &path, "c", Value::Null).await;
        b.until(|b| b.events.len() == 5).await;
        let kinds: Vec<_> = b.events[2..].iter().map(|event| event["type"].as_str().expect("a type")).collect();
        assert_eq!(kinds, ["message.edited", "reaction.updated", "message.deleted"]);
        let revs: Vec<_> = b.events.iter().map(|event| event["rev"].as_u64().expect("a rev")).collect();
        assert_eq!(revs, (revs[0]..revs[0] + 5).collect::<Vec<_>>(), "one change, one rev");
        assert_eq!(cluster.redis.number("XLEN chat:log:{chat:user:b}"), before, "the log has none of it");
        let listed = act(one, "GET", "/api/v1/conversations", "d", Value::Null).await;
        assert_eq!((&listed["items"][0]["large"], &listed["items"][0]["unread"]), (&json!(true), &json!(2)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_publication_is_read_from_the_store() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let mut members =
            [Member::placed(one, "b").await, Member::placed(one, "c").await, Member::placed(two, "b").await];
        say(one, "a", "m0").await;
        for member in &mut members {
            member.has(&["m0"]).await;
        }
        // The next publication shows that one is missing.
        commit_silently(&cluster, 900_001, "lost").await;
        say(two, "a", "m1").await;
        for member in &mut members {
            member.has(&["m0", "lost", "m1"]).await;
        }
        // A node that hears nothing for a while reads what it missed when it is back.
        cluster.cut_off(&cluster.one);
        say(two, "a", "m2").await;
        for member in &mut members {
            member.has(&["m0", "lost", "m1", "m2"]).await;
        }
        assert!(members.iter().all(|member| member.notices.is_empty()));
    })
    .await;
}

/// Nothing else is said that would show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_loss_is_found_by_comparing_with_the_store() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        group(cluster.one.http, &["a", "b", "c"]).await;
        let mut b = Member::placed(cluster.one.http, "b").await;
        commit_silently(&cluster, 900_001, "lost").await;
        b.until_within(CHECKED_WITHIN, |b| b.contents == ["lost"]).await;
        assert!(b.notices.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_goes_on_where_the_client_was() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let mut b = Member::placed(one, "b").await;
        say(one, "a", "m0").await;
        b.has(&["m0"]).await;
        let edited = say(one, "a", "m1").await;
        b.has(&["m0", "m1"]).await;
        let client = std::mem::replace(&mut b.client, open(one, "b", "").await.0);
        drop(client);
        for content in ["m2", "m3"] {
            say(two, "a", content).await;
        }
        let path = format!("/api/v1/messages/{}", edited["id"].as_str().expect("an id"));
        act(one, "PATCH", &path, "a", json!({ "content": "other" })).await;
        // On a node that had nobody of the group: what was missed, in order of rev, the edit among it.
        let mut b = b.resume(two).await;
        b.has(&["m0", "m1", "m2", "m3"]).await;
        b.until(|b| b.events.last().is_some_and(|event| event["type"] == "message.edited")).await;
        say(one, "c", "m4").await;
        b.has(&["m0", "m1", "m2", "m3", "m4"]).await;
        // And on one that still has what was missed.
        let _stays = Member::placed(one, "c").await;
        let (log, place) = (b.log.clone(), b.place);
        say(one, "a", "m5").await;
        b.has(&["m0", "m1", "m2", "m3", "m4", "m5"]).await;
        let mut again = Member { log, place, contents: Vec::new(), events: Vec::new(), notices: Vec::new(), ..b };
        again = again.resume(one).await;
        again.has(&["m5"]).await;
        assert!(again.notices.is_empty());
    })
    .await;
}

/// A client of before, one that names nothing, and one that names what can't be served: each is told to fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_not_go_on_is_told_so() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let b = Member::placed(one, "b").await;
        let (epoch, seq) = b.log.clone();
        say(one, "a", "m0").await;
        let (mut old, success) = open(two, "b", &format!("&resume={epoch}:{seq}")).await;
        assert_eq!(success["resumed"], false, "{success}");
        assert_eq!(old.expect("resync").await["payload"]["reason"], "trimmed");
        let many = (0..100).map(|n| format!("x{n}:1:1&at=")).collect::<String>() + "g:1:0";
        for (at, reason) in [("", "trimmed"), ("g:x:1", "invalid"), ("g:99999:1", "future"), (&*many, "trimmed")] {
            let (mut client, success) = open(two, "b", &format!("&resume={epoch}:{seq}&at={at}")).await;
            assert_eq!(success["resumed"], true, "{success}");
            let told = client.expect("conversation.resync").await;
            assert_eq!(told["payload"]["reason"], reason, "{at}: {told}");
            assert_eq!(told["payload"]["lastSeq"], 1);
        }
        // Somebody else's conversation is nobody's business.
        let (mut x, success) = open(two, "x", "").await;
        let (epoch, seq) = position(&success);
        x.expect("status.bulk").await;
        let (mut x, _) = open(two, "x", &format!("&resume={epoch}:{seq}&at=g:0:0")).await;
        say(one, "a", "m1").await;
        for frame in x.settle().await {
            assert!(!frame["type"].as_str().is_some_and(|kind| kind.starts_with("message")), "{frame}");
        }
    })
    .await;
}

/// Up and down again under load: no event twice, none missing, on sockets that stay and on one that comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_the_limit_loses_and_doubles_nothing() {
    bounded(async {
        let cluster = TwoNodes::start(&[("LARGE_CONVERSATION_MEMBERS", "6")]).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let mut members =
            vec![Member::join(one, "b").await, Member::join(two, "b").await, Member::join(two, "c").await];
        let away = Member::join(one, "b").await;
        let flood = tokio::spawn(async move {
            for n in 0..160 {
                say(if n % 2 == 0 { one } else { two }, "a", &format!("m{n}")).await;
            }
        });
        let others = ["v", "w", "x", "y", "z"];
        for round in 0..2 {
            let many: Vec<&str> = others.to_vec();
            backend(two, "POST", "/api/v1/conversations/g/members", json!({ "userIds": many })).await;
            members[0].until(|member| member.is_large).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            for other in others {
                backend(one, "DELETE", &format!("/api/v1/conversations/g/members/{other}"), Value::Null).await;
            }
            if round == 0 {
                // Three are half of six: it is still large.
                backend(one, "POST", "/api/v1/conversations/g/members", json!({ "userId": "q" })).await;
            }
        }
        for gone in ["q", "c"] {
            members[2].settle().await;
            backend(one, "DELETE", &format!("/api/v1/conversations/g/members/{gone}"), Value::Null).await;
        }
        members.truncate(2);
        members[0].until(|member| !member.is_large).await;
        flood.await.expect("all are sent");
        for member in &mut members {
            has_all(member).await;
        }
        // Who was away all the time, and named nothing then: the log has the fences, and the store what was between them.
        let mut away = away.resume(two).await;
        has_all(&mut away).await;
    })
    .await;
}

/// All 160 messages, each once. Two nodes, and two ways, may bring two of them some milliseconds out of order.
async fn has_all(member: &mut Member) {
    let sorted = |member: &Member| {
        let mut numbers: Vec<u32> = member.contents.iter().map(|text| text[1..].parse().expect("a number")).collect();
        numbers.sort_unstable();
        numbers
    };
    member.until(|member| member.contents.len() >= 160).await;
    member.settle().await;
    assert_eq!(sorted(member), (0..160).collect::<Vec<_>>());
    assert!(member.notices.is_empty(), "{:?}", member.notices);
}

/// A row that is published again: nobody gets anything twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redo_does_no_harm() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let mut members = [Member::placed(one, "b").await, Member::placed(two, "c").await];
        for n in 0..3 {
            say(one, "a", &format!("m{n}")).await;
        }
        cluster.everything_is_published().await;
        let client = cluster.database.client().await;
        let sql = "UPDATE outbox SET published_at = NULL, committed_at = committed_at - interval '1 minute' \
            WHERE cardinality(message_ids) > 0";
        assert!(client.execute(sql, &[]).await.expect("unmarked") > 0);
        cluster.everything_is_published().await;
        say(two, "a", "m3").await;
        for member in &mut members {
            member.has(&["m0", "m1", "m2", "m3"]).await;
        }
    })
    .await;
}

/// Redis loses everything, and is away: nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_loses_nothing() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let mut b = Member::placed(one, "b").await;
        say(one, "a", "m0").await;
        cluster.redis.ask("FLUSHALL");
        say(two, "a", "m1").await;
        b.has(&["m0", "m1"]).await;
        say(one, "c", "m2").await;
        b.has(&["m0", "m1", "m2"]).await;
    })
    .await;
}

/// Those who come and go: from the place at which they come in to the one at which they leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_sees_what_is_said_between() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let mut x = Member::join(two, "x").await;
        say(one, "a", "before").await;
        backend(one, "POST", "/api/v1/conversations/g/members", json!({ "userId": "x" })).await;
        x.until(|x| x.place.is_some()).await;
        say(one, "a", "m0").await;
        x.has(&["m0"]).await;
        backend(one, "DELETE", "/api/v1/conversations/g/members/x", Value::Null).await;
        x.client.expect("conversation.left").await;
        say(one, "a", "after").await;
        x.settle().await;
        assert_eq!(x.contents, ["m0"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_mode_does_the_same() {
    bounded(async {
        let node = Node::embedded(SETTINGS).await;
        group(node.http, &["a", "b", "c"]).await;
        let mut b = Member::placed(node.http, "b").await;
        say(node.http, "a", "m0").await;
        b.has(&["m0"]).await;
        let (log, place) = (b.log.clone(), b.place);
        say(node.http, "a", "m1").await;
        b.has(&["m0", "m1"]).await;
        let again = Member { log, place, contents: Vec::new(), events: Vec::new(), notices: Vec::new(), ..b };
        let mut b = again.resume(node.http).await;
        b.has(&["m1"]).await;
        say(node.http, "c", "m2").await;
        b.has(&["m1", "m2"]).await;
    })
    .await;
}

/// Who isn't in the group any more hears nothing of it, also when the end of their stay is among what they missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_meanwhile_hears_nothing_more() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c", "x"]).await;
        let x = Member::placed(one, "x").await;
        let (log, place) = (x.log.clone(), x.place.expect("a place"));
        drop(x);
        backend(one, "DELETE", "/api/v1/conversations/g/members/x", Value::Null).await;
        let query = format!("&resume={}:{}&at=g:{}:{}", log.0, log.1, place.0, place.1);
        let (mut x, success) = open(two, "x", &query).await;
        assert_eq!(success["resumed"], true, "{success}");
        x.expect("conversation.left").await;
        let mut b = Member::placed(two, "b").await;
        say(one, "a", "after").await;
        b.has(&["after"]).await;
        let frames = x.settle().await;
        assert!(frames.iter().all(|frame| frame["rev"].is_null()), "{frames:?}");
    })
    .await;
}

/// The client fetches what was said before `auth_success`. Whatever is said behind it has to come, also while the node looks up
/// what its user is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_right_after_a_connect_is_not_missed() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        for user in ["u0", "u1", "u2", "u3"] {
            // A node that has nobody of the group reads the store first.
            let made = json!({ "id": format!("of-{user}"), "kind": "group", "members": ["a", "c", user] });
            backend(one, "POST", "/api/v1/conversations", made).await;
            cluster.everything_is_published().await;
            let (mut client, _) = open(two, user, "").await;
            let said = json!({ "conversationId": format!("of-{user}"), "content": "at once" });
            act(one, "POST", "/api/v1/messages", "a", said).await;
            assert_eq!(client.expect("conversation.position").await["payload"]["rev"], 0);
            assert_eq!(client.expect("message.new").await["rev"], 1);
        }
    })
    .await;
}

/// Long polling: from the place that it names, and from the places of the answer on. Who names none is told to fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_gets_what_is_said_in_a_large_conversation() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        cluster.everything_is_published().await;
        let poll = async |at: SocketAddr, query: String| {
            let path = format!("/api/v1/events?{query}");
            patiently(|| acting(at, "GET", &path, "b", Value::Null)).await
        };
        let (_, start) = poll(one, String::new()).await;
        let since = format!("since={}:{}", start["epoch"].as_str().expect("an epoch"), start["seq"]);
        assert_eq!(start["conversations"], json!({ "g": [0, 0] }), "{start}");
        say(one, "a", "m0").await;
        let said = |answer: &Value| {
            let events = answer["events"].as_array().expect("events").iter();
            let contents = events.filter_map(|event| event["payload"]["message"]["content"].as_str());
            contents.map(str::to_owned).collect::<Vec<_>>()
        };
        let (status, first) = poll(two, format!("{since}&at=g:0:0")).await;
        assert_eq!((status, said(&first)), (200, vec!["m0".to_owned()]), "{first}");
        assert_eq!(first["conversations"], json!({ "g": [1, 1] }));
        // It waits for the next one.
        let waiting = poll(two, format!("{since}&at=g:1:1&wait=30"));
        let saying = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            say(one, "c", "m1").await
        };
        let ((status, second), _) = tokio::join!(waiting, saying);
        assert_eq!(
            (status, said(&second), &second["conversations"]),
            (200, vec!["m1".to_owned()], &json!({ "g": [2, 2] }))
        );
        let (_, none) = poll(two, format!("{since}&at=g:2:2&wait=0")).await;
        assert_eq!((said(&none), &none["conversations"]), (vec![], &json!({ "g": [2, 2] })));
        // One that names no place in it, and one that names nothing.
        let (_, unnamed) = poll(two, format!("{since}&at=&wait=0")).await;
        assert_eq!(unnamed["events"][0]["type"], "conversation.resync", "{unnamed}");
        assert_eq!(unnamed["conversations"], json!({ "g": [2, 2] }));
        let (status, moved) = poll(two, format!("{since}&wait=0")).await;
        assert_eq!((status, &moved["reason"]), (409, &json!("trimmed")), "{moved}");
    })
    .await;
}

/// Typing, comings and goings are published once for all members, and stand in no log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_see_who_types_and_who_comes() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c", "d"]).await;
        act(one, "POST", "/api/v1/blocks", "a", json!({ "userId": "d" })).await;
        let mut a = Member::placed(one, "a").await;
        let (mut b, mut d) = (Member::placed(two, "b").await, Member::placed(two, "d").await);
        let before = cluster.redis.number("XLEN chat:log:{chat:user:b}");
        a.client.send("typing", json!({ "conversationId": "g", "isTyping": true })).await;
        let typing = b.client.expect("typing").await;
        assert_eq!((&typing["payload"]["userId"], &typing["payload"]["isTyping"]), (&json!("a"), &json!(true)));
        backend(one, "POST", "/api/v1/conversations/g/members", json!({ "userId": "x" })).await;
        let joined = b.client.expect("member.joined").await;
        assert_eq!((&joined["payload"]["userId"], &joined["seq"]), (&json!("x"), &Value::Null));
        act(two, "POST", "/api/v1/conversations/g/leave", "x", json!({})).await;
        assert_eq!(b.client.expect("member.left").await["payload"]["userId"], "x");
        // So many are told as a number.
        let many: Vec<String> = (0..25).map(|n| format!("n{n}")).collect();
        backend(two, "POST", "/api/v1/conversations/g/members", json!({ "userIds": many })).await;
        assert_eq!(
            b.client.expect("members.changed").await["payload"],
            json!({ "conversationId": "g", "memberCount": 29 })
        );
        assert_eq!(cluster.redis.number("XLEN chat:log:{chat:user:b}"), before);
        assert!(!b.client.kept().iter().any(|frame| frame["type"] == "member.joined"), "none of these one by one");
        // Nobody sees their own typing, nor that of somebody from whom a block separates them.
        for member in [&mut a, &mut d] {
            member.client.expect("members.changed").await;
            assert!(!member.client.kept().iter().any(|frame| frame["type"] == "typing"), "{}", member.user);
        }
    })
    .await;
}

/// The counts that are told are those of the list, once the traffic rests; nobody has their own messages unread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_counts_of_a_large_conversation_are_those_of_the_list() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        cluster.everything_is_published().await;
        let mut a = Member::placed(one, "a").await;
        let mut b = Member::placed(two, "b").await;
        let told = async |client: &mut Client, count: u64| {
            let expected = json!({ "conversationId": "g", "unread": count, "totalUnread": count });
            while client.expect("notification.unread").await["payload"] != expected {}
        };
        for n in 0..5 {
            say(if n % 2 == 0 { one } else { two }, "a", &format!("m{n}")).await;
        }
        told(&mut b.client, 5).await;
        let listed = act(one, "GET", "/api/v1/conversations", "b", Value::Null).await;
        assert_eq!(listed["items"][0]["unread"], 5);
        act(one, "POST", "/api/v1/conversations/g/read", "b", json!({})).await;
        told(&mut b.client, 0).await;
        say(two, "c", "m5").await;
        told(&mut b.client, 1).await;
        // The message of somebody else is the first that a has not seen.
        told(&mut a.client, 1).await;
        // Who comes back is told again: the count may have been on its way.
        b.has(&["m0", "m1", "m2", "m3", "m4", "m5"]).await;
        let mut b = b.resume(one).await;
        told(&mut b.client, 1).await;
    })
    .await;
}

/// A backend's event to a conversation: once for all members of a large one, into the logs of those of a small one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_publishes_to_all_members() {
    bounded(async {
        let cluster = TwoNodes::start(SETTINGS).await;
        let (one, two) = (cluster.one.http, cluster.two.http);
        group(one, &["a", "b", "c"]).await;
        let small = json!({ "id": "s", "kind": "group", "members": ["a", "b"] });
        backend(one, "POST", "/api/v1/conversations", small).await;
        cluster.everything_is_published().await;
        let (mut b, mut c) = (Member::placed(one, "b").await, Member::placed(two, "c").await);
        let event = |n: u32| json!({ "type": "poll.opened", "payload": { "n": n } });
        let publish = |body: Value| backend(two, "POST", "/api/v1/publish", body);
        publish(json!({ "conversationId": "g", "event": event(1) })).await;
        for member in [&mut b, &mut c] {
            let opened = member.client.expect("poll.opened").await;
            assert_eq!((&opened["payload"]["n"], &opened["seq"]), (&json!(1), &Value::Null));
        }
        publish(json!({ "conversationId": "s", "event": event(2) })).await;
        let opened = b.client.expect("poll.opened").await;
        assert!(opened["payload"]["n"] == 2 && opened["seq"].is_u64(), "{opened}");
        for (body, expected) in [
            (json!({ "conversationId": "g", "event": event(3), "durable": true }), 400),
            (json!({ "conversationId": "g", "users": ["a"], "event": event(3) }), 400),
            (json!({ "event": event(3) }), 400),
            (json!({ "conversationId": "nowhere", "event": event(3) }), 404),
        ] {
            let headers = [("x-api-key", API_KEY)];
            let (status, answer) = request(one, "POST", "/api/v1/publish", &headers, body.to_string()).await;
            assert_eq!(status, expected, "{answer}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_conversation_takes_only_so_many_events() {
    bounded(async {
        let node = Node::embedded(&[("LARGE_CONVERSATION_MEMBERS", "2"), ("LARGE_EVENTS_PER_SECOND", "1")]).await;
        group(node.http, &["a", "b", "c"]).await;
        let mut b = Member::placed(node.http, "b").await;
        say(node.http, "a", "m0").await;
        b.has(&["m0"]).await;
        let sends = (0..30).map(|n| {
            let body = json!({ "conversationId": "g", "content": format!("n{n}") });
            acting(node.http, "POST", "/api/v1/messages", "c", body)
        });
        let answers = futures_util::future::join_all(sends).await;
        let refused: Vec<_> = answers.iter().filter(|(status, _)| *status == 429).collect();
        assert!(!refused.is_empty() && refused.len() < 30, "{answers:?}");
        assert!(refused.iter().all(|(_, answer)| answer["error"]["code"] == "RATE_LIMITED"), "{refused:?}");
        // A direct conversation of the same users isn't held up.
        let body = json!({ "to": "b", "content": "aside" });
        assert_eq!(acting(node.http, "POST", "/api/v1/messages", "c", body).await.0, 201);
    })
    .await;
}
