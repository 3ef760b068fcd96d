//! The rules of every connection to a Redis server: bounds, name, the pool beside it, and the checks before its first
//! use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::{Manager, Pool, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, cmd};
use shared::redis_keys::Keys;

use crate::switches;

/// For making it.
pub(in crate::backbone::redis) const CONNECT_MAX: Duration = Duration::from_secs(1);

/// For any reply.
pub(in crate::backbone::redis) const RESPONSE_MAX: Duration = Duration::from_secs(2);

/// Requests that wait inside of the crate for a socket that takes no more.
const PIPELINE_BUFFER: usize = 64;

/// Connections for what is not hot, and the longest wait for one.
const POOL_SIZE: usize = 4;
const POOL_WAIT: Duration = Duration::from_secs(2);

/// Why a server is refused that stands alone in the settings.
const ONE_OF_A_CLUSTER: &str = "the server is one of a Redis Cluster; name several of its servers in REDIS_URL, as in \
    redis://one:6379,redis://two:6379";

/// Connections for what is not hot.
pub(in crate::backbone::redis) fn pool(client: &Client) -> RedisResult<Pool> {
    let manager = Manager::new_with_config(client.get_connection_info().clone(), config())?;
    Pool::builder(manager)
        .max_size(POOL_SIZE)
        .wait_timeout(Some(POOL_WAIT))
        .create_timeout(Some(POOL_WAIT))
        .recycle_timeout(Some(POOL_WAIT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|_| fault("a pool of connections can't be created"))
}

/// The time-outs and bounds of every connection.
pub(in crate::backbone::redis) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_MAX))
        .set_response_timeout(Some(RESPONSE_MAX))
        .set_pipeline_buffer_size(PIPELINE_BUFFER)
}

/// The name of the command connection of an owner (`<node>:<boot id>`). Nodes of two deployments may have one name.
pub(in crate::backbone::redis) fn client_name(keys: &Keys, owner: &str) -> String {
    keys.scoped(&format!("parley:{owner}"))
}

/// Ends every connection of that name except `keep`, with what it has sent and Redis has not read (NOLOSS.md, A7).
pub(in crate::backbone::redis) async fn kill_others(
    connection: &mut MultiplexedConnection,
    name: &str,
    keep: i64,
) -> RedisResult<()> {
    let list: String = cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal").query_async(connection).await?;
    for line in list.lines() {
        let field = |key: &str| line.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        if field("name") == Some(name)
            && let Some(id) = field("id").and_then(|id| id.parse::<i64>().ok())
            && id != keep
            && !switches::off("fence")
        {
            cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec_async(connection).await?;
        }
    }
    Ok(())
}

/// Said of a server that is to be promoted, and isn't yet.
const NO_MASTER: &str = "the server is not a master";

/// Whether the server may be a master in a moment.
pub(super) fn is_no_master(error: &RedisError) -> bool {
    error.to_string().contains(NO_MASTER)
}

/// The replication id; only a master's counts.
pub(in crate::backbone::redis) fn identity(info: &str) -> RedisResult<Arc<str>> {
    let field = |key: &str| info.lines().find_map(|line| line.strip_prefix(key));
    match (field("role:"), field("master_replid:")) {
        (Some("master"), Some(id)) if id.len() >= 8 => Ok(id.into()),
        _ => Err(fault(NO_MASTER)),
    }
}

/// A server of a Cluster answers for its own slots alone.
pub(in crate::backbone::redis) async fn check_mode(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let info: String = cmd("INFO").arg("cluster").query_async(connection).await?;
    if info.contains("cluster_enabled:1") { Err(fault(ONE_OF_A_CLUSTER)) } else { Ok(()) }
}

/// Warns where logs may be evicted.
pub(in crate::backbone::redis) async fn check_memory_policy(connection: &mut MultiplexedConnection) {
    let policy: RedisResult<HashMap<String, String>> =
        cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(connection).await;
    match policy {
        Ok(policy) if policy.values().all(|policy| policy == "noeviction") => {}
        Ok(policy) => tracing::warn!(?policy, "Redis may evict logs: set maxmemory-policy noeviction"),
        Err(_) => tracing::warn!("Redis does not report its maxmemory-policy; make sure that it is noeviction"),
    }
}

pub(in crate::backbone::redis) fn fault(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::Client, what))
}
