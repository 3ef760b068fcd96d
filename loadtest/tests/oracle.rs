//! The whole oracle against a server in memory: clean where the server is correct, whatever happens to the connections,
//! and not clean where it isn't.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fake::Fake;
use loadtest::oracle::{OracleArgs, Verdict, ViolationKind};
use loadtest::target::{TargetArgs, TokenPlace};

fn args(fake: &Fake) -> OracleArgs {
    OracleArgs {
        target: TargetArgs {
            urls: vec![format!("ws://{}", fake.address)],
            jwt_secret: Some("a secret for tests, long enough".into()),
            tokens: None,
            user_prefix: "u".into(),
            token_seconds: 600,
            token_in: TokenPlace::Query,
            speak: loadtest::speech::Speech::Parley,
            deflate: false,
            sources: Vec::new(),
        },
        http: vec![format!("http://{}", fake.address)],
        api_key: Some("key".into()),
        users: 8,
        devices: 2,
        streams: 0,
        speakers: None,
        pairs: None,
        groups: 1,
        group_size: 5,
        rate: 200.0,
        seconds: 2,
        settle_seconds: 10,
        content_bytes: 40,
        stalled_receivers: 0,
        stall_seconds: 1,
        herd_at: None,
        raced: false,
        seed: None,
        database_url: None,
        json: None,
    }
}

/// Runs the oracle while `trouble` does something to the server.
async fn run(args: OracleArgs, trouble: impl Future<Output = ()>) -> Verdict {
    let oracle = async {
        tokio::select! {
            verdict = loadtest::oracle::run(&args) => verdict.expect("a verdict"),
            () = async { trouble.await; std::future::pending().await } => unreachable!("trouble never ends the run"),
        }
    };
    tokio::time::timeout(Duration::from_secs(60), oracle).await.expect("in time")
}

fn assert_clean(verdict: &Verdict) {
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    let counts = &verdict.counts;
    assert!(counts.attempted > 350, "{counts:?}");
    assert_eq!((counts.acked, counts.stored, counts.unsettled), (counts.attempted, counts.attempted, 0), "{counts:?}");
    assert_eq!((counts.delivered, counts.malformed), (counts.due, 0), "{counts:?}");
    assert!(counts.right_counts >= 12 && counts.unread_stored > 0, "{counts:?}");
}

/// Does `trouble` every 300 ms, from half a second on.
async fn every(fake: Arc<Fake>, times: usize, trouble: impl Fn(&Fake)) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..times {
        tokio::time::sleep(Duration::from_millis(300)).await;
        trouble(&fake);
    }
}

#[tokio::test]
async fn a_right_server_is_clean_even_when_everybody_comes_back_at_once_and_some_do_not_read() {
    let fake = Fake::start().await;
    let args = OracleArgs { herd_at: Some(1), stalled_receivers: 3, ..args(&fake) };
    let verdict = run(args, async {}).await;
    assert_clean(&verdict);
    assert!(verdict.counts.resumes >= 13 && verdict.counts.resyncs == 0, "{:?}", verdict.counts);
}

/// Four of eight users have a stream beside their socket, and send over both.
fn with_streams(fake: &Fake) -> OracleArgs {
    OracleArgs { devices: 1, streams: 4, ..args(fake) }
}

#[tokio::test]
async fn streams_are_judged_like_sockets_and_go_on_behind_their_last_event() {
    let fake = Fake::start().await;
    fake.faults.refuse.store(3, Relaxed);
    let trouble = every(Arc::clone(&fake), 4, |fake| fake.end_all(if rand::random() { Some(4200) } else { None }));
    let verdict = run(with_streams(&fake), trouble).await;
    assert_clean(&verdict);
    let counts = &verdict.counts;
    assert!(counts.stream_resumes >= 4 && counts.resumes == counts.reconnects, "{counts:?}");
    assert!(counts.stream_deliveries > 100 && counts.stream_deliveries < counts.delivered, "{counts:?}");
    assert_eq!(fake.early.load(Relaxed), 0, "a stream came back before the time that it was told");
}

#[tokio::test]
async fn a_stream_fetches_what_a_resync_tells() {
    let fake = Fake::start().await;
    let trouble = every(Arc::clone(&fake), 3, |fake| {
        fake.new_epoch();
        fake.end_all(Some(4200));
    });
    let verdict = run(with_streams(&fake), trouble).await;
    assert_clean(&verdict);
    assert!(verdict.counts.resyncs >= 12 && verdict.counts.fetched > 0, "{:?}", verdict.counts);
}

#[tokio::test]
async fn messages_that_a_stream_leaves_out_are_found() {
    let fake = Fake::start().await;
    fake.faults.drop_from_stream.store(50, Relaxed);
    let verdict = run(OracleArgs { settle_seconds: 7, ..with_streams(&fake) }, async {}).await;
    assert!(verdict.count(&[ViolationKind::LogGap]) > 0, "{:?}", verdict.faults);
    assert!(verdict.count(&[ViolationKind::Undelivered, ViolationKind::SilentHole]) > 0, "{:?}", verdict.faults);
}

