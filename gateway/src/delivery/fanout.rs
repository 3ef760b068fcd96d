//! From the backbone to the sockets: checks a payload, frames it once per dialect, hands it to the user's local sockets.
//!
//! Runs on the task that reads the backbone, so it never waits. A user whose log has to be read goes to the healer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::event::ResyncReason;
use shared::{CloseCode, ConversationId, MessageId, UserId};
use tokio::sync::mpsc;

use crate::backbone::late::MESSAGE_LIVE;
use crate::backbone::{Control, Inbox};
use crate::clock::coarse_s;
use crate::delivery::envelope::{MessageRef, Opened, Payload, live_event, message_of};
use crate::delivery::frames::Frames;
use crate::delivery::heal::resync;
use crate::delivery::registry::{LogEvent, PushTally, Registry};
use crate::delivery::shown_typing::ShownTyping;
use crate::delivery::topics::Topics;
use crate::metrics::Metrics;
use crate::switches;
use crate::traces::{self, Step};

/// How long after an event of the log a message that is not stored yet may turn out to be that event.
const LIVE_DOUBT: Duration = Duration::from_secs(1);

/// The type of the event that says who types.
const TYPING: &str = "typing";

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
    /// Large conversations.
    topics: Arc<Topics>,
    metrics: Arc<Metrics>,
    /// Users to heal. Bounded by the number of local users: each stands here once, until its healing ends.
    heal: mpsc::UnboundedSender<UserId>,
    on_stale: Box<dyn Fn(Invalidation) + Send + Sync>,
    /// What must end by itself.
    typing: ShownTyping,
}

impl Fanout {
    /// A fan-out to these sockets; `on_stale` is told what caches must forget.
    pub fn new(
        (registry, topics): (Arc<Registry>, Arc<Topics>),
        metrics: Arc<Metrics>,
        heal: mpsc::UnboundedSender<UserId>,
        on_stale: Box<dyn Fn(Invalidation) + Send + Sync>,
    ) -> Self {
        Self { registry, topics, metrics, heal, on_stale, typing: ShownTyping::default() }
    }

    /// Asks for the user's log to be read, unless that is under way.
    pub fn request_heal(&self, user: &UserId) {
        if self.registry.begin_heal(user.as_str()) && self.heal.send(user.clone()).is_err() {
            self.registry.end_heal(user.as_str());
        }
    }

    /// Hands a message to the user's sockets on this node, because the backbone is away. Sockets that got
    /// events of the log since `tried_at`, when its publication was begun, may have it and are left out.
    pub fn deliver_direct(&self, user: &UserId, message: MessageId, body: &[u8], tried_at: Instant) {
        let temp_id = message_of(body).and_then(|message| message.temp_id);
        let message = MessageRef { id: message, created_at: None, temp_id };
        let tally = self.registry.push_direct(user.as_str(), &message, &Frames::new(body, None), tried_at);
        self.metrics.direct.increment(u64::from(tally.queued));
        self.count(tally);
    }

    /// Hands an event of a large conversation to its members' sockets on this node, because the backbone is away.
    pub fn deliver_topic_direct(&self, conversation: &ConversationId, envelope: &[u8]) {
        self.topics.event(conversation.as_str(), envelope);
    }

    /// Ends what users are shown of typing if its end has not come in time.
    pub fn end_typing(&self) {
        for (user, end) in self.typing.take_due(coarse_s()) {
            let tally = self.registry.push_ephemeral(user.as_str(), &Frames::of(&end));
            self.count(tally);
        }
    }

    fn deliver(&self, user: &str, payload: Payload<'_>) {
        if let Some(opened) = &payload.opened {
            self.begin_anew(user, opened);
            if payload.envelopes.is_empty() {
                return;
            }
        }
        self.metrics.event(&payload.kind);
        let tally = match payload.seq {
            Some(seq) => {
                let began = traces::on().then(Instant::now);
                let accepted = payload.message.as_ref().filter(|message| message.created_at.is_some());
                let traced = began.zip(accepted.map(|message| message.id));
                let event = LogEvent::live(seq, payload.envelopes, payload.message).with_counts(payload.counts);
                let tally = self.registry.push_durable(user, &event);
                if let Some((turn, passed)) = event.turn() {
                    self.topics.turn(user, &turn, passed);
                }
                if let Some((began, message)) = traced {
                    traces::record(Step::Deliver, message, began, usize::try_from(tally.queued).unwrap_or(0));
                }
                tally
            }
            None if payload.kind == MESSAGE_LIVE => return self.deliver_live(user, payload.envelopes),
            None => {
                if payload.kind == TYPING {
                    self.typing.note(user, payload.envelopes, coarse_s());
                }
                self.registry.push_ephemeral(user, &Frames::new(payload.envelopes, None))
            }
        };
        self.count(tally);
        if tally.gap
            && !switches::off("gap-heal")
            && let Ok(user) = UserId::parse(user)
        {
            self.request_heal(&user);
        }
    }

