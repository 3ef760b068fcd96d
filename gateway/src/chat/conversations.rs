//! Conversations and their members.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shared::{
    Conversation, ConversationId, ConversationKind, ErrorCode, Event, ProtocolError, Role, UserId, Visibility,
};

use super::{Chat, events, owed, passwords, refused};
use crate::store::{
    Giver, MEMBERS_MAX, Members, MembersAdded, MembershipChange, MembershipOutcome, NewConversation, OutboxEvent,
    Refusal, StoreError,
};

/// The most `member.joined` that one addition of many may make.
const JOINS_TOLD_MAX: usize = 10_000;
/// Generated ids that one request passes over because they are taken: earlier versions let applications choose them.
const GENERATED_IDS_TRIED_MAX: u32 = 1_000;
/// Of more newcomers at once the names are not looked up.
const NEWCOMERS_NAMED_MAX: usize = 100;

/// A conversation to make, without an id.
enum Making<'a> {
    /// The direct conversation of the two, made by `by` if there is none (`None`: a backend).
    Direct { by: Option<&'a UserId>, pair: (&'a UserId, &'a UserId) },
    /// A group or channel.
    Group(Group),
}

impl Making<'_> {
    /// Who makes it; `None`: a backend.
    fn by(&self) -> Option<&UserId> {
        match self {
            Self::Direct { by, pair: _ } => *by,
            Self::Group(group) => group.owner.as_ref(),
        }
    }
}

/// A group or channel to make, without an id.
struct Group {
    kind: ConversationKind,
    title: Option<String>,
    visibility: Visibility,
    password_hash: Option<String>,
    owner: Option<UserId>,
    members: Vec<UserId>,
}

impl Group {
    fn under(&self, id: ConversationId) -> NewConversation {
        NewConversation {
            id,
            kind: self.kind,
            title: self.title.clone(),
            visibility: self.visibility,
            password_hash: self.password_hash.clone(),
            owner: self.owner.clone(),
            members: self.members.clone(),
        }
    }
}

/// The parts of a new conversation.
#[derive(Debug, Clone)]
pub struct CreateConversation {
    /// The application's id; generated if absent.
    pub id: Option<ConversationId>,
    /// Direct, group or channel.
    pub kind: ConversationKind,
    /// The title.
    pub title: Option<String>,
    /// Who may join.
    pub visibility: Visibility,
    /// The password for joining, if any.
    pub password: Option<String>,
    /// Accepted members besides the one who asks.
    pub members: Vec<UserId>,
}

/// A conversation that was made.
#[derive(Debug, Clone)]
pub struct CreatedConversation {
    /// The conversation as the one who asks sees it.
    pub conversation: Conversation,
    /// The users left out because of a block between them and the one who asks; ascending by id.
    pub blocked: Vec<UserId>,
}

impl Chat {
    /// Makes a conversation; `by` becomes the owner of a group or channel. Every member is notified. Users with whom `by`
    /// shares a block are left out; if nobody else is asked for, nothing is made.
    pub async fn create_conversation(
        &self,
        by: Option<&UserId>,
        create: CreateConversation,
    ) -> Result<CreatedConversation, ProtocolError> {
        if create.id.as_ref().is_some_and(ConversationId::is_reserved) {
            return Err(ProtocolError::field("id", "is a number from 2^52 on, which only the server gives"));
        }
        let mut members = create.members;
        members.sort();
        members.dedup();
        let mut users = members.clone();
        users.extend(by.filter(|by| !members.contains(by)).cloned());
        if users.len() > MEMBERS_MAX {
            return Err(ProtocolError { field: Some("members".into()), ..refused(Refusal::Full) });
        }
        let mut blocked = Vec::new();
        if create.kind == ConversationKind::Direct {
            let [one, other] = users.as_slice() else {
                return Err(ProtocolError::field("members", "must be two users, including the caller"));
            };
            let (conversation, _) = self.open_direct(by, (one, other), create.id).await?;
            return Ok(CreatedConversation { conversation, blocked });
        }
        if let Some(by) = by {
            // Before the commit, not in it: a block that comes in between is one that came after the group.
            blocked = self.store.blocked_with(by, &members).await?;
            members.retain(|member| blocked.binary_search(member).is_err());
            if !blocked.is_empty() && members.iter().all(|member| member == by) {
                return Err(ProtocolError { field: Some("members".into()), ..refused(Refusal::Blocked) });
            }
            users.retain(|user| blocked.binary_search(user).is_err());
        }
        let password_hash = match create.password {
            Some(password) => Some(passwords::hash(password).await?),
            None => None,
        };
        let group = Group {
            kind: create.kind,
            title: create.title,
            visibility: create.visibility,
            password_hash,
            owner: by.cloned(),
            members,
        };
        let (conversation, _) = self.under_an_id(create.id, &users, Making::Group(group)).await?;
        if self.large_over > 0 && conversation.member_count > u64::from(self.large_over) {
            self.cross_or_leave_it(&conversation.id).await;
        }
        Ok(CreatedConversation { conversation, blocked })
    }

