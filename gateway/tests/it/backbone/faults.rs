//! The backbone on Redis while Redis dies, freezes, loses its memory, or holds keys that others wrote.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::backbone::{Backbone, Delivery, DeliveryOutcome, Settings, check_resume};
use shared::{Position, UserId};

use crate::backbone::rig::{
    Node, Rig, Seen, bounded, envelope, ephemeral, event, eventually, numbered, redone, settings, user,
};
use crate::support::redis::Redis;

/// Waits until the node says that it is, or is not, ready; how long that took.
async fn becomes(node: &Node, ready: bool, within: Duration) -> Duration {
    let since = Instant::now();
    eventually(within, async || (node.backbone.health().ready == ready).then_some(())).await;
    since.elapsed()
}

/// Whether every use of the backbone is refused at once.
async fn refuses_at_once(node: &Node) {
    let (ann, backbone) = (user("ann"), &node.backbone);
    let since = Instant::now();
    backbone.publish(vec![event(&ann, 99)]).await.expect_err("away");
    backbone.publish(vec![ephemeral(&ann, &envelope(99))]).await.expect_err("away");
    backbone.subscribe(&user("new")).await.expect_err("away");
    backbone.open(&ann).await.expect_err("away");
    backbone.read(&ann, 0, 1).await.expect_err("away");
    backbone.arrived(&ann).await.expect_err("away");
    backbone.presence(std::slice::from_ref(&ann)).await.expect_err("away");
    backbone.departed(&ann).await.expect_err("away");
    backbone.is_revoked(&ann, None).await.expect_err("away");
    backbone.broadcast("{}".into()).await.expect_err("away");
    assert!(since.elapsed() < Duration::from_millis(200), "took {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_comes_back_empty() {
    bounded(async {
        let mut rig = Rig::redis(settings()).await;
        let ann = user("ann");
        rig.a.backbone.subscribe(&ann).await.expect("subscribed");
        let before = rig.a.backbone.open(&ann).await.expect("opened");
        becomes(&rig.a, true, Duration::from_secs(3)).await;
        let server = rig.a.backbone.health().server.expect("a server");

        rig.server().kill();
        becomes(&rig.a, false, Duration::from_secs(1)).await;
        refuses_at_once(&rig.a).await;

        rig.server().restart();
        becomes(&rig.a, true, Duration::from_secs(5)).await;
        rig.a.resubscribed().await;
        assert_ne!(rig.a.backbone.health().server.expect("a server"), server);
        // Nobody has opened the log yet: the append does, and says so first.
        becomes(&rig.b, true, Duration::from_secs(5)).await;
        assert_eq!(rig.b.backbone.publish(vec![event(&ann, 1)]).await.expect("published"), [DeliveryOutcome::To(1)]);
        let after = rig.a.backbone.open(&ann).await.expect("opened");
        assert_ne!(after.epoch, before.epoch);
        let line = format!("{{\"epoch\":\"{}\",\"seq\":0}}\n", after.epoch);
        assert_eq!(rig.a.payload(&ann).await, line + &numbered(1, 1));
        // For a while appends keep events also for those whose node isn't back yet (NOLOSS.md, A3).
        let bob = user("bob");
        assert_eq!(rig.a.backbone.publish(vec![event(&bob, 1)]).await.expect("published"), [DeliveryOutcome::To(0)]);
        assert_eq!(rig.b.backbone.open(&bob).await.expect("opened").last, 1);
        assert!(rig.a.backbone.take_offline(10).await.expect("asked").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_found_and_thaws() {
    bounded(async {
        let mut rig = Rig::redis(settings()).await;
        let ann = user("ann");
        rig.a.backbone.subscribe(&ann).await.expect("subscribed");
        rig.a.backbone.open(&ann).await.expect("opened");
        becomes(&rig.a, true, Duration::from_secs(3)).await;

        let frozen = Instant::now();
        rig.server().freeze();
        // What is under way ends with an error when the link is given up; what comes over the bounds is refused meanwhile.
        let waiting: Vec<_> = (0..40)
            .map(|_| {
                let (backbone, batch) = (rig.a.backbone.clone(), (0..1000).map(|n| event(&ann, n)).collect());
                tokio::spawn(async move { (backbone.publish(batch).await, Instant::now()) })
            })
            .collect();
        let subscribing = tokio::spawn({
            let backbone = rig.a.backbone.clone();
            async move { backbone.subscribe(&user("bob")).await }
        });
        let mut refused_early = 0;
        for call in waiting {
            let (outcome, ended) = call.await.expect("no panic");
            let error = outcome.expect_err("nobody answers");
            assert!(ended - frozen < Duration::from_secs(4));
            refused_early += u32::from(error.0.contains("too much"));
        }
        assert!((20..=30).contains(&refused_early), "{refused_early} of 40,000 deliveries' calls were refused");
        subscribing.await.expect("no panic").expect_err("nobody answers");
        assert!(frozen.elapsed() < Duration::from_secs(4), "found after {:?}", frozen.elapsed());
        assert!(!rig.a.backbone.health().ready);
        refuses_at_once(&rig.a).await;

        rig.server().thaw();
        becomes(&rig.a, true, Duration::from_secs(5)).await;
        rig.a.resubscribed().await;
        let last = rig.a.backbone.open(&ann).await.expect("opened").last;
        rig.a.backbone.publish(vec![event(&ann, 5_000)]).await.expect("published");
        let expected = numbered(last + 1, 5_000);
        while rig.a.payload(&ann).await != expected {}
        // The subscription that failed left no count behind.
        let bob = user("bob");
        rig.a.backbone.subscribe(&bob).await.expect("subscribed");
        rig.a.backbone.unsubscribe(&bob);
        let nobody = async || {
            let delivered = rig.a.backbone.publish(vec![ephemeral(&bob, &envelope(1))]).await.expect("published");
            (delivered == [DeliveryOutcome::To(0)]).then_some(())
        };
        eventually(Duration::from_secs(5), nobody).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_vanishes_under_a_subscription() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let ann = user("ann");
        rig.a.backbone.subscribe(&ann).await.expect("subscribed");
        let before = rig.a.backbone.open(&ann).await.expect("opened");
        rig.a.backbone.publish(vec![event(&ann, 1)]).await.expect("published");
        assert_eq!(rig.a.payload(&ann).await, numbered(1, 1));
        rig.redis.as_ref().expect("Redis").ask("FLUSHALL");
        rig.b.backbone.publish(vec![event(&ann, 2)]).await.expect("published");
        let after = rig.a.backbone.open(&ann).await.expect("opened");
        assert_ne!(after.epoch, before.epoch);
        let line = format!("{{\"epoch\":\"{}\",\"seq\":0}}\n", after.epoch);
        assert_eq!(rig.a.payload(&ann).await, line + &numbered(1, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_subscriptions_come_back() {
    bounded(async {
        let mut rig = Rig::redis(settings()).await;
        let users: Vec<UserId> = (0..5_000).map(|n| user(&format!("u{n}"))).collect();
        let subscribing: Vec<_> = users
            .iter()
            .map(|user| {
                let (backbone, user) = (rig.a.backbone.clone(), user.clone());
                tokio::spawn(async move { backbone.subscribe(&user).await })
            })
            .collect();
        for subscribed in subscribing {
            subscribed.await.expect("no panic").expect("subscribed");
        }
        let commands = rig.server().ask("INFO commandstats");
        let calls = calls_of(&commands, "subscribe");
        assert!(calls < 1_000, "many channels per command, not {calls} commands");
        rig.server().kill();
        rig.server().restart();
        rig.a.resubscribed().await;
        let events = users.iter().map(|user| ephemeral(user, &envelope(1))).collect();
        let delivered = rig.a.backbone.publish(events).await.expect("published");
        assert!(delivered.iter().all(|delivered| *delivered == DeliveryOutcome::To(1)));
        for user in &users {
            assert_eq!(rig.a.payload(user).await, envelope(1));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_subscribing_connection_alone_is_remade() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let (ann, bob) = (user("ann"), user("bob"));
        for user in [&ann, &bob] {
            rig.a.backbone.subscribe(user).await.expect("subscribed");
            rig.a.backbone.open(user).await.expect("opened");
        }
        rig.a.backbone.arrived(&bob).await.expect("arrived");
        rig.a.backbone.unsubscribe(&bob);
        assert!(rig.redis.as_ref().expect("Redis").number("CLIENT KILL TYPE pubsub") >= 2);
        assert_eq!(
            rig.a.next().await,
            Seen::InDoubt("ann".to_owned()),
            "before anything comes through the new subscription"
        );
        rig.a.resubscribed().await;
        eventually(Duration::from_secs(5), async || rig.b.backbone.health().ready.then_some(())).await;
        let events = vec![event(&ann, 1), event(&bob, 1)];
        let delivered = rig.b.backbone.publish(events).await.expect("published");
        assert_eq!(delivered, [DeliveryOutcome::To(1), DeliveryOutcome::To(0)], "who has left isn't subscribed again");
        assert_eq!(rig.a.payload(&ann).await, numbered(1, 1));
        let gone = async || rig.b.backbone.presence(std::slice::from_ref(&bob)).await.expect("asked")[0].last_seen;
        eventually(Duration::from_secs(1), gone).await;
    })
    .await;
}

/// The number of calls of a command, from `INFO commandstats`.
fn calls_of(info: &redis::Value, command: &str) -> u64 {
    let text: String = redis::from_redis_value(info.clone()).expect("text");
    let line = format!("cmdstat_{command}:calls=");
    let calls =
        text.lines().find_map(|l| l.strip_prefix(&line)).map_or("0", |rest| rest.split(',').next().unwrap_or("0"));
    calls.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_loaded_again() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let ann = user("ann");
        rig.a.backbone.subscribe(&ann).await.expect("subscribed");
        rig.a.backbone.open(&ann).await.expect("opened");
        let server = rig.redis.as_ref().expect("Redis");
        server.ask("SCRIPT FLUSH");
        rig.a.backbone.publish((1..=3).map(|n| event(&ann, n)).collect()).await.expect("published");
        for n in 1..=3 {
            assert_eq!(rig.a.payload(&ann).await, numbered(n, n));
        }
        server.ask("SCRIPT FLUSH");
        assert_eq!(rig.a.backbone.open(&ann).await.expect("opened").last, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_wrote_does_no_harm() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let (ann, bob) = (user("ann"), user("bob"));
        let server = rig.redis.as_ref().expect("Redis");
        for user in [&ann, &bob] {
            rig.a.backbone.subscribe(user).await.expect("subscribed");
        }
        for garbage in [
            "PUBLISH chat:control {",
            "PUBLISH chat:control {\"type\":\"disconnect\",\"userId\":\"a*\",\"revoked\":true}",
            "PUBLISH chat:control \u{0}\u{1}",
            "PUBLISH chat:node:a x",
            "PUBLISH chat:user:ann not-json",
            "SET chat:log:{chat:user:bob} x",
            "ZADD chat:offline_due 1 {not*an*id}",
            "XGROUP CREATE chat:log:{chat:user:carl} ffffffff.1 $ MKSTREAM",
            "XADD chat:log:{chat:user:dora} * a b",
        ] {
            server.ask(garbage);
        }
        assert_eq!(rig.a.payload(&ann).await, "not-json");
        rig.a.backbone.publish(vec![event(&bob, 1)]).await.expect("a key that is no stream is replaced");
        assert_eq!(rig.a.backbone.open(&bob).await.expect("opened").last, 1);
        for name in ["carl", "dora"] {
            let head = rig.a.backbone.open(&user(name)).await.expect("opened anew");
            assert_eq!((head.floor, head.last), (0, 0));
            assert_ne!(head.epoch.as_str(), "ffffffff.1");
        }
        assert!(rig.a.backbone.take_offline(10).await.expect("asked").is_empty());
        assert_eq!(server.number("ZCARD chat:offline_due"), 0);
        becomes(&rig.a, true, Duration::from_secs(3)).await;
    })
    .await;
}

/// B4: a redo reads a user's log once, and nobody waits for more than a part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redo_reads_each_log_once() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let ann = user("ann");
        rig.a.backbone.open(&ann).await.expect("opened");
        rig.a.backbone.publish((1..=250).map(|n| event(&ann, n)).collect()).await.expect("published");
        let server = rig.redis.as_ref().expect("Redis");
        server.ask("CONFIG RESETSTAT");
        let outcomes = redone(&rig.a, (200..=299).map(|n| event(&ann, n)).collect()).await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == DeliveryOutcome::Again(0)).count(), 51);
        let parts = calls_of(&server.ask("INFO commandstats"), "xrevrange");
        assert_eq!(parts, 2, "128 entries each");
    })
    .await;
}

/// C1: what is younger than 30 s isn't trimmed, so that a redo can tell whether the log had it; but a log is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_keeps_its_last_seconds() {
    bounded(async {
        let by_default = Settings { hot_seconds: Settings::new("a", "b").hot_seconds, ..settings() };
        for rig in [Rig::redis(by_default.clone()).await, Rig::local(by_default.clone()).await] {
            let ann = user("ann");
            let held = async |from: u64, to: u64| {
                rig.a.backbone.publish((from..=to).map(|n| event(&ann, n)).collect()).await.expect("published");
                let head = rig.a.backbone.open(&ann).await.expect("opened");
                assert_eq!(head.last, to);
                to - head.floor
            };
            rig.a.backbone.open(&ann).await.expect("opened");
            assert_eq!(held(1, 2_400).await, 2_400, "80 a second for 30 s");
            let most = held(2_401, 6_000).await;
            assert!((4_096..=4_250).contains(&most), "{most} are held");
        }
        let short = Settings { hot_seconds: 1, ..settings() };
        for rig in [Rig::redis(short.clone()).await, Rig::local(short.clone()).await] {
            let ann = user("ann");
            rig.a.backbone.open(&ann).await.expect("opened");
            rig.a.backbone.publish((1..=900).map(|n| event(&ann, n)).collect()).await.expect("published");
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            rig.a.backbone.publish((901..=1_000).map(|n| event(&ann, n)).collect()).await.expect("published");
            let head = rig.a.backbone.open(&ann).await.expect("opened");
            assert!((600..=744).contains(&head.floor), "what is old goes: {head:?}");
        }
    })
    .await;
}

/// A user who stays connected doesn't keep last week's events. The last old one stays: whoever left since then has it, or a
/// later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_forgets_what_is_old_while_its_user_stays() {
    bounded(async {
        let short = Settings { resume_seconds: 5, ..settings() };
        for rig in [Rig::redis(short.clone()).await, Rig::local(short.clone()).await] {
            let ann = user("ann");
            let backbone = &rig.a.backbone;
            // As a node's check does, and its sign of life.
            let checked = async || {
                backbone.open(&ann).await.expect("opened");
                backbone.read(&ann, 150, 1).await.expect("read").head
            };
            let epoch = checked().await.epoch;
            let content = "x".repeat(550);
            let long = |n| {
                let body = format!(r#"{{"type":"x","payload":{{"n":{n},"content":"{content}"}}}}"#);
                Delivery { body: body.into(), ..event(&ann, n) }
            };
            backbone.publish((1..=150).map(long).collect()).await.expect("published");
            assert_eq!((checked().await.floor, checked().await.last), (0, 150), "all are young");
            let old = async || Some(checked().await).filter(|head| head.floor > 0);
            assert_eq!(eventually(Duration::from_secs(30), old).await.floor, 149, "all are old");
            backbone.publish(vec![event(&ann, 151)]).await.expect("published");
            let head = checked().await;
            assert_eq!((head.floor, head.last, &head.epoch), (149, 151, &epoch));
            assert_eq!(check_resume(&Position { epoch: epoch.clone(), seq: 150 }, &head), Ok(()));
            assert!(matches!(redone(&rig.a, vec![event(&ann, 151)]).await[..], [DeliveryOutcome::Again(_)]));
            if let Some(redis) = &rig.redis {
                let bytes = redis.number("MEMORY USAGE chat:log:{chat:user:ann} SAMPLES 0");
                assert!(bytes < 10_000, "{bytes} bytes are left of 150 events of 600");
            }
        }
    })
    .await;
}

/// C4: something that isn't ours stands where the next event belongs: no append would ever succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_another_blocks_no_log() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let (ann, bob) = (user("ann"), user("bob"));
        let server = rig.redis.as_ref().expect("Redis");
        for user in [&ann, &bob] {
            rig.a.backbone.subscribe(user).await.expect("subscribed");
        }
        for (round, spoil) in [
            "XADD chat:log:{chat:user:ann} 2-1 foo bar",
            "XADD chat:log:{chat:user:ann} 1-18446744073709551615 foo bar",
            "SET chat:log:{chat:user:ann} foo",
        ]
        .into_iter()
        .enumerate()
        {
            let before = rig.a.backbone.open(&ann).await.expect("opened");
            if spoil.starts_with("SET") {
                server.ask("DEL chat:log:{chat:user:ann}");
            }
            server.ask(spoil);
            // In one call with another's event, which goes out as ever.
            rig.b.backbone.publish(vec![event(&ann, 1), event(&bob, 1)]).await.expect("published");
            let payload = rig.a.payload(&ann).await;
            let (opened, first) = payload.split_once('\n').expect("a line for the nodes, and the event");
            assert!(opened.starts_with("{\"epoch\":") && !opened.contains(before.epoch.as_str()), "{spoil} {opened}");
            assert_eq!(first, numbered(1, 1));
            let other = rig.a.payload(&bob).await;
            assert!(other.ends_with(&numbered(u64::try_from(round).expect("small") + 1, 1)), "{other}");
        }
    })
    .await;
}

/// M3: what an earlier connection has sent and Redis has not read must not run after a redo.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_ends_the_connections_of_an_owner() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let server = rig.redis.as_ref().expect("Redis");
        let named = |name: &str| {
            let client = redis::Client::open(server.url()).expect("a URL");
            let mut connection = client.get_connection().expect("connected");
            redis::cmd("CLIENT").arg("SETNAME").arg(name).exec(&mut connection).expect("named");
            connection
        };
        let (mut dead, mut other, mut own) = (named("parley:c:old"), named("parley:c:new"), named("parley:a:boot-a"));
        let alive = |connection: &mut redis::Connection| redis::cmd("PING").exec(connection).is_ok();
        rig.a.backbone.fence("c:old").await.expect("fenced");
        assert!(!alive(&mut dead) && alive(&mut other) && alive(&mut own));
        rig.a.backbone.fence("a:boot-a").await.expect("fenced");
        assert!(!alive(&mut own), "an earlier connection of its own");
        rig.a.backbone.publish(vec![event(&user("ann"), 1)]).await.expect("the living one was left alone");
        let mut earlier = named("parley:d:boot-a");
        let settings = Settings { node: "d".into(), ..settings() };
        Node::on_redis(server, settings, &rig.store).await;
        assert!(!alive(&mut earlier), "a connection that is made ends earlier ones of the same owner");
    })
    .await;
}

