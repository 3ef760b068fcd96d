//! Live delivery while the store is away, for the dialect of seed 004, which says that database failures don't
//! interrupt the flow.
//!
//! The message goes to that dialect's sockets at once, and the backbone keeps it until the store takes it. From then on
//! it is an ordinary message, and only then is it acknowledged. Its id and its `tempId` are made before the first try,
//! so every try that is carried out, late or not, stores this message.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::sync::Cache;
use parking_lot::Mutex;
use shared::command::{SendMessage, Target, check_content, check_kind};
use shared::{ConversationId, ErrorCode, Event, Message, MessageId, ProtocolError, TempId, Timestamp, UserId};
use tokio_util::sync::CancellationToken;

use super::asking::Via;
use super::error::SendFault;
use super::messages::SentMessage;
use super::{Chat, refused};
use crate::backbone::late::MESSAGE_LIVE;
use crate::backbone::{Delivery, DeliveryKind, LateId};
use crate::clock::every;
use crate::store::{CommittedBatch, Locks, Members, NewMessage, Refusal, SendBatch, SendOutcome, StoreError};

/// How long the store may take for a message that can be delivered without it.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How often late messages are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The lease of the node that stores them.
const LEASE_MS: u32 = 10_000;
/// Late messages that are stored in one transaction.
const PORTION: u32 = 64;
/// Ids that are held for messages which the store can't be asked about.
const IDS: u32 = 4_096;
/// Late messages whose retries a node recognises.
const RECENT_MAX: u64 = 10_000;
/// When a client may try again that could not be served.
const RETRY_AFTER_MS: u64 = 2_000;

/// The state of late messages on a node.
pub(super) struct Late {
    /// The store did not take a message, and what was kept since then is not stored yet.
    away: AtomicBool,
    /// Ids that were reserved while the store was there.
    ids: Mutex<Range<u64>>,
    /// What this node kept, by senders and `tempId`s. Of each message a digest, to tell a retry from another message.
    recent: Cache<(UserId, TempId), u64>,
    /// The key of those digests.
    digests: RandomState,
}

impl Default for Late {
    fn default() -> Self {
        let recent = Cache::builder().max_capacity(RECENT_MAX).build();
        Self { away: AtomicBool::new(false), ids: Mutex::new(0..0), recent, digests: RandomState::new() }
    }
}

impl Late {
    fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    fn set_away(&self, away: bool) {
        if self.away.swap(away, Ordering::Relaxed) != away {
            tracing::info!(away, "messages that were delivered before they were stored wait for the store");
        }
    }

    fn next_id(&self) -> Option<MessageId> {
        self.ids.lock().next().and_then(MessageId::new)
    }

    fn ids_left(&self) -> u64 {
        let ids = self.ids.lock();
        ids.end.saturating_sub(ids.start)
    }
}

impl Chat {
    /// Sends like [`Chat::send`]; if the store doesn't take it in time, delivers it live and keeps it for later (`None`).
    pub async fn send_live(
        &self,
        sender: &UserId,
        mut send: SendMessage,
        via: Via,
    ) -> Result<Option<SentMessage>, ProtocolError> {
        self.check_kind(&send.kind, via)?;
        send.temp_id.get_or_insert_with(|| TempId::generated(rand::random()));
        let Some(asking) = &self.asking else { return self.store_or_keep(sender, send).await };
        let store = async |send| self.store_or_keep(sender, send).await;
        Box::pin(self.ask_and_send(asking, sender, send, via, store)).await
    }

    async fn store_or_keep(&self, sender: &UserId, send: SendMessage) -> Result<Option<SentMessage>, ProtocolError> {
        let mut id = None;
        if !self.late.is_away() {
            id = self.live_id().await;
            match tokio::time::timeout(PATIENCE, self.send_as(sender, send.clone(), id)).await {
                Ok(Err(SendFault::Other(error))) if error.code == ErrorCode::Unavailable => {}
                Ok(outcome) => return Ok(Some(outcome?)),
                Err(_) => {}
            }
            self.late.set_away(true);
        }
        let id = id.or_else(|| self.late.next_id()).ok_or_else(|| unavailable("the store is away; try again"))?;
        self.send_late(sender, send, id).await.map(|()| None)
    }

    /// Whether [`Chat::send_live`] hands a message to the group commit the moment it is polled first, as [`Chat::send`] does.
    pub fn takes_live_sends_at_once(&self) -> bool {
        !self.late.is_away() && self.late.ids_left() > 0
    }