    /// The direct conversation of the two, made by `by` if there is none (`None`: a backend), and whether it was made.
    pub(super) async fn open_direct(
        &self,
        by: Option<&UserId>,
        (one, other): (&UserId, &UserId),
        id: Option<ConversationId>,
    ) -> Result<(Conversation, bool), ProtocolError> {
        let users = if one == other { vec![one.clone()] } else { vec![one.clone(), other.clone()] };
        self.under_an_id(id, &users, Making::Direct { by, pair: (one, other) }).await
    }

    /// Makes a conversation under the application's id, or under the next generated one. A generated id that is taken is
    /// passed over. `users` are told if one was made; whether that is so comes with it.
    async fn under_an_id(
        &self,
        id: Option<ConversationId>,
        users: &[UserId],
        making: Making<'_>,
    ) -> Result<(Conversation, bool), ProtocolError> {
        let tries = if id.is_some() { 1 } else { GENERATED_IDS_TRIED_MAX };
        for _ in 0..tries {
            let id = match &id {
                Some(id) => id.clone(),
                None => self.generated_conversation_id().await?,
            };
            let (told, by) = (users.to_vec(), making.by().cloned());
            let created = move |conversation: &Conversation| {
                let created = Event::ConversationCreated { conversation: conversation.clone() };
                vec![events::outbox_event(told.clone(), &created)]
            };
            let owed = move |conversation: &Conversation| owed::conversation_created(by.as_ref(), conversation);
            let (row, built) = self.row_owing(created, owed).await?;
            let made = match &making {
                Making::Direct { by, pair } => self.store.open_direct(*by, *pair, &id, row).await,
                Making::Group(group) => {
                    let made = self.store.create_conversation(&group.under(id), row).await;
                    made.map(|conversation| (conversation, true))
                }
            };
            match made {
                Err(StoreError::Refused(Refusal::Conflict)) => {}
                Err(error) => return Err(error.into()),
                Ok((conversation, made)) => {
                    if made {
                        self.publish_row(&built);
                    }
                    return Ok((conversation, made));
                }
            }
        }
        Err(ProtocolError { field: Some("id".into()), ..refused(Refusal::Conflict) })
    }

    async fn generated_conversation_id(&self) -> Result<ConversationId, ProtocolError> {
        let number = self.ids.next().await?;
        ConversationId::generated(number)
            .ok_or_else(|| ProtocolError::new(ErrorCode::InternalError, "the numbers for conversations are used up"))
    }

    /// Comes in by oneself: a public conversation, or one to which one is invited.
    pub async fn join(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        password: Option<String>,
        giver: &Giver,
    ) -> Result<MembershipOutcome, ProtocolError> {
        if let Some(hash) = self.store.join_password(conversation, user).await? {
            let Some(password) = password else {
                return Err(ProtocolError::new(ErrorCode::PasswordRequired, "this conversation takes a password"));
            };
            self.password_attempts.count(user, conversation)?;
            if !passwords::verify(password, hash).await? {
                return Err(ProtocolError::new(ErrorCode::PasswordRequired, "the password is wrong"));
            }
        }
        self.change_membership(conversation, user, MembershipChange::Join, giver).await
    }

    /// Changes a conversation's members, and notifies the users concerned. The giver stands in the audit trail.
    pub async fn change_membership(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        change: MembershipChange,
        giver: &Giver,
    ) -> Result<MembershipOutcome, ProtocolError> {
        if let MembershipChange::Invite { .. } = change {
            return self.invite(conversation, user, giver, None).await;
        }
        let (subject, of, what) = (user.clone(), user.clone(), change.clone());
        let name = self.names.of(user).await;
        let named = name.clone();
        let told = move |outcome: &MembershipOutcome| membership_events(&subject, name.as_ref(), outcome);
        let owed = move |outcome: &MembershipOutcome| owed::membership(&of, &what, outcome);
        let (row, built) = self.row_owing(told, owed).await?;
        let outcome = self.store.change_membership(conversation, user, &change, row).await?;
        if outcome.changed {
            self.audit.membership(user, conversation, &change, giver);
            self.tell_members_changed(conversation).await;
            match change {
                MembershipChange::Join | MembershipChange::Leave if !outcome.members.route.large => {
                    self.publish_turnover(conversation, (user, outcome.is_member), &built).await;
                }
                MembershipChange::Join
                | MembershipChange::Leave
                | MembershipChange::Add { .. }
                | MembershipChange::Invite { .. }
                | MembershipChange::Kick { .. }
                | MembershipChange::Ban { .. }
                | MembershipChange::Unban { .. }
                | MembershipChange::SetRole { .. } => self.publish_row(&built),
            }
            if outcome.members.route.large {
                let told = member_event(user, named.as_ref(), &outcome);
                self.tell_of(conversation, &told.map(|event| (user.clone(), event)).into_iter().collect::<Vec<_>>());
            }
            self.cross_if_due(conversation, &outcome.members).await;
        }
        if outcome.was_member && !outcome.is_member {
            // On other nodes the next sweep of typing ends it.
            self.end_typing(conversation, user).await;
        }
        Ok(outcome)
    }

