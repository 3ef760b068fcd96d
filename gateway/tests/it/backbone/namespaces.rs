//! Two deployments on one Redis, told apart by `REDIS_NAMESPACE` alone: neither gets anything of the other's, and no key
//! lies outside of the namespaces.

use bytes::Bytes;
use gateway::backbone::{Control, DeliveryOutcome, Draw, Grant, SessionId, Settings, Ticket};
use shared::redis_keys::Keys;

use crate::backbone::rig::{
    Node, Seen, bounded, empty_store, envelope, ephemeral, event, numbered, pushed, settings, user,
};
use crate::support::cluster::RedisCluster;
use crate::support::redis::Redis;
use crate::support::sentinel::SentinelRig;

/// Settings of nodes that differ by their namespace alone: even their names and boot ids are the same.
pub(crate) fn in_namespace(namespace: &str) -> Settings {
    Settings { keys: Keys::in_namespace(namespace).expect("a namespace"), ..settings() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_on_one_server_share_nothing() {
    bounded(async {
        let redis = Redis::start();
        share_nothing(&redis.url()).await;
        assert_every_key_has_a_namespace(&[&redis]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_on_one_cluster_share_nothing() {
    bounded(async {
        let cluster = RedisCluster::start();
        share_nothing(&cluster.url()).await;
        assert_every_key_has_a_namespace(&cluster.servers.iter().collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_behind_the_same_sentinels_share_nothing() {
    bounded(async {
        let sentinels = SentinelRig::start();
        share_nothing(&sentinels.url()).await;
        assert_every_key_has_a_namespace(&[&sentinels.master]);
    })
    .await;
}

async fn share_nothing(url: &str) {
    let store = empty_store();
    let blue = Node::at(url, in_namespace("blue"), &store).await;
    let green = Node::at(url, in_namespace("green"), &store).await;
    events_go_to_one(&blue, &green).await;
    logins_and_revocations_hold_in_one(&blue, &green).await;
    streams_and_allowances_are_of_one(&blue, &green).await;
    let ann = user("ann");
    assert!(!green.backbone.presence(std::slice::from_ref(&ann)).await.expect("asked")[0].online);
    assert_eq!(blue.backbone.nodes(), 1);
    // The one ends connections of its own node's earlier process, never those of the other deployment's node.
    blue.backbone.fence("a:boot-a").await.expect("fenced");
    green.backbone.subscribe(&user("bob")).await.expect("subscribed");
    green.backbone.open(&user("bob")).await.expect("opened");
    let sent = green.backbone.publish(vec![event(&user("bob"), 9)]).await.expect("published");
    assert_eq!(sent, [DeliveryOutcome::To(1)]);
    assert_eq!(green.payload(&user("bob")).await, numbered(1, 9));
    blue.backbone.close().await;
    green.backbone.close().await;
}

async fn events_go_to_one(blue: &Node, green: &Node) {
    let ann = user("ann");
    for node in [blue, green] {
        node.backbone.subscribe(&ann).await.expect("subscribed");
        node.backbone.open(&ann).await.expect("opened");
    }
    blue.backbone.arrived(&ann).await.expect("marked");
    let typing = ephemeral(&ann, "{\"type\":\"typing\",\"payload\":{}}");
    let sent = blue.backbone.publish(vec![event(&ann, 1), typing]).await.expect("published");
    assert_eq!(sent, [DeliveryOutcome::To(1); 2]);
    let everybody = Bytes::from(envelope(2));
    blue.backbone.broadcast(everybody.clone()).await.expect("published");
    let order = Control::Disconnect { user_id: ann.clone(), revoked: false, revoked_s: None };
    blue.backbone.control(&order).await.expect("published");
    let seen = blue.until_quiet().await;
    assert!(seen.contains(&Seen::Broadcast(everybody)) && seen.contains(&Seen::Control(order)), "{seen:?}");
    assert_eq!(green.until_quiet().await, [], "nothing of it comes to the other");
    assert_eq!(green.backbone.open(&ann).await.expect("opened").last, 0);
}

async fn logins_and_revocations_hold_in_one(blue: &Node, green: &Node) {
    let (ann, id) = (user("ann"), SessionId::parse("s1").expect("an id"));
    let ticket = Ticket::random();
    blue.backbone.revoke(&ann).await.expect("revoked");
    blue.backbone.set_session(&id, Some("ann")).await.expect("written");
    blue.backbone.put_ticket(&ticket, "ann", 30).await.expect("kept");
    assert!(blue.backbone.is_revoked(&ann, None).await.expect("asked"));
    assert!(!green.backbone.is_revoked(&ann, None).await.expect("asked"));
    assert_eq!(green.backbone.session(&id).await.expect("asked"), None);
    assert_eq!(green.backbone.take_ticket(&ticket).await.expect("asked"), None);
    assert!(blue.backbone.take_ticket(&ticket).await.expect("asked").is_some());
}

async fn streams_and_allowances_are_of_one(blue: &Node, green: &Node) {
    let ann = user("ann");
    assert!(blue.backbone.keep_late(Bytes::from_static(b"late")).await.expect("kept"));
    assert!(blue.backbone.lease_late(5000).await.expect("leased"));
    assert_eq!(green.backbone.late_count().await.expect("counted"), 0);
    assert!(green.backbone.lease_late(5000).await.expect("leased"), "the lease of the other is another");
    let gone = pushed(event(&user("gone"), 1), "c", 1, "sender");
    blue.backbone.open(&user("gone")).await.expect("opened");
    blue.backbone.publish(vec![gone]).await.expect("published");
    assert_eq!(green.backbone.take_push_jobs(10).await.expect("taken"), []);
    blue.backbone.take_push_jobs(10).await.expect("taken");
    let draw = Draw { cost_us: 10_000_000, burst_us: 20_000_000, debt_us: 20_000_000, wanted: 2, least: 1, owed: 0 };
    assert_eq!(blue.backbone.draw(&ann, draw).await.expect("drawn"), Grant::Granted(2));
    assert_eq!(green.backbone.draw(&ann, draw).await.expect("drawn"), Grant::Granted(2));
}

fn assert_every_key_has_a_namespace(servers: &[&Redis]) {
    let mut found = [0, 0];
    for server in servers {
        let keys: Vec<String> = redis::from_redis_value(server.ask("KEYS *")).expect("keys");
        for key in keys {
            match key.split_once(':') {
                Some(("blue", _)) => found[0] += 1,
                Some(("green", _)) => found[1] += 1,
                _ => panic!("{key} lies outside of the namespaces"),
            }
        }
    }
    assert!(found.iter().all(|keys| *keys >= 4), "{found:?}");
}
