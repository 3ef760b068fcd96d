//! The masters of a Redis Cluster: which slots each of them has, and which masters are connected.
//! It offers [`Cluster`], where commands find their master; each master has a supervisor of its own, as one server has.
//! It never follows a claim with a lower configuration epoch: for each slot the highest one wins.

mod keeper;
mod routing;
mod seeds;
mod slots;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redis::RedisError;
use tokio::sync::Notify;

pub(super) use self::keeper::Keeper;
pub(super) use self::seeds::Seeds;
use self::slots::SLOTS;
pub(super) use self::slots::{Slot, slot_of};
use self::view::Master;
use super::scripts::Scripts;
use crate::backbone::BackboneError;
use crate::backbone::redis::connect::server::{Live, Server};

/// A master's number in this process. A master that comes back has the same.
pub(super) type MasterId = u16;

/// The owner of a slot that no master has.
const NOBODY: MasterId = MasterId::MAX;

/// How often a start looks whether the masters are there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The Cluster, shared by all tasks. The keeper and redirections write which master has which slot.
pub(super) struct Cluster {
    members: RwLock<Vec<Arc<Member>>>,
    /// The lane of each slot's master.
    owners: Box<[AtomicU16]>,
    /// Seconds from `started` to the last change of a slot's server, and one; 0 if there was none.
    moved_s: Box<[AtomicU32]>,
    started: Instant,
    /// When a master was last replaced that had not given its slots away itself.
    failed_over: Mutex<Option<Instant>>,
    /// The one of whose subscribing connection broadcasts and orders are taken.
    lead: AtomicU16,
    was_led: AtomicBool,
    /// Slots whose commands waited in vain, and when.
    troubled: Mutex<HashMap<Slot, Instant>>,
    /// Wakes the keeper.
    pub(super) look_again: Notify,
    /// Why this can't work at all.
    refused: Mutex<Option<String>>,
}

/// A server that is, or was, a master.
pub(super) struct Member {
    pub(super) lane: MasterId,
    pub(super) host: String,
    pub(super) port: u16,
    /// How redirections may name it.
    names: RwLock<Vec<String>>,
    pub(super) server: Arc<Server>,
    /// How many slots it has.
    slots: AtomicU32,
}

impl Member {
    fn is_away(&self) -> bool {
        self.server.live().is_err()
    }

    fn has_slots(&self) -> bool {
        self.slots.load(Ordering::Relaxed) > 0
    }
}

impl Cluster {
    pub(super) fn new() -> Self {
        Self {
            members: RwLock::default(),
            owners: (0..SLOTS).map(|_| AtomicU16::new(NOBODY)).collect(),
            moved_s: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            started: Instant::now(),
            failed_over: Mutex::new(None),
            lead: AtomicU16::new(NOBODY),
            was_led: AtomicBool::new(false),
            troubled: Mutex::default(),
            look_again: Notify::new(),
            refused: Mutex::new(None),
        }
    }