    async fn live_id(&self) -> Option<MessageId> {
        if let Some(id) = self.late.next_id() {
            return Some(id);
        }
        if let Err(error) = self.reserve_late_ids().await {
            tracing::debug!(%error, "ids for live messages could not be reserved");
        }
        self.late.next_id()
    }

    async fn reserve_late_ids(&self) -> Result<(), StoreError> {
        let reserved = self.store.reserve_ids(IDS).await?;
        // The rest of the block is lost; there are enough ids.
        *self.late.ids.lock() = reserved;
        Ok(())
    }

    async fn send_late(&self, sender: &UserId, send: SendMessage, id: MessageId) -> Result<(), ProtocolError> {
        let unknown =
            || unavailable("the store is unavailable, and this node has not cached the conversation's members");
        let conversation = match send.target {
            Target::Conversation(conversation) => conversation,
            Target::User(to) => self.known_direct(sender, &to).ok_or_else(unknown)?,
        };
        let members = self.members.remembered(&conversation).filter(|members| !members.route.large);
        let members = members.ok_or_else(unknown)?;
        match members.role(sender) {
            None => return Err(refused(Refusal::NotMember)),
            Some(_) if members.blocked => return Err(refused(Refusal::Blocked)),
            Some(_) => {}
        }
        let key = send.temp_id.clone().map(|temp_id| (sender.clone(), temp_id));
        let digest = self.late.digests.hash_one((&conversation, &send.kind, &send.content, send.reply_to, &send.data));
        match key.as_ref().and_then(|key| self.late.recent.get(key)) {
            Some(known) if known == digest => return Ok(()),
            Some(_) => return Err(refused(Refusal::UsedTempId)),
            None => {}
        }
        let message = NewMessage {
            id,
            target: Target::Conversation(conversation.clone()),
            sender: sender.clone(),
            temp_id: send.temp_id,
            kind: send.kind,
            content: send.content,
            reply_to: send.reply_to,
            data: send.data,
        };
        let entry = serde_json::to_vec(&message)
            .map_err(|fault| ProtocolError::new(ErrorCode::InternalError, fault.to_string()))?;
        if !self.backbone.keep_late(entry.into()).await? {
            self.metrics.late_refused.increment(1);
            return Err(unavailable("too many messages wait for the store; try again"));
        }
        self.metrics.late_kept.increment(1);
        key.into_iter().for_each(|key| self.late.recent.insert(key, digest));
        self.tell_live(message, conversation, &members).await;
        Ok(())
    }

    /// Sends it to the members' sockets whose dialect takes it. The others get it when it is stored.
    async fn tell_live(&self, message: NewMessage, conversation: ConversationId, members: &Members) {
        let to = members.recipient_of(&message.sender).cloned();
        let (sender, temp_id) = (message.sender.clone(), message.temp_id.clone());
        let message = Message {
            id: message.id,
            conversation_id: conversation,
            seq: 0,
            rev: 0,
            sender_id: message.sender,
            kind: message.kind,
            content: message.content,
            temp_id: message.temp_id,
            reply_to: message.reply_to,
            data: message.data,
            created_at: Timestamp::now(),
            edited_at: None,
            deleted_at: None,
            reactions: std::collections::BTreeMap::new(),
        };
        let new = live_envelope(&Event::MessageNew { message: message.clone(), to: to.clone(), sender_name: None });
        let sent = live_envelope(&Event::MessageSent { temp_id, message, duplicate: false, to, sender_name: None });
        let delivery = |user: &UserId| Delivery {
            user: user.clone(),
            body: if *user == sender { sent.clone() } else { new.clone() },
            kind: DeliveryKind::Ephemeral,
        };
        let deliveries = members.list.iter().map(|(user, _)| delivery(user)).collect();
        if let Err(error) = self.backbone.publish(deliveries).await {
            tracing::debug!(%error, "a message that waits for the store could not be delivered live");
        }
    }

    /// Stores what was kept while the store was away, until `stop`: on whichever node finds it first.
    pub async fn store_late_until(&self, stop: CancellationToken) {
        let mut ticks = every(LOOK_EVERY, stop.clone());
        while ticks.next().await {
            if let Err(error) = self.look_after_late(&stop).await {
                tracing::debug!(%error, "late messages could not be moved to the store; the next pass retries");
            }
        }
    }

