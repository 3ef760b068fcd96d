//! From the backbone to the sockets: checks a payload, frames it once a dialect, hands it to the user's local sockets.
//!
//! Runs on the task that reads the backbone, so it never waits; what needs the log goes to the healer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shared::event::ResyncReason;
use shared::{CloseCode, ConversationId, Event, MessageId, UserId};
use tokio::sync::mpsc;

use crate::backbone::late::MESSAGE_LIVE;
use crate::backbone::{Control, Inbox};
use crate::delivery::envelope::{Opened, Payload, accepted_at, live_event, message_id};
use crate::delivery::frames::Frames;
use crate::delivery::heal::resync;
use crate::delivery::registry::{LogEvent, PushTally, Registry};
use crate::metrics::Metrics;
use crate::switches;
use crate::traces::{self, Step};

/// How long after an event of the log a message that is not stored yet may turn out to be that event.
const LIVE_DOUBT: Duration = Duration::from_secs(1);

/// Something that the node knew has changed elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// Who is in this conversation.
    Members(ConversationId),
    /// Anything: orders may have been missed.
    Everything,
}

/// The inbox of the backbone.
pub struct Fanout {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    /// Users to heal. Bounded by the number of local users: each stands here once, until its healing ends.
    heal: mpsc::UnboundedSender<UserId>,
    on_stale: Box<dyn Fn(Invalidation) + Send + Sync>,
    /// The subscriptions were lost, and the users are not being healed yet.
    interrupted: AtomicBool,
}

impl Fanout {
    /// A fan-out to these sockets; `on_stale` is told what caches must forget.
    pub fn new(
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        heal: mpsc::UnboundedSender<UserId>,
        on_stale: Box<dyn Fn(Invalidation) + Send + Sync>,
    ) -> Self {
        Self { registry, metrics, heal, on_stale, interrupted: AtomicBool::new(false) }
    }

    /// Asks for the user's log to be read, unless that is under way.
    pub fn request_heal(&self, user: &UserId) {
        if self.registry.begin_heal(user.as_str()) && self.heal.send(user.clone()).is_err() {
            self.registry.end_heal(user.as_str(), false);
        }
    }

    /// Hands a message to the user's sockets on this node, because the backbone is away (DESIGN §3). Sockets that got
    /// events of the log since `tried_at`, when its publication was begun, may have it and are left out.
    pub fn deliver_direct(&self, user: &UserId, message: MessageId, body: &[u8], tried_at: Instant) {
        let spread = self.registry.push_direct(user.as_str(), message.get(), &Frames::new(body, None), tried_at);
        self.metrics.direct.increment(u64::from(spread.queued));
        self.count(spread);
    }

    fn deliver(&self, user: &str, payload: &Payload<'_>) {
        if let Some(opened) = &payload.opened {
            self.begin_anew(user, opened);
            if payload.envelopes.is_empty() {
                return;
            }
        }
        self.metrics.event(&payload.kind);
        let spread = match payload.seq {
            Some(seq) => {
                let began = traces::on().then(Instant::now);
                let accepted = accepted_at(&payload.kind, payload.envelopes);
                let event = LogEvent::new(seq, payload.envelopes).accepted_at(accepted);
                let spread = self.registry.push_durable(user, &event);
                if let Some(began) = began
                    && accepted.is_some()
                    && let Some(message) = message_id(payload.envelopes).and_then(MessageId::new)
                {
                    traces::record(Step::Deliver, message, began, usize::try_from(spread.queued).unwrap_or(0));
                }
                spread
            }
            None if payload.kind == MESSAGE_LIVE => return self.deliver_live(user, payload.envelopes),
            None => self.registry.push_ephemeral(user, &Frames::new(payload.envelopes, None)),
        };
        self.count(spread);
        if spread.gap
            && !switches::off("gap-heal")
            && let Ok(user) = UserId::parse(user)
        {
            self.request_heal(&user);
        }
    }

    /// A message that was sent while the store was away. A socket to which the log has just brought something may have it
    /// by that way already, from a try whose outcome was unknown; it is left to the log.
    fn deliver_live(&self, user: &str, envelopes: &[u8]) {
        let frames = live_event(envelopes).map(|event| Frames::new(event.get().as_bytes(), None));
        let tried_at = Instant::now().checked_sub(LIVE_DOUBT);
        match frames.as_ref().and_then(|frames| Some((frames, frames.brought()?.message, tried_at?))) {
            Some((frames, message, tried_at)) => {
                let spread = self.registry.push_live(user, message, frames, tried_at);
                self.metrics.late_delivered.increment(u64::from(spread.queued));
                self.count(spread);
            }
            None => self.metrics.poisoned.increment(1),
        }
    }

    fn begin_anew(&self, user: &str, opened: &Opened) {
        if switches::off("opened-line") {
            return;
        }
        let position = Frames::of(&Event::Position { epoch: opened.epoch.clone(), seq: 0 });
        let reason = opened.reason.unwrap_or(ResyncReason::Epoch);
        let resync = resync(reason, &opened.epoch, 0);
        let doubtful = opened.reason.is_some() || self.interrupted.load(Ordering::Acquire);
        let (positions, resyncs) = self.registry.begin_anew(user, &opened.epoch, doubtful, &position, &resync);
        self.metrics.positions.increment(u64::from(positions));
        if resyncs > 0 {
            self.metrics.resync(reason);
        }
    }

    fn count(&self, spread: PushTally) {
        self.metrics.events_queued.increment(u64::from(spread.queued));
        self.metrics.dropped_ephemeral.increment(u64::from(spread.dropped));
        self.metrics.slow_consumers.increment(u64::from(spread.overflowed));
        self.metrics.gaps.increment(u64::from(spread.missed));
    }
}

impl Inbox for Fanout {
    fn user_event(&self, user: &str, payload: &[u8]) {
        match Payload::parse(payload) {
            Ok(payload) => self.deliver(user, &payload),
            Err(_) => self.metrics.poisoned.increment(1),
        }
    }

    fn broadcast(&self, payload: &[u8]) {
        match Payload::parse(payload) {
            Ok(Payload { opened: None, seq: None, envelopes, kind }) if kind != MESSAGE_LIVE => {
                self.metrics.event(&kind);
                let spread = self.registry.push_everyone(&Frames::new(envelopes, None));
                self.count(spread);
            }
            Ok(_) | Err(_) => self.metrics.poisoned.increment(1),
        }
    }

    fn control(&self, control: Control) {
        match control {
            Control::Disconnect { user_id, revoked } => {
                let code = if revoked { CloseCode::SessionRevoked } else { CloseCode::ForceReconnect };
                self.registry.close_user(&user_id, code);
            }
            Control::MembersChanged { conversation_id } => (self.on_stale)(Invalidation::Members(conversation_id)),
        }
    }

    fn interrupted(&self) {
        self.interrupted.store(true, Ordering::Release);
    }

    fn user_resubscribed(&self, user: &str) {
        if !switches::off("reconnect-heal")
            && let Ok(user) = UserId::parse(user)
        {
            self.request_heal(&user);
        }
    }

    fn orders_missed(&self) {
        (self.on_stale)(Invalidation::Everything);
    }

    fn resubscribed(&self) {
        (self.on_stale)(Invalidation::Everything);
        if !switches::off("reconnect-heal") {
            self.registry.users().iter().for_each(|user| self.request_heal(user));
        }
        // From here on each user's own healing says that something may be missing.
        self.interrupted.store(false, Ordering::Release);
    }
}
