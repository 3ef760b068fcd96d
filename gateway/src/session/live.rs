//! The third state: a user's connection, registered and subscribed. It runs one command at a time, in order:
//! [`Live::admit`] checks whether the user may send it now, `execute` starts it, `run_command` carries it out. It ends
//! when it is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use shared::{Command, Dialect, ErrorCode, Event, ProtocolError, TempId, UserId};

use super::connection::{Connection, Request, auth_failed};
use super::registered::{Registered, expiry_s};
use crate::auth::{AuthError, Credential, Guest, Identity, Unavailable};
use crate::clock::coarse_s;
use crate::delivery::frames::{event_on, reply_on};
use crate::delivery::send_queue::SendQueue;
use crate::dispatch::{Asker, dispatch, pong};
use crate::limits::{AddressKey, Allowance, charges};
use crate::node::Node;

/// A user's connection.
pub(super) struct Live {
    /// The place in the registry and among the subscribers, given up when this is dropped.
    registered: Registered,
    /// The session cookie that the connection rests on, if there is one: looked up again until this is dropped.
    guest: Option<Box<Guest>>,
    /// Coarse seconds of when it became live, for the audit trail.
    opened_s: u32,
    /// Whether the newest token gave admin rights.
    admin: bool,
    /// The command under way. While there is one, no further message is read.
    command: Option<Pin<Box<dyn Future<Output = Finished> + Send>>>,
}

/// A command that has ended.
struct Finished {
    outcome: Outcome,
    /// The client's name for the command.
    reference: Option<String>,
}

enum Outcome {
    /// The command was carried out, or refused.
    Answered(Box<Result<Option<Event>, ProtocolError>>),
    /// A fresh token was checked.
    Checked(Result<Box<Identity>, AuthError>),
    /// The user's allowance over all nodes was used up; the command was not carried out.
    OverTheLimit {
        /// When to send it again.
        wait_ms: u64,
    },
}

/// All that carrying out a command needs. Owned, because the command outlives the call that starts it.
struct Job {
    node: Arc<Node>,
    queue: Arc<SendQueue>,
    asker: Asker,
    /// The client's address, as the limits know it.
    from: AddressKey,
}

impl Live {
    /// Takes over a connection that has joined.
    pub(super) fn begin(registered: Registered, guest: Option<Box<Guest>>, identity: Identity) -> Self {
        let Registered { node, user, queue, .. } = &registered;
        node.audit.connection_opened(user, registered.connection_id(), queue.wire().dialect.subprotocol());
        if let Some(username) = identity.username {
            node.chat.remember_username(user, username);
        }
        node.tasks.spawn(greet(Arc::clone(node), user.clone(), Arc::clone(queue)));
        Self { registered, guest, opened_s: coarse_s(), admin: identity.admin, command: None }
    }

    /// The connection's user.
    pub(super) fn user(&self) -> &UserId {
        &self.registered.user
    }

    /// Whether the next command may come.
    pub(super) fn is_idle(&self) -> bool {
        self.command.is_none()
    }

    /// Starts the command if the user's allowance over all nodes permits it.
    pub(super) fn admit(&mut self, connection: &mut Connection, request: Request) {
        let charge = charges::of_command(&request.command);
        match connection.node.user_rates.check(self.user(), charge) {
            Some(Allowance::Granted) => self.execute(connection, request),
            Some(Allowance::Wait(wait_ms)) => connection.over_the_limit(wait_ms, request.reference.as_deref()),
            None => {
                let (job, Request { command, reference }) = (self.job(connection.from), request);
                self.command = Some(Box::pin(async move {
                    let outcome = match job.node.user_rates.draw(&job.asker.user, charge).await {
                        Allowance::Granted => {
                            job.node.metrics.command(command.name());
                            job.run(command).await
                        }
                        Allowance::Wait(wait_ms) => Outcome::OverTheLimit { wait_ms },
                    };
                    Finished { outcome, reference }
                }));
            }
        }
    }

    /// Starts a command. A ping is answered here, because it needs nothing from anywhere.
    fn execute(&mut self, connection: &Connection, request: Request) {
        let Request { command, reference } = request;
        connection.node.metrics.command(command.name());
        if let Command::Ping { timestamp } = command {
            return connection.reply(&pong(timestamp), reference.as_deref());
        }
        let job = self.job(connection.from);
        self.command = Some(Box::pin(async move { Finished { outcome: job.run(command).await, reference } }));
    }

