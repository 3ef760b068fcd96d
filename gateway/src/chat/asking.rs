//! The hook in front of the store: a backend is asked before a message, an edit or a reaction is stored.
//!
//! Questions of one conversation are under way side by side, and what they were about is stored in the order in which it
//! came. A conversation whose answers are slow holds up itself alone: its line is bounded, and so is each question's time.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{join, poll_immediate};
use parking_lot::Mutex;
use shared::command::{SendMessage, Target, check_content};
use shared::{ConversationId, ConversationKind, ErrorCode, Message, MessageId, ProtocolError, Timestamp, UserId};
use tokio::sync::OwnedMutexGuard;

use super::Chat;
use crate::store::{EarlierSend, Giver, MessageChange, StoreError};
use crate::webhooks::{Hook, HookAnswer, HookQuestion, HookRefusal};

/// Commands of one conversation that wait for the hook or for those before them.
const LINE_MAX: usize = 32;
/// When a command may be sent again for which the line has no room: a random time of these, in milliseconds.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 500..=2_000;

/// How a message or a change comes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Over a socket of its user, in this dialect.
    Socket(&'static str),
    /// By a request of its user.
    Rest,
    /// By a backend that acts for the user, or in its own name.
    Backend,
}

impl Via {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socket(_) => "socket",
            Self::Rest => "rest",
            Self::Backend => "backend",
        }
    }

    /// The socket's dialect.
    #[must_use]
    pub const fn dialect(self) -> Option<&'static str> {
        match self {
            Self::Socket(dialect) => Some(dialect),
            Self::Rest | Self::Backend => None,
        }
    }
}

/// The hook, and the lines of conversations in front of it.
pub(super) struct Asking {
    hook: Hook,
    content_chars_max: usize,
    lines: Mutex<HashMap<String, Line>>,
}

/// The commands of one conversation, in the order in which they came.
#[derive(Default)]
struct Line {
    order: Arc<tokio::sync::Mutex<()>>,
    waiting: usize,
}

/// A place in a line; given up when dropped.
struct Place<'a> {
    asking: &'a Asking,
    name: String,
}

/// The turn of a command: nothing that came later in its conversation goes before it.
pub(super) struct Turn<'a> {
    _order: OwnedMutexGuard<()>,
    _place: Place<'a>,
}

impl Turn<'_> {
    /// Carries out a command that takes its place in the conversation when it is polled first. The next one's turn comes then.
    pub(super) async fn hand_over<F: Future>(self, command: F) -> F::Output {
        let mut command = pin!(command);
        match poll_immediate(&mut command).await {
            Some(output) => output,
            None => {
                drop(self);
                command.await
            }
        }
    }
}

/// A message about which the hook was asked.
pub(super) enum AskedSend<'a> {
    /// It may be stored.
    Allowed(Turn<'a>),
    /// It was stored before, with a content that the hook gave.
    StoredBefore(Box<Message>),
}

impl Asking {
    pub(super) fn new(hook: Hook, content_chars_max: usize) -> Self {
        Self { hook, content_chars_max, lines: Mutex::default() }
    }

    fn enter(&self, name: String) -> Result<(Place<'_>, Arc<tokio::sync::Mutex<()>>), ProtocolError> {
        let mut lines = self.lines.lock();
        let line = lines.entry(name.clone()).or_default();
        if line.waiting >= LINE_MAX {
            let busy = "too many messages of this conversation wait to be looked at; try again";
            let wait_ms = rand::random_range(RETRY_AFTER_MS);
            return Err(ProtocolError::new(ErrorCode::Unavailable, busy).retry_after_ms(wait_ms));
        }
        line.waiting += 1;
        let order = Arc::clone(&line.order);
        drop(lines);
        Ok((Place { asking: self, name }, order))
    }

    async fn ask(&self, question: &HookQuestion<'_>) -> HookAnswer {
        let fits = |content: &str| check_content(content, self.content_chars_max).map_err(|fault| fault.to_string());
        self.hook.ask(question, fits).await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.asking.lines.lock();
        if let Some(line) = lines.get_mut(&self.name) {
            line.waiting -= 1;
            if line.waiting == 0 {
                lines.remove(&self.name);
            }
        }
    }
}

/// What a question tells of its conversation.
#[derive(Default)]
struct Scene {
    conversation: Option<ConversationId>,
    kind: Option<ConversationKind>,
    to: Option<UserId>,
}

