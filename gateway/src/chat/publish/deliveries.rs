//! From what was committed to deliveries: one for each recipient, in the order of the commit.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use shared::{ConversationId, Event, MessageData, MessageId, Timestamp, UserId};

use super::directory::{Audience, Directory};
use crate::backbone::{CarriedMessage, Delivery, DeliveryKind, Durable, TopicEvent, TopicPush};
use crate::chat::events::{MessageBodies, message_bodies, topic_message};
use crate::store::{OpenedDirect, OutboxEvent, PendingRow, StoreError, StoredMessage, kept_id};

/// Messages of a row whose deliveries are made at once: ten thousand members each make some 25 MB.
const MESSAGES_PER_PART: usize = 16;

/// What goes out: to one user, or once to all members of a large conversation.
#[derive(Debug, Clone)]
pub(in crate::chat) enum Outgoing {
    User(Delivery),
    Topic(TopicEvent),
}

/// Both kinds apart, each in its order.
pub(super) fn apart(outgoing: Vec<Outgoing>) -> (Vec<Delivery>, Vec<TopicEvent>) {
    let (mut deliveries, mut topics) = (Vec::with_capacity(outgoing.len()), Vec::new());
    for outgoing in outgoing {
        match outgoing {
            Outgoing::User(delivery) => deliveries.push(delivery),
            Outgoing::Topic(event) => topics.push(event),
        }
    }
    (deliveries, topics)
}

/// What a row that was found unpublished has to deliver: to all its recipients, or to those who still lack something of it.
pub(in crate::chat) async fn row_deliveries(
    directory: &Directory,
    row: PendingRow,
) -> Result<Vec<Outgoing>, StoreError> {
    let mut deliveries = opened_deliveries(row.id, &row.opened);
    for stored in &row.messages {
        let audience = directory.audience(stored).await?;
        deliveries.append(&mut message_deliveries(stored, &audience));
    }
    deliveries.append(&mut event_deliveries(row.id, row.events, row.committed_at));
    if let Some(lacking) = &row.lacking {
        let lacking: HashSet<&UserId> = lacking.iter().collect();
        // A row is narrowed when everything else of it is published.
        deliveries.retain(|outgoing| matches!(outgoing, Outgoing::User(delivery) if lacking.contains(&delivery.user)));
    }
    Ok(deliveries)
}

/// A message's envelope for one of its recipients.
pub(in crate::chat) async fn envelope_for(
    directory: &Directory,
    user: &UserId,
    stored: &StoredMessage,
) -> Result<Bytes, StoreError> {
    let audience = directory.audience(stored).await?;
    let MessageBodies { sent, new } = message_bodies(&stored.message, &audience.about, audience.count());
    Ok(if stored.message.sender_id == *user { sent } else { new })
}

/// A row of many messages in parts that are published one after the other; the row is published when all of them are.
pub(in crate::chat) fn row_parts(mut row: PendingRow) -> Vec<PendingRow> {
    let mut parts = Vec::new();
    while row.messages.len() > MESSAGES_PER_PART {
        let rest = row.messages.split_off(MESSAGES_PER_PART);
        let messages = std::mem::replace(&mut row.messages, rest);
        let opened = std::mem::take(&mut row.opened);
        let (owner, lacking) = (row.owner.clone(), row.lacking.clone());
        parts.push(PendingRow { opened, messages, events: Vec::new(), owner, lacking, ..row });
    }
    parts.push(row);
    parts
}

/// `conversation.created` for both users of each direct conversation that a batch opened: in front of its first message.
pub(super) fn opened_deliveries(row: u64, opened: &[OpenedDirect]) -> Vec<Outgoing> {
    let mut deliveries = Vec::with_capacity(2 * opened.len());
    for direct in opened {
        let event_id: Arc<str> = format!("{row}.c{}", direct.id).into();
        let body = Bytes::from(Event::ConversationCreated { conversation: direct.conversation() }.to_json());
        let to = |user| Delivery {
            user,
            body: body.clone(),
            kind: DeliveryKind::Durable(Durable {
                event_id: Arc::clone(&event_id),
                committed_at: direct.at,
                message: None,
                push: None,
                mentions: None,
                notification: None,
            }),
        };
        deliveries.extend(direct.users().into_iter().map(to).map(Outgoing::User));
    }
    deliveries
}

