//! Leases, by the server's clock.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;

use super::call::{execute, on_connection, query_opt};
use super::pool::PostgresStore;
use super::rows::bigint;
use crate::store::leases::future_ms;
use crate::store::{Leases, Owner, StoreError};

#[async_trait]
impl Leases for PostgresStore {
    async fn beat(&self, owner: &Owner) -> Result<(), StoreError> {
        on_connection!(self, Control: client => beat(client, owner))
    }

    async fn lease_is_live(&self, owner: &str, lease_ms: u64) -> Result<bool, StoreError> {
        on_connection!(self, Control: client => lease_is_live(client, owner, lease_ms))
    }
}

async fn beat(client: &impl GenericClient, owner: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO leases (owner, beaten_at) VALUES ($1, clock_timestamp()) \
        ON CONFLICT (owner) DO UPDATE SET beaten_at = clock_timestamp()";
    execute(client, sql, &[&owner]).await.map(drop)
}

async fn lease_is_live(client: &impl GenericClient, owner: &str, lease_ms: u64) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM leases \
        WHERE owner = $1 AND beaten_at > clock_timestamp() - $2::bigint * interval '1 millisecond' \
            AND beaten_at <= clock_timestamp() + $3::bigint * interval '1 millisecond'";
    Ok(query_opt(client, sql, &[&owner, &bigint(lease_ms), &bigint(future_ms())]).await?.is_some())
}
