//! The concerns of the store that a send doesn't need: each method returns a constant answer or a refusal.

use async_trait::async_trait;
use gateway::store::{
    Activity, Audit, AuditEntry, BackboneServers, BulkMembers, Changes, ChannelActivity, ChannelCount,
    KeptNotification, Leases, Lookups, MembersAdded, MessageChange, MessageOutcome, Notifications, OutboxEvent,
    OutboxRow, OutboxRows, Owner, Partner, PendingRow, People, Receipt, ReceiptChange, Receipts, Refusal, Revocations,
    StoreError, StoredMessage, UnreadCount,
};
use shared::{ConversationId, MessageId, NotificationId, Timestamp, UserId};

use crate::store::{MemoryStore, not_here};

/// Implements traits of the store, each method by one expression.
macro_rules! absent {
    ($($concern:ident { $($method:ident($($name:tt: $argument:ty),*) -> $answer:ty = $value:expr;)+ })+) => {$(
        #[async_trait]
        impl $concern for MemoryStore {
            $(async fn $method(&self, $($name: $argument),*) -> Result<$answer, StoreError> {
                $value
            })+
        }
    )+};
}

absent! {
    Activity {
        channels_of(_: &[UserId], _: u32) -> Vec<(UserId, ConversationId)> = not_here("channels");
        busiest(_: &[(UserId, u32)], _: u32) -> Vec<ChannelCount> = not_here("channels");
        activity(_: &ConversationId) -> ChannelActivity = not_here("channels");
    }
    Audit {
        write_audit(_: &[AuditEntry]) -> () = Ok(());
    }
    BackboneServers {
        retire_backbone(_: &str) -> () = Ok(());
        is_backbone_retired(_: &str) -> bool = Ok(false);
        adopt_backbone(_: &str) -> Option<String> = Ok(None);
    }
    BulkMembers {
        add_members(_: &ConversationId, _: &[UserId], _: Option<&UserId>, _: OutboxRow<MembersAdded>) -> MembersAdded
            = not_here("a change of members");
    }
    Changes {
        change_message(_: MessageId, _: Option<&UserId>, _: &MessageChange, _: OutboxRow<MessageOutcome>)
            -> MessageOutcome = not_here("a change of a message");
    }
    Leases {
        beat(_: &Owner) -> () = Ok(());
        lease_is_live(_: &str, _: u64) -> bool = Ok(true);
    }
    Lookups {
        username(_: &UserId) -> Option<String> = Ok(None);
        usernames(_: &[UserId]) -> Vec<(UserId, String)> = Ok(Vec::new());
        conversation_of(_: MessageId) -> Option<ConversationId> = not_here("where a message stands");
        is_banned(_: &ConversationId, _: &UserId) -> bool = Ok(false);
    }
    Notifications {
        notifications(_: &UserId, _: u64, _: u32) -> Vec<KeptNotification> = not_here("notifications");
        read_notifications(_: &UserId, _: Option<&[NotificationId]>, _: OutboxRow<u64>) -> u64
            = not_here("notifications");
    }
    OutboxRows {
        enqueue(_: u64, _: &Owner, _: &[OutboxEvent]) -> () = not_here("events of a backend");
        mark_published(_: &[u64], _: &str) -> () = Ok(());
        take_unpublished(_: &Owner, _: u64, _: u64, _: (u64, u32)) -> Vec<PendingRow> = Ok(Vec::new());
        narrow(_: u64, _: &[UserId]) -> () = Ok(());
        stored(_: &[MessageId]) -> Vec<(StoredMessage, u64)> = Ok(Vec::new());
        published_elsewhere(_: &str, _: u64, _: u32) -> Vec<PendingRow> = Ok(Vec::new());
        prune_outbox(_: u64) -> u64 = Ok(0);
        outbox_age_ms() -> u64 = Ok(0);
    }
    People {
        set_block(_: &UserId, _: &UserId, _: bool, _: OutboxRow<bool>) -> bool = not_here("blocks");
        remember_usernames(_: &[(UserId, String)]) -> () = Ok(());
        user_by_name(_: &str) -> Option<UserId> = Ok(None);
        set_last_seen(_: &[(UserId, Timestamp)]) -> () = Ok(());
        blocked_with(_: &UserId, _: &[UserId]) -> Vec<UserId> = Ok(Vec::new());
        partners(users: &[UserId], _: u32) -> Vec<Vec<Partner>> = Ok(vec![Vec::new(); users.len()]);
    }
    Receipts {
        unread(users: &[UserId]) -> Vec<Vec<UnreadCount>> = Ok(vec![Vec::new(); users.len()]);
        receipts(_: &[Receipt], _: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>)
            -> Vec<Result<ReceiptChange, Refusal>> = not_here("receipts");
    }
    Revocations {
        keep_revocation(_: &UserId, _: i64) -> () = not_here("revocations");
        revocations(_: Option<&UserId>, _: u32) -> Vec<(UserId, i64)> = Ok(Vec::new());
        prune_revocations(_: i64) -> u64 = Ok(0);
    }
}
