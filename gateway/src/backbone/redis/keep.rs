//! Starts the task that keeps the connections: the supervisor of one server, or the keeper of a Cluster.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, Keeper};
use super::connect::discovery::Target;
use super::connect::server::Server;
use super::connect::supervisor::{Shared, Supervisor};
use super::link::{Link, Route};
use super::subscribe::subscriptions::Subscriptions;
use crate::backbone::{BackboneHost, Inbox, Settings};

/// Connections that are kept, and the task that does so until `stop`.
pub(super) struct KeptConnections {
    pub(super) link: Arc<Link>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) keeper: JoinHandle<()>,
}

impl KeptConnections {
    pub(super) fn start(
        target: Target,
        settings: Settings,
        inbox: Arc<dyn Inbox>,
        source: Arc<dyn BackboneHost>,
        stop: CancellationToken,
    ) -> Self {
        let shared = |route, cluster| Shared {
            subscriptions: Arc::new(Subscriptions::new(settings.keys.clone(), cluster)),
            link: Arc::new(Link::new(settings, route)),
            inbox,
            source,
            invalid: metrics::counter!("parley_backbone_invalid_payloads_total"),
        };
        match target {
            Target::One(servers) => {
                let server = Arc::new(Server::new());
                let shared = shared(Route::One(server.clone()), None);
                let supervisor = Supervisor { servers: *servers, server, cluster: None, shared: shared.clone(), stop };
                Self::by(shared, tokio::spawn(supervisor.run()))
            }
            Target::Cluster(seeds) => {
                let cluster = Arc::new(Cluster::new());
                let shared = shared(Route::Cluster(cluster.clone()), Some(cluster.clone()));
                let keeper = Keeper::new(cluster, seeds, shared.clone(), stop);
                Self::by(shared, tokio::spawn(keeper.run()))
            }
        }
    }

    fn by(shared: Shared, keeper: JoinHandle<()>) -> Self {
        Self { link: shared.link, subscriptions: shared.subscriptions, keeper }
    }
}
