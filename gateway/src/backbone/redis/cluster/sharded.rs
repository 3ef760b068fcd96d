//! A subscribing connection to one master, kept by hand: when a slot moves, Redis sends `sunsubscribe` of its own accord and
//! goes on, and the crate's connection would take that for the reply to a command, and every later reply for another's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value, ValueCodec, cmd};
use shared::UserId;
use shared::schema::user_channel;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::task::AbortOnDropHandle;

use super::slots::{Slot, slot_of};
use super::wire::{self, Tls, Wire};
use crate::backbone::redis::inbound::Inbound;

/// Requests that wait for the socket.
const REQUESTS_MAX: usize = 64;

/// The connection; ends when dropped.
pub(in crate::backbone::redis) struct Sharded {
    requests: mpsc::Sender<Request>,
    /// For any reply.
    within: Duration,
    _task: AbortOnDropHandle<()>,
}

/// Commands in one packet, and what each of them waits for.
struct Request {
    packet: Vec<u8>,
    awaited: Vec<Awaited>,
}

/// What a command waits for: its confirmations, or one reply; an error comes instead of either.
struct Awaited {
    what: What,
    done: oneshot::Sender<RedisResult<()>>,
}

enum What {
    /// So many confirmations of subscriptions.
    Subscribed(usize),
    /// Confirmations that these channels were left.
    Left(HashSet<Vec<u8>>),
    Reply,
}

type Waiting = Arc<Mutex<VecDeque<Awaited>>>;

/// A slot whose channels could not be subscribed.
pub(in crate::backbone::redis) struct Refused {
    pub(in crate::backbone::redis) users: Vec<UserId>,
    pub(in crate::backbone::redis) error: RedisError,
}

/// Where to connect, and as whom.
pub(in crate::backbone::redis) struct Door<'a> {
    pub(in crate::backbone::redis) host: &'a str,
    pub(in crate::backbone::redis) port: u16,
    pub(in crate::backbone::redis) username: Option<&'a str>,
    pub(in crate::backbone::redis) password: Option<&'a str>,
    pub(in crate::backbone::redis) tls: Option<&'a Tls>,
}

impl Sharded {
    /// Connects under `name`; what is received goes to `inbound`.
    pub(in crate::backbone::redis) async fn connect(
        door: Door<'_>,
        name: &str,
        inbound: Inbound,
        (connect_within, within): (Duration, Duration),
    ) -> RedisResult<Self> {
        let wire = timeout(connect_within, wire::connect(door.host, door.port, door.tls));
        let (reading, writing) = tokio::io::split(wire.await.map_err(|_| slow())??);
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let waiting = Waiting::default();
        let task = tokio::spawn(async move {
            let lost = inbound.lost.clone();
            tokio::select! {
                () = read(reading, &inbound, &waiting) => {}
                () = write(writing, requests, &waiting) => {}
            }
            // Whoever waits for an answer is told by the dropped sender.
            waiting.lock().clear();
            lost.cancel();
        });
        let connection = Self { requests: sender, within, _task: AbortOnDropHandle::new(task) };
        let mut hello = cmd("HELLO");
        hello.arg(3);
        if let Some(password) = door.password {
            hello.arg("AUTH").arg(door.username.unwrap_or("default")).arg(password);
        }
        connection.ask(hello.arg("SETNAME").arg(name)).await?;
        Ok(connection)
    }

    /// Subscribes to plain channels.
    pub(in crate::backbone::redis) async fn subscribe_plain(&self, channels: &[&str]) -> RedisResult<()> {
        let command = cmd("SUBSCRIBE").arg(channels).to_owned();
        self.run(vec![(command, What::Subscribed(channels.len()))]).await?.into_iter().collect()
    }

