//! The third state: a user's connection, registered and subscribed. Its commands are carried out side by side, those of
//! one conversation in the order in which they were read: [`Live::take`] takes a command, and [`Live::advance`] goes on
//! with those that are under way. It ends when it is dropped.

use std::sync::Arc;
use std::task::{Context, Poll};

use shared::{Command, Dialect, ErrorCode, ProtocolError, UserId};
use tokio::time::Instant;

use super::carry_out::{Finished, Job, Outcome, RunningCommand};
use super::connection::{Connection, Rejected, Request, auth_failed};
use super::order::Concern;
use super::registered::{Registered, expiry_s};
use super::under_way::{Step, UnderWay};
use crate::auth::{AuthError, Guest, Identity, Names, Unavailable};
use crate::clock::coarse_s;
use crate::delivery::frames::{event_on, reply_on};
use crate::delivery::send_queue::SendQueue;
use crate::dispatch::{Asker, pong};
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
    /// The commands that were read and are not answered. An idle connection has none, and nothing allocated for them.
    under_way: Option<Box<UnderWay>>,
}

/// A command that was started.
enum Started {
    /// It has ended already.
    Ended(Finished),
    /// It goes on; from now on it concerns this.
    Running(Concern, RunningCommand),
}

impl Live {
    /// Takes over a connection that has joined.
    pub(super) fn begin(registered: Registered, guest: Option<Box<Guest>>, identity: Identity) -> Self {
        let Registered { node, user, queue, .. } = &registered;
        node.audit.connection_opened(user, registered.connection_id(), queue.wire().dialect.subprotocol());
        let Names { username, shown } = identity.names;
        node.chat.remember_names(user, username, shown);
        node.tasks.spawn(greet(Arc::clone(node), user.clone(), Arc::clone(queue)));
        Self { registered, guest, opened_s: coarse_s(), admin: identity.admin, under_way: None }
    }

    /// The connection's user.
    pub(super) fn user(&self) -> &UserId {
        &self.registered.user
    }

