//! The sends of a device without a socket, on their way over REST. Each is tried once; the device repeats.

use std::future::pending;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::pending::OutgoingMessage;
use crate::rest::{Posted, Rest, SendError};

/// An answer to a send.
pub(super) struct PostAnswer {
    /// The send.
    pub(super) temp_id: String,
    /// What came of it.
    pub(super) result: Result<Posted, SendError>,
}

/// The sends that have no answer yet. They outlive the device's connection.
#[derive(Debug)]
pub(super) struct Posts {
    rest: Rest,
    node: usize,
    under_way: FuturesUnordered<BoxFuture<'static, PostAnswer>>,
}

impl Posts {
    /// None yet; the first go to this node.
    pub(super) fn new(rest: Rest, node: usize) -> Self {
        Self { rest, node, under_way: FuturesUnordered::new() }
    }

    /// Sends a message.
    pub(super) fn send(&self, token: &str, message: OutgoingMessage) {
        let (rest, node, token) = (self.rest.clone(), self.node, token.to_owned());
        self.under_way.push(Box::pin(async move {
            let result = rest.send(node, &token, message.payload().to_string()).await;
            PostAnswer { temp_id: message.temp_id, result }
        }));
    }

    /// The next answer; never, while there are no sends. After none at all, another node is asked.
    pub(super) async fn next(&mut self) -> PostAnswer {
        let Some(answer) = self.under_way.next().await else { return pending().await };
        if matches!(answer.result, Err(SendError::NoAnswer)) {
            self.node = self.node.wrapping_add(1);
        }
        answer
    }
}
