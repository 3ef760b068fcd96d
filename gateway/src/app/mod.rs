//! The only place where the parts of a node are put together.
//! It offers [`App`]: a running node, which starts every task and awaits each at its end.
//! It decides nothing: parts find their order here, and their work in their own rooms.

mod backbone;
mod delivery;
mod settings;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{AuditTrail, audit_trail};
use crate::auth::{Authenticator, LiveSessions};
use crate::backbone::Backbone;
use crate::chat::lease::Lease;
use crate::chat::publish::{Direct, Directory, PublishTask, Publisher, publisher};
use crate::chat::upkeep::Retention;
use crate::chat::usernames::KnownNames;
use crate::chat::{Chat, Parts};
use crate::clock::every;
use crate::config::{Config, Mode, Proxies, RetentionConfig};
use crate::delivery::count_loader::CountLoader;
use crate::delivery::healer::Healer;
use crate::delivery::topics::Sources;
use crate::http::ops;
use crate::http::rest::{self, Api};
use crate::http::{Capacity, Listeners, Public, Sockets, SocketsConfig, answer, demo, serve};
use crate::limits::{Addresses, BulkRequests, Polls, UserRates};
use crate::metrics::{self, Metrics};
use crate::node::clients::Clients;
use crate::node::drain::{self, Stopping, Unfinished};
use crate::node::lobby::Lobby;
use crate::node::readiness::Readiness;
use crate::node::{JOINS_MAX, Node, clocks, presence_again, recheck};
use crate::store::{self, GroupCommit, GroupCommitSettings, IdBlock, Owner, Store};
use crate::traces;
use crate::webhooks::{Hook, PresencePosts};
use backbone::NodeNames;
use delivery::{Delivery, HealQueue, LargeReads, read_marked};

/// How often old figures are dropped from the histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How long the last connections, and the last background tasks, may take to end: a part of [`drain::STOP_MARGIN`].
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Refresh batches that may wait while the backbone is slow.
const REFRESH_WAITING: usize = 256;

/// A running node.
pub struct App {
    /// Where the public listener is bound.
    pub http: SocketAddr,
    /// Where the operators' listener is bound.
    pub ops: SocketAddr,
    config: Config,
    /// Shared with every session, listener and clock.
    node: Arc<Node>,
    /// Shared with the operators' routes and the task that pings the store.
    readiness: Arc<Readiness>,
    /// The public listener, its requests and its sessions.
    serving: TaskTracker,
    /// Ends the public listener.
    listening: CancellationToken,
    /// Ends the clocks and all other background tasks.
    clocks: CancellationToken,
    /// Ends the operators' listener, last of all, so that a drain can be watched.
    ops_listening: CancellationToken,
    /// The clocks, the operators' listener, and the work that sessions leave behind.
    background: TaskTracker,
    /// The publisher, and the token that ends it.
    publish: tokio::task::JoinHandle<()>,
    publishing: CancellationToken,
    /// The audit trail, and the token that ends it.
    audit: tokio::task::JoinHandle<()>,
    auditing: CancellationToken,
}

