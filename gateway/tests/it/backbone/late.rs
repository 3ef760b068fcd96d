//! The contract of late messages in the backbone: on Redis and on the local one.

use futures_util::StreamExt;
use gateway::backbone::LATE_MAX;

use crate::backbone::rig::{Rig, bounded, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis() {
    bounded(async {
        for rig in [Rig::redis(settings()).await, Rig::with_rights(settings()).await] {
            entries_stay_in_order_until_they_are_dropped(&rig).await;
            assert!(rig.a.backbone.lease_late(60_000).await.expect("taken"));
            assert!(rig.a.backbone.lease_late(60_000).await.expect("renewed"));
            assert!(!rig.b.backbone.lease_late(60_000).await.expect("asked"), "another node has it");
            assert!(rig.a.backbone.lease_late(1).await.expect("renewed for a moment"));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            assert!(rig.b.backbone.lease_late(60_000).await.expect("it has ended"));
            rig.a.backbone.fence("gone:1").await.expect("the rights suffice for this as well");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_local() {
    bounded(async { entries_stay_in_order_until_they_are_dropped(&Rig::local(settings()).await).await }).await;
}

async fn entries_stay_in_order_until_they_are_dropped(rig: &Rig) {
    let (a, b) = (&rig.a.backbone, &rig.b.backbone);
    assert_eq!(a.late_count().await.expect("a count"), 0);
    assert!(a.read_late(9).await.expect("nothing").is_empty());
    for entry in ["one", "two\n\"2\"", "three"] {
        assert!(a.keep_late(entry.into()).await.expect("kept"));
    }
    let (ids, entries): (Vec<_>, Vec<_>) = b.read_late(2).await.expect("entries").into_iter().unzip();
    assert_eq!(entries, ["one", "two\n\"2\""]);
    assert_eq!(b.late_count().await.expect("a count"), 3, "what is read stays");
    b.drop_late(&ids[1..]).await.expect("dropped");
    b.drop_late(&ids[1..]).await.expect("dropped before");
    b.drop_late(&[]).await.expect("nothing to drop");
    let left: Vec<_> = a.read_late(9).await.expect("entries").into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(left, ["one", "three"]);
    // Many at once, or it takes long.
    let more = (2..LATE_MAX).map(|_| a.keep_late("x".into()));
    let kept: Vec<bool> =
        futures_util::stream::iter(more).buffered(100).map(|kept| kept.expect("kept")).collect().await;
    assert!(kept.iter().all(|kept| *kept), "there is room for all");
    assert!(!b.keep_late("too much".into()).await.expect("an answer"), "it is full");
    assert_eq!(a.late_count().await.expect("a count"), u64::try_from(LATE_MAX).expect("a small number"));
}
