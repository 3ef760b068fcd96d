//! Who is subscribed: a count per user, and how far Redis has confirmed it. Holds no connection and sends nothing.
//!
//! Each master of a Cluster has a lane of its own, in which its users wait; one server is one lane.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shared::UserId;
use shared::redis_keys::user_channel;
use tokio::sync::{Notify, oneshot};

use crate::backbone::BackboneError;
use crate::backbone::redis::cluster::{Cluster, MasterId, Slot, slot_of};
use crate::switches;

/// The longest wait for a confirmation.
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);

/// How long a channel is kept after its last subscription ended.
const LINGER: Duration = Duration::from_secs(2);

/// The table of subscriptions, shared by callers, the subscribers and the receiving connections.
pub(in crate::backbone::redis) struct Subscriptions {
    table: Mutex<Table>,
    /// Which master has which slot; none where there is one server.
    cluster: Option<Arc<Cluster>>,
    started: Instant,
}

#[derive(Default)]
struct Table {
    /// Small per user on purpose: the channel's name follows from the id.
    users: HashMap<UserId, Subscription>,
    waiting: HashMap<UserId, Vec<oneshot::Sender<()>>>,
    /// By their number.
    lanes: Vec<Line>,
    /// The number of the newest connection.
    generation: u64,
}

/// What one server has to be told.
#[derive(Default)]
struct Line {
    /// In the order of asking; an entry that isn't queued in this lane is void.
    queue: VecDeque<UserId>,
    /// By the time of leaving; 0 for those that are to be left at once.
    lingering: VecDeque<(u32, UserId)>,
    /// Which connection's confirmations count.
    generation: u64,
    open: bool,
    /// Wakes the subscriber when something is queued.
    queued: Arc<Notify>,
}

struct Subscription {
    count: u32,
    /// Milliseconds from `started` to the end of the last subscription.
    left_ms: u32,
    /// Of the channel; 0 where there is one server.
    slot: Slot,
    /// Where it is queued or subscribed.
    lane: MasterId,
    stage: Stage,
    /// It was subscribed before: pushes may be missing.
    again: bool,
}

/// What a confirmation is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::backbone::redis) enum Confirmation {
    /// Not of a subscription that was asked for on this connection.
    Unasked,
    First,
    /// Of one that was lost.
    Anew,
}

/// A channel is in at most one unconfirmed command, because the subscriber sends one command at a time and waits for all of
/// its confirmations; so a confirmation can't be taken for that of another command (NOLOSS B2).
#[derive(PartialEq, Eq)]
enum Stage {
    Queued,
    Asked,
    Confirmed,
}

impl Subscriptions {
    pub(in crate::backbone::redis) fn new(cluster: Option<Arc<Cluster>>) -> Self {
        Self { table: Mutex::new(Table::default()), cluster, started: Instant::now() }
    }

    /// Wakes the subscriber of a lane when something is queued there.
    pub(in crate::backbone::redis) fn queued(&self, lane: MasterId) -> Arc<Notify> {
        self.table.lock().line(lane).queued.clone()
    }

    /// Counts one more subscription, and waits until Redis has confirmed the channel.
    pub(in crate::backbone::redis) async fn subscribe(self: &Arc<Self>, user: &UserId) -> Result<(), BackboneError> {
        let Some(confirmation) = self.add(user)? else { return Ok(()) };
        let undo = Undo { subscriptions: self, user };
        match tokio::time::timeout(CONFIRM_WITHIN, confirmation).await {
            Ok(Ok(())) => {
                std::mem::forget(undo);
                Ok(())
            }
            Ok(Err(_)) => Err(BackboneError("the connection to Redis was lost".to_owned())),
            Err(_) => Err(BackboneError("Redis did not confirm a subscription in time".to_owned())),
        }
    }

