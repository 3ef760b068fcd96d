//! Carrying out one command of a live connection. It owns all that it needs, and answers with data: the session decides
//! when the client is told.

use std::pin::Pin;
use std::sync::Arc;

use shared::command::SendMessage;
use shared::{Command, ErrorCode, Event, ProtocolError, TempId};

use super::connection::Rejection;
use crate::auth::{AuthError, Credential, Identity};
use crate::delivery::send_queue::SendQueue;
use crate::dispatch::{self, Asker, dispatch};
use crate::limits::{AddressKey, Allowance, charges};
use crate::node::Node;

/// When a client may send a command again that waited in vain, in milliseconds.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 500..=2_000;

/// A command's name, and what it is charged.
type Draw = (&'static str, u32);

/// A command that is being carried out.
pub(super) type RunningCommand = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// A command that has ended.
pub(super) struct Finished {
    /// How.
    pub(super) outcome: Outcome,
    /// The client's name for the command.
    pub(super) reference: Option<String>,
}

/// How a command ended.
pub(super) enum Outcome {
    /// It was carried out, or refused.
    Answered(Box<Result<Option<Event>, ProtocolError>>),
    /// It was a ping, with this timestamp.
    Pinged(Option<String>),
    /// A fresh token was checked.
    Checked(Result<Box<Identity>, AuthError>),
    /// It was not carried out.
    Rejected(Rejection),
}

impl Finished {
    /// The command waited for too long.
    pub(super) fn waited(reference: Option<String>) -> Self {
        let error = ProtocolError::new(ErrorCode::Unavailable, "the commands before it take too long; try again");
        let error = error.retry_after_ms(rand::random_range(RETRY_AFTER_MS));
        Self { outcome: Outcome::Answered(Box::new(Err(error))), reference }
    }

    /// The command was not carried out, because the user's allowance over all nodes is used up.
    pub(super) fn over_the_limit(wait_ms: u64, reference: Option<String>) -> Self {
        Self { outcome: Outcome::Rejected(Rejection::OverTheLimit { wait_ms }), reference }
    }

    /// Whether a client whose dialect has no `ref` could take the answer for that of another command.
    pub(super) fn needs_its_place(&self) -> bool {
        match &self.outcome {
            Outcome::Answered(result) => !matches!(**result, Ok(None)),
            Outcome::Pinged(_) => false,
            Outcome::Checked(_) | Outcome::Rejected(_) => true,
        }
    }
}

/// All that carrying out a command needs. Owned, because the command outlives the call that starts it.
pub(super) struct Job {
    /// The node that carries it out.
    pub(super) node: Arc<Node>,
    /// The connection's queue: it mutes the echo of its own sends there.
    pub(super) queue: Arc<SendQueue>,
    /// Whose command it is.
    pub(super) asker: Asker,
    /// The client's address, as the limits know it.
    pub(super) from: AddressKey,
}

impl Job {
    /// Begins to carry out a command. First draws on the user's allowance over all nodes, if that could not be decided here.
    pub(super) fn begin(self, command: Command, reference: Option<String>, draws: bool) -> RunningCommand {
        let draws = draws.then(|| (command.name(), charges::of_command(&command)));
        match command {
            // By itself, because a connection may have many of these, and the others take more room.
            Command::Send(message) => Box::pin(self.send(message, reference, draws)),
            command => Box::pin(self.carry_out(command, reference, draws)),
        }
    }

    async fn carry_out(self, command: Command, reference: Option<String>, draws: Option<Draw>) -> Finished {
        if let Err(wait_ms) = self.draw(draws).await {
            return Finished::over_the_limit(wait_ms, reference);
        }
        let outcome = match command {
            Command::Ping { timestamp } => Outcome::Pinged(timestamp),
            Command::Auth { token, .. } => Outcome::Checked(check_token(&self.node, token, self.from).await),
            command => Outcome::Answered(Box::new(dispatch(&self.node.chat, &self.asker, command).await)),
        };
        Finished { outcome, reference }
    }

    /// Sends a message. A connection whose dialect has no echo gets no event of its own sends.
    async fn send(self, mut message: SendMessage, reference: Option<String>, draws: Option<Draw>) -> Finished {
        if let Err(wait_ms) = self.draw(draws).await {
            return Finished::over_the_limit(wait_ms, reference);
        }
        let Self { node, queue, asker, from: _ } = &self;
        let muted = queue.wire().dialect.mutes_own_sends().then(|| {
            let temp_id = message.temp_id.get_or_insert_with(|| TempId::generated(rand::random()));
            queue.mute(temp_id);
            temp_id.clone()
        });
        let result = dispatch::send(&node.chat, asker, message).await;
        if let Some(temp_id) = muted.filter(|_| !matches!(result, Ok(None))) {
            // Refused, or sent before: no event of it will come for this connection. If the outcome of a send is unknown and
            // the event does come, then it is the only thing that tells the sender.
            queue.unmute(&temp_id);
        }
        Finished { outcome: Outcome::Answered(Box::new(result)), reference }
    }

    /// Draws on the user's allowance over all nodes, if it could not be decided here.
    ///
    /// # Errors
    /// There is nothing left: how many milliseconds until there is.
    async fn draw(&self, draw: Option<Draw>) -> Result<(), u64> {
        let Some((name, charge)) = draw else { return Ok(()) };
        match self.node.user_rates.draw(&self.asker.user, charge).await {
            Allowance::Granted => {
                self.node.metrics.command(name);
                Ok(())
            }
            Allowance::Wait(wait_ms) => Err(wait_ms),
        }
    }
}

/// Checks a fresh token of a live connection, revocations included: joining looks them up only once.
async fn check_token(node: &Node, token: String, from: AddressKey) -> Result<Box<Identity>, AuthError> {
    let identity = node.authenticator.authenticate(Credential::Token(token.into()), from).await?;
    node.authenticator.check_revoked(&identity).await?;
    Ok(Box::new(identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<F>(_: impl FnOnce(Job, SendMessage, Option<String>, Option<Draw>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_send_under_way_stays_small() {
        assert!(bytes(Job::send) <= 2_400, "{} bytes", bytes(Job::send));
    }
}