#[tokio::test]
async fn an_event_of_a_stream_without_its_id_is_found() {
    let fake = Fake::start().await;
    fake.faults.drop_id.store(50, Relaxed);
    let verdict = run(with_streams(&fake), async {}).await;
    assert!(verdict.counts.malformed > 0, "{:?}", verdict.counts);
}

#[tokio::test]
async fn a_message_sent_by_two_devices_at_once_is_stored_once_and_answered_twice() {
    let fake = Fake::start().await;
    let verdict = run(OracleArgs { raced: true, ..args(&fake) }, async {}).await;
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
    let counts = &verdict.counts;
    // Eight direct conversations were opened by one device each.
    assert_eq!((counts.acked, counts.attempted), (counts.stored * 2 - 8, counts.stored * 2 - 8), "{counts:?}");
    assert!(counts.stored > 350 && counts.duplicates >= counts.stored - 8, "{counts:?}");
}

#[tokio::test]
async fn resets_refusals_and_closes_are_survived_by_resume() {
    let fake = Fake::start().await;
    fake.faults.refuse.store(3, Relaxed);
    let trouble = every(Arc::clone(&fake), 4, |fake| fake.end_all(if rand::random() { Some(4200) } else { None }));
    let verdict = run(args(&fake), trouble).await;
    assert_clean(&verdict);
    let counts = &verdict.counts;
    assert!(counts.reconnects > 16 && counts.resumes == counts.reconnects && counts.connects_failed > 0, "{counts:?}");
}

#[tokio::test]
async fn a_goaway_moves_everybody_within_its_window() {
    let fake = Fake::start().await;
    let verdict = run(args(&fake), every(Arc::clone(&fake), 1, |fake| fake.goaway(500))).await;
    assert_clean(&verdict);
    assert_eq!(verdict.counts.reconnects, 16, "{:?}", verdict.counts);
}

#[tokio::test]
async fn lost_acknowledgements_are_asked_for_again_and_stored_once() {
    let fake = Fake::start().await;
    fake.faults.swallow_ack.store(40, Relaxed);
    let trouble = every(Arc::clone(&fake), 2, |fake| fake.end_all(None));
    let verdict = run(args(&fake), trouble).await;
    // The lost push of `message.sent` is a hole in the sender's log, which this server doesn't heal.
    assert_eq!(verdict.counts.acked, verdict.counts.attempted);
    assert_eq!(
        verdict.count(&[
            ViolationKind::DoubleStored,
            ViolationKind::LostAck,
            ViolationKind::AckMismatch,
            ViolationKind::Doubled
        ]),
        0,
        "{verdict:?}"
    );
}

#[tokio::test]
async fn forgotten_logs_are_made_good_by_resync() {
    let fake = Fake::start().await;
    let trouble = every(Arc::clone(&fake), 3, |fake| {
        fake.new_epoch();
        fake.end_all(None);
    });
    let verdict = run(args(&fake), trouble).await;
    assert_clean(&verdict);
    assert!(verdict.counts.resyncs >= 16 && verdict.counts.fetched > 0, "{:?}", verdict.counts);
}

#[tokio::test]
async fn dropped_pushes_are_found() {
    let fake = Fake::start().await;
    fake.faults.drop_push.store(50, Relaxed);
    let verdict = run(OracleArgs { settle_seconds: 7, ..args(&fake) }, async {}).await;
    assert!(verdict.count(&[ViolationKind::LogGap]) > 0, "{:?}", verdict.faults);
    assert!(verdict.count(&[ViolationKind::Undelivered, ViolationKind::SilentHole]) > 0, "{:?}", verdict.faults);
}

#[tokio::test]
async fn doubled_pushes_are_found() {
    let fake = Fake::start().await;
    fake.faults.double_push.store(50, Relaxed);
    let verdict = run(args(&fake), async {}).await;
    assert!(
        verdict.count(&[ViolationKind::Doubled]) > 0 && verdict.count(&[ViolationKind::LogDisorder]) > 0,
        "{:?}",
        verdict.faults
    );
}

#[tokio::test]
async fn acknowledged_and_forgotten_messages_are_found() {
    let fake = Fake::start().await;
    fake.faults.forget.store(50, Relaxed);
    let verdict = run(args(&fake), async {}).await;
    assert!(verdict.count(&[ViolationKind::LostAck]) > 0, "{:?}", verdict.faults);
}

#[tokio::test]
async fn counts_that_are_not_told_are_found() {
    let fake = Fake::start().await;
    fake.faults.drop_count.store(2, Relaxed);
    let verdict = run(OracleArgs { settle_seconds: 3, ..args(&fake) }, async {}).await;
    assert_eq!(verdict.faults.keys().copied().collect::<Vec<_>>(), [ViolationKind::WrongCount], "{:?}", verdict.faults);
}

#[tokio::test]
async fn counts_from_before_the_run_are_fetched() {
    let fake = Fake::start().await;
    let before = run(OracleArgs { seconds: 1, ..args(&fake) }, async {}).await;
    assert!(before.counts.unread_stored > 0, "{:?}", before.counts);
    // The same users and direct conversations, in which less is sent than is unread.
    let after = run(OracleArgs { seconds: 1, rate: 4.0, ..args(&fake) }, async {}).await;
    assert!(after.is_clean(), "{:?}", after.violations);
    assert!(after.counts.unread_stored > 0, "{:?}", after.counts);
}
