//! A `chat.v1` server in memory, for the driver's own tests: correct by default, with faults that a test can order.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long after the last socket of a user closes the partners are told.
const GRACE: Duration = Duration::from_millis(300);
/// How long clients are asked to stay away that are turned away.
pub(crate) const RETRY_AFTER_MS: u64 = 400;

/// How long a stream that ended is asked to stay away, in milliseconds: longer than a client's first waits.
const STREAM_RETRY_MS: u64 = 500;

/// What goes to a socket.
#[derive(Clone)]
enum SocketCommand {
    Text(String),
    Close(u16),
    Reset,
}

#[derive(Default)]
struct UserLog {
    events: Vec<String>,
    sockets: Vec<UnboundedSender<SocketCommand>>,
    open: usize,
    online: bool,
}

#[derive(Default)]
struct State {
    epoch: u64,
    users: HashMap<String, UserLog>,
    /// By id: members and messages.
    conversations: HashMap<String, (Vec<String>, Vec<Value>)>,
    by_temp_id: HashMap<(String, String), Value>,
    messages: u64,
    /// By user and conversation: the last message that the user has seen. Whoever sends has seen everything before.
    seen: HashMap<(String, String), u64>,
}

impl State {
    /// The user's conversations, each with its unread messages.
    fn unread(&self, user: &str) -> Vec<(String, u64)> {
        let own = self.conversations.iter().filter(|(_, (members, _))| members.iter().any(|member| member == user));
        let unread = own.map(|(id, (_, messages))| {
            let seen = self.seen.get(&(user.to_owned(), id.clone())).copied().unwrap_or(0);
            (id.clone(), (messages.len() as u64).saturating_sub(seen))
        });
        unread.collect()
    }

    /// A `notification.unread` for each of the user's conversations of which this is true.
    fn companions(&self, user: &str, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let unread = self.unread(user);
        let total: u64 = unread.iter().map(|(_, unread)| unread).sum();
        let frame = |(id, unread): &(String, u64)| {
            let payload = json!({ "conversationId": id, "unread": unread, "totalUnread": total });
            json!({ "type": "notification.unread", "payload": payload }).to_string()
        };
        unread.iter().filter(|(id, _)| is_meant(id)).map(frame).collect()
    }
}

/// Faults, each "one in so many"; 0 is never.
#[derive(Default)]
pub(crate) struct Faults {
    /// A push to a recipient is dropped; the log has it.
    pub drop_push: AtomicU64,
    /// A push comes twice.
    pub double_push: AtomicU64,
    /// A message is acknowledged and forgotten.
    pub forget: AtomicU64,
    /// Upgrades are refused with 503.
    pub refuse: AtomicU64,
    /// Clients are let in and closed with 4100 before `auth_success`.
    pub turn_away: AtomicU64,
    /// A resume is answered with another position and `resync`.
    pub deny_resume: AtomicU64,
    /// Somebody is not told that a partner came or went.
    pub mute_presence: AtomicU64,
    /// A `typing`, `message.read` or `presence.query` goes unheard.
    pub ignore: AtomicU64,
    /// Acknowledgements that don't leave; the message is stored.
    pub swallow_ack: AtomicU64,
    /// A stream leaves out a message; sockets have it.
    pub drop_from_stream: AtomicU64,
    /// An event of a stream bears no `id`.
    pub drop_id: AtomicU64,
    /// An unread count isn't told.
    pub drop_count: AtomicU64,
}

pub(crate) struct Fake {
    pub address: SocketAddr,
    pub faults: Faults,
    state: Mutex<State>,
    counter: AtomicU64,
    /// By user: when their stream was ended with the time to come back.
    ended: Mutex<HashMap<String, Instant>>,
    /// Streams that came back before that time.
    pub early: AtomicU64,
}

