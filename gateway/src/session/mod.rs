//! A session: one socket, one task. It waits for a token, joins, and is live; each state is a type of its own.
//! It offers [`Session`], the future that drives a socket; [`stream`], server-sent events, and [`poller`], long polling, on
//! the same log.
//! It never holds a timer or a buffer: the node sweeps all sockets' clocks once a second, and bytes wait in the queue.

mod carry_out;
mod connection;
mod joining;
mod large;
mod live;
mod order;
mod polled;
pub mod poller;
mod registered;
pub mod socket;
pub mod stream;
mod under_way;
mod waiting;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use shared::CloseCode;
use shared::command::Resume;

use crate::auth::{Identity, TokenRefusal};
use crate::delivery::send_queue::SendQueue;
use crate::limits::AddressKey;
use crate::node::Node;
use connection::Connection;
use joining::Joining;
use live::Live;
use socket::{Flow, Incoming, Socket, SocketEnd};
use waiting::Waiting;

/// The state of the user's authentication when the socket opens.
#[derive(Debug)]
pub enum Opening {
    /// The upgrade carried a valid token.
    Known(Box<Identity>, Option<Resume>),
    /// The upgrade carried a token that was refused: say so, then close.
    Refused(TokenRefusal),
    /// No token came: the `auth` frame brings it.
    Unknown(Option<Resume>),
    /// The connection can't be served: close with this code.
    Close(CloseCode),
}

/// A socket's whole life, as a future.
pub struct Session {
    /// The socket itself; no other task touches it.
    socket: Socket,
    /// The parts that every state works with. They stay when the state changes.
    connection: Connection,
    /// How far the connection has come, with the data of that state alone.
    state: State,
}

/// The states of a session, in their order.
enum State {
    /// No token yet.
    Waiting(Waiting),
    /// From the token to the open gate.
    Joining(Joining),
    /// A user's connection.
    Live(Live),
    /// Turned away: the queue is closed, and the socket writes what is left in it.
    Over,
}

impl Session {
    /// A session of the connection `number`, of a client at an address, on a socket whose queue is `queue`.
    pub fn new(
        node: Arc<Node>,
        number: u64,
        socket: Socket,
        queue: Arc<SendQueue>,
        (opening, from): (Opening, AddressKey),
    ) -> Self {
        let connection = Connection::new(node, number, queue, from);
        let state = State::open(&connection, opening);
        Self { socket, connection, state }
    }
}

impl Future for Session {
    type Output = SocketEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        let Self { socket, connection, state } = &mut *self;
        loop {
            state.poll(cx, connection);
            let reading = state.takes_messages() && !connection.queue.liveness().is_quiet();
            let waker = cx.waker();
            let driven = socket.poll_drive(cx, reading, &mut |incoming| {
                state.on_message(&mut Context::from_waker(waker), connection, incoming)
            });
            match driven {
                Poll::Ready(ended) => return Poll::Ready(ended),
                // A token came, or too much waits: go on with it now, and go on reading if it was quick.
                Poll::Pending if reading && !state.takes_messages() => {}
                Poll::Pending => {
                    state.ask_for_more(connection);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl State {
    fn open(connection: &Connection, opening: Opening) -> Self {
        match opening {
            Opening::Known(identity, resume) => Self::Joining(Joining::with_identity(connection, *identity, resume)),
            Opening::Unknown(resume) => Self::Waiting(Waiting::begin(connection, resume)),
            Opening::Refused(refused) => {
                connection.refuse(refused);
                Self::Over
            }
            Opening::Close(code) => {
                connection.queue.close(code);
                Self::Over
            }
        }
    }

    /// Whether a message may come: while joining, and while too many commands wait, the next one stays with the kernel.
    fn takes_messages(&self) -> bool {
        match self {
            Self::Waiting(_) | Self::Over => true,
            Self::Joining(_) => false,
            Self::Live(live) => live.has_room(),
        }
    }

    /// Goes on with the work under way, if there is any.
    fn poll(&mut self, cx: &mut Context<'_>, connection: &mut Connection) {
        match self {
            Self::Joining(joining) => match joining.poll(cx) {
                Poll::Ready(Ok(live)) => *self = Self::Live(live),
                Poll::Ready(Err(refusal)) => {
                    connection.turn_away(refusal);
                    *self = Self::Over;
                }
                Poll::Pending => {}
            },
            Self::Live(live) => live.advance(cx, connection),
            Self::Waiting(_) | Self::Over => {}
        }
    }

    /// Takes a message; a command of a live connection is started here, so that commands begin in the order of reading.
    fn on_message(&mut self, cx: &mut Context<'_>, connection: &mut Connection, incoming: Incoming<'_>) -> Flow {
        let bytes = incoming.bytes();
        let Some(read) = connection.read(incoming) else { return Flow::Continue };
        match (&mut *self, read) {
            (Self::Live(live), Ok(request)) => live.take(cx, connection, request, bytes),
            (Self::Live(live), Err(rejected)) => live.reject(connection, rejected, bytes),
            (Self::Waiting(waiting), Ok(request)) => {
                if let Some(joining) = waiting.on_command(connection, request) {
                    *self = Self::Joining(joining);
                }
            }
            (_, Err(rejected)) => connection.reject(rejected.reason, rejected.reference.as_deref()),
            // No message is read while joining, and `read` ignores those on a closed queue.
            (Self::Joining(_) | Self::Over, Ok(_)) => {}
        }
        if self.takes_messages() { Flow::Continue } else { Flow::Pause }
    }

    /// Asks the log for the events that the queue had no room for.
    fn ask_for_more(&self, connection: &Connection) {
        if let Self::Live(live) = self
            && connection.queue.wants_more()
        {
            connection.node.fanout.request_heal(live.user());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_stays_small() {
        assert!(size_of::<Session>() <= 304, "{} bytes", size_of::<Session>());
    }
}