    /// Subscribes to users' channels, one command a slot; which of them the server refused.
    pub(in crate::backbone::redis) async fn subscribe(&self, users: Vec<UserId>) -> RedisResult<Vec<Refused>> {
        let mut slots: HashMap<Slot, Vec<UserId>> = HashMap::new();
        for user in users {
            slots.entry(slot_of(user_channel(&user).as_bytes())).or_default().push(user);
        }
        let command = |users: &Vec<UserId>| {
            let channels: Vec<String> = users.iter().map(user_channel).collect();
            (cmd("SSUBSCRIBE").arg(&channels).to_owned(), What::Subscribed(users.len()))
        };
        let groups: Vec<Vec<UserId>> = slots.into_values().collect();
        let outcomes = self.run(groups.iter().map(command).collect()).await?;
        let refused = groups.into_iter().zip(outcomes);
        Ok(refused.filter_map(|(users, outcome)| Some(Refused { users, error: outcome.err()? })).collect())
    }

    /// Leaves users' channels. Of a slot that has moved they are left already.
    pub(in crate::backbone::redis) async fn unsubscribe(&self, users: &[UserId]) -> RedisResult<()> {
        let mut slots: HashMap<Slot, Vec<String>> = HashMap::new();
        for channel in users.iter().map(user_channel) {
            slots.entry(slot_of(channel.as_bytes())).or_default().push(channel);
        }
        let command = |channels: Vec<String>| {
            let command = cmd("SUNSUBSCRIBE").arg(&channels).to_owned();
            (command, What::Left(channels.into_iter().map(String::into_bytes).collect()))
        };
        self.run(slots.into_values().map(command).collect()).await.map(drop)
    }

    /// Whether the server answers.
    pub(in crate::backbone::redis) async fn ping(&self) -> RedisResult<()> {
        self.ask(&cmd("PING")).await
    }

    async fn ask(&self, command: &Cmd) -> RedisResult<()> {
        self.run(vec![(command.clone(), What::Reply)]).await?.into_iter().collect()
    }

    /// Sends commands and waits for all of their outcomes.
    async fn run(&self, commands: Vec<(Cmd, What)>) -> RedisResult<Vec<RedisResult<()>>> {
        let (mut packet, mut awaited, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for (command, what) in commands {
            let (done, outcome) = oneshot::channel();
            packet.extend_from_slice(&command.get_packed_command());
            awaited.push(Awaited { what, done });
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
        timeout(self.within, all).await.map_err(|_| slow())?
    }
}

async fn write(mut writing: WriteHalf<Box<dyn Wire>>, mut requests: mpsc::Receiver<Request>, waiting: &Waiting) {
    while let Some(Request { packet, awaited }) = requests.recv().await {
        waiting.lock().extend(awaited);
        if writing.write_all(&packet).await.is_err() || writing.flush().await.is_err() {
            return;
        }
    }
}

async fn read(reading: ReadHalf<Box<dyn Wire>>, inbound: &Inbound, waiting: &Waiting) {
    let mut values = FramedRead::new(reading, ValueCodec::default());
    while let Some(Ok(value)) = values.next().await {
        match value {
            Value::Push { kind, data } => pushed(PushInfo { kind, data }, inbound, waiting),
            Value::ServerError(error) => answered(waiting, Err(error.into())),
            _ => answered(waiting, Ok(())),
        }
    }
}

fn pushed(push: PushInfo, inbound: &Inbound, waiting: &Waiting) {
    let channel = match push.data.first() {
        Some(Value::BulkString(channel)) => &**channel,
        _ => &[],
    };
    let mut queue = waiting.lock();
    let (is_done, is_asked) = match (&push.kind, queue.front_mut().map(|first| &mut first.what)) {
        (PushKind::Subscribe | PushKind::SSubscribe, Some(What::Subscribed(left))) => {
            *left = left.saturating_sub(1);
            (*left == 0, true)
        }
        (PushKind::Unsubscribe | PushKind::SUnsubscribe, Some(What::Left(channels))) => {
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
    if let Some(Awaited { done, .. }) = done {
        // Whoever stopped waiting needs no answer.
        let _ = done.send(Ok(()));
    }
}

fn answered(waiting: &Waiting, outcome: RedisResult<()>) {
    let first = waiting.lock().pop_front();
    if let Some(Awaited { done, .. }) = first {
        let _ = done.send(outcome);
    }
}

fn gone() -> RedisError {
    RedisError::from((ErrorKind::Io, "the connection was closed"))
}

fn slow() -> RedisError {
    RedisError::from((ErrorKind::Io, "it does not answer"))
}
