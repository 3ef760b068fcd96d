//! Push jobs on Redis: a stream and one consumer group, in which each node is a consumer.

use async_trait::async_trait;
use bytes::Bytes;
use redis::cmd;

use super::push_entry::{Entry, fields, job, keys};
use crate::backbone::redis::damaged::{begin_anew, is_other_type};
use crate::backbone::redis::{RedisBackbone, scripts};
use crate::backbone::{BackboneError, PUSH_JOB_KEPT, PushJob, PushJobs};

/// The consumer group of the nodes.
const GROUP: &str = "webhook";
/// The stream of dead jobs is cut to about this many, the oldest first.
const DEAD_MAX: u32 = 10_000;

#[async_trait]
impl PushJobs for RedisBackbone {
    async fn take_push_jobs(&self, limit: usize) -> Result<Vec<PushJob>, BackboneError> {
        match self.take_jobs(limit).await {
            // The stream is new, or Redis has lost it.
            Err(error) if error.0.contains("NOGROUP") => {
                let mut create = cmd("XGROUP");
                create.arg("CREATE").arg(self.link.keys().push_stream()).arg(GROUP).arg("0").arg("MKSTREAM");
                match self.ask::<()>(&create).await {
                    Err(error) if !error.0.contains("BUSYGROUP") => Err(error),
                    Ok(()) | Err(_) => self.take_jobs(limit).await,
                }
            }
            taken => taken,
        }
    }

    async fn keep_push_jobs(&self, handles: &[String]) -> Result<(), BackboneError> {
        if handles.is_empty() {
            return Ok(());
        }
        let mut keep = cmd("XCLAIM");
        keep.arg(self.link.keys().push_stream()).arg(GROUP).arg(self.consumer()).arg(0).arg(handles).arg("JUSTID");
        self.ask(&keep).await
    }

    async fn finish_push_job(&self, job: &PushJob) -> Result<(), BackboneError> {
        self.forget(&job.handle).await
    }

    async fn bury_push_job(&self, job: &PushJob, why: &str) -> Result<(), BackboneError> {
        let mut add = cmd("XADD");
        add.arg(self.link.keys().push_dead_stream())
            .arg("MAXLEN")
            .arg("~")
            .arg(DEAD_MAX)
            .arg("*")
            .arg(fields(job))
            .arg("why")
            .arg(why);
        // First the one, then the other: if this node ends in between, the job is done once more, not lost.
        match self.ask(&add).await {
            Err(error) if is_other_type(&error) => {
                begin_anew(&self.link, &self.link.keys().push_dead_stream()).await?;
                self.ask::<()>(&add).await?;
            }
            added => added?,
        }
        self.forget(&job.handle).await
    }

    async fn buried_push_jobs(&self) -> Result<u64, BackboneError> {
        self.ask(cmd("XLEN").arg(self.link.keys().push_dead_stream())).await
    }
}

impl RedisBackbone {
    async fn take_jobs(&self, limit: usize) -> Result<Vec<PushJob>, BackboneError> {
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(self.link.keys().push_stream()).arg(GROUP).arg(self.consumer());
        claim.arg(PUSH_JOB_KEPT.as_millis().to_string()).arg("0").arg("COUNT").arg(limit);
        let (_, mut entries, _): (String, Vec<Entry>, Vec<String>) = self.ask(&claim).await?;
        let room = limit.saturating_sub(entries.len());
        if room > 0 {
            let mut read = cmd("XREADGROUP");
            read.arg("GROUP").arg(GROUP).arg(self.consumer()).arg("COUNT").arg(room);
            read.arg("STREAMS").arg(self.link.keys().push_stream()).arg(">");
            let new: Option<Vec<(Bytes, Vec<Entry>)>> = self.ask(&read).await?;
            entries.extend(new.into_iter().flatten().flat_map(|(_, entries)| entries));
        }
        let mut jobs = Vec::with_capacity(entries.len());
        for entry in entries {
            match job(&entry) {
                Some(job) => jobs.push(job),
                None => {
                    let (id, _) = &entry;
                    tracing::warn!(entry = id, "an entry of chat:push is not a push job and is dropped");
                    self.forget(id).await?;
                }
            }
        }
        Ok(jobs)
    }

    async fn forget(&self, handle: &str) -> Result<(), BackboneError> {
        let mut end = scripts::call(&self.link.scripts.push_end, &keys(&self.link));
        self.link.run_script(end.arg(GROUP).arg(handle)).await
    }

    fn consumer(&self) -> &str {
        &self.link.settings.node
    }
}