    /// Whether the next command may be read.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.as_ref().is_none_or(|under_way| under_way.has_room())
    }

    /// Takes a command, whose frame had so many bytes, and starts it unless it has to wait for others.
    pub(super) fn take(&mut self, cx: &mut Context<'_>, connection: &mut Connection, request: Request, bytes: usize) {
        let concern = self.concern_of(&request.command);
        if self.under_way.as_ref().is_some_and(|under_way| !under_way.admits(concern)) {
            let is_live = self.is_live();
            let under_way = self.under_way.get_or_insert_default();
            under_way.push_waiting(request, concern, bytes, is_live);
            return under_way.watch(cx);
        }
        match self.start(cx, connection.from, request, concern) {
            Started::Ended(finished) => self.answer(connection, finished, bytes),
            Started::Running(concern, command) => {
                let under_way = self.under_way.get_or_insert_default();
                under_way.insert_running(under_way.len(), concern, command);
            }
        }
    }

    /// Goes on with the commands under way, and replies to those that have ended.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>, connection: &mut Connection) {
        let Some(mut under_way) = self.under_way.take() else { return };
        let (now, in_order) = (Instant::now(), self.answers_in_order());
        let mut place = 0;
        while place < under_way.len() {
            let finished = match under_way.step(cx, place, now) {
                Step::Stays => None,
                Step::Ended(finished, concern) => {
                    if matches!(concern, Concern::SendTo(_) | Concern::Direct(_)) {
                        under_way.look_again(|command| self.concern_of(command));
                    }
                    Some(finished)
                }
                Step::Begins(request, concern) => match self.start(cx, connection.from, request, concern) {
                    Started::Ended(finished) => Some(finished),
                    Started::Running(concern, command) => {
                        under_way.insert_running(place, concern, command);
                        None
                    }
                },
            };
            match finished {
                None => place += 1,
                Some(finished) if in_order && place > 0 && finished.needs_its_place() => {
                    under_way.insert_held(place, finished, 0);
                    place += 1;
                }
                Some(finished) => self.tell(connection, finished),
            }
        }
        if under_way.len() > 0 {
            under_way.watch(cx);
            self.under_way = Some(under_way);
        }
    }

    /// Tells the client why its message is not carried out; its frame had so many bytes.
    pub(super) fn reject(&mut self, connection: &mut Connection, rejected: Rejected, bytes: usize) {
        let Rejected { reason, reference } = rejected;
        self.answer(connection, Finished { outcome: Outcome::Rejected(reason), reference }, bytes);
    }

    /// Replies to a message that has just been read. A connection whose errors don't name their command is answered in order.
    fn answer(&mut self, connection: &mut Connection, finished: Finished, bytes: usize) {
        let in_order = self.answers_in_order();
        match &mut self.under_way {
            Some(under_way) if in_order && finished.needs_its_place() => {
                under_way.insert_held(under_way.len(), finished, bytes);
            }
            _ => self.tell(connection, finished),
        }
    }

    fn concern_of(&self, command: &Command) -> Concern {
        Concern::of(command, &self.registered.node, self.user(), self.is_live())
    }

    /// Whether the user's messages go on while the store is away.
    fn is_live(&self) -> bool {
        self.registered.queue.wire().dialect.delivers_without_store()
    }

    fn answers_in_order(&self) -> bool {
        self.registered.queue.wire().dialect.is_flat()
    }

    /// Starts a command if the user's allowance over all nodes permits it. A ping is answered here, because it needs nothing
    /// from anywhere.
    fn start(&self, cx: &mut Context<'_>, from: AddressKey, request: Request, concern: Concern) -> Started {
        let Request { command, reference } = request;
        let Registered { node, user, .. } = &self.registered;
        let draws = match node.user_rates.check(user, charges::of_command(&command)) {
            Some(Allowance::Granted) => false,
            Some(Allowance::Wait(wait_ms)) => {
                return Started::Ended(Finished::over_the_limit(wait_ms, reference));
            }
            None => true,
        };
        if !draws {
            node.metrics.command(command.name());
            if let Command::Ping { timestamp } = command {
                return Started::Ended(Finished { outcome: Outcome::Pinged(timestamp), reference });
            }
        }
        let at_once = !draws && (!self.is_live() || node.chat.takes_live_sends_at_once());
        let mut running = self.job(from).begin(command, reference, draws);
        match running.as_mut().poll(cx) {
            Poll::Ready(finished) => Started::Ended(finished),
            Poll::Pending => Started::Running(if at_once { concern } else { concern.not_at_once() }, running),
        }
    }

    /// Replies to a command that has ended.
    fn tell(&mut self, connection: &mut Connection, finished: Finished) {
        let Finished { outcome, reference } = finished;
        match outcome {
            Outcome::Answered(result) => connection.answer(*result, reference.as_deref()),
            Outcome::Pinged(timestamp) => connection.reply(&pong(timestamp), reference.as_deref()),
            Outcome::Checked(result) => self.refreshed(connection, result, reference.as_deref()),
            Outcome::Rejected(reason) => connection.reject(reason, reference.as_deref()),
        }
    }

    fn job(&self, from: AddressKey) -> Job {
        let Registered { node, user, queue, .. } = &self.registered;
        let asker = Asker {
            user: user.clone(),
            admin: self.admin,
            live: self.is_live(),
            dialect: self.registered.queue.wire().dialect.subprotocol(),
        };
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

/// Sends a new connection the events after `auth_success`, and tells others that the user is here. While the store is away,
/// the connection goes without them.
async fn greet(node: Arc<Node>, user: UserId, queue: Arc<SendQueue>) {
    node.chat.flush_names().await;
    // The flat dialects have no frame for it.
    let status = queue.wire().dialect == Dialect::Chat;
    match node.chat.arrived(&user, status).await {
        Ok(Some(event)) => drop(queue.push_reply(event_on(queue.wire(), &event))),
        Ok(None) => {}
        Err(error) => tracing::debug!(%user, %error, "an arrival could not be announced"),
    }
}
