//! The concerns of the store that a send doesn't need: each method returns a constant answer or a refusal.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use gateway::store::{
    Activity, Audit, AuditEntry, AuthorPlace, Authored, AuthoredPage, BackboneServers, BulkMembers, Changes,
    ChannelActivity, ChannelCount, ChannelPage, ConversationChange, ConversationChanged, ConversationChanges,
    ConversationDeleted, Crossed, DueEvent, EarlierSend, ErasurePlace, Erasures, EventsLag, ExpiryStep, Head,
    KeptNotification, LargeConversations, Leases, Listings, Lookups, MembersAdded, MessageChange, MessageOutcome,
    Missed, Moderation, Names, Notifications, OutboxEvent, OutboxRow, OutboxRows, OwnLarge, Owner, Partner, PendingRow,
    People, Receipt, ReceiptChange, Receipts, Refusal, RepeatFrom, Replacements, Revocations, StoreError,
    StoredMessage, UnreadCount, Upkeep, Wanted, WebhookEvents,
};
use shared::message::ListedMember;
use shared::{Conversation, ConversationId, Message, MessageId, NotificationId, Role, TempId, Timestamp, UserId};

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
    ConversationChanges {
        change_conversation(
            _: &ConversationId,
            _: Option<&UserId>,
            _: &ConversationChange,
            _: OutboxRow<ConversationChanged>
        ) -> ConversationChanged = not_here("a change of a conversation");
        delete_conversation(_: &ConversationId, _: Option<&UserId>, _: OutboxRow<ConversationDeleted>)
            -> ConversationDeleted = not_here("a change of a conversation");
        empty_deleted() -> bool = Ok(false);
    }
    Erasures {
        begin_erasure(_: &UserId) -> () = not_here("erasure");
        next_erasure() -> Option<(UserId, ErasurePlace)> = Ok(None);
        erasure_of(_: &UserId) -> Option<ErasurePlace> = Ok(None);
        keep_erasure(_: &UserId, _: Option<&ErasurePlace>) -> () = not_here("erasure");
        erasure_may_go_on(_: &UserId, _: u64) -> bool = not_here("erasure");
        place_of(_: &UserId, _: Option<&ConversationId>) -> Option<ConversationId> = not_here("erasure");
        members_ever(_: &ConversationId, _: Option<&UserId>) -> Vec<UserId> = not_here("erasure");
    }
    LargeConversations {
        large_of(users: &[UserId], _: &[BTreeSet<ConversationId>]) -> Vec<Vec<OwnLarge>>
            = Ok(users.iter().map(|_| Vec::new()).collect());
        heads(_: &[ConversationId]) -> HashMap<ConversationId, Head> = Ok(HashMap::new());
        missed(_: &ConversationId, _: u64) -> Missed = not_here("a large conversation");
        role_in(_: &ConversationId, _: &UserId) -> Option<Role> = not_here("a large conversation");
        blocked_in(_: &ConversationId, _: &UserId) -> Vec<UserId> = Ok(Vec::new());
        due_to_cross(_: u32, _: u32) -> Vec<ConversationId> = Ok(Vec::new());
        cross(_: &ConversationId, _: u32, _: OutboxRow<Crossed>) -> bool = Ok(false);
    }
    Leases {
        beat(_: &Owner) -> () = Ok(());
        lease_is_live(_: &str, _: u64) -> bool = Ok(true);
    }
    Listings {
        listed_members(_: &ConversationId, _: Option<&UserId>, _: bool, _: Option<&UserId>, _: u32)
            -> Vec<ListedMember> = not_here("lists");
        message(_: MessageId) -> Option<Message> = not_here("lists");
        blocked_by(_: &UserId, _: Option<&UserId>, _: u32) -> Vec<UserId> = not_here("lists");
        invitations(_: &UserId, _: Option<&ConversationId>, _: u32) -> Vec<Conversation> = not_here("lists");
        public_channels(_: Option<&str>, _: Option<&ConversationId>, _: u32) -> ChannelPage = not_here("lists");
    }
    Lookups {
        username(_: &UserId) -> Option<String> = Ok(None);
        usernames(_: &[UserId]) -> Vec<(UserId, String)> = Ok(Vec::new());
        names_of(_: &[UserId]) -> Vec<(UserId, Names)> = Ok(Vec::new());
        known_users(_: &[UserId]) -> Vec<UserId> = Ok(Vec::new());
        conversation_of(_: MessageId) -> Option<ConversationId> = not_here("where a message stands");
        outside(_: &ConversationId, _: Option<&UserId>) -> Refusal = Ok(Refusal::NotMember);
    }
    Moderation {
        mute(_: &ConversationId, _: &UserId, _: Option<&UserId>, _: Option<Duration>) -> bool = not_here("mutes");
        muted_ms(_: &ConversationId, _: &UserId) -> u64 = Ok(0);
        authored(_: &Authored, _: Option<&AuthorPlace>) -> AuthoredPage = not_here("lists");
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
        remember_names(_: &[(UserId, Names)]) -> () = Ok(());
        user_by_name(_: &str) -> Option<UserId> = Ok(None);
        set_last_seen(_: &[(UserId, Timestamp)]) -> () = Ok(());
        blocked_with(_: &UserId, _: &[UserId]) -> Vec<UserId> = Ok(Vec::new());
        partners(users: &[UserId], _: u32) -> Vec<Vec<Partner>> = Ok(vec![Vec::new(); users.len()]);
    }
    Receipts {
        unread(users: &[UserId]) -> Vec<Vec<UnreadCount>> = Ok(vec![Vec::new(); users.len()]);
        unread_in(places: &[(UserId, ConversationId)]) -> Vec<Option<UnreadCount>> = Ok(vec![None; places.len()]);
        receipts(_: &[Receipt], _: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>)
            -> Vec<Result<ReceiptChange, Refusal>> = not_here("receipts");
    }
    Replacements {
        note_replaced(_: &UserId, _: &TempId) -> () = not_here("replacements");
        sent_earlier(_: &UserId, _: &TempId) -> Option<EarlierSend> = Ok(None);
    }
    Revocations {
        keep_revocation(_: &UserId, _: i64) -> () = not_here("revocations");
        revocations(_: Option<&UserId>, _: u32) -> Vec<(UserId, i64)> = Ok(Vec::new());
        prune_revocations(_: i64) -> u64 = Ok(0);
    }
    Upkeep {
        take_upkeep(_: &Owner, _: u64) -> bool = Ok(false);
        expire_messages(_: u64, _: Option<&ConversationId>) -> ExpiryStep = not_here("upkeep");
        expire_audit(_: u64) -> bool = Ok(false);
    }
    WebhookEvents {
        take_webhook(_: &Owner, _: u64) -> bool = Ok(false);
        due_events(_: &Wanted, _: u32) -> Vec<DueEvent> = Ok(Vec::new());
        mark_delivered(_: &[u64]) -> () = Ok(());
        bury_event(_: u64, _: &str) -> () = Ok(());
        repeat_events(_: RepeatFrom) -> (u64, Option<u64>) = not_here("events of a webhook");
        events_lag() -> EventsLag = Ok(EventsLag::default());
        prune_events(_: u64, _: u64) -> bool = Ok(false);
    }
}
