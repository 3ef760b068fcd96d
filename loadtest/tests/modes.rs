//! The measurements, by the binary as a user runs it, against a server in memory.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod fake;

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fake::Fake;
use serde_json::Value;

/// Runs the driver against `fake`; returns its exit code and its JSON.
async fn loadtest(fake: &Fake, args: &str) -> (Option<i32>, Value) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(args.split(' ')).args(["--url", &format!("ws://{}", fake.address), "--json", "-"]);
    command.env("JWT_SECRET", "a secret for tests, long enough").env("API_KEY", "key").kill_on_drop(true);
    let output =
        tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("in time").expect("a run");
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), json)
}

#[tokio::test]
async fn idle_holds_connections_from_two_processes_and_reads_memory() {
    let fake = Fake::start().await;
    let args =
        format!("idle --connections 301 --processes 2 --seconds 1 --after-seconds 0 --pid {}", std::process::id());
    let (code, json) = loadtest(&fake, &args).await;
    assert_eq!((code, &json["connected"], &json["lost"]), (Some(0), &301.into(), &0.into()), "{json}");
    // Of this process, in which other tests come and go: so it may also have become less.
    let [before, with] = ["before_kb", "with_kb"].map(|name| json["processes"][0][name].as_f64().expect("a number"));
    assert!(before > 1000.0 && with > 1000.0, "{json}");
    let each = json["kb_per_connection"].as_f64().expect("a number");
    assert!((each - (with - before).max(0.0) / 301.0).abs() < 0.01, "{json}");
}

#[tokio::test]
async fn idle_holds_streams_beside_sockets_and_tells_the_memory_of_both() {
    let fake = Fake::start().await;
    let args = format!(
        "idle --connections 100 --streams 50 --processes 2 --seconds 1 --after-seconds 0 --pid {}",
        std::process::id()
    );
    let (code, json) = loadtest(&fake, &args).await;
    assert_eq!((code, &json["connected"], &json["streams"]), (Some(0), &100.into(), &50.into()), "{json}");
    assert_eq!((&json["lost"], &json["failed"]), (&0.into(), &serde_json::json!({})), "{json}");
    let kb = ["with_kb", "with_streams_kb"].map(|name| json["processes"][0][name].as_f64().expect("a number"));
    let each = json["kb_per_stream"].as_f64().expect("a number");
    assert!((each - (kb[1] - kb[0]).max(0.0) / 50.0).abs() < 0.01, "{json}");
}

#[tokio::test]
async fn a_storm_counts_connects_and_refusals() {
    let fake = Fake::start().await;
    fake.faults.refuse.store(10, Relaxed);
    let (code, json) = loadtest(&fake, "storm --connections 300").await;
    assert_eq!((code, &json["connected"], &json["failed"]["status 503"]), (Some(1), &270.into(), &30.into()), "{json}");
    assert_eq!(json["auth_success_ms"]["count"], 270);
}

#[tokio::test]
async fn user_to_user_counts_every_delivery_and_fails_without_one() {
    let fake = Fake::start().await;
    let (code, json) = loadtest(&fake, "user-to-user --users 20 --rate 300 --seconds 2").await;
    assert_eq!(
        (code, &json["sent"], &json["delivered"], &json["acked"]),
        (Some(0), &600.into(), &600.into(), &600.into())
    );
    assert_eq!(json["delivery_ms"]["count"], 600);

    fake.faults.drop_push.store(100, Relaxed);
    let (code, json) = loadtest(&fake, "user-to-user --users 20 --rate 300 --seconds 1 --drain-seconds 1").await;
    assert_eq!((code, &json["delivered"]), (Some(1), &297.into()), "{json}");
}

#[tokio::test]
async fn one_connection_counts_every_acknowledgement_and_fails_without_one() {
    let fake = Fake::start().await;
    let (code, json) = loadtest(&fake, "one --conversations 3 --seconds 1 --outstanding 20").await;
    assert_eq!((code, &json["sent"], &json["out_of_order"]), (Some(0), &json["acked"], &0.into()), "{json}");
    assert!(json["acked_per_second"].as_f64().is_some_and(|rate| rate > 20.0), "{json}");

    fake.faults.swallow_ack.store(100, Relaxed);
    let (code, json) = loadtest(&fake, "one --conversations 3 --seconds 1 --outstanding 20 --drain-seconds 1").await;
    assert_eq!((code, json["acked"].as_u64() < json["sent"].as_u64()), (Some(1), true), "{json}");
}

#[tokio::test]
async fn what_is_ephemeral_is_delivered_without_an_acknowledgement_or_counted_as_missing() {
    let fake = Fake::start().await;
    let args = "user-to-user --ephemeral --users 20 --rate 300 --seconds 2 --drain-seconds 1";
    let (code, json) = loadtest(&fake, args).await;
    let counts = ["sent", "delivered", "acked"].map(|count| json[count].as_u64().expect("a count"));
    assert_eq!((code, counts), (Some(0), [600, 600, 0]), "{json}");
    assert_eq!(json["delivery_ms"]["count"], 600);

    fake.faults.ignore.store(100, Relaxed);
    let (code, json) = loadtest(&fake, args).await;
    assert_eq!((code, &json["delivered"]), (Some(1), &594.into()), "{json}");
}