impl App {
    /// Connects, binds, and starts every task.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        settings::check(&config)?;
        let store = store::connect(&config.database_url).await?;
        Self::start_on(config, store).await
    }

    /// The same on a store that is open already; `DATABASE_URL` is not read.
    pub async fn start_on(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(&config)?;
        Self::run(config, store, listeners).await
    }

    /// The same on listeners that are bound already; the addresses in the settings are not read.
    pub async fn run(config: Config, store: Arc<dyn Store>, listeners: Listeners) -> anyhow::Result<Self> {
        let prometheus = metrics::recorder().context("the metrics recorder could not be installed")?;
        let metrics = Arc::new(Metrics::new());
        let (http, ops) = (listeners.http.local_addr()?, listeners.ops.local_addr()?);
        let names = NodeNames::of(&config, http);
        let traces = match &config.traces {
            Some(to) => Some(traces::install(&to.url, to.share, &names.node).context("OTEL_EXPORTER_OTLP_ENDPOINT")?),
            None => None,
        };
        let (delivery, heal_queue) = Delivery::new(&config, &store, &metrics);
        let backbone = backbone::connect(&config, &names, Arc::clone(&delivery.fanout) as _, &store).await?;
        tracing::info!(store = store.describe(), backbone = backbone.describe(), node = &*names.node, "connected");
        let authenticator = Arc::new(Authenticator::new(&config.auth, Arc::clone(&backbone))?);
        let (audit, audit_task) = audit_trail(Arc::clone(&store), Arc::clone(&metrics));
        let (presence_posts, presence) = webhooks::presence(&config, &metrics)?;
        let parts = (&metrics, &audit, presence_posts);
        let (chat, publish_task) = chat(&config, (&store, &backbone), &names, &delivery, parts).await?;
        let owner = Arc::clone(&names.owner);
        let marked = read_marked(Arc::clone(&chat));
        let ways = (Arc::clone(&delivery.registry), Arc::clone(&delivery.topics));
        let reads = Arc::new(LargeReads::new(Arc::clone(&chat), Arc::clone(&store)));
        delivery.topics.open(Sources { backbone: Arc::clone(&backbone), store: reads });
        let healer = Healer::new(ways, Arc::clone(&backbone), Arc::clone(&metrics), marked);

        let node = Arc::new(node(&config, (store, backbone), names, delivery, authenticator, (chat, audit, metrics)));
        let (publishing, auditing) = (CancellationToken::new(), CancellationToken::new());
        let app = Self {
            http,
            ops,
            readiness: Arc::new(Readiness::default()),
            serving: TaskTracker::new(),
            listening: CancellationToken::new(),
            clocks: CancellationToken::new(),
            ops_listening: CancellationToken::new(),
            publish: tokio::spawn(publish_task.run(publishing.clone())),
            publishing,
            audit: tokio::spawn(audit_task.run(auditing.clone())),
            auditing,
            background: node.tasks.clone(),
            config,
            node,
        };
        app.start_webhooks(owner, presence)?;
        app.start_tasks(healer, heal_queue);
        app.start_listeners(listeners, prometheus);
        if let Some(exporter) = traces {
            app.background.spawn(exporter.run(app.clocks.clone()));
        }
        Ok(app)
    }

    /// The node, for tests that look inside.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Drains the sockets, then stops, all within `DRAIN_SECONDS` and [`drain::STOP_MARGIN`].
    ///
    /// # Errors
    /// A part had not ended by then. The others have, or were not waited for.
    pub async fn drain(self) -> Result<(), Unfinished> {
        let mut stopping = Stopping::within(self.config.drain.total + drain::STOP_MARGIN);
        let drained = drain::drain(&self.node, &self.readiness, &self.config.drain);
        stopping.wait_for("the drain", drained).await;
        self.stop(&mut stopping).await;
        stopping.end()
    }
}

impl App {
    fn start_tasks(&self, healer: Healer, heal_queue: HealQueue) {
        let (refresh, refresh_queue) = mpsc::channel(REFRESH_WAITING);
        let (node, tasks) = (&self.node, &self.background);
        let stop = || self.clocks.clone();
        let (clocks_node, log) = (Arc::clone(node), self.config.log.clone());
        tasks.spawn(clocks::clocks(clocks_node, log, refresh, stop()));
        tasks.spawn(clocks::refresh(Arc::clone(node), refresh_queue));
        tasks.spawn(clocks::errands(Arc::clone(node), stop()));
        tasks.spawn(recheck::run(Arc::clone(node), stop()));
        tasks.spawn(presence_again::run(Arc::clone(node), self.config.log.online_ttl, stop()));
        let (chat, until) = (Arc::clone(&node.chat), stop());
        tasks.spawn(async move { chat.sweep_until(until).await });
        let (chat, until) = (Arc::clone(&node.chat), stop());
        let RetentionConfig { message_days, audit_days } = self.config.retention;
        tasks.spawn(async move { chat.keep_up_until(Retention { message_days, audit_days }, until).await });
        let (authenticator, until) = (Arc::clone(&node.authenticator), stop());
        tasks.spawn(async move { authenticator.keep_keys(until).await });
        let (chat, until) = (Arc::clone(&node.chat), stop());
        tasks.spawn(async move { chat.store_late_until(until).await });
        let (topics, until) = (Arc::clone(&node.topics), stop());
        tasks.spawn(async move { topics.keep_checked(until).await });
        let (readiness, watched, until) = (Arc::clone(&self.readiness), Arc::clone(node), stop());
        tasks.spawn(async move { readiness.watch_store(watched, until).await });
        let (registry, store, metrics) =
            (Arc::clone(&node.registry), Arc::clone(&node.store), Arc::clone(&node.metrics));
        let (counts, until) = (CountLoader::new(registry, store, metrics), stop());
        tasks.spawn(async move { until.run_until_cancelled(counts.run()).await });
        let until = stop();
        tasks.spawn(async move {
            tokio::select! {
                () = Arc::new(healer).run(heal_queue) => {}
                () = until.cancelled() => {}
            }
        });
    }

