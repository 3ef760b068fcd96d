//! The data of a batch's messages, stored by a statement of its own.

use deadpool_postgres::GenericClient;

use super::rows::bigint;
use crate::store::SendBatch;

/// A message that was refused, or is a duplicate, has no row under its id. When the whole batch is there already, its
/// data is too, unless the message was deleted since.
pub(super) async fn write_data(client: &impl GenericClient, batch: &SendBatch) -> Result<(), tokio_postgres::Error> {
    let with_data =
        batch.messages.iter().filter_map(|message| Some((bigint(message.id.get()), message.data.as_ref()?)));
    let (ids, data): (Vec<i64>, Vec<&str>) = with_data.map(|(id, data)| (id, data.as_str())).unzip();
    let sql = "UPDATE messages m SET data = i.data FROM unnest($1::bigint[], $2::text[]) AS i(id, data) \
        WHERE m.id = i.id AND m.data IS NULL AND m.deleted_at IS NULL";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&ids, &data]).await.map(drop)
}
