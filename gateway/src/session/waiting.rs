//! The first state: no token yet. It ends with the first `auth`, which begins [`Joining`], or with the lobby's
//! deadline.

use shared::command::Resume;
use shared::{Command, ErrorCode, ProtocolError};

use super::connection::{Connection, Request};
use super::joining::Joining;
use crate::node::lobby::Seat;

/// A connection without a user.
pub(super) struct Waiting {
    /// The place in the lobby, whose deadline closes the connection. It is given up with this state: once a token came,
    /// checking it may take as long as it takes.
    _seat: Seat,
    /// The position that the request's query asked for. One in the `auth` frame replaces it.
    resume: Option<Box<Resume>>,
}

impl Waiting {
    /// Takes a seat in the lobby.
    pub(super) fn begin(connection: &Connection, resume: Option<Resume>) -> Self {
        let seat = connection.node.lobby.sit(connection.number, &connection.queue, connection.from);
        Self { _seat: seat, resume: resume.map(Box::new) }
    }

    /// The next state, if the command was `auth`; any other command is refused.
    pub(super) fn on_command(&mut self, connection: &Connection, request: Request) -> Option<Joining> {
        let Request { command, reference } = request;
        connection.node.metrics.command(command.name());
        let Command::Auth { token, resume } = command else {
            let error = ProtocolError::new(ErrorCode::Unauthenticated, "send auth with a token first");
            connection.answer(Err(error), reference.as_deref());
            return None;
        };
        let resume = resume.or_else(|| self.resume.take().map(|resume| *resume));
        Some(Joining::with_token(connection, token, resume))
    }
}
