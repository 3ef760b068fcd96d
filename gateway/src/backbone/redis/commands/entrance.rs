//! Opens users' logs when they connect: one script call for each, and one pipeline per batch.

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value, cmd, from_redis_value};

use super::values::read_revocation;
use crate::backbone::redis::connect::server::failed;
use crate::backbone::redis::link::Link;
use crate::backbone::redis::log::page;
use crate::backbone::redis::scripts;
use crate::backbone::{BackboneError, Entrant, EntryOutcome, LogPage, REPEATED_MAX, revocations};

/// Lets users in; the outcome of each, in the same order.
pub(in crate::backbone::redis) async fn enter(
    link: &Link,
    entrants: &[Entrant],
) -> Vec<Result<EntryOutcome, BackboneError>> {
    if link.cluster().is_some() {
        return join_all(entrants.iter().map(|entrant| enter_scattered(link, entrant))).await;
    }
    let mut calls = Pipeline::with_capacity(entrants.len());
    for entrant in entrants {
        calls.add_command(call(link, entrant, Some(link.keys().revoked(&entrant.user))));
    }
    link.run_calls(&calls).await.into_iter().map(|reply| entered(reply?)).collect()
}

/// In a Cluster the revocation lies on another server than the log: it is read beside the script's call.
async fn enter_scattered(link: &Link, entrant: &Entrant) -> Result<EntryOutcome, BackboneError> {
    let (revoked, call) = (link.keys().revoked(&entrant.user), call(link, entrant, None));
    let mut read = cmd("GET");
    let revoked = async { read_revocation(link.run(read.arg(revoked)).await) };
    let (revoked_s, reply) = tokio::try_join!(revoked, link.run_script(&call))?;
    if revocations::covers(revoked_s, entrant.issued_at) { Ok(EntryOutcome::Revoked) } else { entered(reply) }
}

fn call(link: &Link, entrant: &Entrant, revoked: Option<String>) -> Cmd {
    let Entrant { user, issued_at, asked } = entrant;
    let log = link.keys().log(user);
    let mut call = match &revoked {
        Some(revoked) => scripts::call(&link.scripts.enter, &[&log, revoked]),
        None => scripts::call(&link.scripts.enter, &[&log]),
    };
    call.arg(link.epoch_nonce());
    for number in [issued_at.map(|issued| issued.to_string()), asked.map(|seq| seq.to_string())] {
        call.arg(number.unwrap_or_default());
    }
    call.arg(REPEATED_MAX);
    call
}

fn entered(reply: Value) -> Result<EntryOutcome, BackboneError> {
    let fields: Vec<Bytes> = match reply {
        Value::Nil => return Ok(EntryOutcome::Revoked),
        fields => from_redis_value(fields).map_err(|error| failed(error.into()))?,
    };
    let LogPage { head, entries } = page(&fields)?;
    Ok(EntryOutcome::At { head, before: entries })
}
