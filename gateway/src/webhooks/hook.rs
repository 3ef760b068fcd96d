//! The hook: a backend is asked before a message, an edit or a reaction is stored.
//! It offers [`Hook`]. It never retries: whoever asks decides about a missing answer, and a client repeats its command.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use metrics::gauge;
use serde::{Deserialize, Serialize};
use shared::{ConversationId, ConversationKind, MessageData, MessageId, TempId, Timestamp, UserId};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::signed::SignedPosts;
use crate::breaker::Breaker;
use crate::config::{HookConfig, OnHookFailure};
use crate::http_client::{EndpointError, RequestError};
use crate::metrics::Metrics;

/// Questions that a node has under way.
const ASKED_AT_ONCE_MAX: usize = 256;
/// The largest answer, in bytes: the longest content, each character escaped, and room for the rest.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The longest message of a refusal that the sender is shown, in characters.
const MESSAGE_CHARS_MAX: usize = 200;
/// How long the hook isn't asked after five failures in a row, until one question finds out whether it is back. Questions of
/// one sender, or about one conversation, that fail side by side are one failure: nobody can close the hook to others.
const BREAKER_OPEN_FOR: Duration = Duration::from_secs(1);

/// The hook behind `HOOK_URL`.
pub struct Hook {
    posts: SignedPosts,
    breaker: Breaker,
    /// Makes the names under which the breaker knows senders and conversations.
    names: RandomState,
    places: Semaphore,
    within: Duration,
    on_failure: OnHookFailure,
    metrics: Arc<Metrics>,
}

/// A question: what is to be stored, and for whom.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookQuestion<'a> {
    /// Another one for each question.
    pub id: String,
    /// `message.send`, `message.edit` or `reaction.add`.
    pub r#type: &'static str,
    /// When it is asked.
    pub at: Timestamp,
    /// `socket`, `rest` or `backend`.
    pub via: &'static str,
    /// The dialect of the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<&'static str>,
    /// The conversation; absent where the message opens one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    /// Direct, group or channel; absent while the store is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_kind: Option<ConversationKind>,
    /// In a direct conversation: whom it is to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<UserId>,
    /// Who writes or reacts.
    pub sender_id: &'a UserId,
    /// What they are called, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// The message that is to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// The kind of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    /// The content that is to be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    /// The content before an edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// What stands beside the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a MessageData>,
    /// The emoji of a reaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emoji: Option<&'a str>,
    /// The sender's id for the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp_id: Option<&'a TempId>,
}

/// It may be stored, with the hook's content in place of its own, if there is one; or why not.
pub type HookAnswer = Result<Option<String>, HookRefusal>;

/// Why something may not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookRefusal {
    /// The hook doesn't want it; with a sentence for the sender.
    Refused(Option<String>),
    /// There is no answer, and `HOOK_ON_FAILURE` refuses: try again after so many milliseconds.
    Unavailable(u64),
}

#[derive(Deserialize)]
struct AnswerBody {
    allow: bool,
    content: Option<String>,
    message: Option<String>,
}

impl Hook {
    /// A hook of these settings.
    ///
    /// # Errors
    /// The URL is `https` and no certificate authority is trusted here.
    pub fn new(config: &HookConfig, metrics: Arc<Metrics>) -> Result<Self, EndpointError> {
        Ok(Self {
            posts: SignedPosts::new("hook", (&config.url, &config.secret), config.timeout, ANSWER_BYTES_MAX)?,
            breaker: Breaker::new(BREAKER_OPEN_FOR, gauge!("parley_hook_open")),
            names: RandomState::new(),
            places: Semaphore::new(ASKED_AT_ONCE_MAX),
            within: config.timeout,
            on_failure: config.on_failure,
            metrics,
        })
    }

    /// Asks. `fits` tells what is wrong with a content that the hook gave, if something is: then that is no answer.
    pub async fn ask(&self, question: &HookQuestion<'_>, fits: impl Fn(&str) -> Result<(), String>) -> HookAnswer {
        let attempt = match self.breaker.attempt() {
            Ok(attempt) => attempt,
            Err(wait) => return self.no_answer("the breaker is open", wait),
        };
        let asked = Instant::now();
        let answer = timeout(self.within, self.post(question)).await;
        let answer = answer.unwrap_or(Err(RequestError::TimedOut(self.within)));
        let answer = answer.and_then(|answer| match &answer {
            Ok(Some(content)) => fits(content).map(|()| answer).map_err(RequestError::Failed),
            Ok(None) | Err(_) => Ok(answer),
        });
        self.metrics.hook_seconds.record(asked.elapsed());
        match answer {
            Ok(answer) => {
                attempt.succeeded();
                self.metrics.hook(match &answer {
                    Ok(None) => "allowed",
                    Ok(Some(_)) => "replaced",
                    Err(_) => "refused",
                });
                answer
            }
            Err(why @ RequestError::Unreachable(_)) => {
                attempt.failed();
                self.no_answer(&why.to_string(), BREAKER_OPEN_FOR)
            }
            Err(why) => {
                attempt.failed_for(&self.names_in(question));
                self.no_answer(&why.to_string(), BREAKER_OPEN_FOR)
            }
        }
    }

    fn names_in(&self, question: &HookQuestion<'_>) -> [u64; 2] {
        let conversation = question.conversation_id.as_ref().map(|id| self.names.hash_one(id));
        let to = || self.names.hash_one(&question.to);
        [self.names.hash_one(("sender", question.sender_id)), conversation.unwrap_or_else(to)]
    }

    fn no_answer(&self, why: &str, wait: Duration) -> HookAnswer {
        self.metrics.hook("none");
        tracing::debug!(why, "the hook gave no answer");
        match self.on_failure {
            OnHookFailure::Allow => Ok(None),
            OnHookFailure::Refuse => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                Err(HookRefusal::Unavailable(wait_ms.saturating_add(rand::random_range(0..=1_000))))
            }
        }
    }

    async fn post(&self, question: &HookQuestion<'_>) -> Result<HookAnswer, RequestError> {
        let _place = self.places.acquire().await.map_err(|closed| RequestError::Failed(closed.to_string()))?;
        let answer = self.posts.ask(&question.id, question).await?;
        if answer.status != StatusCode::OK {
            return Err(RequestError::Failed(answer.status.to_string()));
        }
        read(&answer.body).map_err(RequestError::Failed)
    }
}

/// An answer's body.
fn read(body: &[u8]) -> Result<HookAnswer, String> {
    let AnswerBody { allow, content, message } = serde_json::from_slice(body).map_err(|fault| fault.to_string())?;
    Ok(match allow {
        true => Ok(content),
        false => Err(HookRefusal::Refused(message.map(|message| {
            let shown = message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX);
            shown.collect()
        }))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_everything_else_is_no_answer() {
        assert_eq!(read(br#"{"allow":true}"#), Ok(Ok(None)));
        assert_eq!(read(br#"{"allow":true,"content":"x","new":1}"#), Ok(Ok(Some("x".into()))));
        assert_eq!(read(br#"{"allow":false,"message":"a\u0007b"}"#), Ok(Err(HookRefusal::Refused(Some("ab".into())))));
        let long = format!(r#"{{"allow":false,"message":"{}"}}"#, "x".repeat(300));
        assert_eq!(read(long.as_bytes()), Ok(Err(HookRefusal::Refused(Some("x".repeat(200))))));
        for no_answer in [&b""[..], b"{}", b"[]", br#"{"allow":"yes"}"#, br#"{"allow":true,"content":7}"#, b"\xff"] {
            assert!(read(no_answer).is_err(), "{no_answer:?}");
        }
    }
}
