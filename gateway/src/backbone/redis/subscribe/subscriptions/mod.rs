//! The table of subscriptions: a count per channel, and whether Redis has confirmed it. Each Redis server is one lane.
//! It offers `subscribe` and `unsubscribe` to callers; `lanes` offers its connection the changes of a lane.
//! It never holds a connection and never sends anything.

mod lanes;

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shared::UserId;
use shared::redis_keys::Keys;
use tokio::sync::{Notify, oneshot};

use crate::backbone::BackboneError;
use crate::backbone::redis::cluster::{Cluster, MasterId, Slot, slot_of};
use crate::switches;

pub(in crate::backbone::redis) use self::lanes::Confirmation;
use super::channel::Channel;

/// The longest wait for a confirmation.
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);

/// The table of subscriptions, shared by callers, the subscribers and the receiving connections.
pub(in crate::backbone::redis) struct Subscriptions {
    table: Mutex<Table>,
    /// Which master has which slot; none where there is one server.
    keys: Keys,
    cluster: Option<Arc<Cluster>>,
    started: Instant,
}

#[derive(Default)]
struct Table {
    /// Small on purpose: a channel's name follows from the id.
    channels: HashMap<Channel, Subscription>,
    waiting: HashMap<Channel, Vec<oneshot::Sender<()>>>,
    /// By their number.
    lanes: Vec<Line>,
    /// The number of the newest connection.
    generation: u64,
}

/// The changes that one server has to get.
#[derive(Default)]
struct Line {
    /// In the order of asking; an entry that isn't queued in this lane is void.
    queue: VecDeque<Channel>,
    /// By the time of leaving; 0 for those that are to be left at once.
    lingering: VecDeque<(u32, Channel)>,
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

/// A channel is in at most one unconfirmed command, because the subscriber sends one command at a time and waits for all of
/// its confirmations; so a confirmation can't be taken for that of another command (NOLOSS.md, B2).
#[derive(PartialEq, Eq)]
enum Stage {
    Queued,
    Asked,
    Confirmed,
}

impl Subscriptions {
    pub(in crate::backbone::redis) fn new(keys: Keys, cluster: Option<Arc<Cluster>>) -> Self {
        Self { table: Mutex::new(Table::default()), keys, cluster, started: Instant::now() }
    }

    /// Counts one more subscription, and waits until Redis has confirmed the channel.
    pub(in crate::backbone::redis) async fn subscribe(
        self: &Arc<Self>,
        channel: &Channel,
    ) -> Result<(), BackboneError> {
        let Some(confirmation) = self.add(channel)? else { return Ok(()) };
        let undo = Undo { subscriptions: self, channel };
        match tokio::time::timeout(CONFIRM_WITHIN, confirmation).await {
            Ok(Ok(())) => {
                std::mem::forget(undo);
                Ok(())
            }
            Ok(Err(_)) => Err(BackboneError("the connection to Redis was lost".to_owned())),
            Err(_) => Err(BackboneError("Redis did not confirm a subscription in time".to_owned())),
        }
    }

    fn add(&self, channel: &Channel) -> Result<Option<oneshot::Receiver<()>>, BackboneError> {
        let away = || BackboneError("Redis is away".to_owned());
        let slot = self.slot_of(channel);
        let mut table = self.table.lock();
        let table = &mut *table;
        // One that is on its way stays where it is until it's moved: it may wait, a new one must find an open lane.
        let lane = match table.channels.get(channel) {
            Some(subscription) => subscription.lane,
            None => self.lane_of(slot).ok_or_else(away)?,
        };
        let line = table.lanes.get_mut(usize::from(lane)).filter(|line| line.open).ok_or_else(away)?;
        match table.channels.entry(channel.clone()) {
            Entry::Occupied(mut entry) => {
                let subscription = entry.get_mut();
                subscription.count += 1;
                if subscription.stage == Stage::Confirmed {
                    return Ok(None);
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(Subscription { count: 1, left_ms: 0, slot, lane, stage: Stage::Queued, again: false });
                line.queue.push_back(channel.clone());
                line.queued.notify_one();
            }
        }
        let (confirm, confirmation) = oneshot::channel();
        table.waiting.entry(channel.clone()).or_default().push(confirm);
        Ok(Some(confirmation))
    }

    fn slot_of(&self, channel: &Channel) -> Slot {
        if self.cluster.is_some() { slot_of(channel.name(&self.keys).as_bytes()) } else { 0 }
    }

    fn lane_of(&self, slot: Slot) -> Option<MasterId> {
        self.cluster.as_ref().map_or(Some(0), |cluster| cluster.lane_of(slot))
    }

    /// Counts one subscription less; the channel lingers after the last.
    pub(in crate::backbone::redis) fn unsubscribe(&self, channel: &Channel) {
        let left_ms = self.now_ms();
        let mut table = self.table.lock();
        let Some(subscription) = table.channels.get_mut(channel) else { return };
        subscription.count = subscription.count.saturating_sub(1);
        if subscription.count == 0 {
            subscription.left_ms = left_ms;
            let lane = subscription.lane;
            table.line(lane).lingering.push_back((left_ms, channel.clone()));
        }
    }

    /// The user is offline: a channel that lingered on would count as a receiver, and no push job would be made for what is
    /// sent to them (NOLOSS.md, B12).
    pub(in crate::backbone::redis) fn stop_lingering(&self, user: &UserId) {
        if switches::off("linger-ends") {
            return;
        }
        let mut table = self.table.lock();
        let table = &mut *table;
        let channel = Channel::User(user.clone());
        let Some(subscription) = table.channels.get_mut(&channel).filter(|subscription| subscription.count == 0) else {
            return;
        };
        // Its entry in the queue is void from here on.
        subscription.left_ms = 0;
        let lane = subscription.lane;
        let line = table.line(lane);
        line.lingering.push_front((0, channel));
        line.queued.notify_one();
    }

    /// Whether a local socket wants the user's events.
    pub(in crate::backbone::redis) fn is_wanted(&self, user: &UserId) -> bool {
        self.table.lock().channels.get(&Channel::User(user.clone())).is_some_and(|subscription| subscription.count > 0)
    }

    /// Whether Redis counts a subscription of this node that isn't wanted any more.
    pub(in crate::backbone::redis) fn lingers(&self, user: &UserId) -> bool {
        let table = self.table.lock();
        table
            .channels
            .get(&Channel::User(user.clone()))
            .is_some_and(|subscription| subscription.count == 0 && subscription.stage != Stage::Queued)
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

/// Takes the count back when a subscription fails, or when its caller stops waiting.
struct Undo<'a> {
    subscriptions: &'a Subscriptions,
    channel: &'a Channel,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.subscriptions.unsubscribe(self.channel);
    }
}
