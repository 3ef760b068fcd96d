//! Everything that can happen, chosen by a seed.

use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use gateway::backbone::check_resume;
use gateway::delivery::heal::resync;
use gateway::delivery::registry::JoinOutcome;
use gateway::delivery::send_queue::Batch;
use gateway::ws::frame::frame_text;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::event::ResyncReason;
use shared::{MessageId, Wire};

use super::backbone::{Backbone, Place, body};
use super::client::{Client, Stage};
use super::node::{Link, Node};
use super::user;

const NODES: usize = 2;
const CLIENTS: usize = 3;
/// Bytes that may wait for a socket: two events, some ten, and any number.
const BYTES_MAX: [u32; 3] = [400, 1_600, 1 << 20];
/// Rounds within which everything has to come to rest.
const ROUNDS: usize = 500;

/// A publication whose outcome its node doesn't know.
struct Uncertain {
    message: u64,
    /// The end of the newest log at its commit.
    committed: Place,
    node: usize,
    tried_at: Instant,
    is_direct: bool,
}

/// Two nodes, one user's log, and that user's clients.
pub(crate) struct World {
    random: StdRng,
    print: bool,
    backbone: Backbone,
    nodes: [Node; NODES],
    clients: Vec<Client>,
    connections: u64,
    /// The number of the last message in the store.
    committed: u64,
    uncertain: Vec<Uncertain>,
}

