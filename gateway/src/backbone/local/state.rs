//! The state that Redis would hold, in this process: logs and subscriptions. Its methods never wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared::{Epoch, UserId};

use super::log::Log;
use super::logins::LocalLogins;
use super::online::Online;
use crate::backbone::redo::{KnownLog, RedoAnswer};
use crate::backbone::{Durable, LogHead, LogPage, Settings, payload};

/// How long a channel is kept after its last subscription ended.
const LINGER: Duration = Duration::from_secs(2);

/// All of it; behind one lock.
pub(super) struct State {
    settings: Arc<Settings>,
    /// Random per process.
    process: u32,
    epochs: u64,
    users: HashMap<UserId, User>,
    pub(super) online: Online,
    pub(super) doors: LocalLogins,
    pub(super) revoked_s: HashMap<UserId, i64>,
}

#[derive(Default)]
struct User {
    subscriptions: u32,
    /// Unix milliseconds until which the channel lingers; only without subscriptions.
    lingers_until_ms: Option<i64>,
    log: Option<Log>,
}

/// The outcome of an append.
pub(super) enum AppendOutcome {
    /// The payload for the inbox, if the user has a subscription.
    Payload { payload: Bytes, subscribed: bool },
    /// Neither a log nor a subscriber.
    Nowhere,
    /// A redo's answer doesn't hold any more; nothing was done.
    Outdated,
}

