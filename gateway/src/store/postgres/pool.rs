//! The pool: connecting with a deadline, the session's settings, and lending a connection to one call.
//!
//! A connection that PostgreSQL refuses, because it has too many, makes the call wait for one of those that there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, QueueMode, RecyclingMethod, Runtime,
};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::errors::{describe, is_full};
use super::gate::{Gate, Leave};
use super::migrate;
use super::shares::{CONNECTIONS_MAX, News, Purpose};
use super::start;
use super::tls::{self, Url};
use crate::store::{Store, StoreError};

/// How long to wait for a free or a new connection, in milliseconds.
const CONNECT_MS_MAX: u64 = 3_000;

/// The pause before another try while PostgreSQL refuses connections and the pool has none, in milliseconds.
const FULL_PAUSE_MS: u64 = 100;

/// Every statement finds its rows by an index. So these settings leave the planner only the plan that stays good while
/// tables grow, without statistics. A plan for empty tables would otherwise read whole tables, or build caches for a
/// few rows. A server that waits for standbys to apply goes on doing so.
///
/// The role or the database may have defaults of its own, made for other programs. A stricter isolation would refuse
/// transactions that run at the same time; shorter limits would end what is only waiting.
const SESSION: &str = "\
    SET statement_timeout = 4000; \
    SET idle_in_transaction_session_timeout = 2000; \
    SET lock_timeout = 0; \
    SET default_transaction_isolation = 'read committed'; \
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout'); \
    SET plan_cache_mode = force_generic_plan; \
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
    SELECT set_config(name, 'off', false) FROM pg_settings \
        WHERE name IN ('enable_bitmapscan', 'enable_material', 'enable_memoize'); \
    SET client_min_messages = warning; \
    SELECT set_config('synchronous_commit', 'on', false) \
        WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

/// The store on PostgreSQL.
pub(in crate::store) struct PostgresStore {
    pool: Pool,
    gate: Arc<Gate>,
    /// Its place, without the password.
    pub(super) place: String,
}

impl PostgresStore {
    /// Connects, brings the tables up to date, and opens the pool.
    pub(in crate::store) async fn connect(url: &str) -> Result<Arc<dyn Store>, StoreError> {
        let Url { plain, tls } = tls::read(url)?;
        let config = config(&plain)?;
        let place = place(&config);
        migrate::run(&config, tls.as_ref()).await.map_err(|error| explain(&place, error))?;
        start::check(&config, tls.as_ref(), SESSION).await.map_err(|error| explain(&place, error))?;
        let fast = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match tls {
            Some(tls) => Manager::from_config(config, tls, fast),
            None => Manager::from_config(config, NoTls, fast),
        };
        let patience = Some(Duration::from_millis(CONNECT_MS_MAX));
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS_MAX)
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(patience)
            .create_timeout(patience)
            .recycle_timeout(patience)
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|fault| StoreError::Failed(fault.to_string()))?;
        Ok(Arc::new(Self { pool, gate: Gate::new(), place }))
    }

    /// Reads the URL and the file that it may name.
    pub(in crate::store) fn check(url: &str) -> Result<(), StoreError> {
        config(&tls::read(url)?.plain).map(drop)
    }

    /// A connection for one call.
    pub(super) async fn lend(&self, purpose: Purpose) -> Result<PooledConnection, StoreError> {
        let since = Instant::now();
        let mut goes_first = false;
        loop {
            let leave = self.gate.enter(purpose, since, goes_first).await?;
            match self.pool.get().await {
                Ok(connection) => {
                    self.tell(self.gate.connected(self.pool.status().size));
                    return Ok(PooledConnection { connection: Some(connection), _leave: leave });
                }
                Err(PoolError::Backend(error)) if is_full(&error) => {
                    self.tell(self.gate.refused());
                    if self.pool.status().size == 0 {
                        tokio::time::sleep(Duration::from_millis(FULL_PAUSE_MS)).await;
                    }
                    if since.elapsed() > Duration::from_millis(CONNECT_MS_MAX) {
                        return Err(StoreError::Unavailable(describe(&error)));
                    }
                    goes_first = true;
                }
                Err(PoolError::Backend(error)) => return Err(StoreError::Unavailable(describe(&error))),
                Err(error) => return Err(StoreError::Unavailable(format!("no connection to PostgreSQL: {error}"))),
            }
        }
    }

    fn tell(&self, news: Option<News>) {
        match news {
            Some(News::Refused(living)) => tracing::warn!(
                store = self.place,
                connections = living,
                wanted = CONNECTIONS_MAX,
                "PostgreSQL refuses further connections: calls wait for the node's others. Raise the CONNECTION LIMIT of the \
                 role or of the database, or max_connections"
            ),
            Some(News::MoreAgain(living)) => {
                tracing::info!(store = self.place, connections = living, "PostgreSQL takes further connections again");
            }
            None => {}
        }
    }
}