impl World {
    pub(crate) fn new(seed: u64, print: bool) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            print,
            backbone: Backbone::new(),
            nodes: std::array::from_fn(|_| Node::new()),
            clients: Vec::new(),
            connections: 0,
            committed: 0,
            uncertain: Vec::new(),
        };
        for _ in 0..CLIENTS {
            let (node, bytes_max) = (world.any_node(), world.any_budget());
            world.connections += 1;
            world.connect(Client::new(node, world.connections, bytes_max));
        }
        world
    }

    /// Something happens.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        let (node, client) = (self.any_node(), self.random.random_range(0..CLIENTS));
        match self.random.random_range(0..100) {
            0..20 => self.publish(),
            20..42 => self.arrive(node),
            42..45 => self.lose_push(node),
            45..48 => self.double_push(node),
            48..50 => {
                let arriving = self.random.random_range(0..4);
                self.tell(|| format!("node {node} is cut off, {arriving} pushes still arrive"));
                self.nodes[node].cut(arriving);
            }
            50..53 => self.notice(node),
            53..57 => self.reconnect(node),
            57..58 => self.change_server(),
            58..59 => self.lose_log(),
            59..60 => {
                let place = self.random.random_range(0..8);
                self.tell(|| format!("entry {place} of the log is deleted, if it may be"));
                let may_come_again = |id| self.uncertain.iter().any(|uncertain| uncertain.message == id);
                self.backbone.lose_entry(place, may_come_again);
            }
            60..75 => {
                self.heal_step(node);
            }
            75..87 => self.read(client)?,
            87..89 => self.resume(client),
            89..94 => self.join_step(client),
            94..95 => {
                self.tell(|| format!("node {node} checks the log"));
                self.nodes[node].fanout.request_heal(&user());
            }
            95..97 => self.publish_uncertainly(node),
            97..98 => self.deliver_directly(),
            _ => self.redo(),
        }
        Ok(())
    }

    /// Everything that can go on does, and nothing new happens: then every client has everything.
    pub(crate) fn come_to_rest(&mut self) -> Result<(), String> {
        self.tell(|| "nothing new happens from here on".to_owned());
        for node in 0..NODES {
            self.notice(node);
            self.reconnect(node);
            self.reconnect(node);
        }
        while !self.uncertain.is_empty() {
            self.redo();
        }
        self.settle()?;
        // Losses that nothing has shown are found by the regular check of every log.
        self.nodes.iter().for_each(|node| node.fanout.request_heal(&user()));
        self.settle()?;
        for (client, number) in self.clients.iter().zip(0..) {
            client.has_all(&self.backbone, self.committed).map_err(|fault| format!("client {number} {fault}"))?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            let mut is_busy = false;
            for node in 0..NODES {
                while self.nodes[node].arrive() {
                    is_busy = true;
                }
                while self.heal_step(node) && !self.random.random_ratio(1, 8) {
                    is_busy = true;
                }
                is_busy |= self.nodes[node].is_healing();
            }
            for client in 0..CLIENTS {
                if !matches!(self.clients[client].stage, Stage::Live) {
                    is_busy = true;
                    self.join_step(client);
                }
                self.read(client)?;
            }
            if !is_busy {
                return Ok(());
            }
        }
        Err("it doesn't come to rest".to_owned())
    }

    fn any_node(&mut self) -> usize {
        self.random.random_range(0..NODES)
    }

    fn any_budget(&mut self) -> u32 {
        BYTES_MAX[self.random.random_range(0..BYTES_MAX.len())]
    }

    #[expect(clippy::print_stdout, reason = "the steps are what one repeats a seed for")]
    fn tell(&self, step: impl FnOnce() -> String) {
        if self.print {
            println!("{}", step());
        }
    }

    /// A payload goes out to every node that is subscribed.
    fn send(&mut self, payload: Option<Bytes>) {
        let Some(payload) = payload else { return };
        for node in self.nodes.iter_mut().filter(|node| node.link == Link::Up) {
            node.on_the_way.push_back((self.backbone.end(), payload.clone()));
        }
    }

    /// A read opened the log: nodes are told if there are several, for the one that asked sees it.
    fn announce(&mut self, line: Option<Bytes>) {
        if self.nodes.iter().filter(|node| node.link == Link::Up).count() > 1 {
            self.send(line);
        }
    }

    fn is_subscribed(&self) -> bool {
        self.nodes.iter().any(|node| node.link == Link::Up)
    }

    fn append(&mut self, message: u64) {
        let payload = self.backbone.append(message, self.is_subscribed());
        self.publish_payload(message, payload);
    }

    fn publish_payload(&mut self, message: u64, payload: Option<Bytes>) {
        self.tell(|| match &payload {
            Some(payload) => format!("published: {}", String::from_utf8_lossy(payload)),
            None => format!("message {message}: nothing is published"),
        });
        self.send(payload);
    }

    fn publish(&mut self) {
        self.committed += 1;
        self.append(self.committed);
    }

    /// The publication may have been carried out; its node doesn't get to know.
    fn publish_uncertainly(&mut self, node: usize) {
        self.committed += 1;
        let message = self.committed;
        self.tell(|| format!("node {node} doesn't get to know whether message {message} was published"));
        let (tried_at, committed) = (Instant::now(), self.backbone.end());
        self.uncertain.push(Uncertain { message, committed, node, tried_at, is_direct: false });
        if self.random.random() {
            self.append(message);
        }
    }

    /// A node hands a message of uncertain outcome to its sockets.
    fn deliver_directly(&mut self) {
        let Some(at) = self.uncertain.iter().position(|uncertain| !uncertain.is_direct) else { return };
        let Uncertain { message, node, tried_at, is_direct, .. } = &mut self.uncertain[at];
        *is_direct = true;
        let id = MessageId::new(*message).expect("an id");
        self.nodes[*node].fanout.deliver_direct(&user(), id, body(*message).as_bytes(), *tried_at);
        let (message, node) = (*message, *node);
        self.tell(|| format!("node {node} delivers message {message} directly"));
    }

    fn redo(&mut self) {
        if !self.uncertain.is_empty() {
            let at = self.random.random_range(0..self.uncertain.len());
            let Uncertain { message, committed, .. } = self.uncertain.remove(at);
            let doubts = self.random.random_ratio(1, 4);
            self.tell(|| format!("message {message} is published again"));
            let payload = self.backbone.redo(message, committed, doubts, self.is_subscribed());
            self.publish_payload(message, payload);
        }
    }

    fn arrive(&mut self, node: usize) {
        if self.nodes[node].arrive() {
            self.tell(|| format!("a push arrives at node {node}"));
        }
    }

    /// A push is lost without a trace. Not one of a log that has vanished meanwhile (see [`World::lose_log`]).
    fn lose_push(&mut self, node: usize) {
        let log = self.backbone.position().map(|_| self.backbone.end().0);
        let on_the_way = &mut self.nodes[node].on_the_way;
        if on_the_way.front().is_some_and(|((epoch, _), _)| Some(*epoch) == log) {
            on_the_way.pop_front();
            self.tell(|| format!("a push to node {node} is lost"));
        }
    }

    fn double_push(&mut self, node: usize) {
        let on_the_way = &mut self.nodes[node].on_the_way;
        if let Some(payload) = on_the_way.front().filter(|(_, payload)| payload.starts_with(b"{\"seq\"")).cloned() {
            on_the_way.push_front(payload);
            self.tell(|| format!("a push to node {node} is doubled"));
        }
    }

    fn notice(&mut self, node: usize) {
        self.tell(|| format!("node {node} notices a loss, if there is one"));
        self.nodes[node].notice();
    }

    fn reconnect(&mut self, node: usize) {
        self.tell(|| format!("node {node} subscribes again, if it knows that it has to"));
        self.nodes[node].reconnect();
    }

    /// Another server takes over without the log; every connection to the old one ends.
    fn change_server(&mut self) {
        self.tell(|| "another server takes over".to_owned());
        self.backbone.change_server();
        for node in 0..NODES {
            let arriving = self.random.random_range(0..4);
            self.nodes[node].cut(arriving);
        }
    }

    /// The log vanishes on its server.
    fn lose_log(&mut self) {
        self.tell(|| "the log vanishes".to_owned());
        self.backbone.lose_log();
    }

    fn heal_step(&mut self, node: usize) -> bool {
        let Some(line) = self.nodes[node].heal_step(&mut self.backbone) else { return false };
        self.tell(|| format!("the healer of node {node} takes a step"));
        self.announce(line);
        true
    }

    fn connect(&mut self, client: Client) {
        let registry = &self.nodes[client.node].registry;
        registry.add(&user(), client.connection, client.queue.clone(), u32::MAX).expect("room");
        self.clients.push(client);
    }

    /// A client closes its connection, and comes back to any node.
    fn resume(&mut self, client: usize) {
        let (node, bytes_max) = (self.any_node(), self.any_budget());
        self.connections += 1;
        self.tell(|| format!("client {client} connects to node {node}, as connection {}", self.connections));
        let old = self.clients.swap_remove(client);
        self.nodes[old.node].registry.remove(&user(), old.connection);
        self.connect(old.reconnected(node, self.connections, bytes_max));
        self.clients.swap(client, CLIENTS - 1);
    }

    /// As `session::join` does it: subscribed and in the registry, the connection reads the head of the log, then its gate
    /// opens.
    fn join_step(&mut self, client: usize) {
        let place = self.clients[client].node;
        match &self.clients[client].stage {
            Stage::Live => {}
            Stage::Registered if self.nodes[place].link == Link::Up => {
                let (head, line) = self.backbone.head();
                self.tell(|| format!("client {client} sees {head:?}"));
                self.announce(line);
                self.clients[client].stage = Stage::Entered(head);
            }
            Stage::Registered => {}
            Stage::Entered(head) if self.backbone.position().is_none_or(|position| position.epoch != head.epoch) => {
                // A log that is begun anew between these two steps is left out (NOLOSS.md, B1).
                self.clients[client].stage = Stage::Registered;
            }
            Stage::Entered(head) => {
                let head = head.clone();
                self.nodes[place].arrive_before(self.backbone.end());
                self.tell(|| format!("client {client} is let in"));
                let asked =
                    self.clients[client].position.as_ref().map(|asked| check_resume(asked, &head).map(|()| asked.seq));
                let (position, refused) = match asked {
                    None => (head.last, None),
                    Some(Ok(seq)) => (seq, None),
                    Some(Err(reason)) => (head.last, Some(reason)),
                };
                let resumed = matches!(asked, Some(Ok(_)));
                let epoch = head.epoch.as_str();
                let joined = format!(
                    r#"{{"type":"joined","payload":{{"epoch":"{epoch}","seq":{position},"resumed":{resumed}}}}}"#
                );
                let mut first = frame_text(joined.as_bytes()).to_vec();
                if let Some(reason) = refused {
                    first.extend_from_slice(resync(reason, &head.epoch, head.last).on(Wire::CHAT));
                }
                self.clients[client].stage = Stage::Live;
                let node = &self.nodes[place];
                let connection = self.clients[client].connection;
                loop {
                    match node.registry.join(&user(), connection, &head.epoch, position, first.clone().into()) {
                        JoinOutcome::At { gap } => {
                            if gap || position < head.last {
                                node.fanout.request_heal(&user());
                            }
                            return;
                        }
                        JoinOutcome::OtherEpoch => {
                            let notice = resync(ResyncReason::Epoch, &head.epoch, head.last);
                            node.registry.change_epoch(user().as_str(), &head.epoch, head.last, &notice);
                        }
                        JoinOutcome::Gone => panic!("the connection stands in the registry"),
                    }
                }
            }
        }
    }

    /// A client reads all that its socket has for it.
    fn read(&mut self, client: usize) -> Result<(), String> {
        let mut batch = Batch::default();
        self.clients[client].queue.take(&mut batch, Waker::noop());
        let bytes: Vec<u8> = batch.frames.into_iter().flatten().collect();
        for text in texts(&bytes) {
            self.tell(|| format!("client {client} reads {}", String::from_utf8_lossy(text)));
            let frame = serde_json::from_slice(text).expect("JSON");
            let fault = self.clients[client].read(&frame, &self.backbone, self.committed);
            fault.map_err(|fault| format!("client {client}: {fault}"))?;
        }
        if batch.close.is_some() {
            self.tell(|| format!("client {client} is too slow, and was closed"));
            self.resume(client);
        } else if self.clients[client].queue.wants_more() {
            let node = &self.nodes[self.clients[client].node];
            node.fanout.request_heal(&user());
        }
        Ok(())
    }
}

/// The texts of unmasked frames, all shorter than 64 KiB.
fn texts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut texts = Vec::new();
    while let [0x81, length, rest @ ..] = bytes {
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (length, rest) => (usize::from(*length), rest),
        };
        let (text, behind) = rest.split_at(length);
        texts.push(text);
        bytes = behind;
    }
    texts
}
