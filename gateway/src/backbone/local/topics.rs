//! The channels of large conversations, in one process.

use async_trait::async_trait;
use shared::ConversationId;

use super::LocalBackbone;
use crate::backbone::push_jobs::job_of_topic;
use crate::backbone::{BackboneError, TopicEvent, Topics};

#[async_trait]
impl Topics for LocalBackbone {
    async fn publish_topics(&self, events: &[TopicEvent]) -> Result<(), BackboneError> {
        for event in events {
            let is_subscribed = self.shared.topics.lock().contains_key(&event.conversation);
            if is_subscribed {
                self.shared.inbox.topic_event(event.conversation.as_str(), &event.body);
            }
            if let Some(job) = job_of_topic(event) {
                self.shared.jobs.lock().add(job);
            }
        }
        Ok(())
    }

    async fn subscribe_topic(&self, conversation: &ConversationId) -> Result<(), BackboneError> {
        *self.shared.topics.lock().entry(conversation.clone()).or_default() += 1;
        Ok(())
    }

    fn unsubscribe_topic(&self, conversation: &ConversationId) {
        let mut topics = self.shared.topics.lock();
        if let Some(count) = topics.get_mut(conversation) {
            *count -= 1;
            if *count == 0 {
                topics.remove(conversation);
            }
        }
    }
}
