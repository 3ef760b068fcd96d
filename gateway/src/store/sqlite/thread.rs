//! The one thread that owns the SQLite connection, and the bounded queue of jobs that feeds it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::migrate;
use crate::overload::{Kind, Queue};
use crate::store::{Store, StoreError};

/// Jobs that wait for the thread; more are refused.
const JOBS_MAX: usize = 1_024;

/// The longest that a call may take, in milliseconds; the trait promises five seconds.
const CALL_MS_MAX: u64 = 4_700;

/// How long to wait for another process that holds the file, in milliseconds.
const BUSY_MS_MAX: u64 = 4_000;

/// Prepared statements that are kept.
const STATEMENTS_MAX: usize = 128;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store in a SQLite file, or in memory.
pub(in crate::store) struct SqliteStore {
    jobs: SyncSender<Job>,
    changes: Arc<Queue>,
    look_ups: Arc<Queue>,
    /// Its place, for the log.
    pub(super) place: String,
}

impl SqliteStore {
    /// Opens `file` (`:memory:`: nothing outlives the store), and brings its tables up to date.
    pub(in crate::store) async fn open(file: &str) -> Result<Arc<dyn Store>, StoreError> {
        let place = format!("SQLite in {file}");
        let (opened, ready) = oneshot::channel();
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let file = file.to_owned();
        // The thread ends, and closes the file, when the store is dropped and the last job is done.
        std::thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || match open(&file) {
                Ok(connection) => {
                    let _ = opened.send(Ok(()));
                    run(connection, &waiting);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            })
            .map_err(|fault| StoreError::Failed(format!("no thread for SQLite: {fault}")))?;
        match ready.await {
            Ok(Ok(())) => {
                let (changes, look_ups) = (Queue::new(Kind::Changes), Queue::new(Kind::LookUps));
                Ok(Arc::new(Self { jobs, changes, look_ups, place }))
            }
            Ok(Err(error)) => Err(explain(&place, error)),
            Err(_) => Err(StoreError::Failed(format!("{place}: its thread ended early"))),
        }
    }

    /// Runs `work` in a transaction that may write, and commits it if it ends well.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(TransactionBehavior::Immediate, work).await
    }

    /// Runs `work` in a transaction that reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(TransactionBehavior::Deferred, work).await
    }

    async fn transact<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = match behavior {
            TransactionBehavior::Deferred => &self.look_ups,
            _ => &self.changes,
        };
        if self.look_ups.is_late() || self.changes.is_late() {
            let stands_still = self.look_ups.stands_still() || self.changes.stands_still();
            return Err(queue.refuse_as(stands_still).into());
        }
        let (answer, answered) = oneshot::channel();
        let waiting = queue.wait(Instant::now());
        let job: Job = Box::new(move |connection| {
            // A caller that has given up was told so: its job must not run after that.
            if !answer.is_closed() {
                let _ = answer.send(transaction(connection, behavior, work));
            }
            drop(waiting);
        });
        self.jobs.try_send(job).map_err(|_| queue.refuse())?;
        match tokio::time::timeout(Duration::from_millis(CALL_MS_MAX), answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Failed("a job of SQLite ended early".into())),
            Err(_) => Err(StoreError::Unavailable("SQLite did not answer in time".into())),
        }
    }
}

fn transaction<T>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = connection.transaction_with_behavior(behavior)?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

fn run(mut connection: Connection, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job(&mut connection);
    }
}

fn open(file: &str) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    write_ahead(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    migrate::run(&mut connection)?;
    Ok(connection)
}

/// Turns on the write-ahead log. SQLite doesn't wait for a process that is doing the same at this moment, so this does.
fn write_ahead(connection: &Connection) -> Result<(), StoreError> {
    const TRIES: u32 = 40;
    let mut tried = 1;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if tried < TRIES && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                tried += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return Ok(result?),
        }
    }
}

fn explain(place: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(reason) => {
            StoreError::Unavailable(format!("{place}: {reason}; the folder must exist and be writable"))
        }
        StoreError::Failed(reason) => StoreError::Failed(format!("{place}: {reason}")),
        refused @ (StoreError::Refused(_) | StoreError::Busy(_)) => refused,
    }
}
