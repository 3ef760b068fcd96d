//! Passes everything that the subscribing connection receives to the inbox at once, on the connection's own task,
//! without a queue in between. Channel names are checked here, payloads by the inbox.

use std::sync::Arc;

use metrics::Counter;
use redis::{PushInfo, PushKind, Value};
use shared::redis_keys::Keys;
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::subscriptions::{Confirmation, Subscriptions};
use crate::backbone::redis::cluster::{Cluster, MasterId};
use crate::backbone::redis::commands::repeated;
use crate::backbone::redis::connect::server::Server;
use crate::backbone::{Control, Inbox};

/// The receiving end of one connection.
pub(in crate::backbone::redis) struct Inbound {
    pub(in crate::backbone::redis) server: Arc<Server>,
    /// Of which the server is a master.
    pub(in crate::backbone::redis) cluster: Option<Arc<Cluster>>,
    pub(in crate::backbone::redis) lane: MasterId,
    pub(in crate::backbone::redis) subscriptions: Arc<Subscriptions>,
    pub(in crate::backbone::redis) inbox: Arc<dyn Inbox>,
    /// Which connection this is.
    pub(in crate::backbone::redis) generation: u64,
    pub(in crate::backbone::redis) keys: Keys,
    /// The channel of this node's probe.
    pub(in crate::backbone::redis) probe_channel: String,
    /// The text of this node's probes.
    pub(in crate::backbone::redis) probe: String,
    /// To be cancelled when the connection ends.
    pub(in crate::backbone::redis) lost: CancellationToken,
    pub(in crate::backbone::redis) invalid: Counter,
}

impl Inbound {
    pub(in crate::backbone::redis) fn receive(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message | PushKind::SMessage => match push.data.as_slice() {
                [Value::BulkString(channel), Value::BulkString(payload)] => self.message(channel, payload),
                _ => self.invalid.increment(1),
            },
            PushKind::Subscribe | PushKind::SSubscribe => {
                if let Some(Value::BulkString(channel)) = push.data.first()
                    && let Some(channel) = Channel::of_name(&self.keys, channel)
                {
                    let confirmed = self.subscriptions.confirmed(&channel, self.lane, self.generation);
                    // Before any push of this channel is received: it can't be taken for one without a hole.
                    match channel {
                        _ if confirmed != Confirmation::Anew => {}
                        // The loss of one server is reported for all users together, when it is there again.
                        Channel::User(user) if self.cluster.is_none() => self.inbox.user_in_doubt(user.as_str()),
                        Channel::User(user) => self.inbox.user_resubscribed(user.as_str()),
                        Channel::Conversation(conversation) => self.inbox.topic_resubscribed(conversation.as_str()),
                    }
                }
            }
            _ => {}
        }
    }

    /// The server has ended the subscription of a channel: its slot has moved.
    pub(in crate::backbone::redis) fn evicted(&self, channel: &[u8]) {
        if let Some(channel) = Channel::of_name(&self.keys, channel) {
            self.subscriptions.evicted(&channel, self.lane, self.generation);
        }
    }

    /// Every master of a Cluster passes on what is for all nodes; it's taken from one of them.
    fn is_for_all_nodes(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.leads(self.lane))
    }

    /// A message on a channel.
    pub(in crate::backbone::redis) fn message(&self, channel: &[u8], payload: &[u8]) {
        if let Some(user) = self.keys.user_of_channel(channel) {
            self.inbox.user_event(user, &repeated::whole(payload));
        } else if let Some(conversation) = self.keys.conversation_of_channel(channel) {
            self.inbox.topic_event(conversation, payload);
        } else if channel == self.probe_channel.as_bytes() {
            if payload == self.probe.as_bytes() {
                self.server.probe_returned();
            }
        } else if !self.is_for_all_nodes() {
            // Another connection brings it, too.
        } else if self.keys.is_all_channel(channel) {
            self.inbox.broadcast(payload);
        } else if self.keys.is_control_channel(channel) {
            match serde_json::from_slice::<Control>(payload) {
                Ok(control) => self.inbox.control(control),
                Err(_) => self.invalid.increment(1),
            }
        }
    }
}