    fn add(&self, user: &UserId) -> Result<Option<oneshot::Receiver<()>>, BackboneError> {
        let away = || BackboneError("Redis is away".to_owned());
        let slot = self.slot_of(user);
        let mut table = self.table.lock();
        let table = &mut *table;
        // One that is on its way stays where it is until it's moved: it may wait, a new one must find an open lane.
        let lane = match table.users.get(user) {
            Some(subscription) => subscription.lane,
            None => self.lane_of(slot).ok_or_else(away)?,
        };
        let line = table.lanes.get_mut(usize::from(lane)).filter(|line| line.open).ok_or_else(away)?;
        match table.users.entry(user.clone()) {
            Entry::Occupied(mut entry) => {
                let subscription = entry.get_mut();
                subscription.count += 1;
                if subscription.stage == Stage::Confirmed {
                    return Ok(None);
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(Subscription { count: 1, left_ms: 0, slot, lane, stage: Stage::Queued, again: false });
                line.queue.push_back(user.clone());
                line.queued.notify_one();
            }
        }
        let (confirm, confirmation) = oneshot::channel();
        table.waiting.entry(user.clone()).or_default().push(confirm);
        Ok(Some(confirmation))
    }

    fn slot_of(&self, user: &UserId) -> Slot {
        if self.cluster.is_some() { slot_of(user_channel(user).as_bytes()) } else { 0 }
    }

    fn lane_of(&self, slot: Slot) -> Option<MasterId> {
        self.cluster.as_ref().map_or(Some(0), |cluster| cluster.lane_of(slot))
    }

    /// Counts one subscription less; the channel lingers after the last.
    pub(in crate::backbone::redis) fn unsubscribe(&self, user: &UserId) {
        let left_ms = self.now_ms();
        let mut table = self.table.lock();
        let Some(subscription) = table.users.get_mut(user) else { return };
        subscription.count = subscription.count.saturating_sub(1);
        if subscription.count == 0 {
            subscription.left_ms = left_ms;
            let lane = subscription.lane;
            table.line(lane).lingering.push_back((left_ms, user.clone()));
        }
    }

    /// The user is offline: a channel that lingered on would count as a receiver, and no push job would be made for what is
    /// sent to them (NOLOSS B12).
    pub(in crate::backbone::redis) fn stop_lingering(&self, user: &UserId) {
        if switches::off("linger-ends") {
            return;
        }
        let mut table = self.table.lock();
        let table = &mut *table;
        let Some(subscription) = table.users.get_mut(user).filter(|subscription| subscription.count == 0) else {
            return;
        };
        // Its entry in the queue is void from here on.
        subscription.left_ms = 0;
        let lane = subscription.lane;
        let line = table.line(lane);
        line.lingering.push_front((0, user.clone()));
        line.queued.notify_one();
    }

    /// Whether a local socket wants the user's events.
    pub(in crate::backbone::redis) fn is_wanted(&self, user: &UserId) -> bool {
        self.table.lock().users.get(user).is_some_and(|subscription| subscription.count > 0)
    }

    /// Whether Redis counts a subscription of this node that nobody wants any more.
    pub(in crate::backbone::redis) fn lingers(&self, user: &UserId) -> bool {
        let table = self.table.lock();
        table.users.get(user).is_some_and(|subscription| subscription.count == 0 && subscription.stage != Stage::Queued)
    }

    /// The number of a connection that is about to be made.
    pub(in crate::backbone::redis) fn next_generation(&self) -> u64 {
        let mut table = self.table.lock();
        table.generation += 1;
        table.generation
    }

    /// A new connection: queues every channel of its lane that is wanted, and returns the users of those that no longer are.
    /// Confirmations of older connections no longer count.
    pub(in crate::backbone::redis) fn begin(&self, lane: MasterId, generation: u64) -> Vec<UserId> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let gone = |subscription: &Subscription| subscription.count == 0 && subscription.lane == lane;
        let left = table.users.extract_if(|_, subscription| gone(subscription)).map(|(user, _)| user).collect();
        let mut queue = VecDeque::new();
        for (user, subscription) in table.users.iter_mut().filter(|(_, subscription)| subscription.lane == lane) {
            subscription.lose();
            queue.push_back(user.clone());
        }
        let line = table.line(lane);
        line.generation = generation;
        line.lingering = VecDeque::new();
        line.queue = queue;
        left
    }

    /// The lane's connection is ready for new subscriptions.
    pub(in crate::backbone::redis) fn open(&self, lane: MasterId) {
        self.table.lock().line(lane).open = true;
    }

    /// The lane's connection is gone: those who wait for a confirmation there are told so.
    pub(in crate::backbone::redis) fn close(&self, lane: MasterId) {
        let mut table = self.table.lock();
        let Table { users, waiting, .. } = &mut *table;
        waiting.retain(|user, _| users.get(user).is_some_and(|subscription| subscription.lane != lane));
        let line = table.line(lane);
        line.open = false;
        // Nothing that it still brings counts.
        line.generation = 0;
    }

    /// The server has ended a subscription: it is asked for again, of whoever has the slot now.
    pub(in crate::backbone::redis) fn evicted(&self, user: &str, lane: MasterId, generation: u64) {
        let mut table = self.table.lock();
        let table = &mut *table;
        if table.line(lane).generation != generation {
            return;
        }
        let Some((user, subscription)) = table.users.get_key_value(user) else { return };
        if subscription.lane == lane && subscription.stage == Stage::Confirmed {
            let user = user.clone();
            self.place(table, &user);
        }
    }

    /// The server has refused these subscriptions, because the slot is another's, or because of a fault that passes.
    pub(in crate::backbone::redis) fn refused(&self, users: &[UserId]) {
        let mut table = self.table.lock();
        for user in users {
            self.place(&mut table, user);
        }
    }

