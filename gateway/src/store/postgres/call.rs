//! One call of the store: a lent connection, its deadline, and prepared statements on it.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::store::StoreError;

/// The longest that a call may take, in milliseconds; the trait promises five seconds.
const CALL_MS_MAX: u64 = 4_700;

/// Lends a connection to one call, with its deadline. Without a purpose the call is a look-up.
macro_rules! on_connection {
    ($store:expr, $client:ident => $call:expr) => {
        $crate::store::postgres::call::on_connection!($store, LookUp: $client => $call)
    };
    ($store:expr, $purpose:ident: $client:ident => $call:expr) => {
        $crate::store::postgres::call::within(async {
            let mut lent = $store.lend($crate::store::postgres::shares::Purpose::$purpose).await?;
            let $client = lent.client()?;
            let result = $call.await;
            lent.finish(result)
        })
        .await
    };
}
pub(super) use on_connection;

/// Ends a call at its deadline.
pub(super) async fn within<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(Duration::from_millis(CALL_MS_MAX), call)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("PostgreSQL did not answer in time".into())))
}

/// Tries a change that reads and decides without locks, and then has it written if what it read still holds. `attempt` gets
/// the number of tries before it, and gives `None` where something was changed in between: then that was made.
pub(super) async fn until_it_holds<T, F>(
    what: &'static str,
    tries_max: u32,
    attempt: impl Fn(u32) -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<Option<T>, StoreError>>,
{
    for tried in 0..tries_max {
        if let Some(outcome) = attempt(tried).await? {
            return Ok(outcome);
        }
    }
    Err(StoreError::Unavailable(format!("the {what} changes too often")))
}

/// Runs a statement that is prepared once per connection.
pub(super) async fn query(
    client: &impl GenericClient,
    sql: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, parameters).await?)
}

/// Like [`query`], for at most one row.
pub(super) async fn query_opt(
    client: &impl GenericClient,
    sql: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, StoreError> {
    Ok(query(client, sql, parameters).await?.into_iter().next())
}

/// Like [`query`], for a statement without rows: returns the number of rows that it changed.
pub(super) async fn execute(
    client: &impl GenericClient,
    sql: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, parameters).await?)
}
