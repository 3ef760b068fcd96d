//! Signed posts to a URL of the settings, as every webhook sends them: its headers, and what an answer means.

use std::time::Duration;

use bytes::Bytes;
use hyper::{StatusCode, Uri};
use serde::Serialize;

use super::signature::Signer;
use crate::http_client::{Answer, Endpoint, EndpointError, RequestError};

/// A webhook's URL, its name in the headers, and the key of its signatures.
pub(super) struct SignedPosts {
    endpoint: Endpoint,
    signer: Signer,
    name: &'static str,
}

/// The end of a post whose answer says no more than whether it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PostOutcome {
    /// The receiver has it.
    Delivered,
    /// Worth another try.
    Failed(String),
    /// The receiver refused it.
    Refused(String),
}

impl SignedPosts {
    /// Posts of the webhook `name`, whose answers may take `within` and have bodies of `answer_bytes_max` at most.
    ///
    /// # Errors
    /// The URL is `https` and no certificate authority is trusted here.
    pub(super) fn new(
        name: &'static str,
        (url, secret): (&Uri, &str),
        within: Duration,
        answer_bytes_max: usize,
    ) -> Result<Self, EndpointError> {
        let endpoint = Endpoint::new(url.clone(), within, answer_bytes_max)?;
        Ok(Self { endpoint, signer: Signer::new(secret), name })
    }

    /// Posts `body` under its id; the answer, whatever its status, or why there is none.
    pub(super) async fn ask(&self, id: &str, body: &impl Serialize) -> Result<Answer, RequestError> {
        let unsent = |fault: &dyn std::error::Error| RequestError::Failed(fault.to_string());
        let body = Bytes::from(serde_json::to_vec(body).map_err(|fault| unsent(&fault))?);
        let headers = self.signer.headers(self.name, id, &body).map_err(|fault| unsent(&fault))?;
        self.endpoint.post_json(headers, body).await
    }

    /// Posts what needs no answer but a status.
    pub(super) async fn post(&self, id: &str, body: &impl Serialize) -> PostOutcome {
        match self.ask(id, body).await {
            Ok(answer) => outcome(answer.status),
            Err(why) => PostOutcome::Failed(why.to_string()),
        }
    }
}

fn outcome(status: StatusCode) -> PostOutcome {
    let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_success() {
        PostOutcome::Delivered
    } else if status.is_server_error() || passes.contains(&status) {
        PostOutcome::Failed(status.to_string())
    } else {
        PostOutcome::Refused(status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_pass_are_worth_another_try() {
        for (status, expected) in [(200, "delivered"), (204, "delivered"), (408, "failed"), (425, "failed")] {
            assert_eq!(word(status), expected, "{status}");
        }
        for (status, expected) in
            [(429, "failed"), (500, "failed"), (599, "failed"), (302, "refused"), (410, "refused")]
        {
            assert_eq!(word(status), expected, "{status}");
        }
    }

    fn word(status: u16) -> &'static str {
        match outcome(StatusCode::from_u16(status).expect("a status")) {
            PostOutcome::Delivered => "delivered",
            PostOutcome::Failed(_) => "failed",
            PostOutcome::Refused(_) => "refused",
        }
    }
}
