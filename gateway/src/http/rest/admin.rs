//! Operators' queries about connections and channels. Connections are those of this node; a channel's online users are
//! counted over all nodes.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::{ConversationId, ConversationKind, ErrorCode, Event, ProtocolError, Role, Timestamp, UserId, Visibility};

use super::Api;
use super::body::{Params, Segment};
use super::caller::Caller;
use super::failure::Failure;
use super::pages::{List, limit};
use crate::delivery::registry::ListedSocket;
use crate::http::stats::{Stats, seconds_from_now};
use crate::node::Node;
use crate::store::{ChannelActivity, Members};

/// The channels that are listed of one user.
const CHANNELS_SHOWN_MAX: u32 = 100;
/// Members whose presence is queried in one call.
const PRESENCE_AT_ONCE: usize = 500;

#[derive(Debug, Deserialize)]
pub(super) struct PageParams {
    after: Option<UserId>,
    limit: Option<u32>,
}

/// `GET /api/v1/admin/connections`: this node's numbers, and its users by id.
#[derive(Debug, Serialize)]
pub(super) struct ConnectionInfo {
    #[serde(flatten)]
    stats: Stats,
    #[serde(flatten)]
    users: List<ConnectedUser>,
}

/// A user with connections to this node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectedUser {
    user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Groups and channels, by id, at most a hundred.
    channels: Vec<ConversationId>,
    connections: Vec<Connection>,
}

/// A connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    connection_id: String,
    dialect: &'static str,
    connected_at: Timestamp,
    last_heard_at: Timestamp,
    expires_at: Timestamp,
    queued_bytes: u32,
    /// For operators alone, as far as it is known; a poll has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    /// For operators alone: what the client calls itself, cut to 128 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

/// `GET /api/v1/admin/channels/{id}`: one group or channel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChannelStats {
    channel_id: ConversationId,
    kind: ConversationKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    visibility: Visibility,
    member_count: u64,
    /// Members with a connection to any node.
    online: usize,
    here: NodeShare,
    activity: Activity,
    #[serde(flatten)]
    users: List<OnlineMember>,
}

/// The part of it on this node.
#[derive(Debug, Serialize)]
struct NodeShare {
    node: String,
    users: usize,
    connections: usize,
}

/// By the newest ten thousand messages.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Activity {
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message_at: Option<Timestamp>,
    messages_last_minute: u64,
    messages_last_hour: u64,
    senders_last_hour: u64,
}

/// A member who is connected somewhere.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OnlineMember {
    user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    role: Role,
    /// To this node.
    connections: Vec<Connection>,
}

pub(super) async fn connections(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<PageParams>,
) -> Result<Json<ConnectionInfo>, Failure> {
    caller.must_be_privileged()?;
    let node = &api.node;
    let size = usize::try_from(limit(params.limit)).unwrap_or(usize::MAX);
    let users = node.registry.users_after(params.after.as_ref().map(UserId::as_str), size);
    let next = (users.len() == size).then(|| users.last().map(UserId::to_string)).flatten();
    let mut channels = node.store.channels_of(&users, CHANNELS_SHOWN_MAX).await?;
    let mut items = Vec::with_capacity(users.len());
    for user_id in users {
        items.push(ConnectedUser {
            channels: channels.extract_if(.., |(user, _)| *user == user_id).map(|(_, channel)| channel).collect(),
            username: node.chat.username(&user_id).await,
            connections: connections_of(node, &user_id, true),
            user_id,
        });
    }
    Ok(Json(ConnectionInfo { stats: Stats::of(node).await, users: List { items, next } }))
}

