//! The domain: messages, conversations, receipts, typing, presence. A command ends when its change is committed.
//! It offers [`Chat`], which takes and returns data, and [`publish::Publisher`], which publishes committed changes.
//! It never sees a socket, a request or a dialect.

mod announcer;
pub mod asking;
pub mod blocks;
mod busy;
pub mod changes;
pub mod conversation_changes;
pub mod conversations;
mod crowds;
mod erasure;
mod error;
pub mod events;
pub mod export;
mod invites;
pub mod large;
mod late;
pub mod lease;
mod listings;
pub mod members;
pub mod messages;
pub mod moderation;
pub mod notifications;
mod offsets;
mod owed;
mod passwords;
pub mod presence;
pub mod publish;
pub mod receipt_events;
pub mod receipts;
pub mod revocations;
pub mod sweep;
mod turnover;
pub mod typing;
pub mod upkeep;
pub mod usernames;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use shared::{ConversationId, ProtocolError, UserId};

use crate::audit::AuditTrail;
use crate::backbone::Backbone;
use crate::limits::{UserRates, charges};
use crate::metrics::Metrics;
use crate::store::{CommittedEvents, GroupCommit, IdBlock, OutboxEvent, OutboxRow, OwedEvent, Owner, Partners, Store};
use crate::webhooks::{Hook, PresencePosts};

use announcer::Announcer;
use asking::Asking;

pub use error::refused;

/// Direct conversations whose id a node remembers; one takes some 500 bytes.
const DIRECTS_CACHED_MAX: u64 = 100_000;
/// A direct conversation that was not written to for so long is forgotten: a later message finds it in the store.
const DIRECTS_REMEMBERED: Duration = Duration::from_secs(300);

/// The parts that the domain works with; one for the node. The node owns all fields; a shared field says with whom.
pub struct Chat {
    /// Holds what must never be lost; shared with the node and the publisher.
    store: Arc<dyn Store>,
    /// Carries events to the other nodes; shared with the node and the publisher.
    backbone: Arc<dyn Backbone>,
    /// Commits sends and receipts in batches. The only way to write one, so that their order is its order.
    commit: GroupCommit,
    /// Gives out numbers for rows and conversations; shared with `commit`, because both draw from one block.
    ids: Arc<IdBlock>,
    /// The name under which this boot's outbox rows stand; written once, read with each row.
    owner: Owner,
    /// The members of conversations, remembered; shared with the publisher, and with the fan-out, which invalidates entries.
    members: Arc<members::MembersCache>,
    /// `members` and `names` together, as the builders of events take them.
    directory: publish::Directory,
    /// Hands committed events to the publisher's task, which `app` owns and awaits.
    publisher: publish::Publisher,
    /// The users who are typing; in memory alone, because it is out of date after seconds.
    typing: typing::Typing,
    /// The names of users, remembered, and those not yet in the store; shared with the publisher.
    names: Arc<usernames::KnownNames>,
    /// The conversation of two users, remembered: it never changes.
    directs: Cache<(UserId, UserId), ConversationId>,
    /// Messages delivered before they are stored: whether the store is away, and the ids kept for that time. This node's own.
    late: late::Late,
    /// How often users have tried the passwords of conversations. This node's own.
    password_attempts: passwords::Attempts,
    /// Comings and goings that wait to be told together. This node's own.
    turnover: turnover::Turnover,
    /// How many have come and gone in large conversations within the last second. This node's own.
    crowds: crowds::Crowds,
    /// How many events large conversations may have. This node's own.
    large_events: busy::Allowances,
    /// The hook that is asked before something is stored, if there is one, with the lines in front of it. This node's own.
    asking: Option<Asking>,
    /// Where comings and goings are posted, if there is a webhook of events. Then each change owes it an event as well.
    presence_posts: Option<PresencePosts>,
    /// The kinds of messages that are taken beside `text`, `None` for any; a setting.
    message_kinds: Option<BTreeSet<String>>,
    /// With more members a conversation is large; 0: none is. A setting.
    large_over: u32,
    /// How many users are notified of one user's presence or typing; a setting.
    presence_audience: u32,
    /// Loads the users who are notified of a user's presence, many users in one query.
    partners: Partners,
    /// Tells comings and goings at a bounded rate; owns the task that does so.
    announcer: Announcer,
    /// The allowances of users; shared with the node, which looks before a command is carried out.
    user_rates: Arc<UserRates>,
    /// The counters; shared with every part of the node.
    metrics: Arc<Metrics>,
    /// Hands entries to the audit trail's task, which `app` owns and awaits.
    audit: AuditTrail,
    /// Whether this node may publish; shared with the publisher, which looks at it before each batch. The sweep renews it.
    lease: Arc<lease::Lease>,
    /// Owners whose rows were taken over and whose connections could not be ended yet. The sweep alone uses it.
    unfenced: parking_lot::Mutex<std::collections::BTreeSet<String>>,
    /// Since when the other nodes have left the backbone's server, while this node tries to follow them. The sweep writes it,
    /// readiness reads it.
    left_behind: parking_lot::Mutex<Option<Instant>>,
    /// The backbone server that the store knows of. The sweep alone uses it.
    adopted: parking_lot::Mutex<Option<Arc<str>>>,
}

