//! The calls of one pipeline: the events of each, its command, and the meaning of its reply.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use redis::{Cmd, Value};
use shared::UserId;

use super::repeated;
use crate::backbone::queue::Job;
use crate::backbone::redis::link::Link;
use crate::backbone::redis::scripts;
use crate::backbone::redo::RedoAnswer;
use crate::backbone::{BackboneError, DeliveryKind, DeliveryOutcome, Durable};

/// Events that one call of the script appends: Redis does nothing else meanwhile, for a millisecond at the most.
const CALL_MAX: usize = 64;

/// One command of a pipeline.
pub(super) enum Call {
    /// Publishes an ephemeral event.
    Publish(Job),
    /// Appends durable events, at least one.
    Append(Vec<Job>),
}

/// The outcome of one delivery, as Redis tells it.
pub(super) enum Reply {
    Done(DeliveryOutcome),
    /// The user's counts are not in the cache; nothing was done.
    CountsMissing,
    Failed(BackboneError),
}

impl Call {
    /// Puts durable events together into calls. Each user's events keep their order.
    pub(super) fn group(link: &Link, jobs: Vec<Job>) -> Vec<Self> {
        let call_max = link.events_per_call(CALL_MAX);
        let mut calls = Vec::new();
        let mut appends = Vec::new();
        for job in jobs {
            let is_durable = durable(&job).is_some();
            let is_full = appends.len() >= call_max;
            if is_full || !is_durable && appends.iter().any(|append: &Job| append.delivery.user == job.delivery.user) {
                calls.push(Self::Append(std::mem::take(&mut appends)));
            }
            if is_durable {
                appends.push(job);
            } else {
                calls.push(Self::Publish(job));
            }
        }
        if !appends.is_empty() {
            calls.push(Self::Append(appends));
        }
        calls
    }

    /// The command. Events of one user in several calls carry the user's mark; `counts_loaded` says that counts which are
    /// still missing can't be had.
    pub(super) fn command<'a>(&self, link: &Link, mark_of: impl Fn(&Job) -> &'a str, counts_loaded: bool) -> Cmd {
        match self {
            Self::Publish(job) => {
                let mut publish = redis::cmd(link.scripts.publish);
                publish.arg(link.keys().user_channel(&job.delivery.user)).arg(&*job.delivery.body);
                publish
            }
            Self::Append(jobs) => append(link, jobs, mark_of, counts_loaded),
        }
    }

    /// The outcome of each of its events.
    pub(super) fn outcomes(self, reply: Result<Value, BackboneError>) -> Vec<(Job, Reply)> {
        let (jobs, values) = match (self, reply) {
            (Self::Publish(job), reply) => (vec![job], reply.map(|value| vec![value])),
            (Self::Append(jobs), Ok(Value::Array(values))) if values.len() == jobs.len() => (jobs, Ok(values)),
            (Self::Append(jobs), Ok(_)) => (jobs, Err(unknown_reply())),
            (Self::Append(jobs), Err(fault)) => (jobs, Err(fault)),
        };
        match values {
            Ok(values) => jobs.into_iter().zip(values).map(|(job, value)| Reply::to(job, value)).collect(),
            Err(fault) => jobs.into_iter().map(|job| (job, Reply::Failed(fault.clone()))).collect(),
        }
    }
}

impl Reply {
    fn to(job: Job, value: Value) -> (Job, Self) {
        let reply = match value {
            Value::Int(-3) => Self::Failed(BackboneError("the log has changed since a redo read it".to_owned())),
            Value::Int(-1) => Self::CountsMissing,
            Value::Int(receivers) => match (u64::try_from(receivers), job.redo.as_deref()) {
                (Ok(receivers), None | Some(RedoAnswer::Append { .. })) => Self::Done(DeliveryOutcome::To(receivers)),
                (Ok(receivers), Some(RedoAnswer::Again { .. })) => Self::Done(DeliveryOutcome::Again(receivers)),
                (Ok(receivers), Some(RedoAnswer::Marker)) => Self::Done(DeliveryOutcome::Marked(receivers)),
                (Err(_), _) => Self::Failed(unknown_reply()),
            },
            Value::BulkString(fault) => Self::Failed(BackboneError(String::from_utf8_lossy(&fault).into_owned())),
            _ => Self::Failed(unknown_reply()),
        };
        (job, reply)
    }
}

