//! Plain batches: the arguments of `parley_send_plain`, and its answer. Reads nothing from the store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::iter::zip;

use deadpool_postgres::{GenericClient, Object};
use shared::command::Target;
use shared::{ConversationId, MessageData};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::owed::{SEND_FIRST_OWING, SEND_PLAIN_OWING};
use super::rows::{bigint, get, time, unfit, unsigned};
use crate::store::conversations::pair_key;
use crate::store::{NewMessage, OpenedDirect, SendBatch, SendOutcome, SentBatch, StoreError, StoredMessage};

const SEND_PLAIN: &str = "SELECT * FROM parley_send_plain($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16, $17, $18)";
const SEND_FIRST: &str = "SELECT * FROM parley_send_first($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16, $17, $18, $19, $20, $21)";

/// The name by which a batch calls a conversation. Those by id come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name<'b> {
    Id(&'b ConversationId),
    /// The key of the two users of a direct conversation, which may have to be opened.
    Pair(String),
}

/// The part of a batch that goes to one conversation.
#[derive(Debug, PartialEq, Eq)]
struct BatchConversation<'b> {
    /// Its place among the batch's conversations, from 1, in order of name.
    place: i64,
    /// Its id; of a pair, the id under which its conversation may be opened.
    id: ConversationId,
    messages: i64,
    first: &'b NewMessage,
    /// The number of messages that the first sender has before any other sender.
    lead: i64,
    /// The number of each sender's last message.
    lasts: BTreeMap<&'b str, i64>,
}

impl<'b> BatchConversation<'b> {
    fn beginning_with(first: &'b NewMessage) -> Result<Self, StoreError> {
        let id = match &first.target {
            Target::Conversation(id) => id.clone(),
            Target::User(_) => first.opens_under()?,
        };
        Ok(Self { place: 0, id, messages: 0, first, lead: 0, lasts: BTreeMap::new() })
    }
}

/// A batch, sorted and numbered.
pub(super) struct PlainBatch<'b> {
    batch: &'b SendBatch,
    talks: BTreeMap<Name<'b>, BatchConversation<'b>>,
    /// Each message's number in its conversation, from 1.
    numbers: Vec<i64>,
}