/// The parts that a [`Chat`] is made of.
pub struct Parts {
    /// Data that must never be lost.
    pub store: Arc<dyn Store>,
    /// How events travel.
    pub backbone: Arc<dyn Backbone>,
    /// Sends and receipts in batches.
    pub commit: GroupCommit,
    /// Numbers for rows and conversations.
    pub ids: Arc<IdBlock>,
    /// The owner of the rows.
    pub owner: Owner,
    /// Conversations' members.
    pub members: Arc<members::MembersCache>,
    /// Users' names.
    pub names: Arc<usernames::KnownNames>,
    /// Publishes what was committed.
    pub publisher: publish::Publisher,
    /// With more members a conversation is large; 0: none is.
    pub large_over: u32,
    /// How many durable events a large conversation may have per second on this node; 0: any.
    pub large_events_per_second: u32,
    /// How many users are notified of one user's presence or typing. In a conversation with more others, none is.
    pub presence_audience: u32,
    /// The kinds of messages that are taken beside `text`; `None` for any.
    pub message_kinds: Option<BTreeSet<String>>,
    /// The hook, and the longest content that it may put in place of another, in characters.
    pub hook: Option<(Hook, usize)>,
    /// Where comings and goings are posted, if there is a webhook of events.
    pub presence_posts: Option<PresencePosts>,
    /// The allowances of users.
    pub user_rates: Arc<UserRates>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The audit trail of memberships and messages.
    pub audit: AuditTrail,
    /// Whether this node may publish.
    pub lease: Arc<lease::Lease>,
}