    /// A message that was sent while the store was away. A socket to which the log has just brought something may have it
    /// by that way already, from a try whose outcome was unknown; it is left to the log.
    fn deliver_live(&self, user: &str, envelopes: &[u8]) {
        let event = live_event(envelopes).map(|event| event.get().as_bytes());
        let tried_at = Instant::now().checked_sub(LIVE_DOUBT);
        match event.and_then(|event| Some((event, message_of(event)?, tried_at?))) {
            Some((event, message, tried_at)) => {
                let tally = self.registry.push_live(user, &message, &Frames::new(event, None), tried_at);
                self.metrics.late_delivered.increment(u64::from(tally.queued));
                self.count(tally);
            }
            None => self.metrics.poisoned.increment(1),
        }
    }

    fn begin_anew(&self, user: &str, opened: &Opened) {
        if switches::off("opened-line") {
            return;
        }
        // The log vanished, or another server has taken over: nobody knows what is missing (NOLOSS.md, A4, A5).
        let resync = resync(ResyncReason::Epoch, &opened.epoch, 0);
        if self.registry.change_epoch(user, &opened.epoch, 0, &resync) {
            self.metrics.resync(ResyncReason::Epoch);
            self.topics.refresh(user);
        } else {
            // A socket that is joining may have been told the head of the log before (NOLOSS.md, B1).
            self.user_in_doubt(user);
        }
    }

    fn count(&self, tally: PushTally) {
        self.metrics.events_queued.increment(u64::from(tally.queued));
        self.metrics.dropped_ephemeral.increment(u64::from(tally.dropped));
        self.metrics.slow_consumers.increment(u64::from(tally.overflowed));
        self.metrics.gaps.increment(u64::from(tally.missed));
    }
}

impl Inbox for Fanout {
    fn user_event(&self, user: &str, payload: &[u8]) {
        match Payload::parse(payload) {
            Ok(payload) => self.deliver(user, payload),
            Err(_) => self.metrics.poisoned.increment(1),
        }
    }

    fn topic_event(&self, conversation: &str, payload: &[u8]) {
        if !self.topics.event(conversation, payload) {
            self.metrics.poisoned.increment(1);
        }
    }

    fn broadcast(&self, payload: &[u8]) {
        match Payload::parse(payload) {
            Ok(Payload { opened: None, seq: None, envelopes, kind, .. }) if kind != MESSAGE_LIVE => {
                self.metrics.event(&kind);
                let tally = self.registry.push_everyone(&Frames::new(envelopes, None));
                self.count(tally);
            }
            Ok(_) | Err(_) => self.metrics.poisoned.increment(1),
        }
    }

    fn control(&self, control: Control) {
        match control {
            Control::Disconnect { user_id, revoked: true, revoked_s: None } => {
                self.registry.close_user(&user_id, CloseCode::SessionRevoked);
            }
            Control::Disconnect { user_id, revoked: true, revoked_s: Some(revoked_s) } => {
                self.registry.close_revoked(&user_id, revoked_s);
                // Whatever is left is closed as well, and good again: its issuer's clock is ahead, or it is new.
                self.registry.close_user(&user_id, CloseCode::ForceReconnect);
            }
            Control::Disconnect { user_id, revoked: false, revoked_s: _ } => {
                self.registry.close_user(&user_id, CloseCode::ForceReconnect);
            }
            Control::MembersChanged { conversation_id } => (self.on_stale)(Invalidation::Members(conversation_id)),
        }
    }

    fn user_in_doubt(&self, user: &str) {
        if !switches::off("doubt") {
            self.registry.raise_doubt(user);
        }
    }

    fn user_resubscribed(&self, user: &str) {
        self.user_in_doubt(user);
        if !switches::off("reconnect-heal")
            && let Ok(user) = UserId::parse(user)
        {
            self.request_heal(&user);
        }
    }

    fn topic_resubscribed(&self, conversation: &str) {
        self.topics.doubt(conversation);
    }

    fn orders_missed(&self) {
        (self.on_stale)(Invalidation::Everything);
    }

    fn resubscribed(&self) {
        (self.on_stale)(Invalidation::Everything);
        self.topics.doubt_all();
        if !switches::off("reconnect-heal") {
            self.registry.users().iter().for_each(|user| self.request_heal(user));
        }
    }
}