/// The call of `lua/append.lua` for these events.
fn append<'a>(link: &Link, jobs: &[Job], mark_of: impl Fn(&Job) -> &'a str, counts_loaded: bool) -> Cmd {
    let keys = link.keys();
    let users = jobs.iter().map(|job| &job.delivery.user);
    let user_keys: Vec<String> = users.flat_map(|user| [keys.log(user), keys.unread(user)]).collect();
    let mut call = scripts::call(&link.scripts.append, &user_keys);
    let must_open = jobs.first().is_some_and(|job| link.must_open_logs(&job.delivery.user));
    let commits = jobs.iter().filter_map(durable).map(|durable| durable.committed_at.unix_ms());
    call.arg(link.epoch_nonce()).arg(u8::from(must_open)).arg(u8::from(counts_loaded));
    call.arg(commits.max().unwrap_or_default());
    // Members of a group get the same bytes: they go to Redis once a call.
    let mut before: &[u8] = &[];
    for job in jobs {
        let Some(durable) = durable(job) else { continue };
        let body = &*job.delivery.body;
        let short = if std::ptr::eq(body, before) { Cow::default() } else { repeated::shorten(body) };
        before = body;
        call.arg(keys.user_channel(&job.delivery.user))
            .arg(durable.committed_at.unix_ms())
            .arg(format!(":{}", durable.event_id))
            .arg(short.get(1..).unwrap_or_default())
            .arg(&*redo_arg(job.redo.as_deref()))
            .arg(mark_of(job));
        match &durable.unread {
            Some(unread) => {
                let announce = u8::from(unread.announce);
                call.arg(unread.conversation.as_str()).arg(unread.last_seq).arg(unread.seen_seq).arg(announce)
            }
            None => call.arg("").arg("").arg("").arg(""),
        };
    }
    call
}

/// The answer of a redo as the script reads it (`lua/append.lua`).
fn redo_arg(redo: Option<&RedoAnswer>) -> Cow<'static, str> {
    match redo {
        None => Cow::Borrowed(""),
        Some(RedoAnswer::Append { under }) => Cow::Owned(format!("a{under}")),
        Some(RedoAnswer::Again { epoch, seq }) => Cow::Owned(format!("r{seq}:{epoch}")),
        Some(RedoAnswer::Marker) => Cow::Borrowed("m"),
    }
}

/// A user's durable events in a pipeline: the call of the first, whether others follow in later calls, and whether one of
/// them moves a count.
#[derive(Default)]
struct UserCalls {
    call: usize,
    is_repeated: bool,
    is_counted: bool,
}

/// The users who have durable events in several of these calls, of which one moves a count. If the counts are missing, the
/// later calls have to wait for the first.
pub(super) fn users_in_several(calls: &[Call]) -> HashSet<UserId> {
    let mut users: HashMap<&UserId, UserCalls> = HashMap::new();
    // Within one call the script sees to it.
    if calls.iter().filter(|call| matches!(call, Call::Append(_))).count() > 1 {
        for (place, call) in calls.iter().enumerate() {
            let Call::Append(jobs) = call else { continue };
            for job in jobs {
                let is_counted = durable(job).is_some_and(|durable| durable.unread.is_some());
                let user = users.entry(&job.delivery.user).or_insert(UserCalls { call: place, ..UserCalls::default() });
                user.is_repeated |= user.call != place;
                user.is_counted |= is_counted;
            }
        }
    }
    let several = users.into_iter().filter(|(_, user)| user.is_repeated && user.is_counted);
    several.map(|(user, _)| user.clone()).collect()
}

/// The part of a durable event; `None` for an ephemeral one.
pub(super) fn durable(job: &Job) -> Option<&Durable> {
    match &job.delivery.kind {
        DeliveryKind::Ephemeral => None,
        DeliveryKind::Durable(durable) => Some(durable),
    }
}

fn unknown_reply() -> BackboneError {
    BackboneError("Redis returned an unknown reply".to_owned())
}
