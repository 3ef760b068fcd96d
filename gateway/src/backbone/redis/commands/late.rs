//! The stream of late messages.

use async_trait::async_trait;
use bytes::Bytes;
use redis::cmd;

use crate::backbone::BackboneError;
use crate::backbone::late::{LATE_MAX, Late, LateId};
use crate::backbone::redis::RedisBackbone;
use crate::backbone::redis::damaged::{begin_anew, is_other_type};

/// Adds an entry unless the stream is full. Nothing can follow an entry of another program with the highest id: when that one
/// was dropped, and nothing is left, the stream is begun anew.
const KEEP: &str = "local kept = redis.call('XLEN', KEYS[1]) \
    if kept >= tonumber(ARGV[1]) then return 0 end \
    local id = redis.pcall('XADD', KEYS[1], '*', 'd', ARGV[2]) \
    if type(id) ~= 'table' then return 1 end \
    if kept > 0 or not string.find(id.err, 'exhausted', 1, true) then return id end \
    redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], '*', 'd', ARGV[2]) return 1";

/// Takes the lease if it is free or one's own. Another program may have put something there: another type is none, and what
/// has no end gets one.
const LEASE: &str = "local holder = redis.pcall('GET', KEYS[1]) \
    if type(holder) == 'string' and holder ~= ARGV[1] then redis.call('EXPIRE', KEYS[1], 60, 'NX') return 0 end \
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";

#[async_trait]
impl Late for RedisBackbone {
    async fn keep_late(&self, entry: Bytes) -> Result<bool, BackboneError> {
        let key = self.link.keys().late_stream();
        let mut keep = cmd("EVAL");
        keep.arg(KEEP).arg(1).arg(&key).arg(LATE_MAX).arg(&*entry);
        match self.link.run(&keep).await {
            Err(error) if is_other_type(&error) => {
                begin_anew(&self.link, &key).await?;
                self.link.run(&keep).await
            }
            kept => kept,
        }
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