#[tokio::test]
async fn a_group_message_is_through_when_the_last_member_has_it() {
    let fake = Fake::start().await;
    let args = format!("group --members 30 --messages 5 --interval-ms 50 --http http://{}", fake.address);
    let (code, json) = loadtest(&fake, &args).await;
    assert_eq!((code, &json["due"], &json["delivered"]), (Some(0), &145.into(), &145.into()), "{json}");
    assert_eq!(json["last_delivery_ms"]["count"], 5);
}

#[tokio::test]
async fn presence_tells_every_partner_once_and_fails_when_one_is_not_told() {
    // Told 300 ms after a departure, so it is early to those who expect it after a second.
    for (mute, grace_ms, code, missing) in [(0, 300, 0, 0), (10, 1000, 1, 24)] {
        let fake = Fake::start().await;
        fake.faults.mute_presence.store(mute, Relaxed);
        let args = format!(
            "presence --users 40 --watchers 5 --partners 3 --rate 10 --seconds 8 --grace-ms {grace_ms} --drain-seconds 1"
        );
        let (exit, json) = loadtest(&fake, &args).await;
        assert_eq!((exit, &json["arrivals"], &json["departures"]), (Some(code), &40.into(), &40.into()), "{json}");
        assert_eq!(
            (&json["due"], &json["missing"], &json["repeated"]),
            (&240.into(), &missing.into(), &0.into()),
            "{json}"
        );
        let told =
            json["online_ms"]["count"].as_u64().expect("a count") + json["offline_ms"]["count"].as_u64().expect("one");
        assert_eq!((json["told"].as_u64(), json["early"] == 0), (Some(told), missing == 0), "{json}");
    }
}

/// A herd of 40 at the fake server.
async fn herd(fake: &Fake, more: &str) -> (Option<i32>, Value) {
    let args = "herd --connections 40 --senders 4 --rate 100 --seconds 3 --cut-at 1 --settle-seconds 10";
    let (code, json) = loadtest(fake, &format!("{args} --http http://{}{more}", fake.address)).await;
    let counts = &json["oracle"]["counts"];
    assert_eq!((&json["back"], &json["back_ms"]["count"]), (&40.into(), &40.into()), "{json}");
    assert_eq!((&counts["acked"], counts["stored"].as_u64()), (&counts["attempted"], Some(340)), "{json}");
    let deliveries = |of: &str| json[of]["count"].as_u64().expect("a count");
    let heard = deliveries("delivery_ms_meanwhile") + deliveries("delivery_ms_otherwise");
    assert!(deliveries("delivery_ms_meanwhile") > 0 && heard == 340, "{json}");
    (code, json)
}

#[tokio::test]
async fn a_herd_resumes_and_misses_nothing() {
    let fake = Fake::start().await;
    let (code, json) = herd(&fake, "").await;
    assert_eq!((code, &json["resumed"], &json["resyncs"]), (Some(0), &40.into(), &0.into()), "{json}");
    assert_eq!((&json["refusals"], &json["oracle"]["counts"]["connects_failed"]), (&serde_json::json!({}), &0.into()));
}

#[tokio::test]
async fn a_herd_whose_node_is_killed_comes_back_elsewhere() {
    let fake = Fake::start().await;
    // Both addresses are the fake's; that the process dies is what cuts everybody off.
    let mut node = tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn().expect("a process");
    let kill = format!("--kill {} --store-pid {}", node.id().expect("an id"), std::process::id());
    let cut = Arc::clone(&fake);
    let killed = tokio::spawn(async move {
        let status = node.wait().await.expect("its end");
        cut.end_all(None);
        status.signal()
    });
    let (code, json) = herd(&fake, &format!(" {kill} --url ws://{}", fake.address)).await;
    assert_eq!((code, &json["resumed"], &json["resyncs"]), (Some(0), &40.into(), &0.into()), "{json}");
    assert_eq!(killed.await.expect("a status"), Some(9));
    for load in ["steady", "herd"] {
        assert!(json["store_load"][load].as_f64().expect("a load") >= 0.0, "{json}");
    }
}

#[tokio::test]
async fn a_herd_that_is_turned_away_stays_away_as_long_as_it_is_told_and_is_counted() {
    let fake = Fake::start().await;
    fake.faults.turn_away.store(4, Relaxed);
    let (code, json) = herd(&fake, "").await;
    assert_eq!((code, &json["resumed"]), (Some(0), &40.into()), "{json}");
    assert!(json["refusals"]["close 4100"].as_u64().expect("a count") >= 10, "{json}");
    assert_eq!(
        json["oracle"]["counts"]["connects_failed"], 0,
        "a WebSocket that is closed is no failed connect: {json}"
    );
    assert!(json["back_ms"]["max"].as_f64().expect("ms") >= fake::RETRY_AFTER_MS as f64, "{json}");
    assert!(json["back_ms"]["p50"].as_f64() < json["back_ms"]["max"].as_f64(), "{json}");
}

