//! Tracks which master has which slots: queries all known servers, assigns slots to their new masters, and runs a
//! supervisor for each master.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionInfo, RedisResult, cmd};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::seeds::Seeds;
use super::slots::{SLOTS, Slot};
use super::view::{Topology, View};
use super::{Cluster, MasterId, Member, short};
use crate::backbone::redis::connect::connection;
use crate::backbone::redis::connect::discovery::Servers;
use crate::backbone::redis::connect::supervisor::{self, ClusterPlace, LEAVE_TOGETHER, Shared, Supervisor};

/// For one server's answer, the connection to it included.
const ANSWER_MAX: Duration = Duration::from_millis(700);

/// How often all servers are asked; more often while a master is away.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_SOON: Duration = Duration::from_millis(200);

/// The shortest pause between two rounds, however many redirections call for one.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// How long two masters may claim the same slot before the one with the lower epoch is left.
const DISPUTE_MAX: Duration = Duration::from_secs(1);

/// The task.
pub(in crate::backbone::redis) struct Keeper {
    cluster: Arc<Cluster>,
    seeds: Seeds,
    shared: Shared,
    stop: CancellationToken,
    /// Connections for asking, by host and port, kept from one question to the next.
    connections: HashMap<(String, u16), MultiplexedConnection>,
    supervised: BTreeMap<MasterId, MasterTask>,
    /// Masters that were replaced and did not say so themselves, and since when nothing is sent to them.
    abandoned: HashMap<MasterId, Instant>,
    /// Slots that two masters claim, and since when.
    disputed: HashMap<Slot, Instant>,
    /// A topology was adopted once.
    is_known: bool,
}

