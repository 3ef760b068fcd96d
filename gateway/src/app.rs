//! The only place where the parts of a node are put together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use shared::UserId;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::audit::audit_trail;
use crate::auth::{Authenticator, LiveSessions};
use crate::backbone::local::LocalBackbone;
use crate::backbone::redis::RedisBackbone;
use crate::backbone::{self, Backbone, BackboneError, BackboneHost, Inbox};
use crate::chat::lease::Lease;
use crate::chat::members::MembersCache;
use crate::chat::publish::{Directory, Publisher, publisher};
use crate::chat::receipts::receipt_events_builder;
use crate::chat::usernames::Names;
use crate::chat::{Chat, Parts};
use crate::config::{Config, Mode, Proxies};
use crate::delivery::fanout::{Fanout, Invalidation};
use crate::delivery::healer::Healer;
use crate::delivery::registry::Registry;
use crate::http::ops;
use crate::http::rest::{self, Api};
use crate::http::{Capacity, Sockets, SocketsConfig, demo, serve};
use crate::limits::Polls;
use crate::limits::UserRates;
use crate::metrics::{self, Metrics};
use crate::node::clocks;
use crate::node::drain;
use crate::node::lobby::Lobby;
use crate::node::readiness::Readiness;
use crate::node::recheck;
use crate::node::{JOINS_MAX, Node};
use crate::push::Webhook;
use crate::store::group_commit::{GroupCommit, GroupCommitSettings, SEND_LANES};
use crate::store::{self, IdBlock, Owner, Store, UnreadCount, UnreadCounts};
use crate::traces;

/// Refresh batches that may wait while the backbone is slow.
const REFRESH_WAITING: usize = 256;

/// Connections that may wait to be accepted: with the usual 128, a storm's SYNs are dropped and sent again a second later.
const BACKLOG: u32 = 4096;

/// A running node.
pub struct App {
    /// Where the public listener is bound.
    pub http: SocketAddr,
    /// Where the operators' listener is bound.
    pub ops: SocketAddr,
    config: Config,
    node: Arc<Node>,
    readiness: Arc<Readiness>,
    /// Sockets and requests.
    serving: TaskTracker,
    /// Everything else, by the order in which it may end.
    listening: CancellationToken,
    clocks: CancellationToken,
    publishing: CancellationToken,
    ops_listening: CancellationToken,
    background: TaskTracker,
    publish: tokio::task::JoinHandle<()>,
    auditing: CancellationToken,
    audit: tokio::task::JoinHandle<()>,
}

impl App {
    /// Connects, binds, and starts every task.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let store = store::connect(&config.database_url).await?;
        Self::start_on(config, store).await
    }

    /// The same on a store that is open already; `DATABASE_URL` is not read.
    pub async fn start_on(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let prometheus = metrics::recorder().context("the metrics recorder could not be installed")?;
        let metrics = Arc::new(Metrics::new());
        let boot: Arc<str> = format!("{:08x}", rand::random::<u32>()).into();
        let listener = bind(config.http, "HTTP")?;
        let ops_listener = bind(config.ops, "OPS")?;
        let (http, ops) = (listener.local_addr()?, ops_listener.local_addr()?);
        let name: Arc<str> = format!("{}-{}", config.host_name, http.port()).into();
        let owner: Owner = format!("{name}:{boot}").into();

        let traces = match &config.traces {
            Some(to) => Some(traces::install(&to.url, to.share, &name).context("OTEL_EXPORTER_OTLP_ENDPOINT")?),
            None => None,
        };
        let members = Arc::new(MembersCache::new(Arc::clone(&store)));
        let names = Arc::new(Names::new(Arc::clone(&store)));
        let doubtful = Arc::new(AtomicBool::new(false));
        let registry = Arc::new(Registry::new(config.limits.connections_per_user_max));
        #[expect(
            clippy::disallowed_methods,
            reason = "a user stands in it at most once, so it is bounded by the users"
        )]
        let (heal, heal_queue) = mpsc::unbounded_channel();
        let fanout = Arc::new(Fanout::new(
            Arc::clone(&registry),
            Arc::clone(&metrics),
            heal,
            forgets(Arc::clone(&members), Arc::clone(&doubtful)),
        ));
        let backbone = backbone(&config, (&name, &boot), Arc::clone(&fanout) as _, Arc::clone(&store)).await?;
        tracing::info!(store = store.describe(), backbone = backbone.describe(), node = &*name, "connected");

        let authenticator = Arc::new(Authenticator::new(&config.auth, Arc::clone(&backbone))?);
        let lease = Arc::new(Lease::default());
        lease.beat(&*store, &owner).await;
        let direct = Arc::clone(&fanout);
        let (publisher, publish_task) = publisher(
            Arc::clone(&store),
            Arc::clone(&backbone),
            Directory { members: Arc::clone(&members), names: Arc::clone(&names) },
            Arc::clone(&metrics),
            Box::new(move |user, message, body, tried_at| direct.deliver_direct(user, message, body, tried_at)),
            Arc::clone(&lease),
        );
        let (audit, audit_task) = audit_trail(Arc::clone(&store), Arc::clone(&metrics));
        let ids = Arc::new(IdBlock::new(Arc::clone(&store)));
        let commit = group_commit(&store, &ids, &owner, &publisher);
        let chat = Arc::new(Chat::new(Parts {
            store,
            backbone: Arc::clone(&backbone),
            commit,
            ids,
            owner,
            members,
            names,
            publisher,
            presence_audience: config.log.presence_audience,
            metrics: Arc::clone(&metrics),
            audit: audit.clone(),
            lease,
        }));
        let (background, publishing, auditing) =
            (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let node = Arc::new(Node {
            chat,
            registry: Arc::clone(&registry),
            lobby: Lobby::new(u32::try_from(config.clocks.auth_deadline.as_secs()).unwrap_or(u32::MAX)),
            fanout,
            authenticator,
            sessions: LiveSessions::default(),
            doubtful,
            metrics: Arc::clone(&metrics),
            audit,
            limits: config.limits.clone(),
            user_rates: UserRates::new(config.limits.user_commands_per_second, Arc::clone(&backbone) as _),
            clocks: config.clocks.clone(),
            name,
            boot,
            tasks: background.clone(),
            draining: AtomicBool::new(false),
            connections: AtomicU64::new(1),
            polls: Polls::default(),
            joining: Semaphore::new(JOINS_MAX),
        });
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
            background,
            config,
            node,
        };
        app.start_push(Arc::clone(&backbone), Arc::clone(&metrics))?;
        app.start_tasks(Healer::new(registry, backbone, metrics), heal_queue);
        app.start_listeners(listener, ops_listener, prometheus);
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

    /// Drains the sockets, then stops.
    pub async fn drain(self) {
        drain::drain(&self.node, &self.readiness, &self.config.drain).await;
        self.stop().await;
    }
}

