//! The backbone on a Redis Cluster whose slots move and whose masters die, freeze and are replaced.

use std::time::{Duration, Instant};

use gateway::backbone::{Control, DeliveryOutcome, RedisBackbone, Settings};
use shared::UserId;

use crate::backbone::rig::{
    Node, Rig, Seen, bounded, conversation, deaf, empty_store, envelope, ephemeral, event, eventually, numbered,
    redone, said, settings, user,
};
use crate::support::certificates::Authority;
use crate::support::cluster::{RedisCluster, text};
use crate::support::redis::Redis;

/// Users of each of the three masters, by the master's place.
fn one_of_each(cluster: &RedisCluster) -> Vec<UserId> {
    let of = |place: usize| {
        let names = (0..200).map(|n| format!("u{n}"));
        names.map(|name| user(&name)).find(|user| cluster.owner(&channel(user)) == place).expect("a user of each")
    };
    (0..3).map(of).collect()
}

fn channel(user: &UserId) -> String {
    format!("chat:user:{user}")
}

async fn ready(node: &Node) {
    eventually(Duration::from_secs(5), async || node.backbone.health().ready.then_some(())).await;
}

/// Publishes until somebody receives it.
async fn heard(from: &Node, user: &UserId, n: u64) {
    let publish = async || {
        let delivered = from.backbone.publish(vec![ephemeral(user, &envelope(n))]).await;
        delivered.is_ok_and(|delivered| delivered == [DeliveryOutcome::To(1)]).then_some(())
    };
    eventually(Duration::from_secs(20), publish).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_all_masters_are_served() {
    bounded(async {
        // However long it takes until the last has arrived, the first is there.
        let rig = Rig::cluster(Settings { online_ttl_seconds: 60, ..settings() }).await;
        let users: Vec<UserId> = (0..300).map(|n| user(&format!("u{n}"))).collect();
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
        for user in &users {
            rig.a.backbone.arrived(user).await.expect("arrived");
        }
        let events = users.iter().flat_map(|user| [event(user, 1), event(user, 2)]).collect();
        let delivered = rig.b.backbone.publish(events).await.expect("published");
        assert!(delivered.iter().all(|delivered| *delivered == DeliveryOutcome::To(1)), "{delivered:?}");
        let presence = rig.b.backbone.presence(&users).await.expect("asked");
        assert!(presence.len() == 300 && presence.iter().all(|presence| presence.online));
        for user in &users {
            let page = rig.b.backbone.read(user, 0, 10).await.expect("read");
            assert_eq!(page.entries, [(1, numbered(1, 1).into()), (2, numbered(2, 2).into())]);
        }
        for server in &rig.cluster.as_ref().expect("a Cluster").servers {
            assert!(server.number("DBSIZE") > 100, "each has its part");
        }
    })
    .await;
}

/// A message costs a Cluster one call for each user, whatever else is published meanwhile, and no way to a master of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_events_are_one_call_and_a_masters_calls_go_out_together() {
    bounded(async {
        let rig = Rig::cluster(settings()).await;
        let servers = &rig.cluster.as_ref().expect("a Cluster").servers;
        let users: Vec<UserId> = (0..300).map(|n| user(&format!("u{n}"))).collect();
        for user in &users {
            rig.a.backbone.open(user).await.expect("opened");
        }
        servers.iter().for_each(|server| drop(text(server, "CONFIG RESETSTAT")));
        let events = |n| users.iter().map(move |user| event(user, n));
        rig.b.backbone.publish(events(1).chain(events(2)).chain(events(3)).collect()).await.expect("published");
        let counted = |server: &Redis, section: &str, name: &str| -> u64 {
            let info = text(server, &format!("INFO {section}"));
            let number = info.split(name).nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            number.and_then(|number| number.parse().ok()).unwrap_or_default()
        };
        let calls: Vec<u64> = servers.iter().map(|of| counted(of, "commandstats", "cmdstat_evalsha:calls=")).collect();
        // Three hundred, and what a node does each second.
        assert!((300..400).contains(&calls.iter().sum::<u64>()), "{calls:?}");
        // The server reads 16 KiB at a time. Calls that wait for each other would be read one by one.
        let reads: Vec<u64> = servers.iter().map(|of| counted(of, "stats", "total_reads_processed:")).collect();
        assert!(reads.iter().zip(&calls).all(|(reads, calls)| reads * 2 < *calls), "{reads:?} for {calls:?}");
    })
    .await;
}

