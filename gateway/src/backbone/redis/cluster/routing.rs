//! Routes commands to their server: by the slot of their key, and after redirections.
//!
//! A refused command was certainly not carried out, so it is retried for a while. A command without a reply is not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value, cmd, from_redis_value};

use super::slots::{Slot, key_of, slot_of};
use super::{Cluster, MasterId, Member};
use crate::backbone::BackboneError;
use crate::backbone::redis::connect::server::{Fault, failed};
use crate::backbone::redis::link::Replies;
use crate::backbone::redis::scripts::Scripts;

/// How long redirections are followed, and commands for a migrating slot retried.
const FOLLOW_MAX: Duration = Duration::from_secs(1);

/// The pause before a command is retried at a server that could not answer yet.
const PAUSE: Duration = Duration::from_millis(20);

/// After a wait in vain, a slot is not waited for again for so long: others' commands may stand behind it.
const TROUBLED: Duration = Duration::from_secs(2);

/// The action after a refusal.
enum Next {
    /// Ask this one, only this time.
    Ask(Arc<Member>),
    /// Retry at the master that has the slot now.
    Again,
    /// The same after a pause.
    Later,
    /// It's the answer.
    Never,
}

/// Why a command has no reply.
struct NoReply {
    fault: BackboneError,
    /// Its server was away: certainly nothing was done.
    unsent: bool,
}

/// A command of a pipeline that has no answer yet.
struct Open {
    place: usize,
    ask: Option<Arc<Member>>,
}

impl Cluster {
    /// Runs one command, or a script.
    pub(in crate::backbone::redis) async fn run<T: FromRedisValue>(
        &self,
        scripts: &Scripts,
        command: &Cmd,
    ) -> Result<T, BackboneError> {
        let slot = key_of(command).map(slot_of);
        let until = Instant::now() + FOLLOW_MAX;
        let (mut ask, mut is_first): (Option<Arc<Member>>, bool) = (None, true);
        loop {
            let member = self.at(slot)?;
            if !std::mem::take(&mut is_first) && ask.is_none() && member.is_away() && Instant::now() < until {
                // Not asked yet: its connection is on the way.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let reply = match &ask {
                Some(member) => asking(member, command).await,
                None => member.server.run_script(scripts, command).await,
            };
            let error = match reply {
                Ok(value) => return from_redis_value(value).map_err(|error| failed(error.into())),
                Err(Fault::Refused(error)) => error,
                Err(Fault::Lost(fault)) => return Err(fault),
            };
            let next = self.after(&error, slot);
            if matches!(next, Next::Never) || (Instant::now() >= until && self.give_up(slot)) {
                return Err(failed(error));
            }
            if matches!(next, Next::Later) {
                tokio::time::sleep(PAUSE).await;
            }
            ask = if let Next::Ask(member) = next { Some(member) } else { None };
        }
    }

    /// Runs one script at the master of its slot, without redirections; `None` if the slot isn't there, or migrates.
    pub(in crate::backbone::redis) async fn run_in_place<T: FromRedisValue>(
        &self,
        scripts: &Scripts,
        call: &Cmd,
    ) -> Result<Option<T>, BackboneError> {
        let slot = key_of(call).map(slot_of);
        match self.at(slot)?.server.run_script(scripts, call).await {
            Ok(value) => Ok(Some(value)),
            Err(Fault::Refused(error)) if !matches!(self.after(&error, slot), Next::Never) => Ok(None),
            Err(fault) => Err(fault.told()),
        }
    }

