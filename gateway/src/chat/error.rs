//! From the store's and the backbone's answers to the codes that clients know.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shared::{ErrorCode, ProtocolError};

use crate::backbone::BackboneError;
use crate::overload::Busy;
use crate::store::{Refusal, StoreError};

/// How often the log tells one reason for `UNAVAILABLE`.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Reasons that are remembered for that.
const REASONS_MAX: usize = 64;
static TOLD: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// The way out for the last owner.
const NAME_ANOTHER_OWNER: &str = r#"name another owner first: PATCH …/members/{userId} {"role":"owner"}"#;

impl From<StoreError> for ProtocolError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                unavailable_because(&reason);
                ProtocolError::new(ErrorCode::Unavailable, "the store is away; try again")
                    .retry_after_ms(retry_after_ms())
            }
            StoreError::Busy(busy) => busy.into(),
            StoreError::Failed(detail) => {
                tracing::error!(detail, "the store failed");
                ProtocolError::new(ErrorCode::InternalError, "the server could not carry out the command")
            }
            StoreError::Refused(refusal) => refused(refusal),
        }
    }
}

impl From<BackboneError> for ProtocolError {
    fn from(error: BackboneError) -> Self {
        unavailable_because(&error.0);
        ProtocolError::new(ErrorCode::Unavailable, "the backbone is away; try again").retry_after_ms(retry_after_ms())
    }
}

/// Why a message was not sent.
pub(super) enum SendFault {
    /// Too much waits. The store is not away.
    Busy(Busy),
    /// Anything else.
    Other(ProtocolError),
}

impl From<StoreError> for SendFault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy(busy) if !busy.stands_still => Self::Busy(busy),
            other => Self::Other(other.into()),
        }
    }
}

impl From<ProtocolError> for SendFault {
    fn from(error: ProtocolError) -> Self {
        Self::Other(error)
    }
}

impl From<SendFault> for ProtocolError {
    fn from(fault: SendFault) -> Self {
        match fault {
            SendFault::Busy(busy) => busy.into(),
            SendFault::Other(error) => error,
        }
    }
}

impl From<Busy> for ProtocolError {
    fn from(busy: Busy) -> Self {
        unavailable_because(busy.kind.words());
        ProtocolError::new(ErrorCode::Unavailable, busy.to_string()).retry_after_ms(busy.retry_after_ms)
    }
}

/// Another time for each, so that not all come at once.
fn retry_after_ms() -> u64 {
    rand::random_range(500..1_500)
}

/// Logs why clients are answered `UNAVAILABLE`: each reason at most once in [`TOLD_EVERY`].
fn unavailable_because(reason: &str) {
    let now = Instant::now();
    let mut told = TOLD.lock();
    told.retain(|_, at| now.saturating_duration_since(*at) < TOLD_EVERY);
    if told.len() < REASONS_MAX && !told.contains_key(reason) {
        told.insert(reason.to_owned(), now);
        drop(told);
        tracing::warn!(reason, "clients are answered UNAVAILABLE");
    }
}

/// The answer to a refusal.
#[must_use]
pub fn refused(refusal: Refusal) -> ProtocolError {
    match refusal {
        Refusal::NotFound => ProtocolError::new(ErrorCode::NotFound, "there is no such thing"),
        Refusal::NotMember => ProtocolError::new(ErrorCode::NotMember, "you are not a member of this conversation"),
        Refusal::Banned => ProtocolError::new(ErrorCode::Banned, "you are banned from this conversation"),
        Refusal::Blocked => ProtocolError::new(ErrorCode::Blocked, "one of you has blocked the other"),
        Refusal::Forbidden => ProtocolError::new(ErrorCode::Forbidden, "you lack the right to do this"),
        Refusal::Muted => {
            ProtocolError::new(ErrorCode::Forbidden, "you may not write in this conversation for some time")
        }
        Refusal::Full => ProtocolError::new(ErrorCode::LimitExceeded, "a conversation has at most 10000 members"),
        Refusal::Limit => ProtocolError::new(ErrorCode::LimitExceeded, "there can't be more of these"),
        Refusal::UsedTempId => {
            let used = ProtocolError::new(ErrorCode::Conflict, "this tempId was used for another message");
            ProtocolError { field: Some("tempId".into()), ..used }
        }
        Refusal::Conflict => ProtocolError::new(ErrorCode::Conflict, "this conflicts with the current state"),
        Refusal::LastOwner => {
            ProtocolError { field: Some("role".into()), ..ProtocolError::new(ErrorCode::Conflict, NAME_ANOTHER_OWNER) }
        }
    }
}
