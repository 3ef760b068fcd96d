//! The store keeps all data that must never be lost: PostgreSQL, or an embedded SQLite file, under one contract suite.
//! It offers [`Store`], one trait per concern, and [`GroupCommit`], the way in for messages and receipts.
//! SQL stands only below this folder, and no event is published without an [`OutboxRow`] in its change's transaction.

mod activity;
mod audit;
mod backbones;
mod bulk;
mod by_user;
mod changes;
mod commit_sink;
mod connect;
mod conversations;
mod error;
pub mod group_commit;
mod ids;
mod lane;
mod leases;
mod lookups;
mod membership;
mod messages;
mod migrations;
mod notifications;
mod outbox;
mod people;
mod postgres;
mod receipts;
mod revocations;
mod sqlite;
mod types;
mod walk;

use async_trait::async_trait;

pub use activity::{Activity, ChannelActivity, ChannelCount};
pub use audit::{Audit, AuditAct, AuditEntry, AuditOrder, Giver};
pub use backbones::BackboneServers;
pub use bulk::{BulkMembers, MembersAdded};
pub use by_user::{Partners, UnreadCounts};
pub use changes::{Changes, EMOJIS_MAX, MessageChange, MessageOutcome, REACTIONS_MAX};
pub use commit_sink::{CommitSink, CommittedBatch, CommittedEvents};
pub use connect::{check, connect};
pub use conversations::{Conversations, ordered_pair};
pub use error::{Refusal, StoreError};
pub use group_commit::{GroupCommit, GroupCommitSettings, NewMessageDraft};
pub use ids::{IdBlock, Ids};
pub use leases::Leases;
pub use lookups::Lookups;
pub use membership::Membership;
pub use messages::Messages;
pub use notifications::{KeptNotification, Notifications, kept_id};
pub use outbox::OutboxRows;
pub use people::{Partner, People};
pub use receipts::Receipts;
pub use revocations::Revocations;
pub use types::*;
pub use walk::{ConversationPage, NoWalkPlace, WalkPart, WalkPlace};

/// The store: the sum of its concerns. Every method of every concern ends within five seconds, with `Unavailable` if
/// the store didn't answer.
#[async_trait]
pub trait Store:
    Activity
    + Audit
    + BackboneServers
    + BulkMembers
    + Changes
    + Conversations
    + Ids
    + Leases
    + Lookups
    + Membership
    + Messages
    + Notifications
    + OutboxRows
    + People
    + Receipts
    + Revocations
{
    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The kind of store and its place, for the start-up log: no password.
    fn describe(&self) -> String;
}