impl Fake {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let fake = Arc::new(Self {
            address,
            faults: Faults::default(),
            state: Mutex::default(),
            counter: AtomicU64::default(),
            ended: Mutex::default(),
            early: AtomicU64::default(),
        });
        let server = Arc::clone(&fake);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&server).connection(stream));
            }
        });
        fake
    }

    /// Ends every connection: by a close frame with this code, or by a reset.
    pub(crate) fn end_all(&self, code: Option<u16>) {
        self.to_all(&code.map_or(SocketCommand::Reset, SocketCommand::Close));
    }

    /// Tells every connection to go elsewhere.
    pub(crate) fn goaway(&self, window_ms: u64) {
        let frame = json!({ "type": "goaway", "payload": { "reconnectWindowMs": window_ms, "reason": "deploy" } });
        self.to_all(&SocketCommand::Text(frame.to_string()));
    }

    /// Forgets every log, as an empty Redis does, and tells the open connections.
    pub(crate) fn new_epoch(&self) {
        let mut state = self.state.lock().expect("the state");
        state.epoch += 1;
        let frame = resync("epoch", state.epoch, 0);
        for user in state.users.values_mut() {
            user.events.clear();
            user.sockets.retain(|socket| socket.send(SocketCommand::Text(frame.clone())).is_ok());
        }
    }

    fn to_all(&self, out: &SocketCommand) {
        let mut state = self.state.lock().expect("the state");
        for user in state.users.values_mut() {
            user.sockets.retain(|socket| socket.send(out.clone()).is_ok());
        }
    }

    fn strikes(&self, fault: &AtomicU64) -> bool {
        let one_in = fault.load(Relaxed);
        one_in > 0 && self.counter.fetch_add(1, Relaxed) % one_in == one_in - 1
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream) {
        while let Some((head, body)) = read_request(&mut stream).await {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if head.to_ascii_lowercase().contains("upgrade: websocket") {
                return self.upgrade(stream, &head, &path).await;
            }
            if head.to_ascii_lowercase().contains("accept: text/event-stream") {
                return self.stream(stream, &head, &path).await;
            }
            let answer = match path.as_str() {
                "/api/v1/messages" => {
                    let (message, duplicate) =
                        self.store(&user_of(&head, &path), &serde_json::from_str(&body).expect("JSON"));
                    json!({ "message": message, "duplicate": duplicate }).to_string()
                }
                path if body.is_empty() && path.split('?').next() == Some("/api/v1/conversations") => {
                    let unread = self.state.lock().expect("the state").unread(&user_of(&head, path));
                    let items = unread.into_iter().map(|(id, unread)| json!({ "id": id, "unread": unread }));
                    json!({ "items": items.collect::<Vec<_>>() }).to_string()
                }
                _ => self.rest(&path, &body).to_string(),
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn rest(&self, path: &str, body: &str) -> Value {
        let mut state = self.state.lock().expect("the state");
        if path == "/api/v1/conversations" {
            let body: Value = serde_json::from_str(body).expect("JSON");
            let members = body["members"].as_array().expect("members").iter();
            let members = members.map(|member| member.as_str().expect("an id").to_owned()).collect();
            state.conversations.insert(body["id"].as_str().expect("an id").to_owned(), (members, Vec::new()));
            return json!({ "id": body["id"] });
        }
        let id = path.split('/').nth(4).unwrap_or_default();
        let query = path.split('?').nth(1).unwrap_or_default();
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok())
        };
        let (field, behind) = match (number("after"), number("changedSince")) {
            (Some(after), _) => ("seq", after),
            (None, since) => ("rev", since.expect("after or changedSince")),
        };
        let messages = state.conversations.get(id).map(|(_, messages)| messages.as_slice()).unwrap_or_default();
        let items = messages.iter().filter(|message| message[field].as_u64().expect("a number") > behind);
        let limit = number("limit").unwrap_or(50) as usize;
        json!({ "items": items.take(limit).collect::<Vec<_>>() })
    }

    async fn upgrade(self: Arc<Self>, mut stream: TcpStream, head: &str, path: &str) {
        if self.strikes(&self.faults.refuse) {
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
            return drop(stream.write_all(answer).await);
        }
        let user = user_of(head, path);
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a fake server for tests, which end")]
        let (to_socket, from_state) = unbounded_channel();
        let (read, write) = stream.into_split();
        if self.strikes(&self.faults.turn_away) {
            let error = json!({ "code": "UNAVAILABLE", "message": "later", "retryable": true,
                "retryAfterMs": RETRY_AFTER_MS });
            let _ = to_socket.send(SocketCommand::Text(json!({ "type": "error", "payload": error }).to_string()));
            let _ = to_socket.send(SocketCommand::Close(4100));
            return write_out(write, from_state).await;
        }
        self.open(&user, path.split("resume=").nth(1), &to_socket);
        let writer = tokio::spawn(write_out(write, from_state));
        self.read_in(read, &user, &to_socket).await;
        writer.abort();
        self.closed(user);
    }

    /// Server-sent events: the frames of a socket.
    async fn stream(self: Arc<Self>, mut stream: TcpStream, head: &str, path: &str) {
        let user = user_of(head, path);
        let ended = self.ended.lock().expect("the ends").remove(&user);
        let too_early = ended.is_some_and(|ended| ended.elapsed() < Duration::from_millis(STREAM_RETRY_MS));
        self.early.fetch_add(too_early.into(), Relaxed);
        let headers = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
        if self.strikes(&self.faults.refuse) {
            let body = format!(": UNAVAILABLE\nretry: {STREAM_RETRY_MS}\n\n");
            let answer = format!("{headers}Content-Length: {}\r\n\r\n{body}", body.len());
            self.ended.lock().expect("the ends").insert(user, Instant::now());
            return drop(stream.write_all(answer.as_bytes()).await);
        }
        if stream.write_all(format!("{headers}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.is_err() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a fake server for tests, which end")]
        let (to_stream, mut from_state) = unbounded_channel();
        let last_id = head.lines().find_map(|line| line.strip_prefix("Last-Event-ID: ")).map(str::to_owned);
        self.open(&user, last_id.as_deref(), &to_stream);
        let (mut read, mut write) = stream.into_split();
        let (fake, reader) = (Arc::clone(&self), user.clone());
        let writer = tokio::spawn(async move {
            let mut epoch = String::new();
            while let Some(out) = from_state.recv().await {
                let lines = match &out {
                    SocketCommand::Text(frame) => fake.event(frame, &mut epoch),
                    SocketCommand::Close(_) => {
                        fake.ended.lock().expect("the ends").insert(reader.clone(), Instant::now());
                        format!("retry: {STREAM_RETRY_MS}\n\n")
                    }
                    SocketCommand::Reset => {
                        let _ = write.as_ref().set_zero_linger();
                        return;
                    }
                };
                let last = if matches!(out, SocketCommand::Close(_)) { "0\r\n\r\n" } else { "" };
                let chunk = if lines.is_empty() { lines } else { format!("{:x}\r\n{lines}\r\n{last}", lines.len()) };
                if write.write_all(chunk.as_bytes()).await.is_err() || !last.is_empty() {
                    return;
                }
            }
        });
        // A client of a stream says nothing more, so that this ends with the connection.
        let _ = read.read_u8().await;
        writer.abort();
        self.closed(user);
    }

    /// The lines of a frame; none, if the fault says so.
    fn event(&self, frame: &str, epoch: &mut String) -> String {
        let value: Value = serde_json::from_str(frame).expect("JSON");
        let kind = value["type"].as_str().expect("a type");
        if kind == "message.new" && self.strikes(&self.faults.drop_from_stream) {
            return String::new();
        }
        if let Some(of_payload) = value["payload"]["epoch"].as_str() {
            epoch.replace_range(.., of_payload);
        }
        let seq = if kind == "auth_success" { &value["payload"]["seq"] } else { &value["seq"] };
        let id = seq.as_u64().filter(|_| kind != "resync" && !self.strikes(&self.faults.drop_id));
        let id = id.map(|seq| format!("id: {epoch}:{seq}\n")).unwrap_or_default();
        format!("event: {kind}\n{id}data: {frame}\n\n")
    }

    /// Answers a resume or opens at the log's end, and registers the socket.
    fn open(&self, user: &str, resume: Option<&str>, socket: &UnboundedSender<SocketCommand>) {
        let mut state = self.state.lock().expect("the state");
        let epoch = state.epoch;
        let log = state.users.entry(user.to_owned()).or_default();
        let end = log.events.len() as u64;
        let asked = resume.and_then(|text| text.split_once(':'));
        let asked = asked.map(|(epoch, seq)| (epoch.to_owned(), seq.parse::<u64>().expect("a seq")));
        let resumed = asked.as_ref().filter(|(of, seq)| *of == format!("e{epoch}") && *seq <= end).map(|(_, seq)| *seq);
        let resumed = resumed.filter(|_| !self.strikes(&self.faults.deny_resume));
        let _ = socket.send(SocketCommand::Text(
            json!({ "type": "auth_success", "payload": {
                "userId": user, "connectionId": "1", "connectedAt": "2026-01-01T00:00:00.000Z",
                "epoch": format!("e{epoch}"), "seq": resumed.unwrap_or(end), "resumed": resumed.is_some(),
                "heartbeatSeconds": 25 } })
            .to_string(),
        ));
        if asked.is_some() && resumed.is_none() {
            let _ = socket.send(SocketCommand::Text(resync("epoch", epoch, end)));
        }
        for event in log.events.iter().skip(resumed.unwrap_or(end) as usize) {
            let _ = socket.send(SocketCommand::Text(event.clone()));
        }
        if resumed.is_some() {
            for companion in state.companions(user, |_| true) {
                let _ = socket.send(SocketCommand::Text(companion));
            }
        }
        let log = state.users.get_mut(user).expect("the user's log");
        log.sockets.push(socket.clone());
        log.open += 1;
        if !std::mem::replace(&mut log.online, true) {
            self.tell_partners(&mut state, user, "user.online");
        }
    }

    /// A socket has closed; the partners are told when the user stays away.
    fn closed(self: Arc<Self>, user: String) {
        self.state.lock().expect("the state").users.get_mut(&user).expect("a user").open -= 1;
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            let mut state = self.state.lock().expect("the state");
            let log = state.users.get_mut(&user).expect("a user");
            if log.open == 0 && std::mem::replace(&mut log.online, false) {
                self.tell_partners(&mut state, &user, "user.offline");
            }
        });
    }

    fn tell_partners(&self, state: &mut State, user: &str, kind: &str) {
        let directs = state.conversations.values().map(|(members, _)| members).filter(|members| members.len() == 2);
        let partners = directs.filter(|members| members.iter().any(|member| member == user)).flatten();
        let partners: Vec<String> = partners.filter(|member| *member != user).cloned().collect();
        for partner in partners.iter().filter(|_| !self.strikes(&self.faults.mute_presence)) {
            tell(state, partner, &json!({ "type": kind, "payload": { "userId": user } }));
        }
    }

    /// A command that leaves nothing behind.
    fn passing(&self, user: &str, frame: &Value, socket: &UnboundedSender<SocketCommand>) {
        if self.strikes(&self.faults.ignore) {
            return;
        }
        let mut state = self.state.lock().expect("the state");
        let (kind, id) = (frame["type"].as_str().expect("a type"), frame["payload"]["conversationId"].as_str());
        let answer = match kind {
            "typing" => {
                let (members, _) = &state.conversations[id.expect("a conversation")];
                let payload = json!({ "conversationId": id, "userId": user, "isTyping": frame["payload"]["isTyping"] });
                for other in members.clone().iter().filter(|member| *member != user) {
                    tell(&mut state, other, &json!({ "type": "typing", "payload": payload }));
                }
                return;
            }
            "message.read" => json!({ "type": "message.read_ack", "payload": { "conversationId": id } }),
            "presence.query" => json!({ "type": "status.bulk", "payload": { "users": {} }, "ref": frame["ref"] }),
            other => panic!("the driver sent {other:?}"),
        };
        let _ = socket.send(SocketCommand::Text(answer.to_string()));
    }

    async fn read_in(&self, mut read: OwnedReadHalf, user: &str, socket: &UnboundedSender<SocketCommand>) {
        while let Some((opcode, payload)) = read_frame(&mut read).await {
            match opcode {
                1 => {
                    let frame: Value = serde_json::from_slice(&payload).expect("JSON from the driver");
                    match frame["type"].as_str() {
                        Some("message.send") => self.send(user, &frame["payload"], socket),
                        Some("ping") => drop(socket.send(SocketCommand::Text(json!({ "type": "pong" }).to_string()))),
                        _ => self.passing(user, &frame, socket),
                    }
                }
                8 => return,
                _ => {}
            }
        }
    }

    fn send(&self, sender: &str, payload: &Value, socket: &UnboundedSender<SocketCommand>) {
        if let (message, true) = self.store(sender, payload) {
            let sent = json!({ "tempId": payload["tempId"], "message": message, "duplicate": true });
            let _ = socket.send(SocketCommand::Text(json!({ "type": "message.sent", "payload": sent }).to_string()));
        }
    }

    /// Stores a message and pushes it, unless it is there already; returns it, and whether it was.
    fn store(&self, sender: &str, payload: &Value) -> (Value, bool) {
        let mut state = self.state.lock().expect("the state");
        let temp_id = payload["tempId"].as_str().expect("a tempId").to_owned();
        if let Some(message) = state.by_temp_id.get(&(sender.to_owned(), temp_id.clone())) {
            return (message.clone(), true);
        }
        let id = match (payload["conversationId"].as_str(), payload["to"].as_str()) {
            (Some(id), _) => id.to_owned(),
            (None, to) => direct(&mut state, sender, to.expect("conversationId or to")),
        };
        state.messages += 1;
        let number = state.messages;
        let (members, messages) = state.conversations.get_mut(&id).expect("a known conversation");
        let seq = messages.len() as u64 + 1;
        let message = json!({ "id": number.to_string(), "conversationId": id, "seq": seq, "rev": seq, "senderId": sender,
            "kind": "text", "content": payload["content"], "tempId": temp_id, "createdAt": "2026-01-01T00:00:00.000Z" });
        if !self.strikes(&self.faults.forget) {
            messages.push(message.clone());
        }
        let members = members.clone();
        state.seen.insert((sender.to_owned(), id), seq);
        state.by_temp_id.insert((sender.to_owned(), temp_id.clone()), message.clone());
        for member in members {
            if member == sender {
                let event = ("message.sent", json!({ "tempId": temp_id, "message": message }));
                self.append(&mut state, &member, event, self.strikes(&self.faults.swallow_ack), false);
            } else {
                let (lost, twice) = (self.strikes(&self.faults.drop_push), self.strikes(&self.faults.double_push));
                self.append(&mut state, &member, ("message.new", json!({ "message": message })), lost, twice);
            }
        }
        (message, false)
    }

    fn append(&self, state: &mut State, user: &str, (kind, payload): (&str, Value), lost: bool, twice: bool) {
        let log = state.users.entry(user.to_owned()).or_default();
        let seq = log.events.len() + 1;
        let text = json!({ "seq": seq, "type": kind, "payload": payload }).to_string();
        log.events.push(text.clone());
        let mut frames = vec![text, json!({ "type": "conversation.updated", "payload": {} }).to_string()];
        if !self.strikes(&self.faults.drop_count) {
            let conversation = payload["message"]["conversationId"].as_str().expect("an id");
            frames.extend(state.companions(user, |id| id == conversation));
        }
        let log = state.users.get_mut(user).expect("the user's log");
        for frame in (0..if lost { 0 } else { 1 + usize::from(twice) }).flat_map(|_| &frames) {
            log.sockets.retain(|socket| socket.send(SocketCommand::Text(frame.clone())).is_ok());
        }
    }
}

