//! The calls of one pipeline: the events of each, its command, and the meaning of its reply.

use std::borrow::Cow;
use std::collections::HashMap;

use redis::{Cmd, Value};
use shared::UserId;

use super::repeated;
use crate::backbone::queue::Job;
use crate::backbone::redis::link::Link;
use crate::backbone::redis::scripts;
use crate::backbone::redo::RedoAnswer;
use crate::backbone::settings::LONG_BYTES;
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
    Failed(BackboneError),
}

impl Call {
    /// Puts durable events together into calls. Each user's events keep their order.
    pub(super) fn group(link: &Link, jobs: Vec<Job>) -> Vec<Self> {
        let by_user = link.calls_are_by_user();
        let mut calls = Vec::new();
        // Events that make up the next call: of everybody, or of each user.
        let (mut open, mut places) = (vec![Vec::new()], HashMap::new());
        for job in jobs {
            let place = if by_user { place_of(&job.delivery.user, &mut places, &mut open) } else { 0 };
            let Some(appends) = open.get_mut(place) else { continue };
            let is_durable = durable(&job).is_some();
            let is_full = appends.len() >= CALL_MAX;
            if is_full || !is_durable && appends.iter().any(|append: &Job| append.delivery.user == job.delivery.user) {
                calls.push(Self::Append(std::mem::take(appends)));
            }
            if is_durable {
                appends.push(job);
            } else {
                calls.push(Self::Publish(job));
            }
        }
        calls.extend(open.into_iter().filter(|appends| !appends.is_empty()).map(Self::Append));
        calls
    }

    /// The command.
    pub(super) fn command(&self, link: &Link) -> Cmd {
        match self {
            Self::Publish(job) => {
                let mut publish = redis::cmd(link.scripts.publish);
                publish.arg(link.keys().user_channel(&job.delivery.user)).arg(&*job.delivery.body);
                publish
            }
            Self::Append(jobs) => append(link, jobs),
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

/// The place of a user's events among those of the open calls.
fn place_of(user: &UserId, places: &mut HashMap<UserId, usize>, open: &mut Vec<Vec<Job>>) -> usize {
    if let Some(place) = places.get(user) {
        return *place;
    }
    let place = open.len();
    open.push(Vec::new());
    places.insert(user.clone(), place);
    place
}

/// The call of `lua/append.lua` for these events.
fn append(link: &Link, jobs: &[Job]) -> Cmd {
    let keys = link.keys();
    let logs: Vec<String> = jobs.iter().map(|job| keys.log(&job.delivery.user)).collect();
    let mut call = scripts::call(&link.scripts.append, &logs);
    let must_open = jobs.first().is_some_and(|job| link.must_open_logs(&job.delivery.user));
    let commits = jobs.iter().filter_map(durable).map(|durable| durable.committed_at.unix_ms());
    call.arg(link.epoch_nonce()).arg(u8::from(must_open)).arg(commits.max().unwrap_or_default());
    // Members of a group get the same bytes: they go to Redis once a call.
    let (mut before, mut bytes): (&[u8], usize) = (&[], 0);
    for job in jobs {
        let Some(durable) = durable(job) else { continue };
        let body = &*job.delivery.body;
        let short = if std::ptr::eq(body, before) { Cow::default() } else { repeated::shorten(body) };
        if !short.is_empty() {
            (before, bytes) = (body, short.len());
        }
        call.arg(keys.user_channel(&job.delivery.user))
            .arg(format!(":{}", durable.event_id))
            .arg(short.get(1..).unwrap_or_default());
        let is_long = bytes > LONG_BYTES;
        if is_long || job.redo.is_some() {
            let entries_max = is_long.then(|| link.settings.log_entries_max(bytes).to_string());
            call.arg("r").arg(&*redo_arg(job.redo.as_deref())).arg(entries_max.unwrap_or_default());
        } else {
            call.arg("");
        }
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
