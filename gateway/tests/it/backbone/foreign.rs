//! Keys in Redis that other programs have damaged: another type, bytes that are no text, numbers that are none or too large,
//! ids behind which nothing fits. One user's damaged keys cost nobody else anything, and what is shared heals by itself.

use std::time::Duration;

use gateway::backbone::{Draw, Grant, PushJob};
use shared::{Timestamp, UserId};

use crate::backbone::rig::{self, Rig, bounded, event, eventually, message, settings, user};
use crate::support::redis::Redis;

/// Bytes that are no text, as Lua writes them. Commands are divided at spaces, so nothing in `damage` holds one.
const NO_TEXT: &str = "string.char(255,254)";

/// A command with any bytes, run where its key is.
fn damage(rig: &Rig, key: &str, command: &str) {
    let redis = place(rig, key);
    redis.ask(&format!("EVAL return(redis.call({command})) 1 {key}"));
}

/// The server with this key.
fn place<'a>(rig: &'a Rig, key: &str) -> &'a Redis {
    match (&rig.redis, &rig.cluster) {
        (Some(redis), _) => redis,
        (None, Some(cluster)) => &cluster.servers[cluster.owner(key)],
        (None, None) => panic!("this test is about Redis"),
    }
}

async fn on_one_server_and_a_cluster(test: impl AsyncFn(Rig)) {
    bounded(async {
        test(Rig::redis(settings()).await).await;
        test(Rig::cluster(settings()).await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_presence_of_one_hides_nobody_else() {
    on_one_server_and_a_cluster(async |rig| {
        let users: Vec<UserId> = ["list", "word", "bytes", "huge", "negative", "fine"].map(user).to_vec();
        for (name, value) in [
            ("list", "'RPUSH',KEYS[1],'x'"),
            ("word", "'SET',KEYS[1],'yesterday'"),
            ("bytes", &format!("'SET',KEYS[1],{NO_TEXT}")),
            ("huge", "'SET',KEYS[1],'99999999999999999999999'"),
            ("negative", "'SET',KEYS[1],'-5'"),
            ("fine", "'SET',KEYS[1],'1000'"),
        ] {
            damage(&rig, &format!("chat:last_seen:{name}"), value);
        }
        damage(&rig, "online:bytes", &format!("'SET',KEYS[1],{NO_TEXT}"));
        damage(&rig, "online:list", "'RPUSH',KEYS[1],'x'");
        let presence = rig.a.backbone.presence(&users).await.expect("answered");
        let seen: Vec<Option<i64>> = presence.iter().map(|one| one.last_seen.map(Timestamp::unix_ms)).collect();
        assert_eq!(seen, [None, None, None, None, Some(0), Some(1000)]);
        assert!(presence[2].online && !presence[5].online);
        for name in ["bytes", "list"] {
            place(&rig, &format!("online:{name}")).ask(&format!("DEL online:{name}"));
        }
        // All are due, each with a last sign of life some seconds ago.
        let last_sign_ms = Timestamp::now().unix_ms() - 20_000;
        let due_ms = last_sign_ms + 3_000;
        for name in ["list", "word", "bytes", "huge", "negative", "fine"] {
            damage(&rig, "chat:offline_due", &format!("'ZADD',KEYS[1],{due_ms},'{name}'"));
        }
        damage(&rig, "chat:offline_due", &format!("'ZADD',KEYS[1],1,{NO_TEXT}"));
        damage(&rig, "chat:offline_due", "'ZADD',KEYS[1],'-inf','early'");
        let mut gone = rig.b.backbone.take_offline(100).await.expect("answered");
        gone.sort();
        let names: Vec<&str> = gone.iter().map(|(user, _)| user.as_str()).collect();
        assert_eq!(names, ["bytes", "early", "fine", "huge", "list", "negative", "word"]);
        for (user, at) in &gone {
            let expected_ms = if user.as_str() == "early" { 0 } else { last_sign_ms };
            assert!((at.unix_ms() - expected_ms).abs() < 2_000, "{user} {at}");
        }
        let due = place(&rig, "chat:offline_due");
        assert_eq!(due.number("ZCARD chat:offline_due"), 0, "nothing is looked at again and again");
        assert!(rig.b.backbone.take_offline(100).await.expect("answered").is_empty());
        let presence = rig.a.backbone.presence(&users).await.expect("answered");
        assert!(presence.iter().all(|one| one.last_seen.is_some()), "each has a time again: {presence:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_those_who_are_due_of_another_type_is_begun_anew() {
    on_one_server_and_a_cluster(async |rig| {
        let ann = user("ann");
        damage(&rig, "chat:offline_due", "'SET',KEYS[1],'x'");
        rig.a.backbone.arrived(&ann).await.expect_err("the list can't be written");
        assert!(rig.a.backbone.take_offline(10).await.expect("answered").is_empty());
        assert!(rig.a.backbone.arrived(&ann).await.expect("written"), "a user who comes is news again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_rate_of_one_user_ends_no_limit() {
    on_one_server_and_a_cluster(async |rig| {
        let draw =
            Draw { cost_us: 10_000_000, burst_us: 20_000_000, debt_us: 20_000_000, wanted: 2, least: 1, owed: 0 };
        for (name, value) in [
            ("list", "'RPUSH',KEYS[1],'x'"),
            ("bytes", &format!("'SET',KEYS[1],{NO_TEXT}")),
            ("none", "'SET',KEYS[1],'nan'"),
            ("negative", "'SET',KEYS[1],'-1e300'"),
        ] {
            damage(&rig, &format!("chat:rate:{name}"), value);
            let backbone = &rig.a.backbone;
            assert_eq!(backbone.draw(&user(name), draw).await.expect("answered"), Grant::Granted(2), "{name}");
            let second = backbone.draw(&user(name), draw).await.expect("answered");
            assert!(matches!(second, Grant::Refused { .. }), "{name}: {second:?}");
        }
    })
    .await;
}

/// A message for a user who was here and has no socket.
fn pushed(n: u64) -> gateway::backbone::Delivery {
    rig::pushed(event(&user("ann"), n), "c", n, "sender")
}

async fn one_job(rig: &Rig) -> PushJob {
    let taken = async || rig.b.backbone.take_push_jobs(10).await.expect("taken").pop();
    eventually(Duration::from_secs(10), taken).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_push_jobs_hold_up_no_message_and_no_job() {
    on_one_server_and_a_cluster(async |rig| {
        let (stream, shares) = ("chat:push", "chat:push:shares:{chat:push}");
        rig.a.backbone.open(&user("ann")).await.expect("opened");
        let last = "'18446744073709551615-18446744073709551615'";
        for (n, (key, value)) in [
            (stream, "'SET',KEYS[1],'x'".to_owned()),
            (shares, "'SET',KEYS[1],'x'".to_owned()),
            (shares, "'HSET',KEYS[1],'n','many','c:c','1e9','s:sender',''".to_owned()),
            (stream, format!("'XADD',KEYS[1],'*',{NO_TEXT},{NO_TEXT},'user','ann'")),
            (stream, "'XADD',KEYS[1],'*','user','ann','message','-1','conversation','c','seq','1'".to_owned()),
            (stream, "'XADD',KEYS[1],'*','message','99999999999999999999','user','ann'".to_owned()),
            (stream, format!("'XADD',KEYS[1],{last},'a','b'")),
        ]
        .into_iter()
        .enumerate()
        {
            if value.starts_with("'SET'") {
                place(&rig, key).ask(&format!("DEL {key}"));
            }
            damage(&rig, key, &value);
            let n = n as u64 + 1;
            let published = rig.a.backbone.publish(vec![pushed(n)]).await;
            if value.contains(last) {
                published.expect_err("nothing can follow; the message stays due");
                assert!(rig.b.backbone.take_push_jobs(10).await.expect("taken").is_empty(), "it is dropped");
                rig.a.backbone.publish(vec![pushed(n)]).await.expect("published");
            } else {
                published.expect(&value);
            }
            let job = one_job(&rig).await;
            assert_eq!((job.message, job.user.clone()), (message(n), Some(user("ann"))), "{value}");
            damage(&rig, "chat:push:dead", "'SET',KEYS[1],'x'");
            rig.b.backbone.bury_push_job(&job, "a reason").await.expect("buried");
            assert_eq!(rig.b.backbone.buried_push_jobs().await.expect("counted"), 1);
            assert_eq!(place(&rig, stream).number("XLEN chat:push"), 0, "{value}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_late_messages_hold_up_no_other() {
    on_one_server_and_a_cluster(async |rig| {
        let backbone = &rig.a.backbone;
        damage(&rig, "chat:late", "'SET',KEYS[1],'x'");
        assert!(backbone.keep_late("one".into()).await.expect("kept"));
        damage(&rig, "chat:late", &format!("'XADD',KEYS[1],'*',{NO_TEXT},{NO_TEXT},'d','x'"));
        damage(&rig, "chat:late", "'XADD',KEYS[1],'18446744073709551615-18446744073709551615','d','last'");
        backbone.keep_late("two".into()).await.expect_err("nothing can follow, and nothing of ours is deleted");
        let (ids, entries): (Vec<_>, Vec<_>) = backbone.read_late(9).await.expect("read").into_iter().unzip();
        assert_eq!(entries, ["one", "", "last"]);
        backbone.drop_late(&ids).await.expect("dropped");
        assert!(backbone.keep_late("two".into()).await.expect("kept"), "it is begun anew when nothing is left");
        assert_eq!(backbone.late_count().await.expect("counted"), 1);

        let lease = place(&rig, "chat:late:lease");
        damage(&rig, "chat:late:lease", "'RPUSH',KEYS[1],'x'");
        assert!(backbone.lease_late(1).await.expect("taken"));
        damage(&rig, "chat:late:lease", "'SET',KEYS[1],'somebody'");
        assert!(!backbone.lease_late(1_000).await.expect("asked"), "it may be a node's");
        assert!(lease.number("TTL chat:late:lease") > 0, "and ends like a node's");
    })
    .await;
}

/// A consumer group is the epoch of a log: one that another program named can be none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_under_a_name_that_is_no_epoch_is_begun_anew() {
    on_one_server_and_a_cluster(async |rig| {
        let (ann, key) = (user("ann"), "chat:log:{chat:user:ann}");
        for spoiled in ["'..'\"x", "'..string.char(255)..'", "'..string.rep('x',70)..'"] {
            let epoch = rig.a.backbone.open(&ann).await.expect("opened").epoch;
            let (server, _) = epoch.as_str().split_once('.').expect("the server's name stands first");
            damage(&rig, key, &format!("'XGROUP','DESTROY',KEYS[1],'{epoch}'"));
            damage(&rig, key, &format!("'XGROUP','CREATE',KEYS[1],'{server}.{spoiled}','$'"));
            let anew = rig.b.backbone.open(&ann).await.expect("opened");
            assert!(anew.epoch != epoch && anew.last == 0, "{spoiled}: {anew:?}");
        }
    })
    .await;
}
