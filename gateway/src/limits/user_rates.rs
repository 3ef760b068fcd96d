//! The rate of a user's commands, over all their sockets on all nodes, without a backbone call for each command.
//!
//! A node accepts a user's commands by itself as long as they stay below a tenth of the rate here. A user over that
//! share is *watched* on this node: the commands are drawn from the cluster's one allowance, in blocks of a tenth of a
//! second's worth, until they have stayed below the share for two seconds. The first draw also pays for the commands
//! that the share accepted.
//!
//! A request counts for as many commands as it is charged (see [`charges`](super::charges)). A charge of more than half the burst
//! is let through when half the burst is there, and leaves a debt, which later commands wait for. The part of a charge that is
//! known only afterwards is owed.
//!
//! With a rate of R a second, the allowance gives at most `2R + R·t` in t seconds. It doesn't count the share of nodes
//! where the user isn't watched, at most `R/10·(t + 1)` each, and a block may be used up to a second after it was
//! drawn. So a user with sockets on N nodes gets at most `2R + R·t + N·R/10·(t + 2)`, and at most R a second in the
//! long run if they are watched everywhere. While the backbone is unavailable this limit is not applied: the limit of
//! each connection holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shared::UserId;
use tokio::sync::Semaphore;

use super::{Rate, Slots};
use crate::backbone::{Draw, Grant, Rates};
use crate::clock::now_us;

/// The share of the rate that a node lets pass by itself, and the part of a second that a block is worth: one in so many.
const SHARE: u32 = 10;
/// How long a drawn block may be spent.
const BLOCK_US: u64 = 1_000_000;
/// How long a user has to stay below the share before they are watched no more.
const WATCH_US: u64 = 2_000_000;
/// Users that are watched, at the most; beyond that the limit of each connection has to do.
const WATCHED_MAX: usize = 65_536;
/// The most commands by which an allowance may be in debt: ten times the largest charge.
const DEBT_MAX: u64 = 10_000;
/// How long a draw may take; then the backbone counts as away.
const DRAW_WITHIN: Duration = Duration::from_millis(250);
/// How long the backbone isn't asked after it was away.
const AWAY_US: u64 = 1_000_000;

/// Whether a command may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// It may.
    Granted,
    /// It may after this many milliseconds.
    Wait(u64),
}

/// The limit, as this node keeps it.
pub struct UserRates {
    /// `None`: no limit.
    limit: Option<Limit>,
    backbone: Arc<dyn Rates>,
    watched: Mutex<HashMap<UserId, Arc<WatchedUser>>>,
    /// How many are watched, so that the map isn't asked when it is empty.
    watched_count: AtomicUsize,
    away_until_us: AtomicU64,
}

struct Limit {
    draw: Draw,
    shares: Slots,
}

/// A user over the share.
struct WatchedUser {
    state: Mutex<State>,
    /// One draw at a time; others of the same user wait for what it brings.
    turn: Semaphore,
}

struct State {
    /// The rest of the last block, and the time until which it may be spent.
    left: u32,
    left_until_us: u64,
    /// A charge of this size, or more, is not to be had before that time.
    refused: (u32, u64),
    /// When a command last went over the share.
    over_at_us: u64,
    /// Commands that the share accepted before, and charges that were known only afterwards.
    owed: u32,
}

impl UserRates {
    /// At most `per_second` commands a second of each user, over all nodes; 0: no limit.
    #[must_use]
    pub fn new(per_second: u32, backbone: Arc<dyn Rates>) -> Self {
        let limit = (per_second > 0).then(|| {
            let (rate, block) = (Rate::per_second(per_second), (per_second / SHARE).max(1));
            let (cost_us, burst_us) = (rate.cost_us(), rate.burst_us());
            let debt_us = burst_us.max(cost_us * DEBT_MAX);
            let draw = Draw { cost_us, burst_us, debt_us, wanted: block, least: 1, owed: 0 };
            Limit { draw, shares: Slots::new(Rate::new(rate.cost_us() * u64::from(SHARE), 1_000_000)) }
        });
        Self {
            limit,
            backbone,
            watched: Mutex::default(),
            watched_count: AtomicUsize::new(0),
            away_until_us: AtomicU64::new(0),
        }
    }

    /// Whether a command of `user` that counts for `charge` may pass; `None` if that has to be asked with [`UserRates::draw`].
    pub fn check(&self, user: &UserId, charge: u32) -> Option<Allowance> {
        let Some(limit) = &self.limit else { return Some(Allowance::Granted) };
        let now_us = now_us();
        let within_share = limit.shares.take_many(user, u64::from(charge), now_us).is_ok();
        let Some(watched) = self.watched(user) else {
            return (within_share || self.is_away(now_us)).then_some(Allowance::Granted);
        };
        let mut state = watched.state.lock();
        if !within_share {
            state.over_at_us = now_us;
        }
        if self.is_away(now_us) { Some(Allowance::Granted) } else { state.take(charge, now_us) }
    }