    /// Goes on with the command under way, and replies when it has ended.
    pub(super) fn poll_command(&mut self, cx: &mut Context<'_>, connection: &mut Connection) {
        let Some(command) = &mut self.command else { return };
        let Poll::Ready(Finished { outcome, reference }) = command.as_mut().poll(cx) else { return };
        self.command = None;
        match outcome {
            Outcome::Answered(result) => connection.answer(*result, reference.as_deref()),
            Outcome::Checked(result) => self.refreshed(connection, result, reference.as_deref()),
            Outcome::OverTheLimit { wait_ms } => connection.over_the_limit(wait_ms, reference.as_deref()),
        }
    }

    fn job(&self, from: AddressKey) -> Job {
        let Registered { node, user, queue, .. } = &self.registered;
        let live = queue.wire().dialect.delivers_without_store();
        let asker = Asker { user: user.clone(), admin: self.admin, live };
        Job { node: Arc::clone(node), queue: Arc::clone(queue), asker, from }
    }

    /// A fresh token was checked. From now on the connection lasts as long as that token.
    fn refreshed(
        &mut self,
        connection: &Connection,
        result: Result<Box<Identity>, AuthError>,
        reference: Option<&str>,
    ) {
        match result {
            Ok(identity) if identity.user == *self.user() => self.renew(&identity, reference),
            Ok(_) => {
                let error = ProtocolError::new(ErrorCode::Forbidden, "the token is another user's");
                connection.answer(Err(error), reference);
            }
            Err(AuthError::Refused(refused)) => connection.reply(&auth_failed(refused), reference),
            Err(AuthError::Unavailable(unavailable)) => {
                let error = ProtocolError::new(Unavailable::CODE, unavailable.to_string());
                connection.answer(Err(error.retry_after_ms(unavailable.retry_after_ms)), reference);
            }
        }
    }

    fn renew(&mut self, identity: &Identity, reference: Option<&str>) {
        self.admin = identity.admin;
        let Registered { node, user, number, .. } = &self.registered;
        node.registry.set_expiry(user, *number, expiry_s(identity));
        // The guest before goes first: both are kept under the number of the connection.
        self.guest = None;
        self.guest = self.registered.watch_credential(identity);
        let Some(epoch) = node.registry.epoch(user.as_str()) else { return };
        node.registry.with_queue(user, *number, |queue| {
            let event = |position| self.registered.auth_success(epoch, position, true);
            queue.push_reply_at(|position| reply_on(queue.wire(), &event(position), reference));
        });
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Registered { node, user, queue, .. } = &self.registered;
        let open_s = coarse_s().saturating_sub(self.opened_s);
        node.audit.connection_closed(user, self.registered.connection_id(), open_s, queue.closing());
    }
}

impl Job {
    async fn run(self, command: Command) -> Outcome {
        match command {
            Command::Auth { token, .. } => Outcome::Checked(check_token(&self.node, token, self.from).await),
            command => Outcome::Answered(Box::new(run_command(&self.node, &self.asker, &self.queue, command).await)),
        }
    }
}

/// Checks a fresh token of a live connection, revocations included: joining looks them up only once.
async fn check_token(node: &Node, token: String, from: AddressKey) -> Result<Box<Identity>, AuthError> {
    let identity = node.authenticator.authenticate(Credential::Token(token.into()), from).await?;
    node.authenticator.check_revoked(&identity).await?;
    Ok(Box::new(identity))
}

/// Carries out a command. A connection whose dialect has no echo gets no event of its own sends.
async fn run_command(
    node: &Node,
    asker: &Asker,
    queue: &SendQueue,
    mut command: Command,
) -> Result<Option<Event>, ProtocolError> {
    let muted = match &mut command {
        Command::Send(send) if queue.wire().dialect.mutes_own_sends() => {
            Some(send.temp_id.get_or_insert_with(|| TempId::generated(rand::random())).clone())
        }
        _ => None,
    };
    if let Some(temp_id) = &muted {
        queue.mute(temp_id);
    }
    let result = dispatch(&node.chat, asker, command).await;
    if let Some(temp_id) = muted.filter(|_| !matches!(result, Ok(None))) {
        // Refused, or sent before: no event of it will come for this connection. If the outcome of a send is unknown and
        // the event does come, then it is the only thing that tells the sender.
        queue.unmute(&temp_id);
    }
    result
}

/// Sends a new connection the events after `auth_success`, and tells others that the user is here. While the store is away,
/// the connection goes without them.
async fn greet(node: Arc<Node>, user: UserId, queue: Arc<SendQueue>) {
    node.chat.flush_usernames().await;
    // The flat dialects have no frame for it.
    let status = queue.wire().dialect == Dialect::Chat;
    match node.chat.arrived(&user, status).await {
        Ok(Some(event)) => drop(queue.push_reply(event_on(queue.wire(), &event))),
        Ok(None) => {}
        Err(error) => tracing::debug!(%user, %error, "an arrival could not be announced"),
    }
}
