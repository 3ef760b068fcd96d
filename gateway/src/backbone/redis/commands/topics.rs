//! The channels of large conversations.

use async_trait::async_trait;
use redis::Pipeline;
use shared::ConversationId;

use super::push_adding::write;
use crate::backbone::push_jobs::job_of_topic;
use crate::backbone::redis::RedisBackbone;
use crate::backbone::redis::subscribe::channel::Channel;
use crate::backbone::{BackboneError, PushJob, TopicEvent, Topics};

#[async_trait]
impl Topics for RedisBackbone {
    async fn publish_topics(&self, events: &[TopicEvent]) -> Result<(), BackboneError> {
        if events.is_empty() {
            return Ok(());
        }
        self.link.check()?;
        let name = if self.link.cluster().is_some() { "SPUBLISH" } else { "PUBLISH" };
        let mut pipeline = Pipeline::with_capacity(events.len());
        for TopicEvent { conversation, body, .. } in events {
            pipeline.cmd(name).arg(self.link.keys().conversation_channel(conversation)).arg(&**body);
        }
        self.link.run_pipeline(&pipeline).await?.whole()?;
        let jobs: Vec<PushJob> = events.iter().filter_map(job_of_topic).collect();
        if jobs.is_empty() { Ok(()) } else { write(&self.link, jobs, &self.dropped).await }
    }

    async fn subscribe_topic(&self, conversation: &ConversationId) -> Result<(), BackboneError> {
        self.subscriptions.subscribe(&Channel::Conversation(conversation.clone())).await
    }

    fn unsubscribe_topic(&self, conversation: &ConversationId) {
        self.subscriptions.unsubscribe(&Channel::Conversation(conversation.clone()));
    }
}