impl<'b> PlainBatch<'b> {
    pub(super) fn of(batch: &'b SendBatch) -> Result<Self, StoreError> {
        let mut talks: BTreeMap<Name<'_>, BatchConversation<'_>> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(batch.messages.len());
        for message in &batch.messages {
            let talk = match talks.entry(name(message)) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(new) => new.insert(BatchConversation::beginning_with(message)?),
            };
            if talk.first.sender == message.sender && talk.lead == talk.messages {
                talk.lead += 1;
            }
            talk.messages += 1;
            talk.lasts.insert(message.sender.as_str(), talk.messages);
            numbers.push(talk.messages);
        }
        zip(1.., talks.values_mut()).for_each(|(place, talk)| talk.place = place);
        Ok(Self { batch, talks, numbers })
    }

    /// Stores the batch and returns the row for [`PlainBatch::sent`]. If a message is to be refused, or is a duplicate,
    /// it stores nothing and returns `None`.
    pub(super) async fn store(&self, client: &Object) -> Result<Option<Row>, tokio_postgres::Error> {
        let conversations: Vec<&str> = self.talks.values().map(|talk| talk.id.as_str()).collect();
        let counts: Vec<i64> = self.talks.values().map(|talk| talk.messages).collect();
        let (mut pairs, mut ones, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let (mut member_places, mut members, mut lasts, mut leads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, talk) in &self.talks {
            if let (Name::Pair(key), Target::User(to)) = (name, &talk.first.target) {
                pairs.push(key.as_str());
                ones.push(talk.first.sender.as_str());
                others.push(to.as_str());
            }
            for (sender, last) in &talk.lasts {
                member_places.push(talk.place);
                members.push(*sender);
                lasts.push(*last);
                leads.push(if talk.first.sender.as_str() == *sender { talk.lead } else { 0 });
            }
        }
        let ids: Vec<i64> = self.batch.messages.iter().map(|message| bigint(message.id.get())).collect();
        let rows = self.rows();
        let message_ids: Vec<i64> = rows.iter().map(|(message, _, _)| bigint(message.id.get())).collect();
        let places: Vec<i64> = rows.iter().map(|(_, place, _)| *place).collect();
        let numbers: Vec<i64> = rows.iter().map(|(_, _, number)| *number).collect();
        let senders: Vec<&str> = rows.iter().map(|(message, _, _)| message.sender.as_str()).collect();
        let temp_ids: Vec<Option<&str>> = rows.iter().map(|(message, _, _)| message.temp_id.as_deref()).collect();
        let kinds: Vec<&str> = rows.iter().map(|(message, _, _)| message.kind.as_str()).collect();
        let contents: Vec<&str> = rows.iter().map(|(message, _, _)| message.content.as_str()).collect();
        let reply_tos: Vec<Option<i64>> =
            rows.iter().map(|(message, _, _)| message.reply_to.map(|id| bigint(id.get()))).collect();
        let reply_tos = reply_tos.iter().any(Option::is_some).then_some(reply_tos);
        let data: Vec<Option<&str>> =
            rows.iter().map(|(message, _, _)| message.data.as_ref().map(MessageData::as_str)).collect();
        let data = data.iter().any(Option::is_some).then_some(data);
        let (batch, owner) = (bigint(self.batch.id), &*self.batch.owner);
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
            &batch,
            &owner,
            &ids,
            &conversations,
            &counts,
            &member_places,
            &members,
            &lasts,
            &leads,
            &message_ids,
            &places,
            &numbers,
            &senders,
            &temp_ids,
            &kinds,
            &contents,
            &reply_tos,
            &data,
        ];
        if !pairs.is_empty() {
            parameters.extend([&pairs as &(dyn ToSql + Sync), &ones, &others]);
        }
        let sql = match (pairs.is_empty(), self.batch.owes_events) {
            (true, false) => SEND_PLAIN,
            (true, true) => SEND_PLAIN_OWING,
            (false, false) => SEND_FIRST,
            (false, true) => SEND_FIRST_OWING,
        };
        let row = client.query_one(&client.prepare_cached(sql).await?, &parameters).await?;
        Ok(row.try_get::<_, Option<Vec<i64>>>("out_seqs")?.map(|_| row))
    }

    /// Each message with its place and number, in the order in which all nodes insert them.
    fn rows(&self) -> Vec<(&'b NewMessage, i64, i64)> {
        let mut rows: Vec<_> = zip(&self.batch.messages, &self.numbers)
            .filter_map(|(message, number)| Some((message, self.place(message)?, *number)))
            .collect();
        rows.sort_by_key(|(message, _, _)| (message.sender.as_str(), message.temp_id.as_deref()));
        rows
    }

    fn place(&self, message: &NewMessage) -> Option<i64> {
        self.talks.get(&name(message)).map(|talk| talk.place)
    }

    /// All messages as they were stored, in the order of the batch, and what was opened for them.
    pub(super) fn sent(&self, row: &Row) -> Result<SentBatch, StoreError> {
        let created_at = time(row, "out_created_at")?;
        let seqs: Vec<i64> = get(row, "out_seqs")?;
        let revs: Vec<i64> = get(row, "out_revs")?;
        let versions: Vec<i64> = get(row, "out_members_versions")?;
        let resolved = self.resolved(row)?;
        let outcomes = zip(&self.batch.messages, &self.numbers)
            .map(|(new, number)| {
                let place = self.place(new).and_then(|place| usize::try_from(place - 1).ok());
                let at = |all: &[i64], column: &str| {
                    let one = place.and_then(|place| all.get(place)).ok_or_else(|| unfit(column))?;
                    Ok::<i64, StoreError>(*one)
                };
                let seq = unsigned(at(&seqs, "out_seqs")? + number, "out_seqs")?;
                let rev = unsigned(at(&revs, "out_revs")? + number, "out_revs")?;
                let members_version = unsigned(at(&versions, "out_members_versions")?, "out_members_versions")?;
                let conversation = match &new.target {
                    Target::Conversation(id) => id,
                    Target::User(_) => {
                        place.and_then(|place| resolved.get(place)).ok_or_else(|| unfit("out_conversations"))?
                    }
                };
                let message = new.stored(conversation, seq, rev, created_at);
                Ok(SendOutcome::Stored(StoredMessage { message, members_version }))
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(SentBatch { outcomes, opened: self.opened(row, &resolved)? })
    }

    /// The ids of the batch's conversations by place; empty if it names all by id.
    fn resolved(&self, row: &Row) -> Result<Vec<ConversationId>, StoreError> {
        if !self.has_pairs() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = get(row, "out_conversations")?;
        ids.into_iter().map(|id| id.parse().map_err(|_| unfit("out_conversations"))).collect()
    }

    fn opened(&self, row: &Row, resolved: &[ConversationId]) -> Result<Vec<OpenedDirect>, StoreError> {
        if !self.has_pairs() {
            return Ok(Vec::new());
        }
        let opened = get::<Option<Vec<&str>>>(row, "out_opened")?.unwrap_or_default();
        if opened.is_empty() {
            return Ok(Vec::new());
        }
        let at = time(row, "out_opened_at")?;
        let by_id: BTreeMap<&str, &Name<'_>> =
            zip(resolved.iter().map(ConversationId::as_str), self.talks.keys()).collect();
        opened
            .into_iter()
            .map(|id| {
                let key = by_id.get(id).and_then(|name| match name {
                    Name::Id(_) => None,
                    Name::Pair(key) => Some(key),
                });
                let id = id.parse().map_err(|_| unfit("out_opened"))?;
                key.and_then(|key| OpenedDirect::with_key(id, key, at)).ok_or_else(|| unfit("out_opened"))
            })
            .collect()
    }

    fn has_pairs(&self) -> bool {
        matches!(self.talks.last_key_value(), Some((Name::Pair(_), _)))
    }
}

fn name(message: &NewMessage) -> Name<'_> {
    match &message.target {
        Target::Conversation(id) => Name::Id(id),
        Target::User(to) => Name::Pair(pair_key((&message.sender, to))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Locks;

    #[test]
    fn a_batch_is_numbered_in_order_of_arrival() {
        let drafts = [("d", "b"), ("c", "b"), ("d", "b"), ("d", "a"), ("d", "b"), ("c", "a")];
        let message = |(id, (conversation, sender)): (u64, (&str, &str))| {
            let message = serde_json::json!({
                "id": id.to_string(), "conversation": conversation, "sender": sender, "temp_id": null, "kind": "text",
                "content": "x", "reply_to": null,
            });
            serde_json::from_value(message).expect("a message")
        };
        let batch = SendBatch {
            id: 9,
            owner: "o".into(),
            messages: zip(1.., drafts).map(message).collect(),
            locks: Locks::Wait,
            owes_events: false,
        };
        let plain = PlainBatch::of(&batch).expect("ids");
        let talk = |place, first, messages, lead, lasts: [(&'static str, i64); 2]| BatchConversation {
            place,
            id: ConversationId::parse(if first == 1 { "c" } else { "d" }).expect("an id"),
            messages,
            first: &batch.messages[first],
            lead,
            lasts: lasts.into(),
        };
        let ids = ["c", "d"].map(|id| ConversationId::parse(id).expect("an id"));
        let talks = [
            (Name::Id(&ids[0]), talk(1, 1, 2, 1, [("a", 2), ("b", 1)])),
            (Name::Id(&ids[1]), talk(2, 0, 4, 2, [("a", 3), ("b", 4)])),
        ];
        assert_eq!(plain.talks, talks.into());
        assert_eq!(plain.numbers, [1, 1, 2, 3, 4, 2]);
        let rows: Vec<_> =
            plain.rows().iter().map(|(message, place, number)| (message.id.get(), *place, *number)).collect();
        assert_eq!(rows, [(4, 2, 3), (6, 1, 2), (1, 2, 1), (2, 1, 1), (3, 2, 2), (5, 2, 4)]);
    }
}