impl App {
    fn start_tasks(&self, healer: Healer, heal_queue: mpsc::UnboundedReceiver<UserId>) {
        let (refresh, refresh_queue) = mpsc::channel(REFRESH_WAITING);
        let (node, tasks) = (&self.node, &self.background);
        let stop = || self.clocks.clone();
        let (clocks_node, log) = (Arc::clone(node), self.config.log.clone());
        tasks.spawn(clocks::clocks(clocks_node, log, refresh, stop()));
        tasks.spawn(clocks::refresh(Arc::clone(node), refresh_queue));
        tasks.spawn(clocks::errands(Arc::clone(node), stop()));
        tasks.spawn(recheck::run(Arc::clone(node), stop()));
        let (chat, until) = (Arc::clone(&node.chat), stop());
        tasks.spawn(async move { chat.sweep_until(until).await });
        let (authenticator, until) = (Arc::clone(&node.authenticator), stop());
        tasks.spawn(async move { authenticator.keep_keys(until).await });
        let (chat, until) = (Arc::clone(&node.chat), stop());
        tasks.spawn(async move { chat.store_late_until(until).await });
        let (readiness, watched, until) = (Arc::clone(&self.readiness), Arc::clone(node), stop());
        tasks.spawn(async move { readiness.watch_store(watched, until).await });
        let until = stop();
        tasks.spawn(async move {
            tokio::select! {
                () = Arc::new(healer).run(heal_queue) => {}
                () = until.cancelled() => {}
            }
        });
    }

    fn start_push(&self, backbone: Arc<dyn Backbone>, metrics: Arc<Metrics>) -> anyhow::Result<()> {
        let Some(push) = &self.config.push else { return Ok(()) };
        let webhook = Webhook::new(push, backbone, Arc::clone(self.node.chat.store()), metrics);
        let webhook = webhook.context("PUSH_WEBHOOK_URL can't be used")?;
        self.background.spawn(Arc::new(webhook).run(self.clocks.clone()));
        Ok(())
    }

    fn start_listeners(
        &self,
        listener: TcpListener,
        ops_listener: TcpListener,
        prometheus: metrics_exporter_prometheus::PrometheusHandle,
    ) {
        let capacity = Capacity::new(self.config.limits.connections_max);
        let public = Public {
            sockets: Sockets::new(
                Arc::clone(&self.node),
                Arc::clone(&capacity),
                self.serving.clone(),
                SocketsConfig::of(&self.config.auth),
            ),
            routes: self.public_routes(),
        };
        let public = Arc::new(public);
        let handle = move |request| Arc::clone(&public).answer(request);
        let proxies = Arc::new(self.config.proxies.clone());
        self.serving.spawn(serve(listener, proxies, handle, self.serving.clone(), self.listening.clone()));

        let upkeep = prometheus.clone();
        let until = self.clocks.clone();
        self.background.spawn(async move { run_upkeep(&upkeep, until).await });
        let routes = ops::router(Arc::clone(&self.node), capacity, prometheus, Arc::clone(&self.readiness))
            .merge(rest::admin_router(self.api()));
        let handle = move |request| answer(routes.clone(), request);
        let stop = self.ops_listening.clone();
        self.background.spawn(serve(ops_listener, Arc::<Proxies>::default(), handle, self.background.clone(), stop));
    }

