//! A2: a node that still hears a Redis server which the others have left, in a partition, or behind one address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::http::request;
use crate::support::node::Node;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::two_nodes::{Follower, bounded, logs_come_of_age, say};

/// The ten seconds of the lease, the age of rows that the sweep takes, and its pace.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(40);

/// What is acknowledged there reaches the others all the same, once, though it was published and marked; and the node that
/// was left behind is not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_on_a_server_that_was_left_is_published_again() {
    bounded(async {
        let (old, new, database) = (Redis::start(), Redis::start(), Postgres::database().await);
        let door = Door::to(address_of(&old)).await;
        let left_behind = Node::serve(&old.url(), &database.url, &[]).await;
        let moving = Node::serve(&format!("redis://{}", door.address), &database.url, &[]).await;
        for node in [&left_behind, &moving] {
            node.wait_ready(true).await;
        }
        let mut bob = Follower::join(moving.http, "bob").await;
        say(left_behind.http, "alice", "bob", "before").await;
        bob.until_message("before").await;

        door.lead_to(address_of(&new));
        let notice = bob.until("resync").await;
        assert_eq!(notice["payload"]["reason"], "epoch");
        let after = say(left_behind.http, "alice", "bob", "after").await;
        // The new server's log can't tell whether it was published there: it is as young as the message.
        let has_marker = |bob: &Follower| {
            let marks = |event: &&serde_json::Value| event["payload"]["messageId"] == after["id"];
            bob.events.iter().filter(marks).any(|event| event["type"] == "resync")
        };
        bob.settle_until(TAKEN_OVER_WITHIN, has_marker).await;
        bob.settle().await;
        assert_eq!(bob.contents(), ["before"]);
        // Later ones are published as they are.
        logs_come_of_age().await;
        say(moving.http, "alice", "bob", "later").await;
        bob.until_message("later").await;

        let (status, body) = request(left_behind.ops, "GET", "/readyz", &[], "").await;
        assert_eq!(status, 503, "{body}");
        assert!(body.to_string().contains("have left this Redis server"), "{body}");
        moving.wait_ready(true).await;
    })
    .await;
}

fn address_of(redis: &Redis) -> SocketAddr {
    redis
        .url()
        .strip_prefix("redis://")
        .and_then(|address| address.trim_end_matches('/').parse().ok())
        .expect("host:port")
}

/// One address behind which now one server stands, now another.
struct Door {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    _listening: JoinSet<()>,
}

struct Inner {
    to: SocketAddr,
    passing: JoinSet<()>,
}

impl Door {
    async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Mutex::new(Inner { to, passing: JoinSet::new() }));
        let shared = Arc::clone(&inner);
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut inner = shared.lock();
                let to = inner.to;
                inner.passing.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(to).await {
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Self { address, inner, _listening: listening }
    }

    /// Ends every connection; the next ones come to `to`.
    fn lead_to(&self, to: SocketAddr) {
        let mut inner = self.inner.lock();
        inner.to = to;
        inner.passing = JoinSet::new();
    }
}