impl State {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            process: rand::random(),
            epochs: 0,
            users: HashMap::new(),
            online: Online::default(),
            doors: LocalLogins::default(),
            revoked_s: HashMap::new(),
        }
    }

    pub(super) fn subscribe(&mut self, user: &UserId) {
        let user = self.users.entry(user.clone()).or_default();
        user.subscriptions += 1;
        user.lingers_until_ms = None;
    }

    pub(super) fn unsubscribe(&mut self, user: &UserId, now_ms: i64) {
        let Some(user) = self.users.get_mut(user) else { return };
        if user.subscriptions > 0 {
            user.subscriptions -= 1;
            if user.subscriptions == 0 {
                user.lingers_until_ms = Some(now_ms + i64::try_from(LINGER.as_millis()).unwrap_or(i64::MAX));
            }
        }
    }

    /// The user is offline, and a channel that lingered on would count as a receiver.
    pub(super) fn stop_lingering(&mut self, user: &UserId) {
        if let Some(user) = self.users.get_mut(user) {
            user.lingers_until_ms = None;
        }
    }

    pub(super) fn is_wanted(&self, user: &UserId) -> bool {
        self.users.get(user).is_some_and(|user| user.subscriptions > 0)
    }

    pub(super) fn is_subscribed(&self, user: &UserId) -> bool {
        self.users.get(user).is_some_and(User::is_subscribed)
    }

    /// Whether the user was ever here, or has a log.
    pub(super) fn knows(&self, user: &UserId) -> bool {
        self.users.contains_key(user) || self.online.knows(user)
    }

    /// Leaves channels that have lingered long enough, and forgets logs and users whose time has passed.
    pub(super) fn sweep(&mut self, now_ms: i64) {
        self.doors.sweep(now_ms);
        let (online, settings) = (&mut self.online, &self.settings);
        self.users.retain(|id, user| {
            if user.lingers_until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
                user.lingers_until_ms = None;
                online.departed(id, now_ms, settings);
            }
            if user.log.as_ref().is_some_and(|log| log.expires_ms <= now_ms) {
                user.log = None;
            }
            user.is_subscribed() || user.log.is_some()
        });
    }

    /// Appends a durable event.
    pub(super) fn append(
        &mut self,
        user_id: &UserId,
        body: &Bytes,
        durable: &Durable,
        redo: Option<&RedoAnswer>,
        now_ms: i64,
    ) -> AppendOutcome {
        let Some(user) = self.users.get_mut(user_id) else { return AppendOutcome::Nowhere };
        let subscribed = user.is_subscribed();
        let here = |epoch: &Epoch| user.log.as_ref().filter(|log| log.epoch() == epoch);
        match redo {
            None | Some(RedoAnswer::Marker) => {}
            Some(RedoAnswer::Append { under }) if here(under).is_some() => {}
            Some(RedoAnswer::Append { .. }) => return AppendOutcome::Outdated,
            Some(RedoAnswer::Again { epoch, seq }) => {
                let body = here(epoch).and_then(|log| log.body_of(*seq, &durable.event_id));
                return body.map_or(AppendOutcome::Outdated, |body| AppendOutcome::Payload {
                    payload: payload::with_seq(*seq, body),
                    subscribed,
                });
            }
        }
        if user.log.is_none() && !subscribed {
            return AppendOutcome::Nowhere;
        }
        let mut body = body.clone();
        let mut first_line = String::new();
        if user.log.is_none() {
            self.epochs += 1;
            let log = new_log(self.process, self.epochs, now_ms, &self.settings);
            first_line = payload::opened_line(log.epoch().as_str());
            user.log = Some(log);
        }
        let Some(log) = &mut user.log else { return AppendOutcome::Nowhere };
        if redo == Some(&RedoAnswer::Marker) {
            body = payload::placed(&body, log.epoch().as_str(), log.head().last + 1);
        }
        let at_ms = now_ms.max(durable.committed_at.unix_ms());
        let seq = log.append(&durable.event_id, at_ms, body.clone(), &self.settings);
        let mut payload = payload::with_seq(seq, &body);
        if !first_line.is_empty() {
            payload = Bytes::from([first_line.as_bytes(), &payload].concat());
        }
        AppendOutcome::Payload { payload, subscribed }
    }

    /// What a redo has to know of the user's log, if there is one.
    pub(super) fn known_log(&self, user: &UserId) -> Option<KnownLog> {
        self.users.get(user)?.log.as_ref().map(Log::known)
    }

    pub(super) fn open(&mut self, user: &UserId, now_ms: i64) -> LogHead {
        let expires_ms = self.expires_ms(now_ms);
        let log = self.log(user, now_ms);
        log.expires_ms = expires_ms;
        log.head()
    }

    pub(super) fn read(&mut self, user: &UserId, after: u64, limit: u32, now_ms: i64) -> LogPage {
        let settings = self.settings.clone();
        let log = self.log(user, now_ms);
        log.forget_old(now_ms, &settings);
        let entries = log.entries(after, limit).map(|(seq, body)| (seq, payload::with_seq(seq, body))).collect();
        LogPage { head: log.head(), entries }
    }

    /// Keeps a user online, and their log alive.
    pub(super) fn refresh(&mut self, user_id: &UserId, now_ms: i64) {
        let expires_ms = self.expires_ms(now_ms);
        self.online.arrived(user_id, now_ms, &self.settings);
        if let Some(log) = self.users.get_mut(user_id).and_then(|user| user.log.as_mut()) {
            log.expires_ms = expires_ms;
        }
    }

    /// Cuts a user's log behind what holds `text`.
    pub(super) fn cut_log(&mut self, user: &UserId, text: &[u8]) {
        if let Some(log) = self.users.get_mut(user).and_then(|user| user.log.as_mut()) {
            log.cut(text);
        }
    }

    /// Forgets a user's log.
    pub(super) fn forget(&mut self, user: &UserId) {
        if let Some(user) = self.users.get_mut(user) {
            user.log = None;
        }
    }

    fn log(&mut self, user: &UserId, now_ms: i64) -> &mut Log {
        let user = self.users.entry(user.clone()).or_default();
        user.log.get_or_insert_with(|| {
            self.epochs += 1;
            new_log(self.process, self.epochs, now_ms, &self.settings)
        })
    }

    fn expires_ms(&self, now_ms: i64) -> i64 {
        now_ms + i64::from(self.settings.resume_seconds) * 1000
    }
}

impl User {
    fn is_subscribed(&self) -> bool {
        self.subscriptions > 0 || self.lingers_until_ms.is_some()
    }
}

fn new_log(process: u32, number: u64, now_ms: i64, settings: &Settings) -> Log {
    Log::new(Epoch::of_process(process, number), now_ms, now_ms + i64::from(settings.resume_seconds) * 1000)
}