    async fn look_after_late(&self, stop: &CancellationToken) -> Result<(), ProtocolError> {
        let count = self.backbone.late_count().await;
        let away = self.late.is_away();
        if away || matches!(count, Ok(1..)) {
            self.store.ping().await?;
        }
        if matches!(count, Ok(1..)) && self.backbone.lease_late(LEASE_MS).await? {
            while !stop.is_cancelled() && self.store_late().await? && self.backbone.lease_late(LEASE_MS).await? {}
        }
        // Kept messages go first. But while the backbone is away, new ones must not wait for it.
        if away && !matches!(self.backbone.late_count().await, Ok(1..)) {
            self.late.set_away(false);
        }
        if !self.late.is_away() && self.late.ids_left() < u64::from(IDS / 2) {
            self.reserve_late_ids().await?;
        }
        Ok(())
    }

    /// Stores the first of them; whether there were any.
    async fn store_late(&self) -> Result<bool, ProtocolError> {
        let (ids, entries): (Vec<LateId>, Vec<Bytes>) = self.backbone.read_late(PORTION).await?.into_iter().unzip();
        if ids.is_empty() {
            return Ok(false);
        }
        let messages: Vec<NewMessage> = entries.iter().filter_map(|entry| self.read_entry(entry)).collect();
        match self.store_portion(messages.clone()).await {
            // One that can't be stored must not hold up the others.
            Err(StoreError::Failed(_)) if messages.len() > 1 => {
                for message in messages {
                    self.store_alone(message).await?;
                }
            }
            Err(StoreError::Failed(fault)) => self.give_up(&fault),
            other => other?,
        }
        self.backbone.drop_late(&ids).await?;
        Ok(true)
    }

    /// An entry that is none of ours is dropped.
    fn read_entry(&self, entry: &[u8]) -> Option<NewMessage> {
        let message = serde_json::from_slice::<NewMessage>(entry).ok();
        let is_good = |message: &NewMessage| {
            let content = check_content(&message.content, usize::MAX);
            message.temp_id.is_some() && content.is_ok() && check_kind(&message.kind).is_ok()
        };
        let message = message.filter(is_good);
        if message.is_none() {
            self.give_up("it is not a message");
        }
        message
    }

    async fn store_alone(&self, message: NewMessage) -> Result<(), StoreError> {
        match self.store_portion(vec![message]).await {
            Err(StoreError::Failed(fault)) => {
                self.give_up(&fault);
                Ok(())
            }
            other => other,
        }
    }

    /// One transaction, with a row of its own: what was stored by an earlier try is recognised by its `tempId`, and
    /// published from the row of that try.
    async fn store_portion(&self, messages: Vec<NewMessage>) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        let (row, begun) = (self.ids.next().await?, Instant::now());
        let (owner, owes_events) = (self.owner.clone(), self.owes_events());
        let batch = SendBatch { id: row, owner, messages, locks: Locks::Wait, owes_events };
        let sent = self.store.send(&batch).await?;
        let (mut stored, mut is_busy) = (Vec::new(), false);
        for outcome in sent.outcomes {
            match outcome {
                SendOutcome::Stored(message) => {
                    let sent = &message.message;
                    self.audit.message(&sent.sender_id, &sent.conversation_id, sent.id);
                    stored.push(message);
                }
                SendOutcome::Duplicate(_) => {}
                SendOutcome::Busy(_) => is_busy = true,
                SendOutcome::Refused(refusal) => self.give_up(&format!("the store refused it: {refusal:?}")),
            }
        }
        self.metrics.late_stored.increment(u64::try_from(stored.len()).unwrap_or(0));
        if !stored.is_empty() {
            self.publisher.publish_batch(CommittedBatch { row, opened: sent.opened, messages: stored, begun });
        }
        if is_busy {
            return Err(StoreError::Unavailable("a conversation is busy".into()));
        }
        Ok(())
    }

    fn give_up(&self, reason: &str) {
        tracing::error!(reason, "a message that was delivered live can't be stored");
        self.metrics.late_refused.increment(1);
    }
}

/// An envelope for nodes: only sockets whose dialect takes messages that are not stored yet get the event in it.
fn live_envelope(event: &Event) -> Bytes {
    format!(r#"{{"type":"{MESSAGE_LIVE}","payload":{{"event":{}}}}}"#, event.to_json()).into()
}

fn unavailable(message: &'static str) -> ProtocolError {
    ProtocolError::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_AFTER_MS)
}