struct MasterTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(in crate::backbone::redis) fn new(
        cluster: Arc<Cluster>,
        seeds: Seeds,
        shared: Shared,
        stop: CancellationToken,
    ) -> Self {
        Self {
            cluster,
            seeds,
            shared,
            stop,
            connections: HashMap::new(),
            supervised: BTreeMap::new(),
            abandoned: HashMap::new(),
            disputed: HashMap::new(),
            is_known: false,
        }
    }

    /// Keeps the Cluster until the node stops.
    pub(in crate::backbone::redis) async fn run(mut self) {
        let stop = self.stop.clone();
        let keep = async {
            loop {
                self.look().await;
                let soon = !self.is_known || self.cluster.serving().iter().any(|member| member.is_away());
                tokio::time::sleep(ASK_PAUSE).await;
                tokio::select! {
                    () = tokio::time::sleep(if soon { ASK_SOON } else { ASK_EVERY }) => {}
                    () = self.cluster.look_again.notified() => {}
                }
                // Masters that redirections have named already.
                self.shared.subscriptions.follow();
            }
        };
        tokio::select! {
            () = keep => {}
            () = stop.cancelled() => {}
        }
        let supervised: Vec<MasterTask> = std::mem::take(&mut self.supervised).into_values().collect();
        for MasterTask { stop, task } in supervised {
            stop.cancel();
            if task.await.is_err() {
                tracing::error!("the task that keeps one Redis server's connections panicked");
            }
        }
    }

    /// Queries all servers, and follows the winning claims.
    async fn look(&mut self) {
        let views = self.ask_all().await;
        if !self.is_known && !self.is_one_cluster(&views) {
            return;
        }
        let views: Vec<View> = views.into_iter().filter_map(|(_, view)| view.ok()).collect();
        if views.is_empty() {
            return;
        }
        self.is_known = true;
        let topology = Topology::of(&views);
        let members: Vec<Arc<Member>> = topology.masters.iter().map(|master| self.cluster.enter(master)).collect();
        self.give_slots(&topology, &members).await;
        self.shared.subscriptions.follow();
        self.supervise(&members);
    }

    async fn ask_all(&mut self) -> Vec<((String, u16), RedisResult<View>)> {
        let members = self.cluster.serving().into_iter().map(|member| (member.host.clone(), member.port));
        let mut addresses: Vec<(String, u16)> = self.seeds.addresses().chain(members).collect();
        addresses.sort_unstable();
        addresses.dedup();
        // A server that doesn't answer in time leaves no connection that still expects an answer.
        let questions: Vec<_> = addresses
            .into_iter()
            .filter_map(|address| {
                let kept = self.connections.remove(&address);
                let info = self.seeds.at(&address.0, address.1)?;
                Some(async move {
                    let answer = timeout(ANSWER_MAX, ask(info, kept, (&address.0, address.1))).await;
                    (address, answer.unwrap_or_else(|_| Err(connection::fault("it does not answer"))))
                })
            })
            .collect();
        let mut views = Vec::new();
        for (address, answer) in join_all(questions).await {
            let view = answer.map(|(view, connection)| {
                self.connections.insert(address.clone(), connection);
                view
            });
            views.push((address, view));
        }
        views
    }

    /// Whether the settings may name one Cluster; if they certainly don't, the start is refused.
    fn is_one_cluster(&self, views: &[((String, u16), RedisResult<View>)]) -> bool {
        let refuse = |why: String| *self.cluster.refused.lock() = Some(why);
        for ((host, port), view) in views {
            if let Err(error) = view
                && error.to_string().contains("cluster support disabled")
            {
                refuse(format!(
                    "REDIS_URL names several servers, as for a Redis Cluster, but {host}:{port} is not in cluster mode; \
                     name one server alone, or set cluster-enabled yes on all of them"
                ));
                return false;
            }
        }
        let known: Vec<&View> = views.iter().filter_map(|(_, view)| view.as_ref().ok()).collect();
        let strangers = known.iter().any(|one| !known.iter().all(|other| one.meets(other)));
        if strangers {
            refuse("the servers in REDIS_URL don't belong to one Redis Cluster".to_owned());
        }
        !strangers
    }

    async fn give_slots(&mut self, topology: &Topology, members: &[Arc<Member>]) {
        let disputed = std::mem::take(&mut self.disputed);
        let (mut given, mut left, mut replaced) = (Vec::new(), HashSet::new(), BTreeMap::new());
        for slot in (0..).take(SLOTS) {
            let owner = topology.owners.get(usize::from(slot)).copied().flatten();
            let Some(member) = owner.and_then(|owner| members.get(owner)) else { continue };
            let lane = self.cluster.lane_of(slot);
            if lane == Some(member.lane) {
                continue;
            }
            let Some(before) = lane.and_then(|lane| self.cluster.member(lane)) else {
                given.push((slot, member.lane));
                continue;
            };
            let claims = topology.claims(&before.names.read(), slot);
            let since = *disputed.get(&slot).unwrap_or(&Instant::now());
            if claims == Some(false) {
                // A master that gives a slot away carries out nothing more on it.
                given.push((slot, member.lane));
            } else if claims == Some(true) && since.elapsed() < DISPUTE_MAX {
                // It was asked a moment too early.
                self.disputed.insert(slot, since);
                self.cluster.look_again.notify_one();
            } else if self.has_left(&before) {
                given.push((slot, member.lane));
                replaced.insert(before.lane, before);
            } else {
                self.disputed.insert(slot, since);
                left.insert(before.lane);
            }
        }
        self.abandoned.retain(|lane, _| left.contains(lane));
        self.retire(replaced.into_values()).await;
        for (slot, lane) in given {
            self.cluster.assign(slot, lane);
        }
    }

    /// Nothing counts as published any more on masters that were replaced without their own word: who still hears one of
    /// them may publish there.
    async fn retire(&self, replaced: impl Iterator<Item = Arc<Member>>) {
        for member in replaced {
            *self.cluster.failed_over.lock() = Some(Instant::now());
            if let Some(identity) = member.server.last_identity() {
                supervisor::retire(&*self.shared.source, short(&identity)).await;
            }
        }
    }

    /// Leaves a master that may go on for those who don't know yet that it was replaced: all leave it before any goes to its
    /// successor, as with Sentinels. Whether that is long enough ago.
    fn has_left(&mut self, member: &Member) -> bool {
        let lane = member.lane;
        if let Some(MasterTask { stop, .. }) = self.supervised.get(&lane) {
            stop.cancel();
        }
        let away = || member.server.away_since().unwrap_or_else(Instant::now);
        let since = *self.abandoned.entry(lane).or_insert_with(away);
        since.elapsed() >= LEAVE_TOGETHER
    }

    /// A supervisor for each master that isn't left; the others' end.
    fn supervise(&mut self, masters: &[Arc<Member>]) {
        let is_wanted = |lane: MasterId| {
            let is_master = masters.iter().any(|master| master.lane == lane);
            (is_master || self.cluster.member(lane).is_some_and(|member| member.has_slots()))
                && !self.abandoned.contains_key(&lane)
        };
        for (_, MasterTask { stop, .. }) in self.supervised.iter().filter(|(lane, _)| !is_wanted(**lane)) {
            stop.cancel();
        }
        self.supervised.retain(|_, supervised| !supervised.task.is_finished());
        for member in masters {
            if !self.abandoned.contains_key(&member.lane)
                && !self.supervised.contains_key(&member.lane)
                && let Some(info) = self.seeds.at(&member.host, member.port)
            {
                let supervised = self.begin(member, info);
                self.supervised.insert(member.lane, supervised);
            }
        }
    }

    fn begin(&self, member: &Arc<Member>, info: ConnectionInfo) -> MasterTask {
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            servers: Servers::at(info, self.seeds.tls.clone()),
            server: member.server.clone(),
            cluster: Some(ClusterPlace { cluster: self.cluster.clone(), lane: member.lane }),
            shared: self.shared.clone(),
            stop: stop.clone(),
        };
        MasterTask { stop, task: tokio::spawn(supervisor.run()) }
    }
}

async fn ask(
    info: ConnectionInfo,
    kept: Option<MultiplexedConnection>,
    asked: (&str, u16),
) -> RedisResult<(View, MultiplexedConnection)> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => Client::open(info)?.get_multiplexed_async_connection_with_config(&connection::config()).await?,
    };
    let text: String = cmd("CLUSTER").arg("NODES").query_async(&mut connection).await?;
    Ok((View::parse(&text, asked), connection))
}
