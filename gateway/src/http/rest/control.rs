//! Orders to all nodes, such as closing or revoking a user, and this node's stats.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use shared::UserId;

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::describe::Accepted;
use super::failure::Failure;
use crate::backbone::Control;
use crate::http::stats::Stats;
use crate::store::AuditOrder;

/// How much of a reason the audit trail keeps.
const REASON_CHARS_MAX: usize = 200;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DisconnectBody {
    user_id: UserId,
    /// For the caller's own records; clients don't get it.
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevokeBody {
    user_id: UserId,
}

pub(super) async fn disconnect(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(order): Body<DisconnectBody>,
) -> Result<Accepted, Failure> {
    caller.must_be_privileged()?;
    tracing::info!(user = %order.user_id, reason = order.reason, "disconnecting a user, as requested over REST");
    let reason = order.reason.map(|reason| reason.chars().take(REASON_CHARS_MAX).collect());
    api.node.audit.ordered(Some(&order.user_id), AuditOrder::Disconnect { reason }, caller.giver());
    let control = Control::Disconnect { user_id: order.user_id, revoked: false, revoked_s: None };
    api.node.backbone.control(&control).await?;
    Ok(Accepted)
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(order): Body<RevokeBody>,
) -> Result<Accepted, Failure> {
    caller.must_be_privileged()?;
    tracing::info!(user = %order.user_id, "revoking a user's tokens, as requested over REST");
    api.node.audit.ordered(Some(&order.user_id), AuditOrder::Revoke, caller.giver());
    api.node.chat.revoke(&order.user_id).await?;
    Ok(Accepted)
}

pub(super) async fn stats(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Stats>, Failure> {
    caller.must_be_privileged()?;
    Ok(Json(Stats::of(&api.node).await))
}
