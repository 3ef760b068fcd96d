//! Letting somebody in: one call of a script for each, those of a batch in one pipeline.

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value, from_redis_value};
use shared::redis_keys::{log_key, revoked_key, unread_key};

use crate::backbone::redis::connect::server::failed;
use crate::backbone::redis::link::Link;
use crate::backbone::redis::log::{head_and_rest, logged};
use crate::backbone::redis::scripts;
use crate::backbone::{BackboneError, Entrant, EntryOutcome};

/// Lets in who came together, where one server has all keys.
pub(in crate::backbone::redis) async fn enter(
    link: &Link,
    entrants: &[Entrant],
) -> Vec<Result<EntryOutcome, BackboneError>> {
    let mut calls = Pipeline::with_capacity(entrants.len());
    for entrant in entrants {
        calls.add_command(call(link, entrant, Some(revoked_key(&entrant.user))));
    }
    let replies = link.run_calls(&calls).await;
    entrants.iter().zip(replies).map(|(entrant, reply)| entered(entrant, reply?)).collect()
}

/// Lets somebody in whose keys lie on different servers of a Cluster.
pub(in crate::backbone::redis) async fn enter_scattered(
    link: &Link,
    entrant: &Entrant,
    is_revoked: impl Future<Output = Result<bool, BackboneError>>,
) -> Result<EntryOutcome, BackboneError> {
    let call = call(link, entrant, None);
    let (is_revoked, told) = tokio::try_join!(is_revoked, link.run_script(&call))?;
    if is_revoked { Ok(EntryOutcome::Revoked) } else { entered(entrant, told) }
}

fn call(link: &Link, entrant: &Entrant, revoked: Option<String>) -> Cmd {
    let Entrant { user, issued_at, asked } = entrant;
    let (log, unread) = (log_key(user), unread_key(user));
    let mut call = match &revoked {
        Some(revoked) => scripts::call(&link.scripts.enter, &[&log, &unread, revoked]),
        None => scripts::call(&link.scripts.enter, &[&log, &unread]),
    };
    call.arg(link.epoch_nonce());
    for number in [issued_at.map(|issued| issued.to_string()), asked.map(|seq| seq.to_string())] {
        call.arg(number.unwrap_or_default());
    }
    call
}

fn entered(entrant: &Entrant, reply: Value) -> Result<EntryOutcome, BackboneError> {
    let fields: Vec<Bytes> = match reply {
        Value::Nil => return Ok(EntryOutcome::Revoked),
        fields => from_redis_value(fields).map_err(|error| failed(error.into()))?,
    };
    let (head, body) = head_and_rest(&fields)?;
    let event = entrant.asked.zip(body.first()).map(|(seq, body)| logged(seq, body));
    Ok(EntryOutcome::At { head, event })
}