    /// Draws on the cluster's allowance for a command that [`UserRates::check`] could not decide on.
    pub async fn draw(&self, user: &UserId, charge: u32) -> Allowance {
        let Some(limit) = &self.limit else { return Allowance::Granted };
        let Some(watched) = self.watch(user, limit) else { return Allowance::Granted };
        // A semaphore that is never closed.
        let Ok(_turn) = watched.turn.acquire().await else { return Allowance::Granted };
        let now = now_us();
        let (left, draw) = {
            let mut state = watched.state.lock();
            if self.is_away(now) {
                return Allowance::Granted;
            }
            if let Some(known) = state.take(charge, now) {
                return known;
            }
            // Nobody else spends it meanwhile.
            let left = std::mem::take(&mut state.left);
            let least = charge.saturating_sub(left);
            (left, Draw { least, owed: std::mem::take(&mut state.owed), ..limit.draw })
        };
        let drawn = tokio::time::timeout(DRAW_WITHIN, self.backbone.draw(user, draw)).await;
        let mut state = watched.state.lock();
        match drawn {
            Ok(Ok(Grant::Granted(granted))) => {
                state.left = left.saturating_add(granted).saturating_sub(charge);
                state.left_until_us = now + BLOCK_US;
                Allowance::Granted
            }
            Ok(Ok(Grant::Refused { wait_ms })) => {
                state.left = left;
                state.refused = (charge, now_us() + wait_ms * 1000);
                Allowance::Wait(wait_ms)
            }
            Ok(Err(_)) | Err(_) => {
                tracing::debug!("users' rates are not shared between nodes: the backbone is unavailable");
                self.away_until_us.store(now_us() + AWAY_US, Ordering::Relaxed);
                Allowance::Granted
            }
        }
    }

    /// [`UserRates::check`], and [`UserRates::draw`] if need be.
    pub async fn admit(&self, user: &UserId, charge: u32) -> Allowance {
        match self.check(user, charge) {
            Some(allowance) => allowance,
            None => self.draw(user, charge).await,
        }
    }

    /// Charges a user for a command that has passed: the part of its charge that wasn't known before. It makes later ones wait.
    pub fn owe(&self, user: &UserId, charge: u32) {
        let Some(limit) = self.limit.as_ref().filter(|_| charge > 0) else { return };
        limit.shares.overdraw(user, u64::from(charge), now_us());
        if let Some(watched) = self.watched(user) {
            let mut state = watched.state.lock();
            state.owed = state.owed.saturating_add(charge);
        }
    }

    /// Forgets users who have stayed below the share for long enough. Called once a second.
    pub fn sweep(&self) {
        if self.watched_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let before_us = now_us().saturating_sub(WATCH_US);
        let mut watched = self.watched.lock();
        watched.retain(|_, watched| watched.state.lock().over_at_us > before_us);
        self.watched_count.store(watched.len(), Ordering::Relaxed);
    }

    fn watched(&self, user: &UserId) -> Option<Arc<WatchedUser>> {
        if self.watched_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.watched.lock().get(user).cloned()
    }

    fn watch(&self, user: &UserId, limit: &Limit) -> Option<Arc<WatchedUser>> {
        let mut all = self.watched.lock();
        if let Some(watched) = all.get(user) {
            return Some(Arc::clone(watched));
        }
        if all.len() >= WATCHED_MAX {
            return None;
        }
        let state = State {
            left: 0,
            left_until_us: 0,
            refused: (0, 0),
            over_at_us: now_us(),
            owed: u32::try_from(1_000_000 / (limit.draw.cost_us * u64::from(SHARE))).unwrap_or_default(),
        };
        let watched = Arc::new(WatchedUser { state: Mutex::new(state), turn: Semaphore::new(1) });
        all.insert(user.clone(), Arc::clone(&watched));
        self.watched_count.store(all.len(), Ordering::Relaxed);
        Some(watched)
    }

    fn is_away(&self, now_us: u64) -> bool {
        self.away_until_us.load(Ordering::Relaxed) > now_us
    }
}

impl State {
    /// Takes a charge from the block that is left; `None` if another block has to be drawn.
    fn take(&mut self, charge: u32, now_us: u64) -> Option<Allowance> {
        let (refused, until_us) = self.refused;
        if until_us > now_us && charge >= refused {
            return Some(Allowance::Wait((until_us - now_us).div_ceil(1000)));
        }
        if self.left_until_us <= now_us {
            self.left = 0;
        }
        self.left = self.left.checked_sub(charge)?;
        Some(Allowance::Granted)
    }
}
