//! A lane's connection to its table: the channels to subscribe and to leave, and those that are confirmed.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::super::channel::Channel;
use super::{Stage, Subscription, Subscriptions, Table};
use crate::backbone::redis::cluster::MasterId;
use crate::switches;

/// How long a channel is kept after its last subscription ended.
const LINGER: Duration = Duration::from_secs(2);

/// A confirmation.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::backbone::redis) enum Confirmation {
    /// Not of a subscription that was asked for on this connection.
    Unasked,
    First,
    /// Of one that was lost.
    Anew,
}

impl Subscriptions {
    /// Wakes the subscriber of a lane when something is queued there.
    pub(in crate::backbone::redis) fn queued(&self, lane: MasterId) -> Arc<Notify> {
        self.table.lock().line(lane).queued.clone()
    }

    /// The number of a connection that is about to be made.
    pub(in crate::backbone::redis) fn next_generation(&self) -> u64 {
        let mut table = self.table.lock();
        table.generation += 1;
        table.generation
    }

    /// A new connection: queues every channel of its lane that is wanted, and returns those that no longer are.
    /// Confirmations of older connections no longer count.
    pub(in crate::backbone::redis) fn begin(&self, lane: MasterId, generation: u64) -> Vec<Channel> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let gone = |subscription: &Subscription| subscription.count == 0 && subscription.lane == lane;
        let left =
            table.channels.extract_if(|_, subscription| gone(subscription)).map(|(channel, _)| channel).collect();
        let mut queue = VecDeque::new();
        for (channel, subscription) in table.channels.iter_mut().filter(|(_, subscription)| subscription.lane == lane) {
            subscription.lose();
            queue.push_back(channel.clone());
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

    /// The lane's connection is gone: the callers that wait for a confirmation there get an error.
    pub(in crate::backbone::redis) fn close(&self, lane: MasterId) {
        let mut table = self.table.lock();
        let Table { channels, waiting, .. } = &mut *table;
        waiting.retain(|channel, _| channels.get(channel).is_some_and(|subscription| subscription.lane != lane));
        let line = table.line(lane);
        line.open = false;
        // Nothing that it still brings counts.
        line.generation = 0;
    }

    /// The server has ended a subscription: it is made again, at the server that has the slot now.
    pub(in crate::backbone::redis) fn evicted(&self, channel: &Channel, lane: MasterId, generation: u64) {
        let mut table = self.table.lock();
        let table = &mut *table;
        if table.line(lane).generation != generation {
            return;
        }
        let Some(subscription) = table.channels.get(channel) else { return };
        if subscription.lane == lane && subscription.stage == Stage::Confirmed {
            self.place(table, channel);
        }
    }

    /// The server has refused these subscriptions, because the slot is another's, or because of a fault that passes.
    pub(in crate::backbone::redis) fn refused(&self, channels: &[Channel]) {
        let mut table = self.table.lock();
        for channel in channels {
            self.place(&mut table, channel);
        }
    }

    /// Slots have moved: their subscriptions follow.
    pub(in crate::backbone::redis) fn follow(&self) {
        let mut table = self.table.lock();
        let moved =
            |subscription: &Subscription| self.lane_of(subscription.slot).is_some_and(|lane| lane != subscription.lane);
        let channels: Vec<Channel> = table
            .channels
            .iter()
            .filter(|(_, subscription)| moved(subscription))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in channels {
            self.place(&mut table, &channel);
        }
    }

    /// Queues a lost subscription at the server that has its slot now; one that isn't wanted is forgotten.
    fn place(&self, table: &mut Table, channel: &Channel) {
        let Some(subscription) = table.channels.get_mut(channel) else { return };
        if subscription.count == 0 {
            table.channels.remove(channel);
            return;
        }
        subscription.lose();
        subscription.lane = self.lane_of(subscription.slot).unwrap_or(subscription.lane);
        let lane = subscription.lane;
        let line = table.line(lane);
        line.queue.push_back(channel.clone());
        line.queued.notify_one();
    }

    /// Takes at most `limit` channels of a lane for one SUBSCRIBE command.
    pub(in crate::backbone::redis) fn take_queued(&self, lane: MasterId, limit: usize) -> Vec<Channel> {
        let mut table = self.table.lock();
        let Table { channels, lanes, .. } = &mut *table;
        let Some(line) = lanes.get_mut(usize::from(lane)) else { return Vec::new() };
        let mut taken = Vec::with_capacity(limit.min(line.queue.len()));
        while taken.len() < limit
            && let Some(channel) = line.queue.pop_front()
        {
            if let Some(subscription) = channels.get_mut(&channel)
                && subscription.stage == Stage::Queued
                && subscription.lane == lane
            {
                subscription.stage = Stage::Asked;
                taken.push(channel);
            }
        }
        if line.queue.is_empty() {
            line.queue = VecDeque::new();
        }
        taken
    }

    /// Takes at most `limit` channels of a lane that have lingered long enough, for one UNSUBSCRIBE command.
    /// Called only while no SUBSCRIBE is unconfirmed.
    pub(in crate::backbone::redis) fn take_left(&self, lane: MasterId, limit: usize) -> Vec<Channel> {
        let now_ms = self.now_ms();
        let linger_ms = u32::try_from(LINGER.as_millis()).unwrap_or(u32::MAX);
        let mut table = self.table.lock();
        let Table { channels, lanes, .. } = &mut *table;
        let Some(line) = lanes.get_mut(usize::from(lane)) else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((left_ms, _)) = line.lingering.front()
            && (*left_ms == 0 || switches::off("linger") || now_ms.saturating_sub(*left_ms) >= linger_ms)
            && let Some((left_ms, channel)) = line.lingering.pop_front()
        {
            if let Entry::Occupied(entry) = channels.entry(channel)
                && entry.get().count == 0
                && entry.get().left_ms == left_ms
                && entry.get().lane == lane
            {
                let (channel, subscription) = entry.remove_entry();
                if subscription.stage == Stage::Confirmed {
                    taken.push(channel);
                }
            }
        }
        taken
    }

    /// Redis confirmed a subscription on the connection `generation` of a lane.
    pub(in crate::backbone::redis) fn confirmed(
        &self,
        channel: &Channel,
        lane: MasterId,
        generation: u64,
    ) -> Confirmation {
        let mut table = self.table.lock();
        let table = &mut *table;
        if table.line(lane).generation != generation {
            return Confirmation::Unasked;
        }
        let Some(subscription) = table.channels.get_mut(channel) else { return Confirmation::Unasked };
        if subscription.stage != Stage::Asked || subscription.lane != lane {
            return Confirmation::Unasked;
        }
        subscription.stage = Stage::Confirmed;
        for waiting in table.waiting.remove(channel).into_iter().flatten() {
            // A caller that stopped waiting has taken its count back.
            let _ = waiting.send(());
        }
        if std::mem::take(&mut subscription.again) { Confirmation::Anew } else { Confirmation::First }
    }
}

impl Subscription {
    /// Whether it was confirmed or not, it has to be asked for again.
    fn lose(&mut self) {
        self.again |= self.stage == Stage::Confirmed;
        self.stage = Stage::Queued;
    }
}