/// Sends to all sockets of a user, and into no log.
fn tell(state: &mut State, user: &str, frame: &Value) {
    if let Some(log) = state.users.get_mut(user) {
        log.sockets.retain(|socket| socket.send(SocketCommand::Text(frame.to_string())).is_ok());
    }
}

fn direct(state: &mut State, a: &str, b: &str) -> String {
    let id = if a < b { format!("d-{a}-{b}") } else { format!("d-{b}-{a}") };
    state.conversations.entry(id.clone()).or_insert_with(|| (vec![a.to_owned(), b.to_owned()], Vec::new()));
    id
}

fn resync(reason: &str, epoch: u64, seq: u64) -> String {
    json!({ "type": "resync", "payload": { "reason": reason, "epoch": format!("e{epoch}"), "seq": seq } }).to_string()
}

fn user_of(head: &str, path: &str) -> String {
    let bearer = head.split("Bearer ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let query = path.split("token=").nth(1).and_then(|rest| rest.split('&').next());
    let token = bearer.or(query).expect("a token");
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("a JWT"));
    let claims: Value = serde_json::from_slice(&claims.expect("base64")).expect("claims");
    claims["sub"].as_str().expect("sub").to_owned()
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    while body.len() < length.unwrap_or(0) {
        stream.read_buf(&mut body).await.ok()?;
    }
    Some((head, String::from_utf8(body).ok()?))
}

