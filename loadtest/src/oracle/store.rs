//! The messages and unread counts of a run in the store: by REST as a member sees them; messages also straight from PostgreSQL.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::stream::{self, StreamExt};
use shared::{ConversationId, MessageId, UserId};

use super::evidence::{ConversationFacts, MessageRow, Sighting};
use crate::client::UnreadCounts;
use crate::rest::{Credentials, MessageView, Rest};

/// How many conversations are read at once.
const READS_AT_ONCE: usize = 8;
/// How often one conversation or user is asked for before giving up; the node may just be restarting.
const TRIES_MAX: usize = 40;
/// The wait between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Reads every conversation behind its base over REST, as its first member with the token that `token_of` gives.
///
/// # Errors
/// A conversation that can't be read in twenty seconds.
pub(super) async fn by_rest(
    rest: &Rest,
    conversations: &HashMap<ConversationId, ConversationFacts>,
    token_of: &HashMap<UserId, String>,
) -> Result<Vec<MessageRow>> {
    let reads = conversations.iter().map(|(conversation, facts)| async move {
        let member = facts.members.first().context("a conversation without members")?;
        let token = token_of.get(member).context("a member without token")?;
        until_answered(|node| rest.messages_after(node, Credentials::User(token), conversation, facts.base_seq)).await
    });
    let pages: Vec<Result<Vec<MessageView>>> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).collect().await;
    let mut stored = Vec::new();
    for page in pages {
        stored.extend(page?.into_iter().map(|message| MessageRow {
            message: Sighting::from(&message),
            sender: message.sender_id,
            temp_id: message.temp_id,
        }));
    }
    Ok(stored)
}

/// Reads the unread counts of these users over REST, each with their token.
///
/// # Errors
/// A user whose conversations can't be read in twenty seconds.
pub(super) async fn unread(rest: &Rest, token_of: &HashMap<UserId, String>) -> Result<HashMap<UserId, UnreadCounts>> {
    let reads = token_of.iter().map(|(user, token)| async move {
        let counts = until_answered(|node| rest.unread(node, Credentials::User(token))).await?;
        Ok((user.clone(), counts))
    });
    stream::iter(reads).buffer_unordered(READS_AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
}

/// Asks one node after the other, in twenty seconds.
async fn until_answered<T, F: Future<Output = Result<T>>>(ask: impl Fn(usize) -> F) -> Result<T> {
    let mut tried = 0;
    loop {
        match ask(tried).await {
            Ok(answer) => return Ok(answer),
            Err(error) if tried + 1 == TRIES_MAX => return Err(error),
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
        tried += 1;
    }
}

/// Reads the messages from the table `messages`.
///
/// # Errors
/// PostgreSQL can't be asked, or holds ids that aren't any.
pub(super) async fn by_sql(
    database_url: &str,
    conversations: &HashMap<ConversationId, ConversationFacts>,
) -> Result<Vec<MessageRow>> {
    let (client, connection) = tokio_postgres::connect(database_url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    let ids: Vec<&str> = conversations.keys().map(ConversationId::as_str).collect();
    let sql = "SELECT id::text, conversation_id::text, seq::bigint, sender_id::text, temp_id::text \
               FROM messages WHERE conversation_id = ANY($1)";
    let rows = client.query(sql, &[&ids]).await.context("reading the table messages")?;
    drop(client);
    driver.await??;
    let mut stored = Vec::new();
    for row in rows {
        let conversation = ConversationId::parse(row.try_get(1)?)?;
        let seq = u64::try_from(row.try_get::<_, i64>(2)?)?;
        if conversations.get(&conversation).is_some_and(|facts| seq > facts.base_seq) {
            let message = Sighting { id: MessageId::parse(row.try_get(0)?)?, conversation, seq };
            stored.push(MessageRow { message, sender: UserId::parse(row.try_get(3)?)?, temp_id: row.try_get(4)? });
        }
    }
    Ok(stored)
}
