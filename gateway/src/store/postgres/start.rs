//! What a node needs of PostgreSQL beside its tables, tried at the start: prepared statements and settings that outlive a
//! transaction, and enough connections.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::is_full;
use super::migrate::{MigrateError, connect};
use super::shares::CONNECTIONS_MAX;

/// How long all of it may take, in seconds.
const SECONDS_MAX: u64 = 10;

/// A pooler hands the transactions of one client to different connections.
const POOLED_BY_TRANSACTION: &str = "prepared statements and settings are lost between two transactions, as behind PgBouncer \
    with pool_mode = transaction; name the server itself in DATABASE_URL, or set pool_mode = session";

/// A setting of the session that is no server's default.
const SETTING: (&str, &str) = ("plan_cache_mode", "force_generic_plan");

/// Tries what a send needs; `session` are the settings of a connection.
pub(super) async fn check(config: &Config, tls: Option<&MakeRustlsConnect>, session: &str) -> Result<(), MigrateError> {
    let checked = async {
        let (one, connection) = connect(config, tls).await?;
        let checked = check_on(&one, session, config, tls).await;
        // Ends the connection.
        drop(one);
        connection.abort();
        checked
    };
    tokio::time::timeout(Duration::from_secs(SECONDS_MAX), checked).await.map_err(|_| MigrateError::Timeout)?
}

async fn check_on(
    one: &Client,
    session: &str,
    config: &Config,
    tls: Option<&MakeRustlsConnect>,
) -> Result<(), MigrateError> {
    one.batch_execute(session).await?;
    match connect(config, tls).await {
        Ok((other, connection)) => {
            let kept = check_transactions(one, &other).await;
            drop(other);
            connection.abort();
            kept?;
        }
        // Then there is no pooler that could mix two connections up.
        Err(error) if is_full(&error) => {}
        Err(error) => return Err(error.into()),
    }
    count_connections(one).await
}

/// Uses a statement in two transactions. Between them another connection begins one, and a pooler gives it the first one's
/// connection to the server.
async fn check_transactions(one: &Client, other: &Client) -> Result<(), MigrateError> {
    let (name, expected) = SETTING;
    let statement = one.prepare("SELECT current_setting($1)").await?;
    one.query_one(&statement, &[&name]).await?;
    other.batch_execute("BEGIN; SELECT 1").await?;
    match one.query_one(&statement, &[&name]).await {
        Ok(row) if row.try_get::<_, &str>(0)? == expected => {}
        Ok(_) => return Err(MigrateError::Refused(POOLED_BY_TRANSACTION.to_owned())),
        Err(error) if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => {
            return Err(MigrateError::Refused(POOLED_BY_TRANSACTION.to_owned()));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(other.batch_execute("ROLLBACK").await?)
}

/// Tells how many connections the node takes, and what the role, the database and the server have room for.
async fn count_connections(client: &Client) -> Result<(), MigrateError> {
    let sql = "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
            - coalesce(current_setting('reserved_connections', true)::int, 0), \
        CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END, d.datconnlimit, \
        (SELECT count(*)::int FROM pg_stat_activity a WHERE a.datid IS NOT NULL), \
        (SELECT count(*)::int FROM pg_stat_activity a WHERE a.usesysid = r.oid), \
        (SELECT count(*)::int FROM pg_stat_activity a WHERE a.datid = d.oid) \
        FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()";
    let row = client.query_one(sql, &[]).await?;
    let [server, role, database, in_all, of_role, of_database]: [i32; 6] =
        [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
    let wanted = i32::try_from(CONNECTIONS_MAX).unwrap_or(i32::MAX);
    // Two of those in use are this check's own.
    let room = |limit: i32, used: i32| if limit < 0 { i32::MAX } else { (limit - (used - 2).max(0)).max(0) };
    let room = room(server, in_all).min(room(role, of_role)).min(room(database, of_database));
    if room < wanted {
        tracing::warn!(
            connections = wanted,
            room,
            server,
            role,
            database,
            in_use = in_all,
            "a node takes up to so many connections to PostgreSQL, and there is less room: calls will wait for each other. \
             Raise max_connections, or the CONNECTION LIMIT of the role or of the database (-1: none)"
        );
    } else {
        tracing::info!(
            connections = wanted,
            server,
            role,
            database,
            in_use = in_all,
            "room for connections to PostgreSQL"
        );
    }
    Ok(())
}