/// A lent connection. It goes back into the pool only through [`PooledConnection::finish`]. If it is dropped before, by
/// a time-out or a caller that went away, it is closed, because its state is unknown.
pub(super) struct PooledConnection {
    connection: Option<Object>,
    /// Dropped after the connection, so that the next call finds it in the pool.
    _leave: Leave,
}

impl PooledConnection {
    pub(super) fn client(&mut self) -> Result<&mut Object, StoreError> {
        self.connection.as_mut().ok_or_else(|| StoreError::Failed("the connection was given back".into()))
    }

    /// Gives the connection back, unless the call's end leaves its state in doubt.
    pub(super) fn finish<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if !matches!(result, Err(StoreError::Unavailable(_))) {
            drop(self.connection.take());
        }
        result
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}

/// Reads the URL and adds defaults.
fn config(url: &str) -> Result<Config, StoreError> {
    let mut config: Config = url.parse().map_err(|fault: tokio_postgres::Error| {
        // The fault's source names the parameter, never the password.
        let reason = std::error::Error::source(&fault).map_or_else(|| fault.to_string(), ToString::to_string);
        StoreError::Failed(format!(
            "DATABASE_URL is no PostgreSQL URL ({reason}); it looks like postgres://user:password@host:5432/database"
        ))
    })?;
    if config.get_application_name().is_none() {
        config.application_name("parley");
    }
    config
        .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
        .tcp_user_timeout(Duration::from_secs(5))
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3);
    Ok(config)
}

/// `PostgreSQL database "chat" on db:5432 as parley`.
fn place(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(place, host)| {
            let port = config.get_ports().get(place).or(config.get_ports().first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        })
        .collect();
    let user = config.get_user().unwrap_or("the system's user");
    let database = config.get_dbname().unwrap_or(user);
    format!("PostgreSQL database \"{database}\" on {} as {user}", hosts.join(","))
}

/// Adds to a fault at start-up what to do about it.
fn explain(place: &str, error: migrate::MigrateError) -> StoreError {
    let error = match error {
        migrate::MigrateError::Postgres(error) => error,
        migrate::MigrateError::Refused(reason) => return StoreError::Failed(format!("{place}: {reason}")),
        migrate::MigrateError::Timeout => {
            return StoreError::Unavailable(format!("{place}: it did not answer in time; is the server frozen?"));
        }
    };
    let reason = describe(&error);
    let advice = match error.code() {
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => "make the database first (createdb)",
        Some(code) if *code == SqlState::INVALID_PASSWORD => {
            "check the user and the password in DATABASE_URL; there, any character of theirs but letters, digits and - . _ ~ \
             must be percent-encoded (% as %25, / as %2F, @ as %40)"
        }
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check the user in DATABASE_URL, and pg_hba.conf on the server"
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => "the user needs CREATE on the schema",
        Some(_) => return prefixed(place, error),
        None if error.to_string().starts_with("error performing TLS handshake") => {
            "the server must speak TLS (ssl = on), its certificate must name the host of DATABASE_URL and be signed by an \
             authority in the file of sslrootcert, or by one that this machine trusts"
        }
        None => return StoreError::Unavailable(format!("{place}: {reason}; is the server up and reachable there?")),
    };
    StoreError::Failed(format!("{place}: {reason}; {advice}"))
}

fn prefixed(place: &str, error: tokio_postgres::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Unavailable(reason) => StoreError::Unavailable(format!("{place}: {reason}")),
        StoreError::Failed(reason) => StoreError::Failed(format!("{place}: {reason}")),
        refused @ (StoreError::Refused(_) | StoreError::Busy(_)) => refused,
    }
}
