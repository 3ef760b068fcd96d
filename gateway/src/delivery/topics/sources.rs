//! Where the topics get what they need: the backbone's channels, and the store, by way of the domain.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use shared::{ConversationId, Place, UserId};

use crate::backbone::{Backbone, BackboneError};

/// A message that was changed behind a place.
#[derive(Debug, Clone)]
pub struct MissedRow {
    /// Its last change.
    pub rev: u64,
    /// Its place among the messages.
    pub seq: u64,
    /// Whether it was published once for all members: otherwise it stands in the log of each.
    pub was_large: bool,
    /// Whether anything happened to it since it was sent.
    pub is_changed: bool,
    /// Its envelope for who doesn't have it: `message.new`.
    pub new: Bytes,
    /// Its envelope for who has it: `message.edited` or `message.deleted`.
    pub changed: Bytes,
}

/// Where a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its newest change and message.
    pub place: Place,
    /// Whether it is large.
    pub large: bool,
}

/// A conversation that a user is in.
#[derive(Debug, Clone)]
pub struct Own {
    /// The conversation.
    pub conversation: ConversationId,
    /// Where it is.
    pub head: Head,
}

/// What was read in place of lost publications.
#[derive(Debug, Clone)]
pub struct Missed {
    /// Where the conversation was; `None` if there is none any more.
    pub head: Option<Head>,
    /// The `rev` behind which nothing is left out.
    pub floor: u64,
    /// The messages that were changed behind it, by `rev`.
    pub rows: Vec<MissedRow>,
}

/// The store, as far as large conversations are concerned.
#[async_trait]
pub trait LargeStore: Send + Sync + 'static {
    /// What changed in a conversation behind the `rev` `after`.
    async fn missed(&self, conversation: &ConversationId, after: u64) -> Result<Missed, BackboneError>;

    /// Where these conversations are, by one query.
    async fn heads(&self, conversations: &[ConversationId]) -> Result<HashMap<ConversationId, Head>, BackboneError>;

    /// The large conversations that a user is in, and those of the named ones, large or not. Users who ask at the same time
    /// are asked about by one query.
    async fn own(&self, user: &UserId, named: BTreeSet<ConversationId>) -> Result<Vec<Own>, BackboneError>;
}

/// The sources.
pub struct Sources {
    /// The channels.
    pub backbone: Arc<dyn Backbone>,
    /// The store.
    pub store: Arc<dyn LargeStore>,
}
