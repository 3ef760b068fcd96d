//! The rig for tests in which another Redis server takes over: a sender that never stops, a follower on another node,
//! and the check that nothing was lost, doubled or out of order (NOLOSS.md, A1, A2).

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::two_nodes::Follower;

pub(crate) const SETTINGS: [(&str, &str); 2] = [("COMMANDS_PER_SECOND", "0"), ("USER_COMMANDS_PER_SECOND", "0")];

/// What the last message says.
const END: &str = "the end";
/// How long nothing may come while another server takes over: twice the longest attempt to connect, and some more.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(40);
/// After how long without any acknowledgement a client sends again what has none.
const RESEND_AFTER: Duration = Duration::from_secs(6);

/// Sends to `b` from the node at `from` while `change` makes another server take over, and until `b` was told so, and some
/// more. Judges what `b` knows in the end: what came as an event, and what the store had when it was told `resync`.
pub(crate) async fn nothing_is_lost(
    from: SocketAddr,
    b: &mut Follower,
    store: &tokio_postgres::Client,
    change: impl AsyncFnOnce(&mut Flood),
) {
    let heard = Heard::default();
    let sending = async {
        let mut flood = Flood { sender: Client::join(from, "a").await, sent: 0, acked: HashMap::new() };
        flood.run_for(Duration::from_millis(500)).await;
        change(&mut flood).await;
        while !heard.resync.get() {
            flood.run_for(Duration::from_millis(100)).await;
        }
        // The sender's node has found the new server as well, when a message that is sent now comes as an event. Its
        // acknowledgement wouldn't show that: it stands in a log of another user.
        let first = flood.sent;
        while heard.message.get().is_none_or(|last| last < first) {
            flood.run_for(Duration::from_millis(100)).await;
        }
        flood.until_acknowledged((first..flood.sent).map(|n| format!("m{n}")).collect()).await;
        let settled_at = flood.sent;
        flood.run_for(Duration::from_millis(500)).await;
        (settled_at..flood.sent, flood.end().await)
    };
    let ((settled, acked), fetched) = tokio::join!(sending, fetched_until_the_end(b, store, &heard));

    nothing_is_missed(b, store, &acked, fetched, settled).await;
    let stored = stored(store).await;
    assert!(acked.iter().all(|content| stored.contains(content)), "what was acknowledged is in the store");
}

/// What `b` has heard.
#[derive(Default)]
struct Heard {
    /// A `resync`.
    resync: Cell<bool>,
    /// The last of the messages `m0`, `m1`… that came as events.
    message: Cell<Option<usize>>,
}

/// A sender of messages `m0`, `m1`… to `b`.
pub(crate) struct Flood {
    sender: Client,
    sent: usize,
    /// The ids of what was acknowledged, by content.
    acked: HashMap<String, String>,
}

