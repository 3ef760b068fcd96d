//! A push job as an entry of its stream.

use redis::streams::StreamId;
use redis::{FromRedisValue, Pipeline};
use shared::redis_keys::Keys;
use shared::{ConversationId, MessageId, UserId};

use crate::backbone::PushJob;

/// The stream of jobs is cut to about this many, the oldest first.
const JOBS_MAX: u32 = 100_000;

/// Adds `job` to the stream.
pub(super) fn add(pipeline: &mut Pipeline, keys: &Keys, job: &PushJob) {
    let add = pipeline.cmd("XADD").arg(keys.push_stream()).arg("MAXLEN").arg("~").arg(JOBS_MAX).arg("*");
    add.arg(fields(job));
}

/// A job's fields.
pub(super) fn fields(job: &PushJob) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("user", job.user.to_string()),
        ("message", job.message.to_string()),
        ("conversation", job.conversation.to_string()),
        ("seq", job.seq.to_string()),
    ];
    if !job.mentions.is_empty() {
        // No id holds a comma.
        fields.push(("mentions", job.mentions.iter().map(UserId::as_str).collect::<Vec<_>>().join(",")));
    }
    fields
}

/// An entry as a job; anybody can write to the stream, so everything is checked.
pub(super) fn job(entry: &StreamId) -> Option<PushJob> {
    let field = |name: &str| String::from_redis_value(entry.map.get(name)?.clone()).ok();
    Some(PushJob {
        handle: entry.id.clone(),
        user: UserId::parse(&field("user")?).ok()?,
        message: MessageId::new(field("message")?.parse().ok()?)?,
        conversation: ConversationId::parse(&field("conversation")?).ok()?,
        seq: field("seq")?.parse().ok().filter(|seq| *seq > 0)?,
        mentions: match field("mentions") {
            Some(list) => list.split(',').map(UserId::parse).collect::<Result<_, _>>().ok()?,
            None => Vec::new(),
        },
    })
}
