//! Operators' look at the webhook of events, and their order to post events once more.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::{ProtocolError, Timestamp};

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::failure::Failure;
use crate::store::{REPEATED_PER_CALL, RepeatFrom};

/// `GET /api/v1/admin/webhook`: how far the delivery is behind, over all nodes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookLag {
    /// Counted up to 100,000.
    owed: u64,
    /// The age of the oldest event that is owed.
    oldest_ms: u64,
    /// Counted up to 100,000.
    dead: u64,
}

/// `POST /api/v1/admin/webhook/repeat`: from where. One of the two.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RepeatBody {
    from_id: Option<String>,
    from: Option<Timestamp>,
}

/// What is posted once more.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Repeated {
    repeated: u64,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_id: Option<String>,
    /// Whether there may be more behind it, which another order repeats.
    more: bool,
}

pub(super) async fn lag(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<WebhookLag>, Failure> {
    caller.must_be_privileged()?;
    let lag = api.node.store.events_lag().await?;
    Ok(Json(WebhookLag { owed: lag.owed, oldest_ms: lag.oldest_ms, dead: lag.dead }))
}

pub(super) async fn repeat(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(body): Body<RepeatBody>,
) -> Result<Json<Repeated>, Failure> {
    caller.must_be_privileged()?;
    let from = match (body.from_id, body.from) {
        (Some(id), None) => {
            let id = id.parse().map_err(|_| ProtocolError::field("fromId", "must be the id of an event, a number"))?;
            RepeatFrom::Id(id)
        }
        (None, Some(time)) => RepeatFrom::Time(time),
        (None, None) | (Some(_), Some(_)) => {
            return Err(ProtocolError::field("fromId", "or from must be given, and not both").into());
        }
    };
    let (repeated, last) = api.node.store.repeat_events(from).await?;
    tracing::info!(?from, repeated, "events of the webhook are posted once more, as an operator ordered");
    let more = repeated >= u64::from(REPEATED_PER_CALL);
    Ok(Json(Repeated { repeated, last_id: last.map(|id| id.to_string()), more }))
}
