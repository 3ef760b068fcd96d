//! From a command to the domain: one exhaustive match.
//! It offers [`dispatch`], which returns the event that answers the asking connection alone, if there is one; and [`send`],
//! the one of its steps that a connection takes many times at once.
//! It never has an arm for all other commands, so a new command can't be forgotten here.

use serde_json::value::RawValue;
use shared::command::SendMessage;
use shared::{Command, ErrorCode, Event, MessageId, ProtocolError, Timestamp, UserId};

use crate::chat::Chat;
use crate::chat::asking::Via;
use crate::store::{Giver, MessageChange};

/// The sender of a command.
#[derive(Debug)]
pub struct Asker {
    /// The user of the connection.
    pub user: UserId,
    /// Whether their token gives admin rights.
    pub admin: bool,
    /// Whether their messages go on while the store is away.
    pub live: bool,
    /// The dialect of the connection.
    pub dialect: &'static str,
}

impl Asker {
    const fn via(&self) -> Via {
        Via::Socket(self.dialect)
    }
}

/// Carries out a command. `Ok(None)`: the answer goes to all the user's devices, through the backbone.
///
/// `Auth` never comes here: the session carries it out, because it concerns the connection.
pub async fn dispatch(chat: &Chat, asker: &Asker, command: Command) -> Result<Option<Event>, ProtocolError> {
    let user = &asker.user;
    match command {
        Command::Auth { .. } => Ok(None),
        Command::Ping { timestamp } => Ok(Some(pong(timestamp))),
        Command::Send(message) => send(chat, asker, message).await,
        Command::Read { conversation, up_to } => {
            let outcome = chat.read(user, &conversation, up_to).await?;
            Ok((!outcome.told).then_some(outcome.ack))
        }
        Command::ReadMessage { message } => {
            let outcome = chat.read_message(user, message).await?;
            Ok((!outcome.told).then_some(outcome.ack))
        }
        Command::Delivered { conversation, up_to } => {
            chat.delivered(user, &conversation, up_to).await?;
            Ok(None)
        }
        Command::Edit { message, content } => change(chat, asker, message, MessageChange::Edit { content }).await,
        Command::Delete { message } => change(chat, asker, message, MessageChange::Delete).await,
        Command::ReactionAdd { message, emoji } => {
            change(chat, asker, message, MessageChange::React { emoji, on: true }).await
        }
        Command::ReactionRemove { message, emoji } => {
            change(chat, asker, message, MessageChange::React { emoji, on: false }).await
        }
        Command::Typing { conversation, is_typing } => {
            chat.typing(user, &conversation, is_typing).await?;
            Ok(None)
        }
        Command::BlockAdd(other) => chat.set_block(user, other, true).await,
        Command::BlockRemove(other) => chat.set_block(user, other, false).await,
        Command::Join { conversation, password } => {
            let outcome = chat.join(user, &conversation, password, &Giver::user(user)).await?;
            Ok((!outcome.changed).then_some(Event::ConversationJoined { conversation: outcome.conversation }))
        }
        Command::Leave { conversation } => {
            let change = crate::store::MembershipChange::Leave;
            let outcome = chat.change_membership(&conversation, user, change, &Giver::user(user)).await?;
            // A user who declines an invitation, or was not a member, is answered on this connection.
            Ok((!outcome.was_member).then_some(Event::ConversationLeft { conversation_id: conversation }))
        }
        Command::Broadcast { content } => {
            if !asker.admin {
                return Err(ProtocolError::new(ErrorCode::Forbidden, "only an admin can tell everybody"));
            }
            let event = Event::Broadcast { content, sent_at: Some(Timestamp::now()) };
            chat.broadcast("broadcast".to_owned(), event.to_json(), Giver::user(user)).await?;
            Ok(None)
        }
        Command::PresenceQuery { users } => chat.status(Some(user), &users).await.map(Some),
    }
}

/// Sends a message, as [`dispatch`] does: by itself a much smaller future, of which a connection may have many.
pub async fn send(chat: &Chat, asker: &Asker, message: SendMessage) -> Result<Option<Event>, ProtocolError> {
    let sent = match asker.live {
        true => Box::pin(chat.send_live(&asker.user, message, asker.via())).await?,
        false => Some(chat.send(&asker.user, message, asker.via()).await?),
    };
    chat.owe_for_send(&asker.user, sent.as_ref());
    Ok(sent.filter(|sent| sent.duplicate).map(|sent| Event::MessageSent {
        temp_id: sent.message.temp_id.clone(),
        message: sent.message,
        duplicate: true,
        to: sent.about.to,
        sender_name: sent.about.sender_name,
    }))
}

/// A request that changes nothing is answered on its own connection only.
async fn change(
    chat: &Chat,
    asker: &Asker,
    message: MessageId,
    change: MessageChange,
) -> Result<Option<Event>, ProtocolError> {
    let changed = chat.change_message(message, &Giver::user(&asker.user), change, asker.via()).await?;
    chat.owe_for_change(&asker.user, &changed);
    Ok((!changed.changed).then_some(changed.event))
}

/// The answer to a ping: the client's timestamp as it came, or this node's.
pub fn pong(timestamp: Option<String>) -> Event {
    let server_time = Timestamp::now();
    let timestamp = timestamp
        .and_then(|text| RawValue::from_string(text).ok())
        .or_else(|| serde_json::value::to_raw_value(&server_time).ok());
    Event::Pong { timestamp: timestamp.unwrap_or_else(|| RawValue::NULL.to_owned()), server_time }
}
