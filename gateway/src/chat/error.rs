//! From the store's and the backbone's answers to the codes that clients know.

use shared::{ErrorCode, ProtocolError};

use crate::backbone::BackboneError;
use crate::store::{Refusal, StoreError};

/// The way out for the last owner.
const NAME_ANOTHER_OWNER: &str = r#"name another owner first: PATCH …/members/{userId} {"role":"owner"}"#;

impl From<StoreError> for ProtocolError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                ProtocolError::new(ErrorCode::Unavailable, "the store is away; try again").retry_after_ms(1000)
            }
            StoreError::Failed(detail) => {
                tracing::error!(detail, "the store failed");
                ProtocolError::new(ErrorCode::InternalError, "the server could not carry out the command")
            }
            StoreError::Refused(refusal) => refused(refusal),
        }
    }
}

impl From<BackboneError> for ProtocolError {
    fn from(_: BackboneError) -> Self {
        ProtocolError::new(ErrorCode::Unavailable, "the backbone is away; try again").retry_after_ms(1000)
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
