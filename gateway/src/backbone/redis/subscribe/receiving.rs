//! The subscribing connection, without the crate's connection type, for two reasons.
//!
//! When a slot of a Cluster moves, Redis sends an unrequested `sunsubscribe` and goes on. The crate's connection would
//! take it for the reply to a command, and every later reply for another command's. Also, pushed messages go from the
//! socket's buffer to the inbox without a copy; the crate would make values of them first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use redis::{Cmd, ConnectionInfo, ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value, ValueCodec, cmd};
use shared::redis_keys::Keys;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::Decoder;
use tokio_util::task::AbortOnDropHandle;

use super::channel::Channel;
use super::inbound::Inbound;
use super::pushed::Message;
use crate::backbone::redis::cluster::{Slot, slot_of};
use crate::backbone::redis::connect::connection::{CONNECT_MAX, RESPONSE_MAX};
use crate::backbone::redis::connect::transport::{self, Tls, Transport};

/// Requests that wait for the socket.
const REQUESTS_MAX: usize = 64;

/// Room for what one reading brings.
const READ_BYTES: usize = 64 * 1024;

/// The connection; ends when dropped.
pub(in crate::backbone::redis) struct PushConnection {
    channels: Channels,
    keys: Keys,
    requests: mpsc::Sender<Request>,
    _task: AbortOnDropHandle<()>,
}

/// Commands in one packet, and what each of them waits for.
struct Request {
    packet: Vec<u8>,
    awaited: Vec<PendingCommand>,
}

/// The replies that a command waits for: its confirmations, or one reply. An error replaces either.
struct PendingCommand {
    what: Expectation,
    done: oneshot::Sender<RedisResult<()>>,
}

enum Expectation {
    /// So many confirmations of subscriptions.
    Subscribed(usize),
    /// Confirmations that these channels were left.
    Left(HashSet<Vec<u8>>),
    Reply,
}

/// Of which kind the channels of users and large conversations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backbone::redis) enum Channels {
    /// One server's.
    Plain,
    /// A Cluster's: each on the master of its slot.
    Sharded,
}

type PendingCommands = Arc<Mutex<VecDeque<PendingCommand>>>;

/// A slot whose channels could not be subscribed.
pub(in crate::backbone::redis) struct SlotRefusal {
    pub(in crate::backbone::redis) channels: Vec<Channel>,
    pub(in crate::backbone::redis) error: RedisError,
}

impl PushConnection {
    /// Connects under `name`; what is received goes to `inbound`.
    pub(in crate::backbone::redis) async fn connect(
        (server, tls): (&ConnectionInfo, Option<&Tls>),
        name: &str,
        channels: Channels,
        inbound: Inbound,
    ) -> RedisResult<Self> {
        let wire = timeout(CONNECT_MAX, transport::connect(server.addr(), tls));
        let (reading, writing) = tokio::io::split(wire.await.map_err(|_| slow())??);
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let waiting = PendingCommands::default();
        let keys = inbound.keys.clone();
        let task = tokio::spawn(async move {
            let lost = inbound.lost.clone();
            tokio::select! {
                () = read(reading, &inbound, &waiting) => {}
                () = write(writing, requests, &waiting) => {}
            }
            // The dropped sender tells the waiting callers.
            waiting.lock().clear();
            lost.cancel();
        });
        let connection = Self { channels, keys, requests: sender, _task: AbortOnDropHandle::new(task) };
        let login = server.redis_settings();
        let mut hello = cmd("HELLO");
        hello.arg(3);
        if let Some(password) = login.password() {
            hello.arg("AUTH").arg(login.username().unwrap_or("default")).arg(password);
        }
        connection.ask(hello.arg("SETNAME").arg(name)).await?;
        Ok(connection)
    }

    /// Subscribes to plain channels.
    pub(in crate::backbone::redis) async fn subscribe_plain(&self, channels: &[String]) -> RedisResult<()> {
        let command = cmd("SUBSCRIBE").arg(channels).to_owned();
        self.run(vec![(command, Expectation::Subscribed(channels.len()))]).await?.into_iter().collect()
    }

    /// Subscribes to channels and waits for all confirmations; those that the server refused, because their slot is
    /// another's.
    pub(in crate::backbone::redis) async fn subscribe(&self, channels: Vec<Channel>) -> RedisResult<Vec<SlotRefusal>> {
        let command = |group: &Vec<Channel>| {
            let channels: Vec<String> = group.iter().map(|channel| channel.name(&self.keys)).collect();
            let name = if self.channels == Channels::Sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" };
            (cmd(name).arg(&channels).to_owned(), Expectation::Subscribed(group.len()))
        };
        if self.channels == Channels::Plain {
            let subscribed: RedisResult<()> = self.run(vec![command(&channels)]).await?.into_iter().collect();
            return subscribed.map(|()| Vec::new());
        }
        let mut slots: HashMap<Slot, Vec<Channel>> = HashMap::new();
        for channel in channels {
            slots.entry(slot_of(channel.name(&self.keys).as_bytes())).or_default().push(channel);
        }
        let groups: Vec<Vec<Channel>> = slots.into_values().collect();
        let outcomes = self.run(groups.iter().map(command).collect()).await?;
        let refused = groups.into_iter().zip(outcomes);
        Ok(refused.filter_map(|(channels, outcome)| Some(SlotRefusal { channels, error: outcome.err()? })).collect())
    }

