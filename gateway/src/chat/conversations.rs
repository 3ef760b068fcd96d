//! Conversations and their members.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shared::{
    Conversation, ConversationId, ConversationKind, ErrorCode, Event, ProtocolError, Role, UserId, Visibility,
};

use super::{Chat, events, passwords, refused};
use crate::store::{
    MEMBERS_MAX, Members, MembersAdded, MembershipChange, MembershipOutcome, NewConversation, OutboxEvent, Refusal,
};

/// The most `member.joined` that one addition of many may make.
const JOINS_TOLD_MAX: usize = 10_000;
/// Of more newcomers at once the names are not looked up.
const NEWCOMERS_NAMED_MAX: usize = 100;

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

impl Chat {
    /// Makes a conversation; `by` becomes the owner of a group or channel. Every member is notified.
    pub async fn create_conversation(
        &self,
        by: Option<&UserId>,
        create: CreateConversation,
    ) -> Result<Conversation, ProtocolError> {
        let id = match create.id {
            Some(id) => id,
            None => self.generated_conversation_id().await?,
        };
        let mut members = create.members;
        members.sort();
        members.dedup();
        let mut users = members.clone();
        users.extend(by.filter(|by| !members.contains(by)).cloned());
        if users.len() > MEMBERS_MAX {
            return Err(ProtocolError { field: Some("members".into()), ..refused(Refusal::Full) });
        }
        let told = users.clone();
        let (row, built) = self
            .row(move |conversation: &Conversation| {
                let created = Event::ConversationCreated { conversation: conversation.clone() };
                vec![events::outbox_event(told.clone(), &created)]
            })
            .await?;
        if create.kind == ConversationKind::Direct {
            let [one, other] = users.as_slice() else {
                return Err(ProtocolError::field("members", "must be two users, including the caller"));
            };
            let (conversation, made) = self.store.open_direct((one, other), &id, row).await?;
            if made {
                self.publish_row(&built);
            }
            return Ok(conversation);
        }
        let password_hash = match create.password {
            Some(password) => Some(passwords::hash(password).await?),
            None => None,
        };
        let new = NewConversation {
            id,
            kind: create.kind,
            title: create.title,
            visibility: create.visibility,
            password_hash,
            owner: by.cloned(),
            members,
        };
        let conversation = self.store.create_conversation(&new, row).await?;
        self.publish_row(&built);
        Ok(conversation)
    }

    /// Comes in by oneself: a public conversation, or one to which one is invited.
    pub async fn join(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        password: Option<String>,
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
        self.change_membership(conversation, user, MembershipChange::Join).await
    }

    /// Changes a conversation's members, and notifies the users concerned.
    pub async fn change_membership(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        change: MembershipChange,
    ) -> Result<MembershipOutcome, ProtocolError> {
        if let MembershipChange::Invite { by } = change {
            return self.invite(conversation, user, by, None).await;
        }
        let subject = user.clone();
        let name = self.names.of(user).await;
        let (row, built) = self.row(move |outcome| membership_events(&subject, name.as_ref(), outcome)).await?;
        let outcome = self.store.change_membership(conversation, user, &change, row).await?;
        if outcome.changed {
            self.audit.membership(user, conversation, &change);
            self.tell_members_changed(conversation).await;
            self.publish_row(&built);
        }
        if outcome.was_member && !outcome.is_member {
            // On other nodes the next sweep of typing ends it.
            self.end_typing(conversation, user).await;
        }
        Ok(outcome)
    }

    /// Makes many users members at once; `by` is an owner or admin, or a backend if `None`.
    pub async fn add_members(
        &self,
        conversation: &ConversationId,
        mut users: Vec<UserId>,
        by: Option<&UserId>,
    ) -> Result<MembersAdded, ProtocolError> {
        users.sort();
        users.dedup();
        let mut names = HashMap::new();
        if users.len() <= NEWCOMERS_NAMED_MAX {
            for user in &users {
                names.extend(self.names.of(user).await.map(|name| (user.clone(), name)));
            }
        }
        let (row, built) = self.row(move |outcome| added_events(&names, outcome)).await?;
        let outcome = self.store.add_members(conversation, &users, by, row).await?;
        if outcome.added.is_empty() {
            return Ok(outcome);
        }
        let change = MembershipChange::Add { by: by.cloned(), role: Role::Member };
        outcome.added.iter().for_each(|user| self.audit.membership(user, conversation, &change));
        self.tell_members_changed(conversation).await;
        self.publish_row(&built);
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
    let (user_id, username) = (user.clone(), name.cloned());
    let conversation_id = outcome.conversation.id.clone();
    let own = |event: Event| events::outbox_event(vec![user.clone()], &event);
    let mut list = Vec::new();
    match (outcome.was_member, outcome.is_member) {
        (false, true) => {
            list.push(own(Event::ConversationJoined { conversation: outcome.conversation.clone() }));
            let event = Event::MemberJoined { conversation_id, user_id, username };
            list.extend(to_others(user, &event, &outcome.members));
        }
        (true, false) => {
            list.push(own(Event::ConversationLeft { conversation_id: conversation_id.clone() }));
            let event = Event::MemberLeft { conversation_id, user_id, username };
            list.extend(to_others(user, &event, &outcome.members));
        }
        (false, false) | (true, true) => {}
    }
    list
}

/// Events for the newcomers, and for the earlier members as long as these are at most [`JOINS_TOLD_MAX`] events: ten
/// thousand newcomers in a channel of ten thousand would make a hundred millions.
fn added_events(names: &HashMap<UserId, String>, outcome: &MembersAdded) -> Vec<OutboxEvent> {
    if outcome.added.is_empty() {
        return Vec::new();
    }
    let joined = Event::ConversationJoined { conversation: outcome.conversation.clone() };
    let mut list = vec![events::outbox_event(outcome.added.clone(), &joined)];
    let newcomers: HashSet<&UserId> = outcome.added.iter().collect();
    let members = outcome.members.list.iter().map(|(member, _)| member);
    let others: Vec<UserId> = members.filter(|member| !newcomers.contains(member)).cloned().collect();
    if !others.is_empty() && others.len().saturating_mul(outcome.added.len()) <= JOINS_TOLD_MAX {
        let conversation_id = outcome.conversation.id.clone();
        list.extend(outcome.added.iter().map(|user| {
            let (user_id, username) = (user.clone(), names.get(user).cloned());
            let event = Event::MemberJoined { conversation_id: conversation_id.clone(), user_id, username };
            events::outbox_event(others.clone(), &event)
        }));
    }
    list
}

fn to_others(user: &UserId, event: &Event, members: &Members) -> Option<OutboxEvent> {
    let others: Vec<UserId> = members.list.iter().map(|(member, _)| member.clone()).filter(|m| m != user).collect();
    (!others.is_empty()).then(|| events::outbox_event(others, event))
}
