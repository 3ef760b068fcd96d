//! Brings the database's tables up to date, one numbered file after the other. Forward only.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::migrations::{Migration, missing};

/// All migrations, in order. One with a number between others may be added later.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 100, sql: include_str!("migrations/0100_schema.sql") },
    Migration { version: 120, sql: include_str!("migrations/0120_lacking.sql") },
    Migration { version: 130, sql: include_str!("migrations/0130_rest.sql") },
    Migration { version: 140, sql: include_str!("migrations/0140_names.sql") },
    Migration { version: 150, sql: include_str!("migrations/0150_sends.sql") },
    Migration { version: 160, sql: include_str!("migrations/0160_changes.sql") },
    Migration { version: 170, sql: include_str!("migrations/0170_whole_conversations.sql") },
    Migration { version: 190, sql: include_str!("migrations/0190_replaced.sql") },
    Migration { version: 200, sql: include_str!("migrations/0200_webhook_events.sql") },
    Migration { version: 210, sql: include_str!("migrations/0210_large.sql") },
];

/// The advisory lock under which one node at a time migrates.
const LOCK: i64 = 0x7061_726c_6579;

/// How long the whole may take, waiting for other nodes included, in seconds.
const SECONDS_MAX: u64 = 120;

/// How long an answer to the first statement may take, in seconds: shows a frozen server.
const FIRST_ANSWER_SECONDS_MAX: u64 = 5;

/// Why the tables could not be brought up to date.
pub(super) enum MigrateError {
    Postgres(tokio_postgres::Error),
    Refused(String),
    Timeout,
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Applies what the database lacks, on a connection of its own.
pub(super) async fn run(config: &Config, tls: Option<&MakeRustlsConnect>) -> Result<(), MigrateError> {
    let first_answer = Duration::from_secs(FIRST_ANSWER_SECONDS_MAX);
    let (mut client, connection) =
        tokio::time::timeout(first_answer, connect(config, tls)).await.map_err(|_| MigrateError::Timeout)??;
    let applied = tokio::time::timeout(Duration::from_secs(SECONDS_MAX), apply(&mut client)).await;
    // Ends the connection, and with it the lock.
    drop(client);
    connection.abort();
    applied.map_err(|_| MigrateError::Timeout)?
}

pub(super) type Connection = JoinHandle<Result<(), tokio_postgres::Error>>;

/// A connection without the pool, and the task that carries it.
pub(super) async fn connect(
    config: &Config,
    tls: Option<&MakeRustlsConnect>,
) -> Result<(Client, Connection), tokio_postgres::Error> {
    if let Some(tls) = tls {
        let (client, connection) = config.connect(tls.clone()).await?;
        return Ok((client, tokio::spawn(connection)));
    }
    let (client, connection) = config.connect(NoTls).await?;
    Ok((client, tokio::spawn(connection)))
}

/// Any other encoding lacks characters: an emoji could not be stored.
async fn check_encoding(client: &Client) -> Result<(), MigrateError> {
    let row = client.query_one("SELECT current_setting('server_encoding'), current_database()::text", &[]).await?;
    let (encoding, database): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(MigrateError::Refused(format!(
        "its encoding is {encoding}, which can't hold every message; make one with createdb --encoding=UTF8 \
         --template=template0 --locale=C.UTF-8 <name>, and name it in DATABASE_URL in the place of {database}"
    )))
}

async fn apply(client: &mut Client) -> Result<(), MigrateError> {
    check_encoding(client).await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    client
        .batch_execute(
            "SET client_min_messages = warning; \
             CREATE TABLE IF NOT EXISTS schema_migrations (\
             version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
    let rows = client.query("SELECT version FROM schema_migrations ORDER BY version", &[]).await?;
    let applied = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i32>, _>>()?;
    for Migration { version, sql } in missing(MIGRATIONS, &applied).map_err(MigrateError::Refused)? {
        let step = client.transaction().await?;
        step.batch_execute(sql).await?;
        step.execute("INSERT INTO schema_migrations (version) VALUES ($1)", &[version]).await?;
        step.commit().await?;
    }
    Ok(())
}