    /// Waits until all masters are there.
    pub(super) async fn first_connection(&self) {
        loop {
            let serving = self.serving();
            let are_there = !serving.is_empty() && serving.iter().all(|member| !member.is_away());
            if are_there || self.refused.lock().is_some() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether more than half of the masters are there.
    pub(super) fn are_most_there(&self) -> bool {
        let serving = self.serving();
        serving.iter().filter(|member| !member.is_away()).count() * 2 > serving.len()
    }

    /// Why this can't work, whatever is tried: what `REDIS_URL` names is no Cluster.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    /// The lane of a slot's master.
    pub(super) fn lane_of(&self, slot: Slot) -> Option<MasterId> {
        let lane = self.owners.get(usize::from(slot))?.load(Ordering::Acquire);
        (lane != NOBODY).then_some(lane)
    }

    fn owner_of(&self, slot: Slot) -> Result<Arc<Member>, BackboneError> {
        let member = self.lane_of(slot).and_then(|lane| self.member(lane));
        member.ok_or_else(|| BackboneError("no server of the Redis Cluster has the slot".to_owned()))
    }

    /// The member at an address; a new one if there was none.
    fn enter(&self, master: &Master) -> Arc<Member> {
        let mut members = self.members.write();
        if let Some(member) = members.iter().find(|member| member.host == master.host && member.port == master.port) {
            member.names.write().clone_from(&master.names);
            return member.clone();
        }
        let member = Arc::new(Member {
            lane: MasterId::try_from(members.len()).unwrap_or(NOBODY),
            host: master.host.clone(),
            port: master.port,
            names: RwLock::new(master.names.clone()),
            server: Arc::new(Server::new()),
            slots: AtomicU32::new(0),
        });
        members.push(member.clone());
        member
    }

    fn member(&self, lane: MasterId) -> Option<Arc<Member>> {
        self.members.read().get(usize::from(lane)).cloned()
    }

    /// Those that have slots.
    fn serving(&self) -> Vec<Arc<Member>> {
        let members = self.members.read();
        members.iter().filter(|member| member.has_slots()).cloned().collect()
    }

    /// Some master that is there, the one that leads first.
    pub(super) fn any(&self) -> Result<Arc<Member>, BackboneError> {
        let lead = self.member(self.lead.load(Ordering::Acquire)).filter(|member| !member.is_away());
        lead.or_else(|| self.longest_there())
            .ok_or_else(|| BackboneError("Redis is away: no master of the Cluster is connected".to_owned()))
    }

    /// The master that is there for the longest time: one that has just come back isn't heard by the others for a second.
    fn longest_there(&self) -> Option<Arc<Member>> {
        let since = |member: &Arc<Member>| Some(member.server.live().ok()?.since);
        let there = self.serving().into_iter().filter_map(|member| Some((since(&member)?, member)));
        there.min_by_key(|(since, _)| *since).map(|(_, member)| member)
    }

    /// The masters' connections, for what has to be done on each of them.
    pub(super) fn all_live(&self) -> Result<Vec<Live>, BackboneError> {
        self.serving().iter().map(|member| member.server.live()).collect()
    }

    /// Since when the youngest of the connections to masters is there.
    pub(super) fn youngest_since(&self) -> Option<Instant> {
        self.serving().iter().filter_map(|member| Some(member.server.live().ok()?.since)).max()
    }

    /// Loads the scripts on those masters that are there.
    pub(super) async fn load_scripts(&self, scripts: &Scripts) -> Result<(), BackboneError> {
        for member in self.serving().iter().filter(|member| !member.is_away()) {
            member.server.load_scripts(scripts).await?;
        }
        Ok(())
    }

    /// The clock of the one that leads, in unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        let lead = self.member(self.lead.load(Ordering::Acquire));
        lead.map_or_else(|| shared::Timestamp::now().unix_ms(), |member| member.server.now_ms())
    }

    /// Gives a slot to another; whether that is news.
    fn assign(&self, slot: Slot, lane: MasterId) -> bool {
        let Some(owner) = self.owners.get(usize::from(slot)) else { return false };
        let before = owner.swap(lane, Ordering::AcqRel);
        if before == lane {
            return false;
        }
        if let Some(member) = self.member(lane) {
            member.slots.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(member) = self.member(before) {
            member.slots.fetch_sub(1, Ordering::Relaxed);
            self.mark_moved(slot);
        }
        true
    }

    fn mark_moved(&self, slot: Slot) {
        if let Some(moved) = self.moved_s.get(usize::from(slot)) {
            moved.store(self.now_s(), Ordering::Relaxed);
        }
    }

    fn now_s(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The same address answers under another replication id: its logs are others.
    pub(super) fn server_changed(&self, lane: MasterId) {
        *self.failed_over.lock() = Some(Instant::now());
        for slot in (0..).take(SLOTS).filter(|slot| self.lane_of(*slot) == Some(lane)) {
            self.mark_moved(slot);
        }
    }

    /// Whether the slot came to another server within the last `time`.
    pub(super) fn moved_within(&self, slot: Slot, time: Duration) -> bool {
        let moved_s = self.moved_s.get(usize::from(slot)).map_or(0, |moved| moved.load(Ordering::Relaxed));
        moved_s > 0 && u64::from(self.now_s().saturating_sub(moved_s)) <= time.as_secs()
    }

    /// Whether a master was replaced, or came back empty, within the last `time`.
    pub(super) fn server_changed_within(&self, time: Duration) -> bool {
        self.failed_over.lock().is_some_and(|at| at.elapsed() < time)
    }

    /// A master is there. Whether it leads from now on, and is not the first to do so.
    pub(super) fn member_up(&self, lane: MasterId) -> bool {
        let leads = self.lead.compare_exchange(NOBODY, lane, Ordering::AcqRel, Ordering::Acquire).is_ok();
        leads && self.was_led.swap(true, Ordering::AcqRel)
    }

    /// A master is away. Whether another leads from now on.
    pub(super) fn member_away(&self, lane: MasterId) -> bool {
        self.look_again.notify_one();
        let next = self.longest_there().filter(|member| member.lane != lane).map_or(NOBODY, |member| member.lane);
        self.lead.compare_exchange(lane, next, Ordering::AcqRel, Ordering::Acquire).is_ok() && next != NOBODY
    }

    /// A server has refused a user's channel.
    pub(super) fn channel_refused(&self, error: &RedisError) {
        let is_known = error.redirect_node().is_some_and(|(address, slot)| self.moved(slot, address));
        if !is_known {
            self.look_again.notify_one();
        }
    }

    /// Whether broadcasts and orders are taken of this one: each master passes them on to all the others.
    pub(super) fn leads(&self, lane: MasterId) -> bool {
        self.lead.load(Ordering::Acquire) == lane
    }

    /// Why this node should get no users: no probe comes back from half of the masters.
    pub(super) fn fault(&self) -> Option<String> {
        let serving = self.serving();
        let fault =
            |member: &Arc<Member>| Some(format!("{}: {}", member.names.read().first()?, member.server.fault()?));
        let faults: Vec<String> = serving.iter().filter_map(fault).collect();
        if !serving.is_empty() && faults.len() * 2 < serving.len() {
            return None;
        }
        let of = format!("{} of {} masters of the Redis Cluster carry no events", faults.len(), serving.len());
        Some(if faults.is_empty() {
            "no master of the Redis Cluster is known".to_owned()
        } else {
            format!("{of}: {}", faults.join("; "))
        })
    }

    /// Under what publications are marked: the names of all masters that are there.
    pub(super) fn identity(&self) -> Option<Arc<str>> {
        let serving = self.serving();
        let ids = serving.iter().filter_map(|member| Some(short(&member.server.identity()?).to_owned()));
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids.join("-").into())
    }

    /// How many nodes are connected: each to every master, so the most that one has counted.
    pub(super) fn nodes(&self) -> u32 {
        self.serving().iter().map(|member| member.server.nodes()).max().unwrap_or_default()
    }

    /// Gives up all connections.
    pub(super) fn leave(&self) {
        self.look_again.notify_one();
        self.serving().iter().for_each(|member| member.server.leave());
    }
}

/// The short name of a master: the beginning of its replication id.
pub(super) fn short(replication_id: &str) -> &str {
    replication_id.get(..16).unwrap_or(replication_id)
}
