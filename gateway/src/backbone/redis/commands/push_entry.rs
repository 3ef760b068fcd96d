//! A push job as an entry of its stream.

use bytes::Bytes;
use redis::Cmd;
use shared::{ConversationId, MessageId, UserId};

use crate::backbone::PushJob;
use crate::backbone::push_jobs::{SHARE_OF_ALL, SHARE_OF_ROOM};
use crate::backbone::redis::link::Link;
use crate::backbone::redis::scripts;

/// An entry: its id, and names and values in turn. Another program may have written any bytes.
pub(super) type Entry = (String, Vec<Bytes>);

/// Jobs that one call adds.
pub(super) const JOBS_PER_CALL: usize = 128;

/// The call that adds jobs to the stream, as far as their conversations and senders have room.
pub(super) fn add(link: &Link, jobs: &[PushJob]) -> Cmd {
    let settings = &link.settings;
    let mut call = scripts::call(&link.scripts.push, &keys(link));
    call.arg(settings.push_jobs_max).arg(u8::from(settings.push_is_posted)).arg(SHARE_OF_ROOM).arg(SHARE_OF_ALL);
    for job in jobs {
        call.arg(job.user.as_ref().map_or("", UserId::as_str))
            .arg(job.message.get())
            .arg(job.conversation.as_str())
            .arg(job.seq);
        call.arg(job.sender.as_ref().map_or("", UserId::as_str)).arg(mentions(job));
    }
    call
}

/// The keys of the scripts about jobs.
pub(super) fn keys(link: &Link) -> [String; 2] {
    [link.keys().push_stream(), link.keys().push_shares()]
}

/// A job's fields.
pub(super) fn fields(job: &PushJob) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        job.user.as_ref().map_or(("large", "1".to_owned()), |user| ("user", user.to_string())),
        ("message", job.message.to_string()),
        ("conversation", job.conversation.to_string()),
        ("seq", job.seq.to_string()),
        ("sender", job.sender.as_ref().map_or_else(String::new, UserId::to_string)),
    ];
    if !job.mentions.is_empty() {
        fields.push(("mentions", mentions(job)));
    }
    fields
}

/// The users whom the message mentions; no id holds a comma.
fn mentions(job: &PushJob) -> String {
    job.mentions.iter().map(UserId::as_str).collect::<Vec<_>>().join(",")
}

/// An entry as a job; anybody can write to the stream, so everything is checked.
pub(super) fn job((id, fields): &Entry) -> Option<PushJob> {
    let field = |name: &str| {
        let found = fields.chunks_exact(2).find(|pair| pair.first().is_some_and(|known| known == name.as_bytes()))?;
        std::str::from_utf8(found.get(1)?).ok()
    };
    Some(PushJob {
        handle: id.clone(),
        user: match field("user") {
            Some(user) => Some(UserId::parse(user).ok()?),
            None => field("large").filter(|large| *large == "1").map(|_| None)?,
        },
        message: MessageId::new(field("message")?.parse().ok()?)?,
        conversation: ConversationId::parse(field("conversation")?).ok()?,
        seq: field("seq")?.parse().ok().filter(|seq| *seq > 0)?,
        mentions: match field("mentions") {
            Some(list) => list.split(',').map(UserId::parse).collect::<Result<_, _>>().ok()?,
            None => Vec::new(),
        },
        sender: field("sender").and_then(|sender| UserId::parse(sender).ok()),
    })
}