    fn start_listeners(&self, listeners: Listeners, prometheus: PrometheusHandle) {
        let capacity = Capacity::new(self.config.limits.connections_max);
        let limits = &self.config.limits;
        let addresses = Addresses::new(limits.connections_per_ip_max, limits.connect_rate_per_ip);
        let api = self.api(&capacity, addresses.clone());
        let sockets = Sockets::new(
            Arc::clone(&self.node),
            (Arc::clone(&capacity), Arc::clone(&addresses)),
            self.serving.clone(),
            SocketsConfig::of(&self.config.auth),
        );
        let public =
            Arc::new(Public::new(sockets, self.public_routes(Arc::clone(&api)), self.config.mode == Mode::Dev));
        let handle = move |request| Arc::clone(&public).answer(request);
        let proxies = Arc::new(self.config.proxies.clone());
        self.serving.spawn(serve(listeners.http, proxies, handle, self.serving.clone(), self.listening.clone()));

        let (upkeep, until) = (prometheus.clone(), self.clocks.clone());
        self.background.spawn(async move {
            let mut ticks = every(UPKEEP_EVERY, until);
            while ticks.next().await {
                upkeep.run_upkeep();
            }
        });
        let routes = ops::router(Arc::clone(&self.node), capacity, prometheus, Arc::clone(&self.readiness))
            .merge(rest::admin_router(api));
        let handle = move |request| answer(routes.clone(), request);
        let stop = self.ops_listening.clone();
        self.background.spawn(serve(listeners.ops, Arc::<Proxies>::default(), handle, self.background.clone(), stop));
    }

    fn api(&self, capacity: &Arc<Capacity>, addresses: Arc<Addresses>) -> Arc<Api> {
        Arc::new(Api {
            node: Arc::clone(&self.node),
            api_key: self.config.auth.api_key.clone(),
            origins: Arc::new(self.config.auth.allowed_origins.clone()),
            capacity: Arc::clone(capacity),
            addresses,
            auth_enabled: self.config.auth.enabled,
        })
    }

    fn public_routes(&self, api: Arc<Api>) -> Router {
        let routes = rest::router(api);
        match self.config.mode {
            Mode::Serve => routes,
            Mode::Dev => routes.merge(demo::router(self.config.auth.clone())),
        }
    }

    /// Stops in the order in which one part needs the other: sockets, commits, publications, the backbone, the rest.
    async fn stop(self, stopping: &mut Stopping) {
        self.listening.cancel();
        self.serving.close();
        stopping.wait_at_most(STOP_WITHIN, "connections", self.serving.wait()).await;
        stopping.wait_for("commits", self.node.chat.finish()).await;
        self.publishing.cancel();
        stopping.join("the publisher", self.publish).await;
        self.auditing.cancel();
        stopping.join("the audit trail", self.audit).await;
        self.clocks.cancel();
        self.ops_listening.cancel();
        self.background.close();
        stopping.wait_at_most(STOP_WITHIN, "background tasks", self.background.wait()).await;
        stopping.wait_for("large conversations", self.node.topics.close()).await;
        stopping.wait_for("the backbone", self.node.backbone.close()).await;
    }
}