#[tokio::test]
async fn a_herd_counts_resyncs_and_fails_when_a_message_comes_twice() {
    let fake = Fake::start().await;
    fake.faults.deny_resume.store(4, Relaxed);
    let (code, json) = herd(&fake, "").await;
    assert_eq!((code, &json["resumed"], &json["resyncs"]), (Some(0), &30.into(), &10.into()), "{json}");

    let fake = Fake::start().await;
    fake.faults.double_push.store(50, Relaxed);
    let (code, json) = herd(&fake, "").await;
    assert_eq!(code, Some(1), "{json}");
    assert!(json["oracle"]["faults"]["doubled"].as_u64().expect("a count") > 0, "{json}");
}

#[tokio::test]
async fn a_mixed_load_counts_every_kind_apart_and_fails_when_one_is_not_served() {
    let fake = Fake::start().await;
    let args = format!(
        "mixed --users 20 --visitors 10 --groups 2 --group-size 5 --rate 200 --seconds 2 --drain-seconds 2 --http http://{}",
        fake.address
    );
    let (code, json) = loadtest(&fake, &args).await;
    let of = |json: &Value, kind: &str| {
        let of = &json["kinds"][kind];
        ["asked", "answered", "due", "delivered"].map(|count| of[count].as_u64().expect("a count"))
    };
    assert_eq!((code, &json["departures"]), (Some(0), &10.into()), "{json}");
    let kinds = ["direct", "group", "typing", "read", "presence", "connect"].map(|kind| of(&json, kind));
    let expected =
        [[160, 160, 160, 160], [60, 60, 240, 240], [80, 0, 80, 80], [60, 60, 0, 0], [20, 20, 0, 0], [10, 10, 0, 0]];
    assert_eq!(kinds, expected, "{json}");
    assert_eq!(
        (&json["kinds"]["group"]["delivery_ms"]["count"], &json["errors"]),
        (&240.into(), &serde_json::json!({}))
    );

    fake.faults.ignore.store(10, Relaxed);
    let (code, json) = loadtest(&fake, &args).await;
    let [[.., typed], [_, read, ..], [_, told, ..]] = ["typing", "read", "presence"].map(|kind| of(&json, kind));
    assert_eq!((code, typed + read + told), (Some(1), 160 - 16), "{json}");
    assert_eq!(of(&json, "direct"), [160, 160, 160, 160], "{json}");
}

#[tokio::test]
async fn users_with_a_stream_have_their_share_of_a_mixed_load() {
    let fake = Fake::start().await;
    let args = format!(
        "mixed --users 20 --visitors 10 --groups 2 --group-size 5 --stream-share 25 --rate 200 --seconds 2 --drain-seconds 2 \
         --http http://{}",
        fake.address
    );
    let (code, json) = loadtest(&fake, &args).await;
    let kinds = json["kinds"].as_object().expect("kinds");
    for (kind, of) in kinds {
        assert!(kind == "typing" || of["answered"] == of["asked"], "{kind}: {json}");
        assert_eq!((&of["delivered"], &of["errors"]), (&of["due"], &serde_json::json!({})), "{kind}: {json}");
    }
    assert_eq!((code, &json["streams"], kinds.len()), (Some(0), &5.into(), 6), "{json}");
    // A quarter of all, in pairs as in groups.
    let (brought, due) = (json["stream_deliveries"].as_u64(), 400);
    assert!(brought.is_some_and(|brought| brought > due / 8 && brought < due / 2), "{json}");

    fake.faults.drop_from_stream.store(10, Relaxed);
    let (code, json) = loadtest(&fake, &args).await;
    assert!(code == Some(1) && json["stream_deliveries"].as_u64() < brought, "{json}");
}

#[tokio::test]
async fn the_oracle_exits_with_one_when_something_is_lost() {
    let fake = Fake::start().await;
    let args = format!("oracle --users 6 --rate 100 --seconds 1 --http http://{}", fake.address);
    let (code, json) = loadtest(&fake, &args).await;
    assert_eq!((code, &json["counts"]["acked"]), (Some(0), &json["counts"]["attempted"]), "{json}");
    fake.faults.forget.store(20, Relaxed);
    let (code, json) = loadtest(&fake, &args).await;
    assert_eq!(code, Some(1), "{json}");
    assert!(json["faults"]["lost_ack"].as_u64().expect("a count") > 0, "{json}");
}

#[tokio::test]
async fn the_oracle_says_its_seed_at_the_start_and_with_a_failure() {
    let fake = Fake::start().await;
    fake.faults.forget.store(20, Relaxed);
    let args = format!("oracle --users 6 --rate 100 --seconds 1 --seed 42 --http http://{}", fake.address);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(args.split(' ')).args(["--url", &format!("ws://{}", fake.address)]);
    command.env("JWT_SECRET", "a secret for tests, long enough").kill_on_drop(true);
    let output =
        tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("in time").expect("a run");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), err.lines().next()), (Some(1), Some("seed 42")), "{err}");
    assert!(out.contains("FAIL: --seed 42 draws this scenario again"), "{out}");

    let (_, json) = loadtest(&fake, &args).await;
    assert_eq!(json["seed"], 42, "{json}");
}
