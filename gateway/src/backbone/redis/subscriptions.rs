//! Who is subscribed: a count per user, and how far Redis has confirmed it. Holds no connection and sends nothing.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shared::UserId;
use tokio::sync::{Notify, oneshot};

use crate::backbone::BackboneError;
use crate::off;

/// The longest wait for a confirmation.
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);

/// How long a channel is kept after its last subscription ended.
const LINGER: Duration = Duration::from_secs(2);

/// The table of subscriptions, shared by callers, the subscriber and the receiving connection.
pub(super) struct Subscriptions {
    table: Mutex<Table>,
    /// Wakes the subscriber when something is queued.
    pub(super) queued: Notify,
    started: Instant,
}

#[derive(Default)]
struct Table {
    /// Small per user on purpose: the channel's name follows from the id.
    users: HashMap<UserId, Subscription>,
    /// In the order of asking; an entry that is no longer in `users` is void.
    queue: VecDeque<UserId>,
    waiting: HashMap<UserId, Vec<oneshot::Sender<()>>>,
    /// By the time of leaving; 0 for those that are to be left at once.
    lingering: VecDeque<(u32, UserId)>,
    /// Which connection's confirmations count.
    generation: u64,
    open: bool,
}

struct Subscription {
    count: u32,
    /// Milliseconds from `started` to the end of the last subscription.
    left_ms: u32,
    stage: Stage,
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
    pub(super) fn new() -> Self {
        Self { table: Mutex::new(Table::default()), queued: Notify::new(), started: Instant::now() }
    }

    /// Counts one more subscription, and waits until Redis has confirmed the channel.
    pub(super) async fn subscribe(self: &Arc<Self>, user: &UserId) -> Result<(), BackboneError> {
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
        let mut table = self.table.lock();
        if !table.open {
            return Err(BackboneError("Redis is away".to_owned()));
        }
        let table = &mut *table;
        match table.users.entry(user.clone()) {
            Entry::Occupied(mut entry) => {
                let subscription = entry.get_mut();
                subscription.count += 1;
                if subscription.stage == Stage::Confirmed {
                    return Ok(None);
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(Subscription { count: 1, left_ms: 0, stage: Stage::Queued });
                table.queue.push_back(user.clone());
                self.queued.notify_one();
            }
        }
        let (confirm, confirmation) = oneshot::channel();
        table.waiting.entry(user.clone()).or_default().push(confirm);
        Ok(Some(confirmation))
    }

    /// Counts one subscription less; the channel lingers after the last.
    pub(super) fn unsubscribe(&self, user: &UserId) {
        let left_ms = self.now_ms();
        let mut table = self.table.lock();
        let Some(subscription) = table.users.get_mut(user) else { return };
        subscription.count = subscription.count.saturating_sub(1);
        if subscription.count == 0 {
            subscription.left_ms = left_ms;
            table.lingering.push_back((left_ms, user.clone()));
        }
    }

    /// The user is offline: a channel that lingered on would count as a receiver, and no push job would be made for what is
    /// sent to them (NOLOSS B12).
    pub(super) fn stop_lingering(&self, user: &UserId) {
        if off::is("linger-ends") {
            return;
        }
        let mut table = self.table.lock();
        let table = &mut *table;
        let Some(subscription) = table.users.get_mut(user).filter(|subscription| subscription.count == 0) else {
            return;
        };
        // Its entry in the queue is void from here on.
        subscription.left_ms = 0;
        table.lingering.push_front((0, user.clone()));
        self.queued.notify_one();
    }

    /// Whether a local socket wants the user's events.
    pub(super) fn is_wanted(&self, user: &UserId) -> bool {
        self.table.lock().users.get(user).is_some_and(|subscription| subscription.count > 0)
    }

    /// Whether Redis counts a subscription of this node that nobody wants any more.
    pub(super) fn lingers(&self, user: &UserId) -> bool {
        let table = self.table.lock();
        table.users.get(user).is_some_and(|subscription| subscription.count == 0 && subscription.stage != Stage::Queued)
    }

    /// A new connection: queues every channel that is wanted, and returns the users of those that no longer are.
    /// Confirmations of older connections no longer count.
    pub(super) fn begin(&self, generation: u64) -> Vec<UserId> {
        let mut table = self.table.lock();
        table.generation = generation;
        let left = table.users.extract_if(|_, subscription| subscription.count == 0).map(|(user, _)| user).collect();
        table.lingering = VecDeque::new();
        for subscription in table.users.values_mut() {
            subscription.stage = Stage::Queued;
        }
        table.queue = table.users.keys().cloned().collect();
        left
    }

    /// The connection is ready for new subscriptions.
    pub(super) fn open(&self) {
        self.table.lock().open = true;
    }

    /// The connection is gone: those who wait for a confirmation are told so.
    pub(super) fn close(&self) {
        let mut table = self.table.lock();
        table.open = false;
        table.waiting = HashMap::new();
    }

    /// Takes at most `limit` users for one SUBSCRIBE command.
    pub(super) fn take_queued(&self, limit: usize) -> Vec<UserId> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let mut taken = Vec::with_capacity(limit.min(table.queue.len()));
        while taken.len() < limit
            && let Some(user) = table.queue.pop_front()
        {
            if let Some(subscription) = table.users.get_mut(&user)
                && subscription.stage == Stage::Queued
            {
                subscription.stage = Stage::Asked;
                taken.push(user);
            }
        }
        if table.queue.is_empty() {
            table.queue = VecDeque::new();
        }
        taken
    }

    /// Takes at most `limit` users whose channels have lingered long enough, for one UNSUBSCRIBE command.
    /// Called only while no SUBSCRIBE is unconfirmed.
    pub(super) fn take_left(&self, limit: usize) -> Vec<UserId> {
        let now_ms = self.now_ms();
        let linger_ms = u32::try_from(LINGER.as_millis()).unwrap_or(u32::MAX);
        let mut table = self.table.lock();
        let table = &mut *table;
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((left_ms, _)) = table.lingering.front()
            && (*left_ms == 0 || off::is("linger") || now_ms.saturating_sub(*left_ms) >= linger_ms)
            && let Some((left_ms, user)) = table.lingering.pop_front()
        {
            if let Entry::Occupied(entry) = table.users.entry(user)
                && entry.get().count == 0
                && entry.get().left_ms == left_ms
            {
                let (user, subscription) = entry.remove_entry();
                if subscription.stage == Stage::Confirmed {
                    taken.push(user);
                }
            }
        }
        taken
    }

    /// Redis confirmed a subscription on the connection `generation`.
    pub(super) fn confirmed(&self, user: &str, generation: u64) {
        let mut table = self.table.lock();
        if table.generation != generation {
            return;
        }
        let Some(subscription) = table.users.get_mut(user) else { return };
        if subscription.stage == Stage::Asked {
            subscription.stage = Stage::Confirmed;
            for waiting in table.waiting.remove(user).into_iter().flatten() {
                // Whoever stopped waiting has taken their count back.
                let _ = waiting.send(());
            }
        }
    }

    fn now_ms(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
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