/// The domain, and the task that publishes what it commits.
async fn chat(
    config: &Config,
    (store, backbone): (&Arc<dyn Store>, &Arc<dyn Backbone>),
    names: &NodeNames,
    delivery: &Delivery,
    (metrics, audit, presence_posts): (&Arc<Metrics>, &AuditTrail, Option<PresencePosts>),
) -> anyhow::Result<(Arc<Chat>, PublishTask)> {
    let hook = config.hook.as_ref().map(|hook| Hook::new(hook, Arc::clone(metrics))).transpose();
    let hook = hook.context("HOOK_URL can't be used")?.map(|hook| (hook, config.limits.content_chars_max));
    let lease = Arc::new(Lease::default());
    lease.beat(&**store, &names.owner).await;
    let user_names = Arc::new(KnownNames::new(Arc::clone(store)));
    let (direct, topic) = (Arc::clone(&delivery.fanout), Arc::clone(&delivery.fanout));
    let (publisher, publish_task) = publisher(
        Arc::clone(store),
        Arc::clone(backbone),
        Directory { members: Arc::clone(&delivery.members), names: Arc::clone(&user_names) },
        Arc::clone(metrics),
        Direct {
            message: Box::new(move |user, message, body, at| direct.deliver_direct(user, message, body, at)),
            topic: Box::new(move |conversation, body| topic.deliver_topic_direct(conversation, body)),
        },
        Arc::clone(&lease),
    );
    let ids = Arc::new(IdBlock::new(Arc::clone(store)));
    let commit = group_commit(store, &ids, &names.owner, &publisher, presence_posts.is_some());
    let chat = Chat::new(Parts {
        store: Arc::clone(store),
        backbone: Arc::clone(backbone),
        commit,
        ids,
        owner: Arc::clone(&names.owner),
        members: Arc::clone(&delivery.members),
        names: user_names,
        publisher,
        large_over: config.limits.large_conversation_members,
        large_events_per_second: config.limits.large_events_per_second,
        presence_audience: config.log.presence_audience,
        message_kinds: config.message_kinds.clone(),
        hook,
        presence_posts,
        user_rates: Arc::new(UserRates::new(config.limits.user_commands_per_second, Arc::clone(backbone) as _)),
        metrics: Arc::clone(metrics),
        audit: audit.clone(),
        lease,
    });
    Ok((Arc::new(chat), publish_task))
}

/// All that the sessions and the clocks share.
fn node(
    config: &Config,
    (store, backbone): (Arc<dyn Store>, Arc<dyn Backbone>),
    names: NodeNames,
    delivery: Delivery,
    authenticator: Arc<Authenticator>,
    (chat, audit, metrics): (Arc<Chat>, AuditTrail, Arc<Metrics>),
) -> Node {
    let user_rates = chat.user_rates();
    Node {
        chat,
        store,
        registry: delivery.registry,
        topics: delivery.topics,
        lobby: Lobby::new(u32::try_from(config.clocks.auth_deadline.as_secs()).unwrap_or(u32::MAX)),
        clients: Clients::default(),
        fanout: delivery.fanout,
        authenticator,
        sessions: LiveSessions::default(),
        doubtful: delivery.doubtful,
        metrics,
        audit,
        limits: config.limits.clone(),
        user_rates,
        bulk_of_backends: BulkRequests::default(),
        bulk_of_users: BulkRequests::default(),
        backbone,
        clocks: config.clocks.clone(),
        name: names.node,
        boot: names.boot,
        tasks: TaskTracker::new(),
        draining: AtomicBool::new(false),
        connections: AtomicU64::new(1),
        polls: Polls::default(),
        connects: Node::connects(config.limits.connect_rate_per_user),
        joining: Semaphore::new(JOINS_MAX),
    }
}

fn group_commit(
    store: &Arc<dyn Store>,
    ids: &Arc<IdBlock>,
    owner: &Owner,
    publisher: &Publisher,
    owes_events: bool,
) -> GroupCommit {
    let settings = GroupCommitSettings { owner: Arc::clone(owner), sink: Arc::new(publisher.clone()), owes_events };
    GroupCommit::start(Arc::clone(store), Arc::clone(ids), settings)
}