/// One masked frame of a client: opcode and payload. The driver sends none above 64 KiB.
async fn read_frame(read: &mut OwnedReadHalf) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 2];
    read.read_exact(&mut header).await.ok()?;
    let length = match header[1] & 0x7F {
        126 => usize::from(read.read_u16().await.ok()?),
        short => usize::from(short),
    };
    assert!(header[0] & 0x80 != 0 && header[1] & 0x80 != 0 && header[1] != 0xFF, "{header:x?}");
    let mut mask = [0; 4];
    read.read_exact(&mut mask).await.ok()?;
    let mut payload = vec![0; length];
    read.read_exact(&mut payload).await.ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((header[0] & 0x0F, payload))
}

async fn write_out(mut write: OwnedWriteHalf, mut from_state: UnboundedReceiver<SocketCommand>) {
    while let Some(out) = from_state.recv().await {
        let (first, payload) = match &out {
            SocketCommand::Text(text) => (0x81, text.as_bytes().to_vec()),
            SocketCommand::Close(code) => (0x88, code.to_be_bytes().to_vec()),
            SocketCommand::Reset => {
                let _ = write.as_ref().set_zero_linger();
                return;
            }
        };
        let mut frame = vec![first];
        match u8::try_from(payload.len()) {
            Ok(short) if short < 126 => frame.push(short),
            _ => {
                frame.push(126);
                frame.extend(u16::try_from(payload.len()).expect("below 64 KiB").to_be_bytes());
            }
        }
        frame.extend(payload);
        if write.write_all(&frame).await.is_err() {
            return;
        }
        if matches!(out, SocketCommand::Close(_)) {
            // The close must not overtake the client's reading.
            let _ = tokio::time::timeout(Duration::from_millis(100), write.shutdown()).await;
            return;
        }
    }
}