impl Chat {
    /// The domain over these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { store, backbone, commit, ids, owner, members, names, publisher, .. } = parts;
        let Parts { large_over, presence_audience, message_kinds, hook, user_rates, metrics, audit, lease, .. } = parts;
        let presence_posts = parts.presence_posts;
        let partners = Partners::start(Arc::clone(&store), presence_audience);
        let announcer = announcer(&publisher, &backbone, Arc::clone(&metrics));
        Self {
            store,
            backbone,
            commit,
            ids,
            owner,
            publisher,
            typing: typing::Typing::default(),
            directory: publish::Directory { members: Arc::clone(&members), names: Arc::clone(&names) },
            names,
            members,
            directs: Cache::builder().max_capacity(DIRECTS_CACHED_MAX).time_to_idle(DIRECTS_REMEMBERED).build(),
            late: late::Late::default(),
            password_attempts: passwords::Attempts::default(),
            turnover: turnover::Turnover::default(),
            crowds: crowds::Crowds::default(),
            large_events: busy::Allowances::new(parts.large_events_per_second),
            asking: hook.map(|(hook, content_chars_max)| Asking::new(hook, content_chars_max)),
            presence_posts,
            message_kinds,
            large_over,
            presence_audience,
            partners,
            announcer,
            user_rates,
            metrics,
            audit,
            lease,
            unfenced: parking_lot::Mutex::default(),
            left_behind: parking_lot::Mutex::new(None),
            adopted: parking_lot::Mutex::new(None),
        }
    }

    /// Takes no further sends and receipts, and returns when those under way are committed and handed to the publisher.
    pub async fn finish(&self) {
        self.commit.finish().await;
        self.tell_turnover(true).await;
    }

    /// Whether a backend decides about messages before they are stored.
    #[must_use]
    pub fn has_hook(&self) -> bool {
        self.asking.is_some()
    }

    /// The allowances of users, for the node.
    #[must_use]
    pub fn user_rates(&self) -> Arc<UserRates> {
        Arc::clone(&self.user_rates)
    }

    /// Charges a sender for the part of a send's charge that was known only when it was stored.
    pub fn owe_for_send(&self, sender: &UserId, sent: Option<&messages::SentMessage>) {
        self.user_rates.owe(sender, charges::rest_of_send(sent.is_some_and(|sent| sent.is_first)));
    }

    /// The same for a change of a message.
    pub fn owe_for_change(&self, user: &UserId, changed: &changes::ChangeOutcome) {
        self.user_rates.owe(user, charges::rest_of_change(changed.member_count));
    }

    /// An outbox row for a change whose events `events` builds, and where those events will be found after the commit.
    async fn row<T: 'static>(
        &self,
        events: impl Fn(&T) -> Vec<OutboxEvent> + Send + Sync + 'static,
    ) -> Result<(OutboxRow<T>, RowEvents), ProtocolError> {
        let id = self.ids.next().await?;
        let built = RowEvents { row: id, events: Arc::default(), begun: Instant::now() };
        let keep = Arc::clone(&built.events);
        let events = move |outcome: &T| {
            let events = events(outcome);
            keep.lock().clone_from(&events);
            events
        };
        Ok((OutboxRow { id, owner: Arc::clone(&self.owner), events: Box::new(events), owed: None }, built))
    }

    /// The same for a change that the webhook hears of: `owed` builds its events, if there is a webhook.
    async fn row_owing<T: 'static>(
        &self,
        events: impl Fn(&T) -> Vec<OutboxEvent> + Send + Sync + 'static,
        owed: impl Fn(&T) -> Vec<OwedEvent> + Send + Sync + 'static,
    ) -> Result<(OutboxRow<T>, RowEvents), ProtocolError> {
        let (mut row, built) = self.row(events).await?;
        row.owed = self.owes_events().then(|| Box::new(owed) as _);
        Ok((row, built))
    }

    /// Whether the webhook is owed an event for each change.
    fn owes_events(&self) -> bool {
        self.presence_posts.is_some()
    }

    /// Publishes the events of a committed row.
    fn publish_row(&self, built: &RowEvents) {
        let events = std::mem::take(&mut *built.events.lock());
        if !events.is_empty() {
            self.publisher.publish_events(CommittedEvents { row: built.row, events, begun: built.begun });
        }
    }
}

fn announcer(publisher: &publish::Publisher, backbone: &Arc<dyn Backbone>, metrics: Arc<Metrics>) -> Announcer {
    let (publisher, backbone) = (publisher.clone(), Arc::clone(backbone));
    let publish = move |deliveries| publisher.publish_ephemeral(deliveries);
    let counting = Arc::clone(&backbone);
    let nodes = move || counting.nodes();
    let presence = move |users: Vec<UserId>| {
        let backbone = Arc::clone(&backbone);
        async move { backbone.presence(&users).await }
    };
    Announcer::start(publish, presence, nodes, metrics)
}

/// The outbox row that a transaction built, to be published when it has committed.
struct RowEvents {
    row: u64,
    events: Arc<parking_lot::Mutex<Vec<OutboxEvent>>>,
    begun: Instant,
}
