//! Sending: one commit, whose outcome decides everything; reading history.

use std::time::Instant;

use futures_util::future::join;
use shared::command::{KIND_SYSTEM, KIND_TEXT, SendMessage, Target};
use shared::{ConversationId, ErrorCode, Message, MessageId, ProtocolError, UserId};

use super::asking::{AskedSend, Asking, Via};
use super::error::SendFault;
use super::events::About;
use super::{Chat, refused};
use crate::store::{NewMessageDraft, Page, Refusal, SendOutcome, StoreError, ordered_pair};
use crate::traces::{self, Step};

/// A message that was sent, now or before.
#[derive(Debug, Clone, PartialEq)]
pub struct SentMessage {
    /// As it is stored.
    pub message: Message,
    /// Whether an earlier try had stored it; then no user is notified again.
    pub duplicate: bool,
    /// Whether it opened its direct conversation.
    pub is_first: bool,
    /// Further answers to a repeated send; empty for a new one, whose event has them.
    pub about: About,
}

impl SentMessage {
    /// A message that an earlier try stored with the hook's content.
    pub(super) fn stored_before(message: Message) -> Self {
        Self { message, duplicate: true, is_first: false, about: About::default() }
    }
}

impl Chat {
    /// Stores a message. Its sender's devices and its recipients get it through the backbone.
    pub async fn send(&self, sender: &UserId, send: SendMessage, via: Via) -> Result<SentMessage, ProtocolError> {
        self.check_kind(&send.kind, via)?;
        let Some(asking) = &self.asking else { return Ok(self.send_as(sender, send, None).await?) };
        let store = async |send| self.send_as(sender, send, None).await.map_err(ProtocolError::from);
        // Apart, because every message under way would have room for it.
        Box::pin(self.ask_and_send(asking, sender, send, via, store)).await
    }

    /// Asks the hook about a message, then has it stored by `store`, which takes its place in the conversation when it is polled
    /// first. What an earlier try stored with the hook's content is no conflict.
    pub(super) async fn ask_and_send<T: From<SentMessage>>(
        &self,
        asking: &Asking,
        sender: &UserId,
        mut send: SendMessage,
        via: Via,
        store: impl AsyncFnOnce(SendMessage) -> Result<T, ProtocolError>,
    ) -> Result<T, ProtocolError> {
        let sent = match self.ask_about_send(asking, sender, &mut send, via).await? {
            AskedSend::StoredBefore(message) => return Ok(SentMessage::stored_before(*message).into()),
            AskedSend::Allowed(turn) => turn.hand_over(store(send.clone())).await,
        };
        match sent {
            Ok(sent) => Ok(sent),
            Err(error) => Ok(SentMessage::stored_before(self.replaced_before(sender, &send, error).await?).into()),
        }
    }

    /// Checks that the node takes messages of this kind from there.
    pub(super) fn check_kind(&self, kind: &str, via: Via) -> Result<(), ProtocolError> {
        let is_listed = || self.message_kinds.as_ref().is_none_or(|kinds| kinds.contains(kind));
        match (kind, via) {
            (KIND_TEXT, _) | (KIND_SYSTEM, Via::Backend) => Ok(()),
            (KIND_SYSTEM, Via::Socket(_) | Via::Rest) => Err(ProtocolError {
                field: Some("kind".into()),
                ..ProtocolError::new(ErrorCode::Forbidden, "messages of kind system are for backends")
            }),
            _ if is_listed() => Ok(()),
            _ => Err(ProtocolError::field("kind", "is not among those that this server takes")),
        }
    }

    /// The same for a message whose id was made before.
    pub(super) async fn send_as(
        &self,
        sender: &UserId,
        send: SendMessage,
        id: Option<MessageId>,
    ) -> Result<SentMessage, SendFault> {
        let started = Instant::now();
        // The store resolves a name that this node doesn't know, and opens what is missing: nothing is awaited before the
        // message takes its place.
        let (target, to) = match send.target {
            Target::Conversation(conversation) => (Target::Conversation(conversation), None),
            Target::User(to) => match self.known_direct(sender, &to) {
                Some(known) => (Target::Conversation(known), Some(to)),
                None => (Target::User(to.clone()), Some(to)),
            },
        };
        if let Target::Conversation(conversation) = &target {
            self.take_event_of(conversation)?;
        }
        let is_reply = send.reply_to.is_some();
        let draft = NewMessageDraft {
            id,
            target,
            sender: sender.clone(),
            temp_id: send.temp_id,
            kind: send.kind,
            content: send.content,
            reply_to: send.reply_to,
            data: send.data,
        };
        match (self.commit_draft(draft, started).await, to) {
            // A backend has deleted the direct conversation that this node remembered: the next try opens another.
            (Err(SendFault::Other(error)), Some(to)) if error.code == ErrorCode::NotFound && !is_reply => {
                self.directs.invalidate(&pair(sender, &to));
                let error = ProtocolError::new(ErrorCode::Unavailable, "the conversation was deleted; try again");
                Err(error.retry_after_ms(0).into())
            }
            (sent, _) => sent,
        }
    }

