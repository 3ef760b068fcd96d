//! Queries Redis Sentinels for the master.
//!
//! All are queried at once, and the highest configuration epoch wins. A failover that a majority agreed on has raised
//! it, so a Sentinel that is cut off together with the old master keeps no node there.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionInfo, ErrorKind, ProtocolVersion, RedisError, RedisResult, ServerErrorKind, Value, cmd};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, timeout};

use super::connection::{self, fault};

/// For one Sentinel's answer, the connection to it included.
const ANSWER_MAX: Duration = Duration::from_millis(700);

/// How often they are asked while the master answers.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The Sentinels of one master.
pub(in crate::backbone::redis) struct Sentinels {
    name: String,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    open: ConnectionInfo,
    /// With the user and password of the URL, for a Sentinel that demands them.
    locked: Option<ConnectionInfo>,
    /// Kept from one question to the next.
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// The master as the Sentinels name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backbone::redis) struct SentinelMaster {
    pub(in crate::backbone::redis) host: String,
    pub(in crate::backbone::redis) port: u16,
    /// The configuration epoch: each failover raises it.
    epoch: u64,
    /// By how many.
    by: usize,
}

impl Sentinels {
    pub(in crate::backbone::redis) fn new(
        name: String,
        sentinels: Vec<(ConnectionInfo, Option<ConnectionInfo>)>,
    ) -> Self {
        let plain = |info: ConnectionInfo| {
            let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
            info.set_redis_settings(redis)
        };
        let sentinel = |(open, locked): (ConnectionInfo, Option<ConnectionInfo>)| Sentinel {
            open: plain(open),
            locked: locked.map(plain),
            connection: Mutex::new(None),
        };
        Self { name, sentinels: sentinels.into_iter().map(sentinel).collect() }
    }

    /// For people.
    pub(in crate::backbone::redis) fn describe(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(|sentinel| sentinel.open.addr().to_string()).collect();
        format!("the master \"{}\" of the Sentinels at {}", self.name, addresses.join(", "))
    }

    /// The master now.
    pub(in crate::backbone::redis) async fn master(&self) -> RedisResult<SentinelMaster> {
        let answers = join_all(self.sentinels.iter().map(|sentinel| async {
            match timeout(ANSWER_MAX, sentinel.ask(&self.name)).await {
                Ok(answer) => answer,
                Err(_) => Err(fault("a Sentinel does not answer")),
            }
        }));
        let (mut named, mut why) = (Vec::new(), fault("no Sentinel is known"));
        for answer in answers.await {
            match answer {
                Ok(one) => named.push(one),
                Err(error) => why = error,
            }
        }
        choose(&named).ok_or_else(|| {
            RedisError::from((ErrorKind::Client, "no Sentinel names the master", format!("\"{}\": {why}", self.name)))
        })
    }

    /// Waits until they name another master than `from`, also while that one still answers. One that is behind doesn't count.
    pub(in crate::backbone::redis) async fn moved(&self, from: &SentinelMaster) {
        let mut epoch = from.epoch;
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Ok(named) = self.master().await else { continue };
            if !named.is_at(from) && (named.epoch > epoch || named.by * 2 > self.sentinels.len()) {
                return;
            }
            if named.is_at(from) {
                epoch = epoch.max(named.epoch);
            }
        }
    }
}

impl Sentinel {
    async fn ask(&self, name: &str) -> RedisResult<SentinelMaster> {
        // A caller that stops waiting leaves no connection that still expects an answer.
        let kept = self.connection.lock().await.take();
        let mut connection = match kept {
            Some(connection) => connection,
            None => connect(&self.open).await?,
        };
        let answer = match (question(&mut connection, name).await, &self.locked) {
            (Err(error), Some(locked)) if demands_password(&error) => {
                connection = connect(locked).await?;
                question(&mut connection, name).await
            }
            (answer, _) => answer,
        }?;
        *self.connection.lock().await = Some(connection);
        Ok(answer)
    }
}

impl SentinelMaster {
    pub(in crate::backbone::redis) fn is_at(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

/// The highest epoch's, of those the one that most name, of those the first.
fn choose(named: &[SentinelMaster]) -> Option<SentinelMaster> {
    let epoch = named.iter().map(|one| one.epoch).max()?;
    let newest: Vec<&SentinelMaster> = named.iter().filter(|one| one.epoch == epoch).collect();
    let count = |one: &SentinelMaster| newest.iter().filter(|other| other.is_at(one)).count();
    let chosen = newest.iter().rev().max_by_key(|one| count(one))?;
    Some(SentinelMaster { by: count(chosen), ..(*chosen).clone() })
}

async fn connect(info: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&connection::config()).await
}

/// The epoch is queried first: an old epoch with a new address only waits for the next query.
async fn question(connection: &mut MultiplexedConnection, name: &str) -> RedisResult<SentinelMaster> {
    let state: Value = cmd("SENTINEL").arg("MASTER").arg(name).query_async(connection).await?;
    let fields: Vec<String> = redis::from_redis_value(state)?;
    let epoch = fields.chunks(2).find_map(|pair| match pair {
        [key, value] if key == "config-epoch" => value.parse().ok(),
        _ => None,
    });
    let address: Option<(String, u16)> =
        cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(connection).await?;
    match (epoch, address) {
        (Some(epoch), Some((host, port))) => Ok(SentinelMaster { host, port, epoch, by: 1 }),
        _ => Err(fault("a Sentinel returned no address of the master")),
    }
}

fn demands_password(error: &RedisError) -> bool {
    error.code() == Some("NOAUTH") || error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str, epoch: u64) -> SentinelMaster {
        SentinelMaster { host: host.to_owned(), port: 1, epoch, by: 1 }
    }

    #[test]
    fn a_sentinel_that_is_behind_is_outvoted_even_by_one() {
        let chosen = choose(&[named("old", 3), named("old", 3), named("new", 4)]).expect("one is chosen");
        assert_eq!((chosen.host.as_str(), chosen.by), ("new", 1));
        let chosen = choose(&[named("a", 4), named("b", 4), named("b", 4)]).expect("one is chosen");
        assert_eq!((chosen.host.as_str(), chosen.by), ("b", 2));
        assert_eq!(choose(&[named("a", 4), named("b", 4)]).expect("one is chosen").host, "a");
        assert_eq!(choose(&[]), None);
    }
}