/// The deliveries of a message: to its sender, then to everybody else; in a large conversation one for all.
pub(super) fn message_deliveries(stored: &StoredMessage, audience: &Audience) -> Vec<Outgoing> {
    let (message, Audience { now, then, about, large }) = (&stored.message, audience);
    let carried = CarriedMessage { id: message.id, conversation: message.conversation_id.clone(), seq: message.seq };
    if *large {
        let mentions = message.data.as_ref().map(MessageData::mentions).unwrap_or_default();
        let push = TopicPush { message: carried, sender: message.sender_id.clone(), mentions };
        let (conversation, body) = (message.conversation_id.clone(), Bytes::from(topic_message(message, about)));
        return vec![Outgoing::Topic(TopicEvent { conversation, body, push: Some(push) })];
    }
    let MessageBodies { sent, new } = message_bodies(message, about, audience.count());
    let event_id: Arc<str> = format!("m{}", message.id).into();
    // A user who has left gets what was said while they were there; it wakes nobody.
    let is_member = |user: &UserId| then.is_none() || now.role(user).is_some();
    let mentions = message.data.as_ref().map(MessageData::mentions).filter(|users| !users.is_empty());
    let mentions: Option<Arc<[UserId]>> = mentions.map(Into::into);
    let delivery = |user: &UserId, body: &Bytes, is_sender: bool| Delivery {
        user: user.clone(),
        body: body.clone(),
        kind: DeliveryKind::Durable(Durable {
            event_id: Arc::clone(&event_id),
            committed_at: message.created_at,
            message: Some(carried.clone()),
            push: (!is_sender && is_member(user)).then(|| message.sender_id.clone()),
            mentions: mentions.clone(),
            notification: None,
        }),
    };
    let of_now = then.is_none().then_some(&now.list).into_iter().flatten().map(|(user, _)| user);
    let users = of_now.chain(then.iter().flatten());
    let recipients = users.filter(|user| **user != message.sender_id);
    let to_sender = std::iter::once(delivery(&message.sender_id, &sent, true));
    to_sender.chain(recipients.map(|user| delivery(user, &new, false))).map(Outgoing::User).collect()
}

/// The conversation of an event, if it has one: events of a conversation stay behind its messages.
pub(super) fn conversation_of(event: &OutboxEvent) -> Option<ConversationId> {
    #[derive(Deserialize)]
    struct Envelope {
        payload: Payload,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        conversation_id: Option<ConversationId>,
        message: Option<Message>,
        conversation: Option<Conversation>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Message {
        conversation_id: ConversationId,
    }
    #[derive(Deserialize)]
    struct Conversation {
        id: ConversationId,
    }
    let line = event.body.lines().next()?;
    let Payload { conversation_id, message, conversation } = serde_json::from_str::<Envelope>(line).ok()?.payload;
    conversation_id.or(message.map(|message| message.conversation_id)).or(conversation.map(|it| it.id))
}

pub(super) fn event_deliveries(row: u64, events: Vec<OutboxEvent>, committed_at: Timestamp) -> Vec<Outgoing> {
    let mut deliveries = Vec::new();
    for (place, event) in events.into_iter().enumerate() {
        let notification = kept_id(&event);
        let OutboxEvent { users, body, topic } = event;
        let event_id: Arc<str> = format!("{row}.{place}").into();
        let body = Bytes::from(body);
        if let Some(conversation) = topic {
            deliveries.push(Outgoing::Topic(TopicEvent { conversation, body, push: None }));
            continue;
        }
        let to = |user| Delivery {
            user,
            body: body.clone(),
            kind: DeliveryKind::Durable(Durable {
                event_id: Arc::clone(&event_id),
                committed_at,
                message: None,
                push: None,
                mentions: None,
                notification,
            }),
        };
        deliveries.extend(users.into_iter().map(to).map(Outgoing::User));
    }
    deliveries
}

/// The deliveries that bring a message, for the case that the backbone is away. Bodies are shared, not copied.
pub(super) fn messages_of(deliveries: &[Delivery]) -> Vec<(UserId, MessageId, Bytes)> {
    let message = |delivery: &Delivery| match &delivery.kind {
        DeliveryKind::Durable(durable) => {
            Some((delivery.user.clone(), durable.message.as_ref()?.id, delivery.body.clone()))
        }
        DeliveryKind::Ephemeral => None,
    };
    deliveries.iter().filter_map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_row_goes_out_in_parts_in_its_order() {
        let stored = |n: u64| {
            let message = serde_json::json!({
                "id": n.to_string(), "conversationId": "c", "seq": n, "rev": n, "senderId": "u", "kind": "text",
                "content": "x", "createdAt": "2025-11-21T13:00:00.000Z",
            });
            StoredMessage { message: serde_json::from_value(message).expect("a message"), members_version: 1 }
        };
        let [one, other] = ["u", "v"].map(|user| UserId::parse(user).expect("an id"));
        let pair = (one, other);
        let opened = OpenedDirect { id: ConversationId::parse("c").expect("an id"), pair, at: Timestamp::now() };
        let row = |count: u64| PendingRow {
            id: 7,
            owner: "o".into(),
            lacking: None,
            committed_at: Timestamp::now(),
            opened: vec![opened.clone()],
            messages: (1..=count).map(stored).collect(),
            events: vec![OutboxEvent { users: Vec::new(), body: String::new(), topic: None }],
        };
        for (count, sizes) in [(0, vec![0]), (16, vec![16]), (17, vec![16, 1]), (40, vec![16, 16, 8])] {
            let parts = row_parts(row(count));
            assert_eq!(parts.iter().map(|part| part.messages.len()).collect::<Vec<_>>(), sizes);
            let seqs = parts.iter().flat_map(|part| &part.messages).map(|stored| stored.message.seq);
            assert!(seqs.eq(1..=count) && parts.iter().all(|part| part.id == 7));
            let with_events = parts.iter().position(|part| !part.events.is_empty());
            assert_eq!(with_events, Some(parts.len() - 1), "events follow the messages");
            let opens: Vec<_> = parts.iter().map(|part| part.opened.len()).collect();
            assert_eq!(opens.iter().position(|count| *count > 0), Some(0), "what was opened goes before");
            assert_eq!(opens.iter().sum::<usize>(), 1);
        }
    }
}