/// M1: the log of another server is not gone on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_another_server_is_begun_anew() {
    bounded(async {
        let rig = Rig::on(Redis::start_with(&["--enable-debug-command", "local"]), settings()).await;
        let ann = user("ann");
        rig.a.backbone.subscribe(&ann).await.expect("subscribed");
        let before = rig.a.backbone.open(&ann).await.expect("opened");
        rig.a.backbone.publish(vec![event(&ann, 1)]).await.expect("published");
        rig.a.payload(&ann).await;
        // The same data under another replication id, as on a promoted replica.
        rig.redis.as_ref().expect("Redis").ask("DEBUG CHANGE-REPL-ID");
        rig.a.resubscribed().await;
        redone(&rig.a, vec![event(&ann, 1)]).await;
        rig.a.backbone.publish(vec![event(&ann, 2)]).await.expect("published");
        let after = rig.a.backbone.open(&ann).await.expect("opened");
        assert_ne!(after.epoch, before.epoch);
        assert_eq!((after.floor, after.last), (0, 2));
        let line = format!("{{\"epoch\":\"{}\",\"seq\":0}}\n", after.epoch);
        assert_eq!(rig.a.payload(&ann).await, line + &numbered(1, 1));
    })
    .await;
}

/// Everything goes over one connection; callers by the hundred share its round trips.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishers_share_pipelines() {
    bounded(async {
        let rig = Rig::redis(settings()).await;
        let publishing: Vec<_> = (0..2_000)
            .map(|n| {
                let backbone: Arc<dyn Backbone> = rig.a.backbone.clone();
                tokio::spawn(async move { backbone.publish(vec![event(&user(&format!("u{n}")), 1)]).await })
            })
            .collect();
        let since = Instant::now();
        for published in publishing {
            published.await.expect("no panic").expect("published");
        }
        assert!(since.elapsed() < Duration::from_secs(3), "took {:?}", since.elapsed());
        let stats = format!("{:?}", rig.redis.as_ref().expect("Redis").ask("INFO commandstats"));
        let calls = stats.split("cmdstat_evalsha:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        assert!(calls.is_some_and(|calls: u32| calls < 1_000), "{calls:?} calls of the script");
    })
    .await;
}
