//! Parley's REST interface as the driver needs it: history, sending, and making groups. Requests are tried once; callers repeat.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shared::{ConversationId, MessageId, UserId};
use tokio::sync::Semaphore;

use crate::client::UnreadCounts;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before a request that came too soon is repeated.
const RATE_PAUSE: Duration = Duration::from_millis(100);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Users whose conversations are read at once. Each takes a connection, and all devices of a run begin by reading theirs.
const UNREAD_AT_ONCE: usize = 64;
/// The longest page that the server gives.
const PAGE: usize = 100;

/// A message as history shows it, and as events carry it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageView {
    /// Its id.
    pub id: MessageId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Its place there.
    pub seq: u64,
    /// The conversation's change counter when it last changed.
    #[serde(default)]
    pub rev: u64,
    /// The sender.
    pub sender_id: UserId,
    /// The sender's own name for it.
    #[serde(default)]
    pub temp_id: Option<String>,
}

/// The answer to a send.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Posted {
    /// The stored message.
    pub message: MessageView,
    /// Whether it had been stored by an earlier send.
    #[serde(default)]
    pub duplicate: bool,
}

/// Why a send came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The node says so.
    #[error("refused with {code}")]
    Refused {
        /// The error code.
        code: String,
        /// Whether it may be repeated.
        retryable: bool,
        /// After how many milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// No answer, or not a node's.
    #[error("no answer")]
    NoAnswer,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: Refusal,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    code: String,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<MessageView>,
}

#[derive(Deserialize)]
struct ConversationPage {
    items: Vec<ConversationView>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct ConversationView {
    id: ConversationId,
    unread: u64,
}

/// The credentials of a request.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'a> {
    /// A user, with this token.
    User(&'a str),
    /// A backend, with this API key, for this user.
    Backend(&'a str, &'a UserId),
}

/// A client for one or several nodes.
#[derive(Debug, Clone)]
pub struct Rest {
    client: Client<HttpConnector, Full<Bytes>>,
    bases: Vec<String>,
    /// A permit for each read of a user's conversations.
    unread_reads: Arc<Semaphore>,
}

impl Rest {
    /// A client for these base addresses, `http://host:port`.
    #[must_use]
    pub fn new(bases: &[String]) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build_http();
        Self {
            client,
            bases: bases.iter().map(|base| base.trim_end_matches('/').to_owned()).collect(),
            unread_reads: Arc::new(Semaphore::new(UNREAD_AT_ONCE)),
        }
    }

    /// Every message of a conversation behind `after`, ascending by `seq`. Node number `node` answers (wraps around).
    ///
    /// # Errors
    /// No answer, or another than 200.
    pub async fn messages_after(
        &self,
        node: usize,
        who: Credentials<'_>,
        conversation: &ConversationId,
        after: u64,
    ) -> Result<Vec<MessageView>> {
        self.pages(node, who, conversation, "after", after, |message| message.seq).await
    }

    /// Every message of a conversation that changed since `rev`, ascending by `rev`.
    ///
    /// # Errors
    /// As [`Rest::messages_after`].
    pub async fn messages_changed(
        &self,
        node: usize,
        who: Credentials<'_>,
        conversation: &ConversationId,
        rev: u64,
    ) -> Result<Vec<MessageView>> {
        self.pages(node, who, conversation, "changedSince", rev, |message| message.rev).await
    }

    async fn pages(
        &self,
        node: usize,
        who: Credentials<'_>,
        conversation: &ConversationId,
        by: &str,
        mut cursor: u64,
        key: impl Fn(&MessageView) -> u64,
    ) -> Result<Vec<MessageView>> {
        let mut all = Vec::new();
        loop {
            let path = format!("/api/v1/conversations/{conversation}/messages?{by}={cursor}&limit={PAGE}");
            let page: Page = self.request(node, who, Method::GET, &path, None).await?;
            let full = page.items.len() >= PAGE;
            let highest = page.items.iter().map(&key).max().unwrap_or(cursor);
            all.extend(page.items);
            if !full {
                return Ok(all);
            }
            if highest <= cursor {
                bail!("history does not advance after {by}={cursor}");
            }
            cursor = highest;
        }
    }

