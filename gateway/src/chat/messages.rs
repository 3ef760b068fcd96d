//! Sending: one commit, whose outcome decides everything; reading history.

use shared::command::{KIND_SYSTEM, KIND_TEXT, SendMessage, Target};
use shared::{ConversationId, ErrorCode, Message, MessageId, ProtocolError, UserId};

use super::error::SendFault;
use super::events::About;
use super::{Chat, refused};
use crate::store::group_commit::NewMessageDraft;
use crate::store::{Page, SendOutcome, ordered_pair};
use crate::traces::{self, Step};

/// A message that was sent, now or before.
#[derive(Debug, Clone, PartialEq)]
pub struct SentMessage {
    /// As it is stored.
    pub message: Message,
    /// Whether an earlier try had stored it; then no user is notified again.
    pub duplicate: bool,
    /// Further answers to a repeated send; empty for a new one, whose event has them.
    pub about: About,
}

/// Who brings a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroughtBy {
    /// Its sender.
    Sender,
    /// A backend that acts for the sender.
    Backend,
}

impl Chat {
    /// Stores a message. Its sender's devices and its recipients get it through the backbone.
    pub async fn send(&self, sender: &UserId, send: SendMessage, by: BroughtBy) -> Result<SentMessage, ProtocolError> {
        self.check_kind(&send.kind, by)?;
        Ok(self.send_as(sender, send, None).await?)
    }

    /// Checks that the node takes messages of this kind from there.
    pub(super) fn check_kind(&self, kind: &str, by: BroughtBy) -> Result<(), ProtocolError> {
        let is_listed = || self.message_kinds.as_ref().is_none_or(|kinds| kinds.contains(kind));
        match (kind, by) {
            (KIND_TEXT, _) | (KIND_SYSTEM, BroughtBy::Backend) => Ok(()),
            (KIND_SYSTEM, BroughtBy::Sender) => Err(ProtocolError {
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
        let started = std::time::Instant::now();
        let conversation = match send.target {
            Target::Conversation(conversation) => conversation,
            Target::User(user) => self.direct(sender, &user).await?,
        };
        self.end_typing(&conversation, sender).await;
        let draft = NewMessageDraft {
            id,
            conversation,
            sender: sender.clone(),
            temp_id: send.temp_id,
            kind: send.kind,
            content: send.content,
            reply_to: send.reply_to,
        };
        let outcome = self.commit.send(draft).await?;
        self.metrics.commit_seconds.record(started.elapsed());
        match outcome {
            SendOutcome::Stored(stored) => {
                self.audit.message(sender, &stored.message.conversation_id, stored.message.id);
                traces::record(Step::Send, stored.message.id, started, 1);
                Ok(SentMessage { message: stored.message, duplicate: false, about: About::default() })
            }
            SendOutcome::Duplicate(message) => {
                let members = self.members.get(&message.conversation_id).await?;
                let about = self.directory.about(&message, &members).await;
                Ok(SentMessage { message, duplicate: true, about })
            }
            SendOutcome::Refused(refusal) => Err(refused(refusal).into()),
        }
    }

    /// Messages of a conversation that `reader` is a member of; `None` is a backend, which may read all.
    pub async fn history(
        &self,
        conversation: &ConversationId,
        reader: Option<&UserId>,
        page: Page,
        limit: u32,
    ) -> Result<Vec<Message>, ProtocolError> {
        if let Some(reader) = reader {
            self.members.of_member(conversation, reader).await?;
        }
        Ok(self.store.messages(conversation, page, limit).await?)
    }

    /// The direct conversation of the two, if this node knows it.
    pub(super) fn known_direct(&self, one: &UserId, other: &UserId) -> Option<ConversationId> {
        self.directs.get(&pair(one, other))
    }

    /// The direct conversation of the two, opened if need be.
    async fn direct(&self, sender: &UserId, to: &UserId) -> Result<ConversationId, ProtocolError> {
        if let Some(known) = self.known_direct(sender, to) {
            return Ok(known);
        }
        let conversation = self.open_direct(Some(sender), (sender, to), None).await?;
        self.directs.insert(pair(sender, to), conversation.id.clone());
        Ok(conversation.id)
    }
}

/// Two users in order, as the cache of direct conversations names them.
fn pair(one: &UserId, other: &UserId) -> (UserId, UserId) {
    let (first, second) = ordered_pair(one, other);
    (first.clone(), second.clone())
}