    async fn commit_draft(&self, draft: NewMessageDraft, started: Instant) -> Result<SentMessage, SendFault> {
        let (sender, target) = (draft.sender.clone(), draft.target.clone());
        let outcome = match &target {
            // Apart, because every message under way would have room for it.
            Target::User(to) => Box::pin(self.commit_to(to, draft)).await?,
            Target::Conversation(conversation) => match self.take_typing(conversation, &sender) {
                None => self.commit.send(draft).await?,
                Some(ended) => {
                    // The lane has the message before anything is awaited, so messages that are sent side by side keep their
                    // order.
                    let (outcome, ()) = join(self.commit.send(draft), Box::pin(self.tell_ended(&ended))).await;
                    outcome?
                }
            },
        };
        self.metrics.commit_seconds.record(started.elapsed());
        match outcome {
            SendOutcome::Stored(stored) => {
                let is_first = stored.is_first();
                let message = stored.message;
                self.audit.message(&sender, &message.conversation_id, message.id);
                traces::record(Step::Send, message.id, started, 1);
                Ok(SentMessage { message, duplicate: false, is_first, about: About::default() })
            }
            SendOutcome::Duplicate(message) => Box::pin(self.sent_before(message)).await,
            SendOutcome::Refused(refusal) => match target {
                Target::Conversation(conversation) => {
                    let answer = Err(StoreError::Refused(refusal));
                    Ok(Box::pin(self.outside(&conversation, Some(&sender), answer)).await?)
                }
                // The two are members of their conversation until it is deleted.
                Target::User(_) if refusal == Refusal::NotMember => Err(refused(Refusal::NotFound).into()),
                Target::User(_) => Err(refused(refusal).into()),
            },
            // The group commit sends it again, or gives up itself.
            SendOutcome::Busy(_) => Err(StoreError::Unavailable("the conversation is busy".into()).into()),
        }
    }

    /// What a repeated send is answered.
    async fn sent_before(&self, message: Message) -> Result<SentMessage, SendFault> {
        let members = self.members.get(&message.conversation_id).await?;
        let about = self.directory.about(&message, &members).await;
        Ok(SentMessage { message, duplicate: true, is_first: false, about })
    }

    /// Commits a message to a user. Remembers the direct conversation of the two, and ends the sender's typing in it.
    async fn commit_to(&self, to: &UserId, draft: NewMessageDraft) -> Result<SendOutcome, StoreError> {
        let outcome = self.commit.send(draft).await?;
        if let SendOutcome::Stored(stored) = &outcome {
            let Message { conversation_id, sender_id, .. } = &stored.message;
            self.directs.insert(pair(sender_id, to), conversation_id.clone());
            self.end_typing(conversation_id, sender_id).await;
        }
        Ok(outcome)
    }

    /// Messages of a conversation that `reader` is a member of; `None` is a backend, which may read all.
    pub async fn history(
        &self,
        conversation: &ConversationId,
        reader: Option<&UserId>,
        page: Page,
        limit: u32,
    ) -> Result<Vec<Message>, ProtocolError> {
        self.may_read(conversation, reader).await?;
        Ok(self.store.messages(conversation, page, limit).await?)
    }

    /// The direct conversation of the two, if this node knows it.
    pub fn known_direct(&self, one: &UserId, other: &UserId) -> Option<ConversationId> {
        self.directs.get(&pair(one, other))
    }
}

/// Two users in order, as the cache of direct conversations names them.
fn pair(one: &UserId, other: &UserId) -> (UserId, UserId) {
    let (first, second) = ordered_pair(one, other);
    (first.clone(), second.clone())
}