    /// Makes many users members at once; the giver is an owner or admin, or a backend.
    pub async fn add_members(
        &self,
        conversation: &ConversationId,
        mut users: Vec<UserId>,
        giver: &Giver,
    ) -> Result<MembersAdded, ProtocolError> {
        users.sort();
        users.dedup();
        let mut names = HashMap::new();
        if users.len() <= NEWCOMERS_NAMED_MAX {
            for user in &users {
                names.extend(self.names.of(user).await.map(|name| (user.clone(), name)));
            }
        }
        let by = giver.user.clone();
        let owed = move |outcome: &MembersAdded| owed::added(by.as_ref(), outcome);
        let named = names.clone();
        let (row, built) = self.row_owing(move |outcome| added_events(&names, outcome), owed).await?;
        let outcome = self.store.add_members(conversation, &users, giver.user.as_ref(), row).await?;
        if outcome.added.is_empty() {
            return Ok(outcome);
        }
        let change = MembershipChange::Add { by: giver.user.clone(), role: Role::Member };
        outcome.added.iter().for_each(|user| self.audit.membership(user, conversation, &change, giver));
        self.tell_members_changed(conversation).await;
        self.publish_row(&built);
        if outcome.members.route.large {
            let told = |user: &UserId| (user.clone(), joined_event(&named, user, &outcome));
            self.tell_of(conversation, &outcome.added.iter().map(told).collect::<Vec<_>>());
        }
        self.cross_if_due(conversation, &outcome.members).await;
        Ok(outcome)
    }

    /// The members of a conversation, for one of them.
    pub async fn members_of(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Arc<Members>, ProtocolError> {
        self.members.of_member(conversation, user).await
    }
}

fn membership_events(user: &UserId, name: Option<&String>, outcome: &MembershipOutcome) -> Vec<OutboxEvent> {
    let own = match (outcome.was_member, outcome.is_member) {
        (false, true) => Event::ConversationJoined { conversation: outcome.conversation.clone() },
        (true, false) => Event::ConversationLeft { conversation_id: outcome.conversation.id.clone() },
        (false, false) | (true, true) => return Vec::new(),
    };
    let mut list = vec![events::outbox_event(vec![user.clone()], &own)];
    // All members of a large conversation are told otherwise.
    if !outcome.members.route.large {
        let event = member_event(user, name, outcome);
        list.extend(event.and_then(|event| to_others(user, &event, &outcome.members)));
    }
    list
}

/// What the other members are told.
fn member_event(user: &UserId, name: Option<&String>, outcome: &MembershipOutcome) -> Option<Event> {
    let (user_id, username) = (user.clone(), name.cloned());
    let (conversation_id, version) = (outcome.conversation.id.clone(), outcome.members.version);
    match (outcome.was_member, outcome.is_member) {
        (false, true) => Some(Event::MemberJoined { conversation_id, user_id, username, version }),
        (true, false) => Some(Event::MemberLeft { conversation_id, user_id, username, version }),
        (false, false) | (true, true) => None,
    }
}

/// Events for the newcomers, and for the earlier members as long as these are at most [`JOINS_TOLD_MAX`] events: ten
/// thousand newcomers in a channel of ten thousand would make a hundred millions.
fn added_events(names: &HashMap<UserId, String>, outcome: &MembersAdded) -> Vec<OutboxEvent> {
    if outcome.added.is_empty() {
        return Vec::new();
    }
    let joined = Event::ConversationJoined { conversation: outcome.conversation.clone() };
    let mut list = vec![events::outbox_event(outcome.added.clone(), &joined)];
    if outcome.members.route.large {
        return list;
    }
    let newcomers: HashSet<&UserId> = outcome.added.iter().collect();
    let members = outcome.members.list.iter().map(|(member, _)| member);
    let others: Vec<UserId> = members.filter(|member| !newcomers.contains(member)).cloned().collect();
    if !others.is_empty() && others.len().saturating_mul(outcome.added.len()) <= JOINS_TOLD_MAX {
        let told = |user| events::outbox_event(others.clone(), &joined_event(names, user, outcome));
        list.extend(outcome.added.iter().map(told));
    }
    list
}

fn joined_event(names: &HashMap<UserId, String>, user: &UserId, outcome: &MembersAdded) -> Event {
    let (user_id, username) = (user.clone(), names.get(user).cloned());
    let (conversation_id, version) = (outcome.conversation.id.clone(), outcome.members.version);
    Event::MemberJoined { conversation_id, user_id, username, version }
}

fn to_others(user: &UserId, event: &Event, members: &Members) -> Option<OutboxEvent> {
    let others: Vec<UserId> = members.list.iter().map(|(member, _)| member.clone()).filter(|m| m != user).collect();
    (!others.is_empty()).then(|| events::outbox_event(others, event))
}
