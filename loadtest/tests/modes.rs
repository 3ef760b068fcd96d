//! The measurements, by the binary as a user runs it, against a server in memory.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod fake;

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
    assert!(json["kb_per_connection"].as_f64().expect("a number") > 0.0, "{json}");
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
async fn a_group_message_is_through_when_the_last_member_has_it() {
    let fake = Fake::start().await;
    let args = format!("group --members 30 --messages 5 --interval-ms 50 --http http://{}", fake.address);
    let (code, json) = loadtest(&fake, &args).await;
    assert_eq!((code, &json["due"], &json["delivered"]), (Some(0), &145.into(), &145.into()), "{json}");
    assert_eq!(json["last_delivery_ms"]["count"], 5);
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