impl Flood {
    /// Sends one every 20 ms.
    pub(crate) async fn run_for(&mut self, time: Duration) {
        let since = Instant::now();
        while since.elapsed() < time {
            self.say(&format!("m{}", self.sent)).await;
            self.sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends the [`END`] and waits until all is acknowledged; gives the contents.
    async fn end(mut self) -> HashSet<String> {
        self.say(END).await;
        let all = (0..self.sent).map(|n| format!("m{n}")).chain([END.to_owned()]);
        self.until_acknowledged(all.collect()).await;
        self.acked.into_keys().collect()
    }

    async fn say(&mut self, content: &str) {
        let message = json!({ "to": "b", "content": content, "tempId": content });
        self.sender.send("message.send", message).await;
    }

    /// An acknowledgement that was on its way through the server that was lost doesn't come: as every client does, this one
    /// sends again, under the same `tempId`.
    async fn until_acknowledged(&mut self, mut wanted: Vec<String>) {
        let mut heard_at = Instant::now();
        while !wanted.is_empty() {
            for frame in self.sender.settle().await {
                if frame["type"] == "message.sent" {
                    self.see(&frame["payload"]["message"]);
                    heard_at = Instant::now();
                }
            }
            wanted.retain(|content| !self.acked.contains_key(content));
            if heard_at.elapsed() > RESEND_AFTER {
                for content in &wanted {
                    self.say(content).await;
                }
                heard_at = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn see(&mut self, message: &Value) {
        let [content, id] = ["content", "id"].map(|field| message[field].as_str().expect("text").to_owned());
        let before = self.acked.insert(content, id.clone());
        assert!(before.is_none_or(|before| before == id), "each is acknowledged as one message");
    }
}

/// Follows `b` to the [`END`]: what the store had when it was last told `resync`. Notes what it hears.
async fn fetched_until_the_end(b: &mut Follower, store: &tokio_postgres::Client, heard: &Heard) -> HashSet<String> {
    let mut fetched = HashSet::new();
    loop {
        let frame = b.step_within(FOLLOWED_WITHIN).await;
        if frame["type"] == "resync" {
            fetched = stored(store).await;
            heard.resync.set(true);
        }
        if frame["seq"].is_u64()
            && let Some(content) = frame["payload"]["message"]["content"].as_str()
        {
            if content == END {
                return fetched;
            }
            let number = content.strip_prefix('m').and_then(|n| n.parse().ok());
            heard.message.set(heard.message.get().max(number));
        }
    }
}

/// What was acknowledged came once as an event, or was fetched because a `resync` said so; the messages of `settled` came in
/// order, as events; and `b` was told that the log is another.
async fn nothing_is_missed(
    b: &mut Follower,
    store: &tokio_postgres::Client,
    acked: &HashSet<String>,
    mut fetched: HashSet<String>,
    settled: Range<usize>,
) {
    // What could not be published meanwhile is redone behind what could: the follower checks the order of the log.
    let missed = |b: &Follower, fetched: &HashSet<String>| {
        let got = b.contents();
        let is_missed = |content: &&String| !got.contains(content) && !fetched.contains(*content);
        acked.iter().filter(is_missed).cloned().collect::<Vec<_>>()
    };
    let since = Instant::now();
    while !missed(b, &fetched).is_empty() && since.elapsed() < Duration::from_secs(15) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        b.settle().await;
        fetched.extend(marked(b, store).await);
    }
    assert_eq!(
        missed(b, &fetched),
        Vec::<String>::new(),
        "acknowledged, and neither an event nor told; {:?}",
        b.notices
    );
    let got = b.contents();
    let distinct: HashSet<&String> = got.iter().collect();
    assert_eq!(distinct.len(), got.len(), "each comes once: {got:?}");
    let later: Vec<usize> = got.iter().filter_map(|content| content.strip_prefix('m')?.parse().ok()).collect();
    let later: Vec<usize> = later.into_iter().filter(|n| *n >= settled.start).collect();
    assert_eq!(later, settled.collect::<Vec<_>>(), "afterwards everything comes as before; {:?}", b.notices);
    assert!(b.notices.iter().any(|notice| notice["type"] == "resync"), "the log is another: {:?}", b.notices);
}

/// The messages for which markers stand in the log (NOLOSS.md, C1), as a client fetches them.
async fn marked(b: &Follower, store: &tokio_postgres::Client) -> HashSet<String> {
    let markers = b.events.iter().filter(|event| event["type"] == "resync").map(|event| &event["payload"]);
    let named = markers.flat_map(|marker| {
        let more = marker["messageIds"].as_array().into_iter().flatten();
        std::iter::once(&marker["messageId"]).chain(more).filter_map(|id| id.as_str()?.parse::<i64>().ok())
    });
    let named: Vec<i64> = named.collect();
    let rows = store.query("SELECT content FROM messages WHERE id = ANY ($1)", &[&named]).await;
    rows.expect("the store answers").iter().map(|row| row.get(0)).collect()
}

/// What the store holds.
async fn stored(store: &tokio_postgres::Client) -> HashSet<String> {
    let rows = store.query("SELECT content FROM messages", &[]).await.expect("the store answers");
    let contents: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(contents.len(), rows.len(), "each is stored once");
    contents
}