    /// Leaves channels. Those of a slot that has moved are left already.
    pub(in crate::backbone::redis) async fn unsubscribe(&self, channels: &[Channel]) -> RedisResult<()> {
        let mut commands: HashMap<Slot, Vec<String>> = HashMap::new();
        let (name, is_sharded) = match self.channels {
            Channels::Plain => ("UNSUBSCRIBE", false),
            Channels::Sharded => ("SUNSUBSCRIBE", true),
        };
        for channel in channels.iter().map(|channel| channel.name(&self.keys)) {
            let slot = if is_sharded { slot_of(channel.as_bytes()) } else { 0 };
            commands.entry(slot).or_default().push(channel);
        }
        let command = |channels: Vec<String>| {
            let command = cmd(name).arg(&channels).to_owned();
            (command, Expectation::Left(channels.into_iter().map(String::into_bytes).collect()))
        };
        self.run(commands.into_values().map(command).collect()).await.map(drop)
    }

    /// Leaves a channel to which nobody has subscribed, to see whether that is allowed.
    pub(in crate::backbone::redis) async fn try_leaving(&self, channel: String) -> RedisResult<()> {
        let name = if self.channels == Channels::Sharded { "SUNSUBSCRIBE" } else { "UNSUBSCRIBE" };
        let command = cmd(name).arg(&channel).to_owned();
        let outcomes = self.run(vec![(command, Expectation::Left(HashSet::from([channel.into_bytes()])))]).await?;
        // In a Cluster the channel's slot may be another server's.
        outcomes
            .into_iter()
            .find(|outcome| matches!(outcome, Err(error) if error.code() == Some("NOPERM")))
            .unwrap_or(Ok(()))
    }

    /// Whether the server answers.
    pub(in crate::backbone::redis) async fn ping(&self) -> RedisResult<()> {
        self.ask(&cmd("PING")).await
    }

    async fn ask(&self, command: &Cmd) -> RedisResult<()> {
        self.run(vec![(command.clone(), Expectation::Reply)]).await?.into_iter().collect()
    }

    /// Sends commands and waits for all of their outcomes.
    async fn run(&self, commands: Vec<(Cmd, Expectation)>) -> RedisResult<Vec<RedisResult<()>>> {
        let (mut packet, mut awaited, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for (command, what) in commands {
            let (done, outcome) = oneshot::channel();
            packet.extend_from_slice(&command.get_packed_command());
            awaited.push(PendingCommand { what, done });
            outcomes.push(outcome);
        }
        let all = async {
            self.requests.send(Request { packet, awaited }).await.map_err(|_| gone())?;
            let mut all = Vec::with_capacity(outcomes.len());
            for outcome in outcomes {
                all.push(outcome.await.map_err(|_| gone())?);
            }
            Ok(all)
        };
        timeout(RESPONSE_MAX, all).await.map_err(|_| slow())?
    }
}

async fn write(
    mut writing: WriteHalf<Box<dyn Transport>>,
    mut requests: mpsc::Receiver<Request>,
    waiting: &PendingCommands,
) {
    while let Some(Request { packet, awaited }) = requests.recv().await {
        waiting.lock().extend(awaited);
        if writing.write_all(&packet).await.is_err() || writing.flush().await.is_err() {
            return;
        }
    }
}

async fn read(mut reading: ReadHalf<Box<dyn Transport>>, inbound: &Inbound, waiting: &PendingCommands) {
    let mut buffer = BytesMut::new();
    let (mut codec, mut is_begun) = (ValueCodec::default(), false);
    loop {
        while !buffer.is_empty() {
            if !is_begun && let Some(Message { channel, payload, rest }) = Message::first(&buffer) {
                inbound.message(channel, payload);
                let rest_bytes = rest.len();
                buffer.advance(buffer.len() - rest_bytes);
                continue;
            }
            match codec.decode(&mut buffer) {
                Ok(Some(value)) => received(value, inbound, waiting),
                // The codec remembers what it has read of the value.
                Ok(None) => {
                    is_begun = true;
                    break;
                }
                Err(_) => return,
            }
            is_begun = false;
        }
        buffer.reserve(READ_BYTES);
        if !matches!(reading.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

fn received(value: Value, inbound: &Inbound, waiting: &PendingCommands) {
    match value {
        Value::Push { kind, data } => pushed(PushInfo { kind, data }, inbound, waiting),
        Value::ServerError(error) => answered(waiting, Err(error.into())),
        _ => answered(waiting, Ok(())),
    }
}

fn pushed(push: PushInfo, inbound: &Inbound, waiting: &PendingCommands) {
    let channel = match push.data.first() {
        Some(Value::BulkString(channel)) => &**channel,
        _ => &[],
    };
    let mut queue = waiting.lock();
    let (is_done, is_asked) = match (&push.kind, queue.front_mut().map(|first| &mut first.what)) {
        (PushKind::Subscribe | PushKind::SSubscribe, Some(Expectation::Subscribed(left))) => {
            *left = left.saturating_sub(1);
            (*left == 0, true)
        }
        (PushKind::Unsubscribe | PushKind::SUnsubscribe, Some(Expectation::Left(channels))) => {
            let is_asked = channels.remove(channel);
            (channels.is_empty(), is_asked)
        }
        _ => (false, false),
    };
    let done = if is_done { queue.pop_front() } else { None };
    drop(queue);
    if push.kind == PushKind::SUnsubscribe {
        if !is_asked {
            inbound.evicted(channel);
        }
    } else {
        inbound.receive(push);
    }
    if let Some(PendingCommand { done, .. }) = done {
        // A caller that stopped waiting needs no answer.
        let _ = done.send(Ok(()));
    }
}

fn answered(waiting: &PendingCommands, outcome: RedisResult<()>) {
    let first = waiting.lock().pop_front();
    if let Some(PendingCommand { done, .. }) = first {
        let _ = done.send(outcome);
    }
}

fn gone() -> RedisError {
    RedisError::from((ErrorKind::Io, "the connection was closed"))
}

fn slow() -> RedisError {
    RedisError::from((ErrorKind::Io, "it does not answer"))
}