    /// The unread counts of a user's conversations, of those with something unread.
    ///
    /// # Errors
    /// As [`Rest::messages_after`].
    pub async fn unread(&self, node: usize, who: Credentials<'_>) -> Result<UnreadCounts> {
        // A conversation that becomes active meanwhile comes again at the end: the later page is the newer one.
        let _permit = self.unread_reads.acquire().await?;
        let mut counts = UnreadCounts::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/conversations?limit={PAGE}{cursor}");
            let page: ConversationPage = self.request(node, who, Method::GET, &path, None).await?;
            counts.extend(page.items.into_iter().map(|item| (item.id, item.unread)));
            let Some(next) = page.next else { break };
            cursor = format!("&cursor={next}");
        }
        counts.retain(|_, unread| *unread > 0);
        Ok(counts)
    }

    /// Makes a group with these members, the first of them its owner, and returns its id.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn make_group(&self, api_key: &str, id: &str, members: &[UserId]) -> Result<ConversationId> {
        #[derive(Deserialize)]
        struct NewGroup {
            id: ConversationId,
        }
        let owner = members.first().context("a group needs members")?;
        let body = serde_json::json!({ "id": id, "kind": "group", "title": id, "members": members });
        let who = Credentials::Backend(api_key, owner);
        // A conversation may come bare or as a member of the answer.
        let answer: serde_json::Value =
            self.request(0, who, Method::POST, "/api/v1/conversations", Some(body.to_string())).await?;
        let bare = answer.get("conversation").cloned().unwrap_or(answer);
        Ok(serde_json::from_value::<NewGroup>(bare)?.id)
    }

    /// Sends a message, whose `payload` is that of `message.send`, as a user.
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub async fn send(&self, node: usize, token: &str, payload: String) -> Result<Posted, SendError> {
        let request = self.build(node, Credentials::User(token), Method::POST, "/api/v1/messages", Some(payload));
        let request = request.map_err(|_| SendError::NoAnswer)?;
        let exchange = async {
            let response = self.client.request(request).await.ok()?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?.to_bytes();
            if status.is_success() {
                return serde_json::from_slice(&body).ok().map(Ok);
            }
            let ErrorAnswer { error: Refusal { code, retryable, retry_after_ms } } =
                serde_json::from_slice(&body).ok()?;
            Some(Err(SendError::Refused { code, retryable, retry_after_ms }))
        };
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.ok().flatten();
        answer.unwrap_or(Err(SendError::NoAnswer))
    }

    fn build(
        &self,
        node: usize,
        who: Credentials<'_>,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Request<Full<Bytes>>> {
        let base = self.bases.get(node % self.bases.len().max(1)).context("--http is needed")?;
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        request = match who {
            Credentials::User(token) => request.header("Authorization", format!("Bearer {token}")),
            Credentials::Backend(key, user) => request.header("X-API-Key", key).header("X-User-Id", user.as_str()),
        };
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        Ok(request.body(Full::new(Bytes::from(body.unwrap_or_default())))?)
    }

    async fn request<T: DeserializeOwned>(
        &self,
        node: usize,
        who: Credentials<'_>,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<T> {
        let request = self.build(node, who, method, path, body)?;
        let exchange = async {
            let mut response = self.client.request(request.clone()).await?;
            // A user's requests have a rate like their commands, so a resync with many pages has to wait.
            while response.status() == StatusCode::TOO_MANY_REQUESTS {
                tokio::time::sleep(RATE_PAUSE).await;
                response = self.client.request(request.clone()).await?;
            }
            let status = response.status();
            let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let bytes = bytes.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?.to_bytes();
            if !status.is_success() {
                let text = String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>();
                bail!("{path}: {status} {text}");
            }
            serde_json::from_slice(&bytes).with_context(|| format!("{path}: the answer has an unexpected form"))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.with_context(|| format!("{path}: no answer in time"))?
    }
}
