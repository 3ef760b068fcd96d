//! Messages: storing batches of them, and reading them page by page. The values of a send, and the trait; no SQL. Changes of
//! stored messages are in `changes`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shared::command::Target;
use shared::{ConversationId, Message, MessageData, MessageId, TempId, Timestamp, UserId};

use super::conversations::pair_key;
use super::{OpenedDirect, Owner, Page, Refusal, StoreError};

/// Messages, stored and read.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Stores a batch of messages in one transaction. It locks the pairs whose conversation may have to be opened, then
    /// the conversations in order of id. It opens what is missing, unless there is a block or no message to store in it.
    /// It finds duplicates by `(sender, temp_id)`, refuses other messages under a used `temp_id`, and checks membership,
    /// bans, mutes and blocks. It numbers without gaps, and writes the outbox row. It moves the conversation's last message and
    /// the sender's `seen_seq`. It moves the sender's `read_seq` if no message of another user lies between.
    ///
    /// `Failed` means that nothing of the batch was stored; [`GroupCommit`](super::GroupCommit) then stores message by
    /// message.
    async fn send(&self, batch: &SendBatch) -> Result<SentBatch, StoreError>;

    /// Messages of a conversation, ascending by `seq` (by `rev` for `ChangedSince`). The caller has checked membership.
    async fn messages(&self, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError>;
}

/// A message to send, without an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessageDraft {
    /// The message's id, if it was made before; otherwise one is taken. Such a message is stored at most once, provided
    /// that every try has the same `temp_id`.
    pub id: Option<MessageId>,
    /// The conversation, which must exist; or a user: the direct conversation of the two, opened if need be.
    pub target: Target,
    /// The sender.
    pub sender: UserId,
    /// Unique per sender, if given.
    pub temp_id: Option<TempId>,
    /// The kind of the content, such as `text`.
    pub kind: String,
    /// The content, without U+0000.
    pub content: String,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// What the application keeps beside the content.
    pub data: Option<MessageData>,
}

/// One message to store. `id` is made before the first try, so that a retry after an uncertain commit can be
/// recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// The id, from [`Ids::reserve_ids`](super::Ids::reserve_ids).
    pub id: MessageId,
    /// The conversation, which must exist; or a user: the direct conversation of the two, opened if need be.
    #[serde(flatten)]
    pub target: Target,
    /// The sender.
    pub sender: UserId,
    /// Unique per sender, if given.
    pub temp_id: Option<TempId>,
    /// The kind of the content, such as `text`.
    pub kind: String,
    /// The content, without U+0000.
    pub content: String,
    /// The message that it answers, in the same conversation.
    pub reply_to: Option<MessageId>,
    /// What the application keeps beside the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<MessageData>,
}

impl NewMessage {
    /// The message, as it was stored just now in `conversation`.
    #[must_use]
    pub fn stored(&self, conversation: &ConversationId, seq: u64, rev: u64, created_at: Timestamp) -> Message {
        Message {
            id: self.id,
            conversation_id: conversation.clone(),
            seq,
            rev,
            sender_id: self.sender.clone(),
            kind: self.kind.clone(),
            content: self.content.clone(),
            temp_id: self.temp_id.clone(),
            reply_to: self.reply_to,
            data: self.data.clone(),
            created_at,
            edited_at: None,
            deleted_at: None,
            reactions: BTreeMap::new(),
        }
    }

    /// The pair of a message to a user: the key of the direct conversation of the two, and that user.
    pub(super) fn pair(&self) -> Option<(String, &UserId)> {
        match &self.target {
            Target::Conversation(_) => None,
            Target::User(to) => Some((pair_key((&self.sender, to)), to)),
        }
    }

    /// The id under which this message opens a direct conversation. It follows from the message's id, because both are
    /// numbers of one counter, and no application can choose it.
    pub(super) fn opens_under(&self) -> Result<ConversationId, StoreError> {
        opened_by(self.id).ok_or_else(|| StoreError::Failed("the numbers for conversations are used up".into()))
    }

    /// The outcome of this send when its sender used its `temp_id` before, for `original`. `target` is the conversation
    /// that its target stands for, if there is one.
    pub(super) fn under_a_used_temp_id(&self, original: Message, target: Option<&ConversationId>) -> SendOutcome {
        if self.repeats(&original, target) {
            SendOutcome::Duplicate(original)
        } else {
            SendOutcome::Refused(Refusal::UsedTempId)
        }
    }

    /// Whether this is `original` once more. After an edit or a deletion nobody can tell what was sent first. Then the
    /// conversation alone counts.
    fn repeats(&self, original: &Message, target: Option<&ConversationId>) -> bool {
        let is_changed = original.edited_at.is_some() || original.deleted_at.is_some();
        let is_same = || {
            (&self.kind, &self.content, self.reply_to, &self.data)
                == (&original.kind, &original.content, original.reply_to, &original.data)
        };
        target == Some(&original.conversation_id) && (is_changed || is_same())
    }
}

/// The direct conversation that this message opens, if it opens one.
fn opened_by(message: MessageId) -> Option<ConversationId> {
    ConversationId::generated(message.get())
}

/// The name of the conversation into which `sender` sends by this target.
pub(super) fn name_of(sender: &UserId, target: &Target) -> String {
    match target {
        Target::Conversation(id) => id.to_string(),
        Target::User(to) => pair_key((sender, to)),
    }
}

/// Concurrent sends, committed in one transaction with one outbox row.
#[derive(Debug, Clone)]
pub struct SendBatch {
    /// The outbox row's id, from [`Ids::reserve_ids`](super::Ids::reserve_ids); made before the first try (NOLOSS.md,
    /// B8): a repeated call with an id that is already there returns the outcomes of the first call, all `Stored`.
    pub id: u64,
    /// The boot of a node that is going to publish it.
    pub owner: Owner,
    /// The messages, in the order in which they arrived.
    pub messages: Vec<NewMessage>,
    /// How long it waits for conversations that others hold.
    pub locks: Locks,
    /// Whether the webhook is owed events for it.
    pub owes_events: bool,
}

/// How long a batch waits for a conversation that another transaction holds (NOLOSS.md, C5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locks {
    /// A moment. Then it is stored without that conversation, whose messages are [`SendOutcome::Busy`].
    Leave {
        /// Names of conversations whose messages are busy in any case, as the busy messages told them: ids, and keys of pairs.
        held: Vec<String>,
    },
    /// Longer. Then nothing is stored, and all messages are busy.
    Wait,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SentBatch {
    /// In the order of the messages.
    pub outcomes: Vec<SendOutcome>,
    /// The direct conversations that it opened, each once. They stand in its outbox row, and so a repeated call tells
    /// them again.
    pub opened: Vec<OpenedDirect>,
}

/// The outcome of one message of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum SendOutcome {
    /// Stored now. To be published.
    Stored(StoredMessage),
    /// The same message was stored before (or earlier in this batch) under the sender's `temp_id`: the original. Not to be
    /// published again. Another message under a used `temp_id` is refused.
    Duplicate(Message),
    /// Not stored.
    Refused(Refusal),
    /// Not stored, because another transaction holds the conversation; to be sent again. It tells the conversation's id, if
    /// the store looked.
    Busy(Option<ConversationId>),
}

/// A message as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    /// The message with its `seq`, `rev` and `created_at`.
    pub message: Message,
    /// The version of the conversation's members that the commit saw.
    pub members_version: u64,
}

impl StoredMessage {
    /// Whether it opened its direct conversation.
    #[must_use]
    pub fn is_first(&self) -> bool {
        opened_by(self.message.id).as_ref() == Some(&self.message.conversation_id)
    }
}
