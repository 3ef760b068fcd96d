//! The stream of late messages.

use async_trait::async_trait;
use bytes::Bytes;
use redis::cmd;

use crate::backbone::BackboneError;
use crate::backbone::late::{LATE_MAX, Late, LateId};
use crate::backbone::redis::RedisBackbone;

/// Adds an entry unless the stream is full.
const KEEP: &str = "if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end \
    redis.call('XADD', KEYS[1], '*', 'd', ARGV[2]) return 1";

/// Takes the lease if it is free or one's own.
const LEASE: &str = "local holder = redis.call('GET', KEYS[1]) \
    if holder and holder ~= ARGV[1] then return 0 end \
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";

#[async_trait]
impl Late for RedisBackbone {
    async fn keep_late(&self, entry: Bytes) -> Result<bool, BackboneError> {
        let mut keep = cmd("EVAL");
        self.link.run(keep.arg(KEEP).arg(1).arg(self.link.keys().late_stream()).arg(LATE_MAX).arg(&*entry)).await
    }

    async fn late_count(&self) -> Result<u64, BackboneError> {
        self.link.run(cmd("XLEN").arg(self.link.keys().late_stream())).await
    }

    async fn read_late(&self, limit: u32) -> Result<Vec<(LateId, Bytes)>, BackboneError> {
        let mut range = cmd("XRANGE");
        let range = range.arg(self.link.keys().late_stream()).arg("-").arg("+").arg("COUNT").arg(limit);
        let entries: Vec<(String, Vec<Bytes>)> = self.link.run(range).await?;
        // An entry that another program wrote may lack `d`, or have more fields; its content is refused later.
        let body =
            |mut fields: Vec<Bytes>| if fields.len() == 2 { fields.pop().unwrap_or_default() } else { Bytes::new() };
        Ok(entries.into_iter().map(|(id, fields)| (LateId(id), body(fields))).collect())
    }

    async fn drop_late(&self, ids: &[LateId]) -> Result<(), BackboneError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut drop = cmd("XDEL");
        drop.arg(self.link.keys().late_stream());
        for LateId(id) in ids {
            drop.arg(id);
        }
        self.link.run(&drop).await
    }

    async fn lease_late(&self, lease_ms: u32) -> Result<bool, BackboneError> {
        let holder = format!("{}:{}", self.link.settings.node, self.link.settings.boot_id);
        self.link.run(cmd("EVAL").arg(LEASE).arg(1).arg(self.link.keys().late_lease()).arg(holder).arg(lease_ms)).await
    }
}
