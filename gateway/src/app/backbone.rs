//! Starts the node's backbone, with the names under which the node is known there, and with the store as its host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use shared::UserId;

use crate::backbone::local::LocalBackbone;
use crate::backbone::redis::RedisBackbone;
use crate::backbone::{Backbone, BackboneError, BackboneHost, Inbox, Settings};
use crate::config::Config;
use crate::store::{Owner, Store};

/// The names of this process.
pub(super) struct NodeNames {
    /// Host and port.
    pub(super) node: Arc<str>,
    /// Random, another one at each start.
    pub(super) boot: Arc<str>,
    /// Both: the owner of this process's outbox rows.
    pub(super) owner: Owner,
}

impl NodeNames {
    pub(super) fn of(config: &Config, http: SocketAddr) -> Self {
        let boot: Arc<str> = format!("{:08x}", rand::random::<u32>()).into();
        let node: Arc<str> = format!("{}-{}", config.host_name, http.port()).into();
        let owner = format!("{node}:{boot}").into();
        Self { node, boot, owner }
    }
}

/// Connects to the backbone of the settings: Redis, or the embedded one.
pub(super) async fn connect(
    config: &Config,
    names: &NodeNames,
    inbox: Arc<dyn Inbox>,
    store: &Arc<dyn Store>,
) -> anyhow::Result<Arc<dyn Backbone>> {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let settings = Settings {
        keys: config.redis_keys.clone(),
        resume_events: config.log.resume_events,
        resume_seconds: seconds(config.log.resume_window),
        online_ttl_seconds: seconds(config.log.online_ttl),
        offline_grace_seconds: seconds(config.log.offline_grace),
        push_is_posted: config.push.is_some(),
        ..Settings::new(&names.node, &names.boot)
    };
    let host = Arc::new(StoreHost { store: Arc::clone(store) });
    match &config.redis_url {
        Some(url) => {
            let redis = RedisBackbone::start((&**url, config.redis_ca_file.as_deref()), settings, inbox, host).await;
            Ok(Arc::new(redis.context("REDIS_URL: Redis can't be used")?))
        }
        None => Ok(Arc::new(LocalBackbone::start(settings, inbox, host))),
    }
}

/// The store as the backbone knows it.
struct StoreHost {
    store: Arc<dyn Store>,
}

#[async_trait]
impl BackboneHost for StoreHost {
    async fn known_users(&self, users: &[UserId]) -> Result<Vec<UserId>, BackboneError> {
        self.store.known_users(users).await.map_err(|error| BackboneError(error.to_string()))
    }

    async fn server_left(&self, left: &str) -> Result<(), BackboneError> {
        self.store.retire_backbone(left).await.map_err(|error| BackboneError(error.to_string()))
    }
}