    /// Slots have moved: their subscriptions follow.
    pub(in crate::backbone::redis) fn follow(&self) {
        let mut table = self.table.lock();
        let moved =
            |subscription: &Subscription| self.lane_of(subscription.slot).is_some_and(|lane| lane != subscription.lane);
        let users: Vec<UserId> =
            table.users.iter().filter(|(_, subscription)| moved(subscription)).map(|(user, _)| user.clone()).collect();
        for user in users {
            self.place(&mut table, &user);
        }
    }

    /// Queues a subscription that is lost where its slot is now; one that nobody wants is forgotten.
    fn place(&self, table: &mut Table, user: &UserId) {
        let Some(subscription) = table.users.get_mut(user) else { return };
        if subscription.count == 0 {
            table.users.remove(user);
            return;
        }
        subscription.lose();
        subscription.lane = self.lane_of(subscription.slot).unwrap_or(subscription.lane);
        let lane = subscription.lane;
        let line = table.line(lane);
        line.queue.push_back(user.clone());
        line.queued.notify_one();
    }

    /// Takes at most `limit` users of a lane for one SUBSCRIBE command.
    pub(in crate::backbone::redis) fn take_queued(&self, lane: MasterId, limit: usize) -> Vec<UserId> {
        let mut table = self.table.lock();
        let Table { users, lanes, .. } = &mut *table;
        let Some(line) = lanes.get_mut(usize::from(lane)) else { return Vec::new() };
        let mut taken = Vec::with_capacity(limit.min(line.queue.len()));
        while taken.len() < limit
            && let Some(user) = line.queue.pop_front()
        {
            if let Some(subscription) = users.get_mut(&user)
                && subscription.stage == Stage::Queued
                && subscription.lane == lane
            {
                subscription.stage = Stage::Asked;
                taken.push(user);
            }
        }
        if line.queue.is_empty() {
            line.queue = VecDeque::new();
        }
        taken
    }

    /// Takes at most `limit` users of a lane whose channels have lingered long enough, for one UNSUBSCRIBE command.
    /// Called only while no SUBSCRIBE is unconfirmed.
    pub(in crate::backbone::redis) fn take_left(&self, lane: MasterId, limit: usize) -> Vec<UserId> {
        let now_ms = self.now_ms();
        let linger_ms = u32::try_from(LINGER.as_millis()).unwrap_or(u32::MAX);
        let mut table = self.table.lock();
        let Table { users, lanes, .. } = &mut *table;
        let Some(line) = lanes.get_mut(usize::from(lane)) else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((left_ms, _)) = line.lingering.front()
            && (*left_ms == 0 || switches::off("linger") || now_ms.saturating_sub(*left_ms) >= linger_ms)
            && let Some((left_ms, user)) = line.lingering.pop_front()
        {
            if let Entry::Occupied(entry) = users.entry(user)
                && entry.get().count == 0
                && entry.get().left_ms == left_ms
                && entry.get().lane == lane
            {
                let (user, subscription) = entry.remove_entry();
                if subscription.stage == Stage::Confirmed {
                    taken.push(user);
                }
            }
        }
        taken
    }

    /// Redis confirmed a subscription on the connection `generation` of a lane.
    pub(in crate::backbone::redis) fn confirmed(&self, user: &str, lane: MasterId, generation: u64) -> Confirmation {
        let mut table = self.table.lock();
        let table = &mut *table;
        if table.line(lane).generation != generation {
            return Confirmation::Unasked;
        }
        let Some(subscription) = table.users.get_mut(user) else { return Confirmation::Unasked };
        if subscription.stage != Stage::Asked || subscription.lane != lane {
            return Confirmation::Unasked;
        }
        subscription.stage = Stage::Confirmed;
        for waiting in table.waiting.remove(user).into_iter().flatten() {
            // Whoever stopped waiting has taken their count back.
            let _ = waiting.send(());
        }
        // One server's loss is told of all users at once.
        let is_anew = std::mem::take(&mut subscription.again) && self.cluster.is_some();
        if is_anew { Confirmation::Anew } else { Confirmation::First }
    }

    fn now_ms(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}

impl Table {
    fn line(&mut self, lane: MasterId) -> &mut Line {
        let lane = usize::from(lane);
        if self.lanes.len() <= lane {
            self.lanes.resize_with(lane + 1, Line::default);
        }
        #[expect(clippy::indexing_slicing, reason = "made just now, if it wasn't there")]
        &mut self.lanes[lane]
    }
}

impl Subscription {
    /// Whether it was confirmed or not, it has to be asked for again.
    fn lose(&mut self) {
        self.again |= self.stage == Stage::Confirmed;
        self.stage = Stage::Queued;
    }
}

/// Takes the count back when a subscription fails, or when its caller stops waiting.
struct Undo<'a> {
    subscriptions: &'a Subscriptions,
    user: &'a UserId,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.subscriptions.unsubscribe(self.user);
    }
}
