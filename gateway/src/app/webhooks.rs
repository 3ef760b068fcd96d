//! The webhooks of a node: what is posted to backends of its own accord.

use std::sync::Arc;

use anyhow::Context;

use super::App;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::store::Owner;
use crate::webhooks::{EventsWebhook, PresencePosts, PresenceTask, PushWebhook};

/// Where comings and goings are handed in, and the task that posts them, if there is a webhook of events.
pub(super) fn presence(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Option<PresencePosts>, Option<PresenceTask>)> {
    let presence = config.events.as_ref().map(|events| PresencePosts::new(events, Arc::clone(metrics))).transpose();
    Ok(presence.context("EVENTS_WEBHOOK_URL can't be used")?.unzip())
}

impl App {
    /// Starts their tasks. `owner` is the name under which this node asks for the delivery of events.
    pub(super) fn start_webhooks(&self, owner: Owner, presence: Option<PresenceTask>) -> anyhow::Result<()> {
        let Node { store, backbone, metrics, .. } = &*self.node;
        if let Some(push) = &self.config.push {
            let webhook = PushWebhook::new(push, Arc::clone(backbone), Arc::clone(store), Arc::clone(metrics));
            let webhook = webhook.context("PUSH_WEBHOOK_URL can't be used")?;
            self.background.spawn(Arc::new(webhook).run(self.clocks.clone()));
        }
        if let Some(events) = &self.config.events {
            let webhook = EventsWebhook::new(events, Arc::clone(store), owner, Arc::clone(metrics));
            let webhook = webhook.context("EVENTS_WEBHOOK_URL can't be used")?;
            self.background.spawn(webhook.run(self.clocks.clone()));
        }
        if let Some(presence) = presence {
            self.background.spawn(presence.run(self.clocks.clone()));
        }
        Ok(())
    }
}