impl Chat {
    /// Asks about a message, and puts the hook's content into it.
    pub(super) async fn ask_about_send<'a>(
        &self,
        asking: &'a Asking,
        sender: &UserId,
        send: &mut SendMessage,
        via: Via,
    ) -> Result<AskedSend<'a>, ProtocolError> {
        let (place, order) = asking.enter(self.line_of(sender, &send.target))?;
        let (order, judged) = join(order.lock_owned(), self.judge_send(asking, sender, send, via)).await;
        match judged? {
            Judged::StoredBefore(message) => return Ok(AskedSend::StoredBefore(message)),
            Judged::Allowed(None) => {}
            Judged::Allowed(Some(content)) => {
                if let Some(temp_id) = &send.temp_id {
                    // Before the message itself: a repetition must not be compared with what its sender wrote.
                    self.store.note_replaced(sender, temp_id).await?;
                }
                send.content = content;
            }
        }
        Ok(AskedSend::Allowed(Turn { _order: order, _place: place }))
    }

    /// A message that was stored under this `tempId` with the hook's content, if the conflict is with such a one.
    pub(super) async fn replaced_before(
        &self,
        sender: &UserId,
        send: &SendMessage,
        error: ProtocolError,
    ) -> Result<Message, ProtocolError> {
        let is_conflict = error.code == ErrorCode::Conflict && error.field.as_deref() == Some("tempId");
        if !is_conflict {
            return Err(error);
        }
        match self.sent_earlier(sender, send).await? {
            Some(EarlierSend { message, replaced: true })
                if self.is_there(sender, &send.target, &message.conversation_id) =>
            {
                Ok(message)
            }
            _ => Err(error),
        }
    }

    async fn sent_earlier(&self, sender: &UserId, send: &SendMessage) -> Result<Option<EarlierSend>, StoreError> {
        match &send.temp_id {
            Some(temp_id) => self.store.sent_earlier(sender, temp_id).await,
            None => Ok(None),
        }
    }

    fn is_there(&self, sender: &UserId, target: &Target, conversation: &ConversationId) -> bool {
        match target {
            Target::Conversation(target) => target == conversation,
            Target::User(to) => self.known_direct(sender, to).is_none_or(|direct| direct == *conversation),
        }
    }

    /// The name of the line for a target: by whatever it is addressed, a conversation that is known has one.
    fn line_of(&self, sender: &UserId, target: &Target) -> String {
        match target {
            Target::Conversation(conversation) => conversation.to_string(),
            Target::User(to) => match self.known_direct(sender, to) {
                Some(direct) => direct.to_string(),
                // No id of a conversation has a space.
                None if sender < to => format!("{sender} {to}"),
                None => format!("{to} {sender}"),
            },
        }
    }

    async fn judge_send(
        &self,
        asking: &Asking,
        sender: &UserId,
        send: &SendMessage,
        via: Via,
    ) -> Result<Judged, ProtocolError> {
        // While the store is away, nobody can be looked up: the hook is asked all the same.
        if let Ok(Some(EarlierSend { message, replaced })) = self.sent_earlier(sender, send).await {
            let is_replaced = replaced && self.is_there(sender, &send.target, &message.conversation_id);
            return Ok(if is_replaced { Judged::StoredBefore(Box::new(message)) } else { Judged::Allowed(None) });
        }
        let Some(scene) = self.scene_of_send(sender, &send.target).await else { return Ok(Judged::Allowed(None)) };
        let question = HookQuestion {
            kind: Some(&send.kind),
            content: Some(&send.content),
            reply_to: send.reply_to,
            data: send.data.as_ref(),
            temp_id: send.temp_id.as_ref(),
            ..self.question("message.send", sender, scene, via).await
        };
        let refusal = match asking.ask(&question).await {
            Ok(content) => return Ok(Judged::Allowed(content)),
            Err(refusal) => refusal,
        };
        if let HookRefusal::Refused(_) = refusal {
            // A refusal is told only when nothing is stored: another try of this message may have been allowed.
            match self.sent_earlier(sender, send).await? {
                Some(EarlierSend { message, replaced: true }) => return Ok(Judged::StoredBefore(Box::new(message))),
                Some(_) => return Ok(Judged::Allowed(None)),
                None => {}
            }
        }
        Err(refusal.into())
    }

    /// Where a message would stand; `None` if the store will refuse it anyhow.
    async fn scene_of_send(&self, sender: &UserId, target: &Target) -> Option<Scene> {
        let (conversation, to) = match target {
            Target::Conversation(conversation) => (Some(conversation.clone()), None),
            Target::User(to) => (self.known_direct(sender, to), Some(to.clone())),
        };
        let Some(conversation) = conversation else {
            let to = to?;
            let blocked = self.store.blocked_with(sender, std::slice::from_ref(&to)).await;
            let is_blocked = blocked.is_ok_and(|blocked| !blocked.is_empty());
            let kind = Some(ConversationKind::Direct);
            return (!is_blocked).then_some(Scene { conversation: None, kind, to: Some(to) });
        };
        self.scene(sender, conversation).await
    }

    async fn scene(&self, user: &UserId, conversation: ConversationId) -> Option<Scene> {
        match self.members.get(&conversation).await {
            Ok(members) if members.blocked => None,
            Ok(members) if matches!(self.members.role_of(&conversation, &members, user).await, Ok(None)) => None,
            Ok(members) => {
                let to = members.recipient_of(user).cloned();
                Some(Scene { conversation: Some(conversation), kind: Some(members.kind), to })
            }
            Err(StoreError::Refused(_)) => None,
            Err(StoreError::Unavailable(_) | StoreError::Busy(_) | StoreError::Failed(_)) => {
                Some(Scene { conversation: Some(conversation), ..Scene::default() })
            }
        }
    }

    async fn question<'a>(&self, r#type: &'static str, sender: &'a UserId, scene: Scene, via: Via) -> HookQuestion<'a> {
        HookQuestion {
            id: format!("{:032x}", rand::random::<u128>()),
            r#type,
            at: Timestamp::now(),
            via: via.name(),
            dialect: via.dialect(),
            conversation_id: scene.conversation,
            conversation_kind: scene.kind,
            to: scene.to,
            sender_id: sender,
            sender_name: self.names.of(sender).await,
            message_id: None,
            kind: None,
            content: None,
            previous: None,
            reply_to: None,
            data: None,
            emoji: None,
            temp_id: None,
        }
    }

    /// Asks about an edit or a reaction, and puts the hook's content into it. `None`: nobody has to be asked.
    pub(super) async fn ask_about_change(
        &self,
        id: MessageId,
        giver: &Giver,
        change: &mut MessageChange,
        via: Via,
    ) -> Result<Option<Turn<'_>>, ProtocolError> {
        let (Some(asking), Some(user)) = (&self.asking, &giver.user) else { return Ok(None) };
        if !matches!(change, MessageChange::Edit { .. } | MessageChange::React { on: true, .. }) {
            return Ok(None);
        }
        // What the store refuses anyhow isn't asked about.
        let Some(message) = self.store.message(id).await?.filter(|message| message.deleted_at.is_none()) else {
            return Ok(None);
        };
        let is_foreign = matches!(change, MessageChange::Edit { .. }) && message.sender_id != *user;
        let Some(scene) = self.scene(user, message.conversation_id.clone()).await.filter(|_| !is_foreign) else {
            return Ok(None);
        };
        let (place, order) = asking.enter(message.conversation_id.to_string())?;
        let judge = async {
            let (r#type, content, previous, emoji) = match &*change {
                MessageChange::Edit { content } => ("message.edit", Some(&**content), Some(message.content), None),
                MessageChange::React { emoji, .. } => ("reaction.add", None, None, Some(&**emoji)),
                MessageChange::Delete => return Ok(None),
            };
            let question = self.question(r#type, user, scene, via).await;
            let kind = Some(&*message.kind);
            let question = HookQuestion { message_id: Some(id), kind, content, previous, emoji, ..question };
            asking.ask(&question).await
        };
        let (order, answer) = join(order.lock_owned(), judge).await;
        if let (Some(replaced), MessageChange::Edit { content }) = (answer?, &mut *change) {
            *content = replaced;
        }
        Ok(Some(Turn { _order: order, _place: place }))
    }
}

/// What is known of a message before its turn.
enum Judged {
    /// It may be stored, with the hook's content, if there is one. Nobody was asked if the store refuses it anyhow, or has it.
    Allowed(Option<String>),
    /// It is stored with the hook's content.
    StoredBefore(Box<Message>),
}

impl From<HookRefusal> for ProtocolError {
    fn from(refusal: HookRefusal) -> Self {
        match refusal {
            HookRefusal::Unavailable(wait_ms) => {
                let unavailable = "nobody could look at this before it is stored; try again";
                Self::new(ErrorCode::Unavailable, unavailable).retry_after_ms(wait_ms)
            }
            HookRefusal::Refused(message) => {
                Self::new(ErrorCode::Refused, message.unwrap_or_else(|| "this was refused".to_owned()))
            }
        }
    }
}
