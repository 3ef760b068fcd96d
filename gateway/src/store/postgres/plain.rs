//! Plain batches: the arguments of `parley_send_plain`, and its answer. Reads nothing from the store.

use std::collections::BTreeMap;
use std::iter::zip;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::rows::{bigint, get, time, unfit, unsigned};
use crate::store::{NewMessage, SendBatch, SendOutcome, StoreError, StoredMessage};

const SEND_PLAIN: &str = "SELECT * FROM parley_send_plain($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16, $17)";

/// The part of a batch that goes to one conversation.
#[derive(Debug, PartialEq, Eq)]
struct BatchConversation<'b> {
    /// Its place among the batch's conversations, from 1, in order of id.
    place: i64,
    messages: i64,
    first_sender: &'b str,
    /// The number of messages that the first sender has before any other sender.
    lead: i64,
    /// The number of each sender's last message.
    lasts: BTreeMap<&'b str, i64>,
}

/// A batch, sorted and numbered.
pub(super) struct PlainBatch<'b> {
    batch: &'b SendBatch,
    talks: BTreeMap<&'b str, BatchConversation<'b>>,
    /// Each message's number in its conversation, from 1.
    numbers: Vec<i64>,
}

impl<'b> PlainBatch<'b> {
    pub(super) fn of(batch: &'b SendBatch) -> Self {
        let mut talks: BTreeMap<&str, BatchConversation<'_>> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(batch.messages.len());
        for message in &batch.messages {
            let sender = message.sender.as_str();
            let talk = talks.entry(message.conversation.as_str()).or_insert_with(|| BatchConversation {
                place: 0,
                messages: 0,
                first_sender: sender,
                lead: 0,
                lasts: BTreeMap::new(),
            });
            if talk.first_sender == sender && talk.lead == talk.messages {
                talk.lead += 1;
            }
            talk.messages += 1;
            talk.lasts.insert(sender, talk.messages);
            numbers.push(talk.messages);
        }
        zip(1.., talks.values_mut()).for_each(|(place, talk)| talk.place = place);
        Self { batch, talks, numbers }
    }

    /// Stores the batch and returns the row for [`PlainBatch::outcomes`]. If a message is to be refused, or is a
    /// duplicate, it stores nothing and returns `None`.
    pub(super) async fn store(&self, client: &impl GenericClient) -> Result<Option<Row>, tokio_postgres::Error> {
        let conversations: Vec<&str> = self.talks.keys().copied().collect();
        let counts: Vec<i64> = self.talks.values().map(|talk| talk.messages).collect();
        let (mut member_places, mut members, mut lasts, mut leads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for talk in self.talks.values() {
            for (sender, last) in &talk.lasts {
                member_places.push(talk.place);
                members.push(*sender);
                lasts.push(*last);
                leads.push(if talk.first_sender == *sender { talk.lead } else { 0 });
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
        let statement = client.prepare_cached(SEND_PLAIN).await?;
        let row = client
            .query_one(
                &statement,
                &[
                    &bigint(self.batch.id),
                    &&*self.batch.owner,
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
                ],
            )
            .await?;
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
        self.talks.get(message.conversation.as_str()).map(|talk| talk.place)
    }

    /// All messages as they were stored, in the order of the batch.
    pub(super) fn outcomes(&self, row: &Row) -> Result<Vec<SendOutcome>, StoreError> {
        let created_at = time(row, "out_created_at")?;
        let seqs: Vec<i64> = get(row, "out_seqs")?;
        let revs: Vec<i64> = get(row, "out_revs")?;
        let versions: Vec<i64> = get(row, "out_members_versions")?;
        zip(&self.batch.messages, &self.numbers)
            .map(|(new, number)| {
                let place = self.place(new).and_then(|place| usize::try_from(place - 1).ok());
                let at = |all: &[i64], column: &str| {
                    let one = place.and_then(|place| all.get(place)).ok_or_else(|| unfit(column))?;
                    Ok::<i64, StoreError>(*one)
                };
                let seq = unsigned(at(&seqs, "out_seqs")? + number, "out_seqs")?;
                let rev = unsigned(at(&revs, "out_revs")? + number, "out_revs")?;
                let members_version = unsigned(at(&versions, "out_members_versions")?, "out_members_versions")?;
                let message = new.stored(seq, rev, created_at);
                Ok(SendOutcome::Stored(StoredMessage { message, members_version }))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let batch = SendBatch { id: 9, owner: "o".into(), messages: zip(1.., drafts).map(message).collect() };
        let plain = PlainBatch::of(&batch);
        let talk = |place, messages, lead, lasts: [(&'static str, i64); 2]| BatchConversation {
            place,
            messages,
            first_sender: "b",
            lead,
            lasts: lasts.into(),
        };
        let talks = [("c", talk(1, 2, 1, [("a", 2), ("b", 1)])), ("d", talk(2, 4, 2, [("a", 3), ("b", 4)]))];
        assert_eq!(plain.talks, talks.into());
        assert_eq!(plain.numbers, [1, 1, 2, 3, 4, 2]);
        let rows: Vec<_> =
            plain.rows().iter().map(|(message, place, number)| (message.id.get(), *place, *number)).collect();
        assert_eq!(rows, [(4, 2, 3), (6, 1, 2), (1, 2, 1), (2, 1, 1), (3, 2, 2), (5, 2, 4)]);
    }
}