    /// Runs a pipeline. Commands with the same key are carried out in their order.
    pub(in crate::backbone::redis) async fn run_pipeline(&self, pipeline: &Pipeline) -> Replies {
        let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
        let mut replies = Replies { values: vec![Value::Nil; commands.len()], ..Replies::default() };
        let mut open: Vec<Open> = (0..commands.len()).map(|place| Open { place, ask: None }).collect();
        let until = Instant::now() + FOLLOW_MAX;
        let mut is_first = true;
        while !open.is_empty() {
            let in_time = Instant::now() < until;
            // Refused commands are retried one by one: the next of a key only when the one before is done.
            let (now, later) = if is_first { (open, Vec::new()) } else { first_of_each_key(open, &commands) };
            open = later;
            let mut pause = false;
            for (place, reply) in self.send(&commands, now).await {
                let Some(command) = commands.get(place) else { continue };
                let again = match &reply {
                    Ok(Value::ServerError(error)) => self.again(error.clone().into(), command, in_time, &mut pause),
                    Err(NoReply { unsent: true, .. }) if in_time && !is_first => {
                        pause = true;
                        Some(None)
                    }
                    Ok(_) | Err(_) => None,
                };
                match (again, reply) {
                    (Some(ask), _) => open.push(Open { place, ask }),
                    (None, Ok(value)) => replies.set(place, value),
                    (None, Err(NoReply { fault, .. })) => drop(replies.lost.insert(place, fault)),
                }
            }
            open.sort_unstable_by_key(|open| open.place);
            is_first = false;
            if pause && !open.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        replies
    }

    fn again(&self, error: RedisError, command: &Cmd, in_time: bool, pause: &mut bool) -> Option<Option<Arc<Member>>> {
        let slot = key_of(command).map(slot_of);
        let next = self.after(&error, slot);
        if matches!(next, Next::Never) || (!in_time && self.give_up(slot)) {
            return None;
        }
        *pause |= matches!(next, Next::Later);
        Some(if let Next::Ask(member) = next { Some(member) } else { None })
    }

    /// Sends each command to its server, all servers at the same time.
    async fn send(&self, commands: &[&Cmd], open: Vec<Open>) -> Vec<(usize, Result<Value, NoReply>)> {
        let mut done = Vec::with_capacity(open.len());
        let mut parts: BTreeMap<MasterId, Part> = BTreeMap::new();
        for Open { place, ask } in open {
            let Some(command) = commands.get(place) else { continue };
            let is_asking = ask.is_some();
            let member = ask.map_or_else(|| self.at(key_of(command).map(slot_of)), Ok);
            match member.and_then(|member| member.server.live().map(|_| member)) {
                Ok(member) => {
                    let part = parts.entry(member.lane).or_insert_with(|| Part::new(member));
                    part.add(place, command, is_asking);
                }
                Err(fault) => done.push((place, Err(NoReply { fault, unsent: true }))),
            }
        }
        for replies in join_all(parts.into_values().map(Part::send)).await {
            done.extend(replies);
        }
        done
    }

    fn at(&self, slot: Option<Slot>) -> Result<Arc<Member>, BackboneError> {
        slot.map_or_else(|| self.any(), |slot| self.owner_of(slot))
    }

    /// The action for a refusal.
    fn after(&self, error: &RedisError, slot: Option<Slot>) -> Next {
        let ErrorKind::Server(kind) = error.kind() else { return Next::Never };
        match kind {
            ServerErrorKind::Moved => match error.redirect_node() {
                Some((address, slot)) if self.moved(slot, address) => Next::Again,
                _ => self.look_and_wait(),
            },
            ServerErrorKind::Ask => match error.redirect_node().and_then(|(address, _)| self.named(address)) {
                Some(member) => Next::Ask(member),
                None => self.look_and_wait(),
            },
            ServerErrorKind::TryAgain if slot.is_some_and(|slot| self.is_troubled(slot)) => Next::Never,
            ServerErrorKind::TryAgain => Next::Later,
            ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly => match slot {
                Some(slot) if self.is_troubled(slot) => Next::Never,
                _ => self.look_and_wait(),
            },
            _ => Next::Never,
        }
    }

    fn look_and_wait(&self) -> Next {
        self.look_again.notify_one();
        Next::Later
    }

    /// A server reports the slot's master. Returns whether that master is known.
    pub(super) fn moved(&self, slot: Slot, address: &str) -> bool {
        let Some(member) = self.named(address) else { return false };
        if self.assign(slot, member.lane) {
            // Its subscriptions follow.
            self.look_again.notify_one();
        }
        true
    }

    fn named(&self, address: &str) -> Option<Arc<Member>> {
        let members = self.members.read();
        members.iter().find(|member| member.names.read().iter().any(|name| name == address)).cloned()
    }

    fn is_troubled(&self, slot: Slot) -> bool {
        self.troubled.lock().get(&slot).is_some_and(|since| since.elapsed() < TROUBLED)
    }

    fn give_up(&self, slot: Option<Slot>) -> bool {
        let mut troubled = self.troubled.lock();
        troubled.retain(|_, since| since.elapsed() < TROUBLED);
        troubled.extend(slot.map(|slot| (slot, Instant::now())));
        true
    }
}

/// One server's part of a pipeline.
struct Part {
    member: Arc<Member>,
    pipeline: Pipeline,
    /// The commands' places, and whether `ASKING` stands before them.
    places: Vec<(usize, bool)>,
}

impl Part {
    fn new(member: Arc<Member>) -> Self {
        Self { member, pipeline: Pipeline::new(), places: Vec::new() }
    }

    fn add(&mut self, place: usize, command: &Cmd, is_asking: bool) {
        if is_asking {
            self.pipeline.add_command(cmd("ASKING"));
        }
        self.pipeline.add_command(command.clone());
        self.places.push((place, is_asking));
    }

    async fn send(self) -> Vec<(usize, Result<Value, NoReply>)> {
        let lost = |fault| NoReply { fault, unsent: false };
        let mut replies = self.member.server.run_pipeline(&self.pipeline).await.map(Vec::into_iter);
        let mut reply = |is_asking: bool| match &mut replies {
            Ok(replies) => {
                let reply = replies.nth(usize::from(is_asking));
                reply.ok_or_else(|| lost(BackboneError("Redis returned too few replies".to_owned())))
            }
            Err(fault) => Err(lost(fault.clone())),
        };
        self.places.into_iter().map(|(place, is_asking)| (place, reply(is_asking))).collect()
    }
}

/// Runs one command on a server to which its slot is on the way.
async fn asking(member: &Member, command: &Cmd) -> Result<Value, Fault> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.add_command(cmd("ASKING"));
    pipeline.add_command(command.clone());
    match member.server.run_pipeline(&pipeline).await.map_err(Fault::Lost)?.pop() {
        Some(Value::ServerError(error)) => Err(Fault::Refused(error.into())),
        Some(value) => Ok(value),
        None => Err(Fault::Lost(BackboneError("Redis returned no reply".to_owned()))),
    }
}

fn first_of_each_key(open: Vec<Open>, commands: &[&Cmd]) -> (Vec<Open>, Vec<Open>) {
    let mut keys = HashSet::new();
    open.into_iter().partition(|open| match commands.get(open.place).and_then(|command| key_of(command)) {
        Some(key) => keys.insert(key),
        None => true,
    })
}