pub(super) async fn channel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Params(params): Params<PageParams>,
) -> Result<Json<ChannelStats>, Failure> {
    let node = &api.node;
    let conversation = node.store.conversation(&id, None).await?;
    let members = node.store.all_members(&id).await?;
    may_look(&caller, &members)?;
    // A moderator learns no more of somebody with whom there is a block than over a socket.
    let asker = if is_operator(&caller) { None } else { caller.acts_for() };
    let online = online(node, asker, &members).await?;
    let here: Vec<usize> = members.list.iter().map(|(user, _)| node.registry.sockets_of(user).len()).collect();
    let size = usize::try_from(limit(params.limit)).unwrap_or(usize::MAX);
    let shown = online.iter().filter(|(user, _)| params.after.as_ref().is_none_or(|after| user > after));
    let mut items = Vec::with_capacity(size);
    for (user_id, role) in shown.take(size) {
        items.push(OnlineMember {
            user_id: user_id.clone(),
            username: node.chat.username(user_id).await,
            role: *role,
            connections: connections_of(node, user_id, is_operator(&caller)),
        });
    }
    let next = (items.len() == size).then(|| items.last().map(|member| member.user_id.to_string())).flatten();
    Ok(Json(ChannelStats {
        channel_id: id.clone(),
        kind: conversation.kind,
        title: conversation.title,
        visibility: conversation.visibility,
        member_count: conversation.member_count,
        online: online.len(),
        here: NodeShare {
            node: node.name.to_string(),
            users: here.iter().filter(|sockets| **sockets > 0).count(),
            connections: here.iter().sum(),
        },
        activity: node.store.activity(&id).await?.into(),
        users: List { items, next },
    }))
}

/// A backend or an admin, who speaks for nobody else.
fn is_operator(caller: &Caller) -> bool {
    caller.must_be_privileged().is_ok() && caller.is_in_own_name()
}

/// Backends, admins, and those who moderate the channel.
fn may_look(caller: &Caller, members: &Members) -> Result<(), Failure> {
    if is_operator(caller) {
        return Ok(());
    }
    match members.role(caller.user()?) {
        Some(Role::Admin | Role::Owner) => Ok(()),
        Some(Role::Member) => {
            Err(ProtocolError::new(ErrorCode::Forbidden, "this takes an owner or admin of the channel").into())
        }
        None => Err(ProtocolError::new(ErrorCode::NotMember, "you are not a member of this conversation").into()),
    }
}

/// The members who are connected to any node and may be shown to `asker`, by id.
async fn online(node: &Node, asker: Option<&UserId>, members: &Members) -> Result<Vec<(UserId, Role)>, Failure> {
    let mut online = Vec::new();
    for part in members.list.chunks(PRESENCE_AT_ONCE) {
        let users: Vec<UserId> = part.iter().map(|(user, _)| user.clone()).collect();
        let Event::StatusBulk { users } = node.chat.status(asker, &users).await? else { continue };
        online.extend(part.iter().filter(|(user, _)| users.get(user).is_some_and(|status| status.online)).cloned());
    }
    Ok(online)
}

/// Moderators see no addresses.
fn connections_of(node: &Node, user: &UserId, with_clients: bool) -> Vec<Connection> {
    let shown = |socket: ListedSocket| {
        let client = if with_clients { node.clients.of(socket.connection) } else { None };
        Connection {
            connection_id: node.connection_id(socket.connection),
            dialect: socket.dialect.subprotocol(),
            connected_at: seconds_from_now(-i64::from(socket.opened_age_s)),
            last_heard_at: seconds_from_now(-i64::from(socket.heard_age_s)),
            expires_at: seconds_from_now(i64::from(socket.expires_in_s)),
            queued_bytes: socket.queued_bytes,
            address: client.as_ref().map(|client| client.address),
            user_agent: client.and_then(|client| client.user_agent).map(|agent| agent.to_string()),
        }
    };
    node.registry.sockets_of(user).into_iter().map(shown).collect()
}

impl From<ChannelActivity> for Activity {
    fn from(activity: ChannelActivity) -> Self {
        Self {
            last_message_at: activity.last_message_at,
            messages_last_minute: activity.last_minute,
            messages_last_hour: activity.last_hour,
            senders_last_hour: activity.senders_last_hour,
        }
    }
}
