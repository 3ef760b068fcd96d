//! The store keeps all data that must never be lost: PostgreSQL, or an embedded SQLite file, under one contract suite.
//! It offers [`Store`], one trait per concern, and [`GroupCommit`], the way in for messages and receipts.
//! SQL stands only below this folder, and no event is published without an [`OutboxRow`] in its change's transaction.

mod activity;
mod audit;
mod backbones;
mod bulk;
mod busy;
mod by_user;
mod changes;
mod commit_sink;
mod committer;
mod connect;
mod conversation_changes;
mod conversations;
mod erasure;
mod error;
mod flow;
pub mod group_commit;
mod ids;
mod lane;
mod large;
mod leases;
mod listings;
mod lookups;
mod membership;
mod messages;
mod migrations;
mod moderation;
mod notifications;
mod outbox;
mod owed;
mod people;
mod postgres;
mod receipts;
mod replacements;
mod revocations;
mod sqlite;
mod types;
mod upkeep;
mod walk;
mod webhook_events;

use async_trait::async_trait;

pub use activity::{Activity, ChannelActivity, ChannelCount};
pub use audit::{Audit, AuditAct, AuditEntry, AuditOrder, Giver};
pub use backbones::BackboneServers;
pub use bulk::{BulkMembers, MembersAdded};
pub use by_user::{LargeOf, Partners};
pub use changes::{Changes, EMOJIS_MAX, MessageChange, MessageOutcome, REACTIONS_MAX};
pub use commit_sink::{CommitSink, CommittedBatch, CommittedEvents};
pub use committer::GroupCommitSettings;
pub use connect::{check, connect};
pub use conversation_changes::{ConversationChange, ConversationChanged, ConversationChanges, ConversationDeleted};
pub use conversations::{Conversations, OpenedDirect, ordered_pair};
pub use erasure::{ErasurePlace, Erasures, MEMBERS_EVER_PER_PAGE};
pub use error::{Refusal, StoreError};
pub use group_commit::GroupCommit;
pub use ids::{IdBlock, Ids};
pub use large::{Crossed, Head, LargeConversations, MISSED_MAX, Missed, OwnLarge};
pub use leases::Leases;
pub use listings::{ChannelPage, Listings};
pub use lookups::Lookups;
pub use membership::Membership;
pub use messages::{Locks, Messages, NewMessage, NewMessageDraft, SendBatch, SendOutcome, SentBatch, StoredMessage};
pub use moderation::{AuthorPlace, Authored, AuthoredPage, Moderation};
pub use notifications::{KeptNotification, Notifications, kept_id};
pub use outbox::{OutboxRows, PendingRow};
pub use owed::{OwedDetail, OwedEvent, OwedKind};
pub use people::{Names, Partner, People};
pub use receipts::Receipts;
pub use replacements::{EarlierSend, Replacements};
pub use revocations::Revocations;
pub use types::*;
pub use upkeep::{ExpiryStep, Upkeep};
pub use walk::{ConversationPage, NoWalkPlace, WalkPart, WalkPlace};
pub use webhook_events::{DueEvent, EventsLag, REPEATED_PER_CALL, RepeatFrom, Wanted, WebhookEvents};

/// The store: the sum of its concerns. Every method of every concern ends within five seconds, with `Unavailable` if
/// the store didn't answer.
#[async_trait]
pub trait Store:
    Activity
    + Audit
    + BackboneServers
    + BulkMembers
    + Changes
    + ConversationChanges
    + Erasures
    + Conversations
    + Ids
    + LargeConversations
    + Leases
    + Listings
    + Lookups
    + Membership
    + Messages
    + Moderation
    + Notifications
    + OutboxRows
    + People
    + Receipts
    + Replacements
    + Revocations
    + Upkeep
    + WebhookEvents
{
    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The kind of store and its place, for the start-up log: no password.
    fn describe(&self) -> String;
}