    fn api(&self) -> Arc<Api> {
        Arc::new(Api { node: Arc::clone(&self.node), api_key: self.config.auth.api_key.clone() })
    }

    fn public_routes(&self) -> Router {
        let routes = rest::router(self.api());
        match self.config.mode {
            Mode::Serve => routes,
            Mode::Dev => routes.merge(demo::router(self.config.auth.clone())),
        }
    }

    /// Stops in the order in which one part needs the other: sockets, commits, publications, the backbone, the rest.
    async fn stop(self) {
        self.listening.cancel();
        self.serving.close();
        if tokio::time::timeout(STOP_WITHIN, self.serving.wait()).await.is_err() {
            tracing::warn!(left = self.serving.len(), "some connections did not end in time");
        }
        self.node.chat.finish().await;
        self.publishing.cancel();
        if self.publish.await.is_err() {
            tracing::error!("the publisher ended by a fault of the server");
        }
        self.auditing.cancel();
        if self.audit.await.is_err() {
            tracing::error!("the audit trail ended by a fault of the server");
        }
        self.clocks.cancel();
        self.ops_listening.cancel();
        self.background.close();
        if tokio::time::timeout(STOP_WITHIN, self.background.wait()).await.is_err() {
            tracing::warn!(left = self.background.len(), "some tasks did not end in time");
        }
        self.node.chat.backbone().close().await;
    }
}

/// How long the last connections, and the last tasks, may take to end.
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// What the public listener answers with.
struct Public {
    sockets: Sockets,
    routes: Router,
}

impl Public {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if Sockets::serves(request.uri().path()) {
            return self.sockets.upgrade(request).await;
        }
        answer(self.routes.clone(), request).await
    }
}

async fn answer(routes: Router, request: Request<Incoming>) -> Response<Body> {
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn bind(address: SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // What is accepted inherits it.
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| {
        format!("{name}_HOST and {name}_PORT: {address} can't be bound; is something else listening there?")
    })
}

async fn backbone(
    config: &Config,
    (name, boot): (&Arc<str>, &Arc<str>),
    inbox: Arc<dyn Inbox>,
    store: Arc<dyn Store>,
) -> anyhow::Result<Arc<dyn Backbone>> {
    let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let settings = backbone::Settings {
        node: Arc::clone(name),
        boot_id: Arc::clone(boot),
        resume_events: config.log.resume_events,
        resume_seconds: seconds(config.log.resume_window),
        online_ttl_seconds: seconds(config.log.online_ttl),
        offline_grace_seconds: seconds(config.log.offline_grace),
    };
    let unread = Arc::new(StoreHost { unread: UnreadCounts::start(Arc::clone(&store)), store });
    match &config.redis_url {
        Some(url) => {
            let redis = RedisBackbone::start((&**url, config.redis_ca_file.as_deref()), settings, inbox, unread).await;
            Ok(Arc::new(redis.context("REDIS_URL: Redis can't be used; is it running there?")?))
        }
        None => Ok(Arc::new(LocalBackbone::start(settings, inbox, unread))),
    }
}

fn group_commit(store: &Arc<dyn Store>, ids: &Arc<IdBlock>, owner: &Owner, publisher: &Publisher) -> GroupCommit {
    let (messages, receipts) = (publisher.clone(), publisher.clone());
    GroupCommit::start(
        Arc::clone(store),
        Arc::clone(ids),
        GroupCommitSettings {
            owner: Arc::clone(owner),
            send_lanes: SEND_LANES,
            on_committed: Arc::new(move |batch| messages.publish_batch(batch)),
            receipt_events: receipt_events_builder(),
            on_receipts: Arc::new(move |committed| receipts.publish_events(committed)),
        },
    )
}

fn forgets(members: Arc<MembersCache>, doubtful: Arc<AtomicBool>) -> Box<dyn Fn(Invalidation) + Send + Sync> {
    Box::new(move |stale| match stale {
        Invalidation::Members(conversation) => members.forget(&conversation),
        Invalidation::Everything => {
            members.forget_all();
            doubtful.store(true, Ordering::Release);
        }
    })
}

async fn run_upkeep(prometheus: &metrics_exporter_prometheus::PrometheusHandle, stop: CancellationToken) {
    let mut beat = tokio::time::interval(std::time::Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = beat.tick() => prometheus.run_upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

/// The store as the backbone knows it.
struct StoreHost {
    store: Arc<dyn Store>,
    unread: UnreadCounts,
}

#[async_trait]
impl BackboneHost for StoreHost {
    async fn unread(&self, user: &UserId) -> Result<Vec<UnreadCount>, BackboneError> {
        self.unread.of(user).await.map_err(|error| BackboneError(error.to_string()))
    }

    async fn server_left(&self, left: &str) -> Result<(), BackboneError> {
        self.store.retire_backbone(left).await.map_err(|error| BackboneError(error.to_string()))
    }
}