/// A14: in a Cluster a script that touched a key outside of the log's slot would die halfway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scripts_of_a_log_touch_only_its_slot() {
    bounded(async {
        let rig = Rig::cluster(settings()).await;
        let ann = user("ann");
        rig.a.backbone.subscribe(&ann).await.expect("subscribed");
        // Opens a log, appends, redoes, reads: every path of the scripts.
        let events = vec![event(&ann, 1), event(&ann, 2)];
        let delivered = rig.a.backbone.publish(events).await.expect("published");
        assert_eq!(delivered, [DeliveryOutcome::To(1), DeliveryOutcome::To(1)]);
        let delivered = redone(&rig.a, vec![event(&ann, 2), said(&ann, 3, 0)]).await;
        assert_eq!(delivered, [DeliveryOutcome::Again(1), DeliveryOutcome::Marked(1)]);
        assert!(rig.a.payload(&ann).await.ends_with(&numbered(1, 1)));
        assert_eq!(rig.a.backbone.open(&ann).await.expect("opened").last, 3);
        assert_eq!(rig.a.backbone.read(&ann, 0, 10).await.expect("read").entries.len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_follows_its_slot() {
    bounded(async {
        let rig = Rig::cluster(settings()).await;
        let cluster = rig.cluster.as_ref().expect("a Cluster");
        let users = one_of_each(cluster);
        let (moves, stays) = (&users[0], &users[1]);
        for user in [moves, stays] {
            rig.a.backbone.subscribe(user).await.expect("subscribed");
            rig.a.backbone.arrived(user).await.expect("arrived");
        }
        let before =
            [rig.a.backbone.open(moves).await.expect("opened"), rig.a.backbone.open(stays).await.expect("opened")];
        rig.b.backbone.publish(vec![event(moves, 1)]).await.expect("published");
        assert_eq!(rig.a.payload(moves).await, numbered(1, 1));
        ready(&rig.a).await;

        cluster.migrate(&channel(moves), 2, || {});
        let since = Instant::now();
        rig.a.anew(moves).await;
        assert!(since.elapsed() < Duration::from_secs(1), "the server says so, took {:?}", since.elapsed());
        assert_eq!(rig.b.backbone.publish(vec![event(moves, 2)]).await.expect("published"), [DeliveryOutcome::To(1)]);
        let payload = rig.a.payload(moves).await;
        assert_eq!(number(payload.as_bytes()), 2, "{payload}");
        let after = rig.a.backbone.open(moves).await.expect("opened");
        assert_ne!(after.epoch, before[0].epoch, "another server has the log");
        assert_eq!(rig.a.backbone.open(stays).await.expect("opened").epoch, before[1].epoch, "nobody else notices");
        assert!(rig.a.is_quiet().await);
        // Until all nodes have followed nobody can tell who is subscribed: nobody is declared offline.
        rig.b.backbone.departed(moves).await.expect("asked");
        assert!(rig.b.backbone.presence(std::slice::from_ref(moves)).await.expect("asked")[0].online);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_keep_their_order_while_their_slot_is_on_its_way() {
    bounded(async {
        let mut rig = Rig::cluster(settings()).await;
        let ann = user("ann");
        let (key, to) = (channel(&ann), (rig.the_cluster().owner(&channel(&ann)) + 1) % 3);
        rig.a.backbone.open(&ann).await.expect("opened");
        rig.b.backbone.publish(vec![event(&ann, 1)]).await.expect("published");
        let cluster = rig.cluster.take().expect("a Cluster");
        let moving = tokio::task::spawn_blocking(move || {
            cluster.migrate(&key, to, || std::thread::sleep(Duration::from_millis(300)));
            cluster
        });
        let mut n = 1;
        let mut after = 0;
        while after < 3 {
            after += u32::from(moving.is_finished());
            let next = |n: u64| event(&ann, n);
            rig.b.backbone.publish(vec![next(n + 1), next(n + 2), next(n + 3)]).await.expect("published");
            n += 3;
        }
        let _cluster = moving.await.expect("the slot is moved");
        let page = rig.a.backbone.read(&ann, 0, 10_000).await.expect("read");
        let numbers: Vec<u64> = page.entries.iter().map(|(_, body)| number(body)).collect();
        let last = *numbers.last().expect("entries");
        assert_eq!(last, n, "the last is there");
        let first = numbers[0];
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>(), "in order, each once");
    })
    .await;
}

/// The number of a test's event.
fn number(body: &[u8]) -> u64 {
    let body = String::from_utf8_lossy(body);
    let digits = body.split("\"n\":").nth(1).and_then(|rest| rest.split('}').next());
    digits.and_then(|digits| digits.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_takes_only_its_users_along() {
    bounded(async {
        let rig = Rig::cluster(settings()).await;
        let cluster = rig.cluster.as_ref().expect("a Cluster");
        let users = one_of_each(cluster);
        for user in &users {
            rig.a.backbone.subscribe(user).await.expect("subscribed");
            rig.a.backbone.open(user).await.expect("opened");
        }
        ready(&rig.a).await;
        cluster.servers[0].freeze();
        let frozen = Instant::now();
        let is_away = async || {
            let since = Instant::now();
            let failed = rig.a.backbone.publish(vec![event(&users[0], 1)]).await.is_err();
            (failed && since.elapsed() < Duration::from_millis(100)).then_some(())
        };
        eventually(Duration::from_secs(4), is_away).await;
        assert!(frozen.elapsed() < Duration::from_millis(3_500), "found after {:?}", frozen.elapsed());
        rig.a.backbone.subscribe(&users[0]).await.expect_err("its server is away");
        let events = vec![event(&users[1], 1), event(&users[2], 1)];
        assert_eq!(rig.a.backbone.publish(events).await.expect("published"), [DeliveryOutcome::To(1); 2]);
        rig.a.backbone.broadcast("{}".into()).await.expect("whoever leads passes it on");
        rig.a.backbone.fence("c:old").await.expect_err("it can't be said of the frozen one");
        assert!(rig.a.backbone.health().ready, "two of three are there");
        cluster.servers[0].thaw();
        rig.a.anew(&users[0]).await;
        heard(&rig.b, &users[0], 9).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_followed_to_its_replica() {
    bounded(async {
        let mut rig = Rig::on_cluster(RedisCluster::start_with_replicas(), settings()).await;
        let users = one_of_each(rig.the_cluster());
        let mut before = Vec::new();
        for user in &users {
            rig.a.backbone.subscribe(user).await.expect("subscribed");
            before.push(rig.a.backbone.open(user).await.expect("opened").epoch);
        }
        ready(&rig.a).await;
        let server = rig.a.backbone.health().server.expect("a server");
        rig.the_cluster().servers[0].kill();
        rig.a.anew(&users[0]).await;
        heard(&rig.b, &users[0], 9).await;
        let mut after = Vec::new();
        for user in &users {
            // The channel is confirmed a moment before commands are taken.
            let opened = async || rig.a.backbone.open(user).await.ok();
            after.push(eventually(Duration::from_secs(2), opened).await.epoch);
        }
        assert!(after[0] != before[0] && after[1..] == before[1..], "{before:?} {after:?}");
        assert_ne!(rig.a.backbone.health().server.expect("a server"), server, "revocations are put back");
        // Appends keep events for those whose node isn't back yet, and only there (NOLOSS.md, A3).
        let stranger = |place: usize| {
            let names = (200..400).map(|n| user(&format!("u{n}")));
            let owner = RedisCluster::replica_of(0);
            let of = |user: &UserId| rig.cluster.as_ref().expect("a Cluster").owner(&channel(user));
            names.into_iter().find(|user| of(user) == if place == 0 { owner } else { place }).expect("a user")
        };
        let (gone, well) = (stranger(0), stranger(1));
        rig.a.backbone.publish(vec![event(&gone, 1), event(&well, 1)]).await.expect("published");
        assert_eq!(rig.b.backbone.open(&gone).await.expect("opened").last, 1);
        assert_eq!(rig.b.backbone.open(&well).await.expect("opened").last, 0);
        ready(&rig.a).await;
    })
    .await;
}

/// Every master passes orders on to a node that receives from all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_come_once_also_when_the_leading_master_is_lost() {
    bounded(async {
        let mut rig = Rig::cluster(settings()).await;
        let users = one_of_each(rig.the_cluster());
        let order = |place: usize, n: usize| Control::MembersChanged {
            conversation_id: conversation(&format!("c{place}-{n}")),
        };
        let mut seen = Vec::new();
        for (place, user) in users.iter().enumerate() {
            rig.the_cluster().servers[place].kill();
            // One of the three led.
            for node in [&rig.a, &rig.b] {
                let is_away = async || node.backbone.open(user).await.is_err().then_some(());
                eventually(Duration::from_secs(5), is_away).await;
            }
            // What is published while the other node still follows the one that was killed is missed, and it is told so.
            let mut n = 0;
            while !seen.contains(&Seen::Control(order(place, n))) {
                n += 1;
                if rig.b.backbone.control(&order(place, n)).await.is_ok() {
                    seen.extend(rig.a.until_quiet().await);
                }
            }
            let broadcast = envelope(place as u64);
            rig.b.backbone.broadcast(broadcast.clone().into()).await.expect("another passes it on");
            while !seen.contains(&Seen::Broadcast(broadcast.clone().into())) {
                seen.push(rig.a.next().await);
            }
            rig.the_cluster().servers[place].restart();
            for node in [&rig.a, &rig.b] {
                let is_back = async || node.backbone.open(user).await.ok();
                eventually(Duration::from_secs(10), is_back).await;
            }
        }
        seen.extend(rig.a.until_quiet().await);
        let all = seen.len();
        seen.retain(|seen| *seen != Seen::OrdersMissed);
        let missed = all - seen.len();
        // The one that is there for the longest time leads: here that may be the next one to be killed.
        assert!((1..=3).contains(&missed), "the one that led was lost, {missed} times");
        for (place, one) in seen.iter().enumerate() {
            assert!(matches!(one, Seen::Control(_) | Seen::Broadcast(_)), "{one:?}");
            assert!(!seen[..place].contains(one), "nothing comes twice: {seen:?}");
        }
    })
    .await;
}

/// M3, on every master: nobody knows where the last commands of an owner went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_ends_connections_on_every_master() {
    bounded(async {
        let rig = Rig::cluster(settings()).await;
        let named = |server: &Redis, name: &str| {
            let client = redis::Client::open(server.url()).expect("a URL");
            let mut connection = client.get_connection().expect("connected");
            redis::cmd("CLIENT").arg("SETNAME").arg(name).exec(&mut connection).expect("named");
            connection
        };
        let servers = &rig.cluster.as_ref().expect("a Cluster").servers;
        let mut dead: Vec<_> = servers.iter().map(|server| named(server, "parley:c:old")).collect();
        let mut others: Vec<_> = servers.iter().map(|server| named(server, "parley:c:new")).collect();
        rig.a.backbone.fence("c:old").await.expect("fenced");
        assert!(dead.iter_mut().all(|connection| redis::cmd("PING").exec(connection).is_err()));
        assert!(others.iter_mut().all(|connection| redis::cmd("PING").exec(connection).is_ok()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_speaks_tls() {
    bounded(async {
        let authority = Authority::new();
        let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
        let believed = authority.path("authority.pem");
        let cluster = RedisCluster::start_with(&[
            "--tls-cluster",
            "yes",
            "--tls-auth-clients",
            "no",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &believed,
        ]);
        let start = async |file: &str| {
            let (url, file) = (cluster.tls_url(), std::path::PathBuf::from(file));
            RedisBackbone::start((&*url, Some(&*file)), settings(), deaf(), empty_store()).await
        };
        let backbone = start(&believed).await.expect("a right certificate");
        let ann = user("ann");
        gateway::backbone::Backbone::subscribe(&backbone, &ann).await.expect("subscribed");
        let delivered = gateway::backbone::Backbone::publish(&backbone, vec![event(&ann, 1)]).await.expect("published");
        assert_eq!(delivered, [DeliveryOutcome::To(1)]);
        for server in &cluster.servers {
            let clients = text(server, "CLIENT LIST");
            let ours: Vec<&str> = clients.lines().filter(|line| line.contains(" name=parley:")).collect();
            let plain = format!(" laddr=127.0.0.1:{} ", server.port());
            assert!(ours.len() == 2 && ours.iter().all(|line| !line.contains(&plain)), "{clients}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_cluster_stops_the_start() {
    bounded(async {
        let refused = async |url: String| {
            let started = RedisBackbone::start(&*url, settings(), deaf(), empty_store()).await;
            started.err().expect("it does not start").0
        };
        let (cluster, other) = (RedisCluster::start(), RedisCluster::start());
        let (one, two) = (Redis::start(), Redis::start());
        let since = Instant::now();
        let why = refused(format!("{},{}", one.url(), two.url())).await;
        assert!(why.contains("is not in cluster mode") && why.contains("REDIS_URL"), "{why}");
        let why = refused(format!("{},{}", cluster.servers[0].url(), one.url())).await;
        assert!(why.contains(&format!("127.0.0.1:{} is not in cluster mode", one.port())), "{why}");
        let why = refused(format!("{},{}", cluster.url(), other.url())).await;
        assert!(why.contains("don't belong to one Redis Cluster"), "{why}");
        assert!(since.elapsed() < Duration::from_secs(5), "at once, not after {:?}", since.elapsed());
        let why = refused(cluster.servers[0].url()).await;
        assert!(why.contains("the server is one of a Redis Cluster"), "{why}");
        // One seed that is gone does no harm.
        let mut gone = Redis::start();
        gone.kill();
        let url = format!("{},{}", gone.url(), cluster.servers[1].url());
        RedisBackbone::start(&*url, Settings::new("a", "b"), deaf(), empty_store())
            .await
            .expect("the others are known");
    })
    .await;
}
