//! `typing` as load, and which typings arrived. They have no number, but those of one user to another arrive in order.
//! If one is lost, its user's later ones count as later than they were, never as earlier.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Result;
use shared::ConversationId;

use crate::speech::{ClientFrame, conversation_id, flag, kind};
use crate::ws::Opcode;

/// How long the ids of open conversations may take to become known.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a user hears of the partner's typing, where number after number goes out from user after user.
#[derive(Debug)]
pub(super) struct PartnerTyping {
    next: u64,
    users: u64,
    conversation: Arc<OnceLock<ConversationId>>,
}

impl PartnerTyping {
    /// The typing of the partner with this number among so many users; the conversation of the two is put into
    /// `conversation` once a message has opened it.
    pub(super) fn new(partner: usize, users: usize, conversation: Arc<OnceLock<ConversationId>>) -> Self {
        Self { next: partner as u64, users: users as u64, conversation }
    }

    /// The number of the typing that a frame tells of, if it tells of one.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Option<u64> {
        match kind(frame) {
            // The server's own `false` ends a silence; only `true` was asked for.
            "typing" if flag(frame, "isTyping") => {
                let number = self.next;
                self.next += self.users;
                Some(number)
            }
            "message.new" | "message.sent" => {
                if let Ok(id) = ConversationId::parse(conversation_id(frame)) {
                    // The first one stays: there is one conversation of two users.
                    let _ = self.conversation.set(id);
                }
                None
            }
            _ => None,
        }
    }
}

/// Says that one types.
pub(super) fn frame(conversation: &ConversationId) -> ClientFrame {
    let payload = serde_json::json!({ "conversationId": conversation, "isTyping": true });
    (Opcode::Text, serde_json::json!({ "type": "typing", "payload": payload }).to_string().into())
}

/// Waits until each of the conversations is known.
///
/// # Errors
/// One isn't after ten seconds.
pub(super) async fn all_known<'a>(
    conversations: impl Iterator<Item = &'a OnceLock<ConversationId>> + Clone,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !conversations.clone().all(|conversation| conversation.get().is_some()) {
        anyhow::ensure!(Instant::now() < deadline, "some users did not get their conversation");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partners_typing_comes_in_order_and_its_end_is_none() {
        let conversation = Arc::default();
        let mut typing = PartnerTyping::new(3, 10, Arc::clone(&conversation));
        assert_eq!(
            typing.hear(br#"{"seq":1,"type":"message.new","payload":{"message":{"conversationId":"c7"}}}"#),
            None
        );
        assert_eq!(conversation.get().map(ConversationId::as_str), Some("c7"));
        let heard = |on| format!(r#"{{"type":"typing","payload":{{"conversationId":"c7","isTyping":{on}}}}}"#);
        let mut hear = |on: bool| typing.hear(heard(on).as_bytes());
        assert_eq!([hear(true), hear(false), hear(true)], [Some(3), None, Some(13)]);
    }
}
