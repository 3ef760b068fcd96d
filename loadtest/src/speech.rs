//! The frames of a deployment: Parley's own, or those of a peer, so that one driver gives all of them the same work.
//!
//! Frames are read without parsing, because the driver shares its cores with the processes that it measures.

use clap::ValueEnum;
use shared::UserId;

use crate::client::{OutgoingMessage, Recipient};
use crate::ws::Opcode;

/// The frames of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Speech {
    /// `chat.v1`.
    #[default]
    Parley,
    /// Socket.IO 4 over Engine.IO 4; a send is an event with an acknowledgement.
    SocketIo,
    /// Centrifuge's JSON protocol; a send is an RPC.
    Centrifuge,
    /// The same as Centrifugo takes it without a backend: a send is a publication into the other user's personal channel.
    Centrifugo,
    /// The NATS protocol; a send is a publication, and nothing is acknowledged.
    Nats,
}

/// An event in a frame from the deployment, as far as a measurement needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// The user is connected and subscribed.
    Ready,
    /// A message of somebody else, with the measured message's number if it bears one.
    Delivered(Option<u64>),
    /// This user's own message was taken.
    Acked(Option<u64>),
    /// The peer wants a sign of life: send this.
    Answer(&'static str),
    /// Something was refused: why.
    Refused(String),
}

/// The id of a command whose answer is no acknowledgement of a measured message.
const NOT_MEASURED: u64 = u32::MAX as u64;

/// A frame of the client, ready to be sent.
pub type ClientFrame = (Opcode, Vec<u8>);

impl Speech {
    /// The path where the deployment listens unless its address names one.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Parley => "/chat/ws",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Centrifuge | Self::Centrifugo => "/connection/websocket",
            Self::Nats => "/",
        }
    }

    /// Whether a send is acknowledged.
    #[must_use]
    pub fn acknowledges(self) -> bool {
        self != Self::Nats
    }

    /// A user's first frame.
    #[must_use]
    pub fn greeting(self, user: &UserId, token: &str, group: Option<&str>) -> Option<ClientFrame> {
        let group = group.unwrap_or_default();
        match self {
            Self::Parley => None,
            Self::SocketIo => {
                Some((Opcode::Text, format!("40{}", serde_json::json!({ "token": token, "group": group })).into()))
            }
            Self::Centrifuge => {
                let hello = serde_json::json!({
                    "id": 1, "connect": { "token": token, "data": { "group": group } },
                });
                Some((Opcode::Text, hello.to_string().into()))
            }
            Self::Centrifugo => {
                let mut text = serde_json::json!({ "id": 1, "connect": { "token": token } }).to_string();
                if !group.is_empty() {
                    let join = serde_json::json!({
                        "id": NOT_MEASURED, "subscribe": { "channel": format!("group:{group}") },
                    });
                    text.push_str(&format!("\n{join}"));
                }
                Some((Opcode::Text, text.into()))
            }
            Self::Nats => {
                let mut text = "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\n".to_owned();
                text.push_str(&format!("SUB user.{user} 1\r\n"));
                if !group.is_empty() {
                    text.push_str(&format!("SUB group.{group} 2\r\n"));
                }
                text.push_str("PING\r\n");
                Some((Opcode::Binary, text.into()))
            }
        }
    }

    /// Message number `number` (`None`: one that only opens the conversation).
    #[must_use]
    pub fn send(self, number: Option<u64>, send: OutgoingMessage) -> ClientFrame {
        let Self::Parley = self else { return self.peer_send(number, &send) };
        (Opcode::Text, send.frame().into())
    }

    fn peer_send(self, number: Option<u64>, send: &OutgoingMessage) -> ClientFrame {
        let (field, to) = match &send.to {
            Recipient::User(user) => ("to", user.as_str()),
            Recipient::Conversation(group) => ("group", group.as_str()),
        };
        let body = serde_json::json!({ field: to, "content": send.content });
        // Acknowledgements come back under the number; those of messages that are not measured under none.
        let id = number.map_or(NOT_MEASURED, |number| number + 2);
        match self {
            Self::Parley | Self::SocketIo => (Opcode::Text, format!("42{id}[\"send\",{body}]").into()),
            Self::Centrifuge => {
                let rpc = serde_json::json!({ "id": id, "rpc": { "method": "send", "data": body } });
                (Opcode::Text, rpc.to_string().into())
            }
            Self::Centrifugo => {
                let channel = if field == "to" { format!("user:#{to}") } else { format!("group:{to}") };
                let publish = serde_json::json!({ "id": id, "publish": { "channel": channel, "data": body } });
                (Opcode::Text, publish.to_string().into())
            }
            Self::Nats => {
                let kind = if field == "to" { "user" } else { "group" };
                let body = body.to_string();
                (Opcode::Binary, format!("PUB {kind}.{to} {}\r\n{body}\r\n", body.len()).into())
            }
        }
    }

    /// The parts of a frame, in order.
    pub fn hear(self, frame: &[u8], mut take: impl FnMut(PeerEvent)) {
        match self {
            Self::Parley => hear_parley(frame, &mut take),
            Self::SocketIo => hear_socket_io(frame, &mut take),
            Self::Centrifuge | Self::Centrifugo => {
                frame.split(|byte| *byte == b'\n').for_each(|line| hear_centrifuge(line, &mut take))
            }
            Self::Nats => hear_nats(frame, &mut take),
        }
    }
}

fn hear_parley(frame: &[u8], take: &mut impl FnMut(PeerEvent)) {
    match kind(frame) {
        "auth_success" => take(PeerEvent::Ready),
        "message.new" => take(PeerEvent::Delivered(message_number(frame))),
        "message.sent" => take(PeerEvent::Acked(message_number(frame))),
        "error" | "auth_failed" => {
            take(PeerEvent::Refused(crate::client::wire::error_code(frame).unwrap_or_default()));
        }
        _ => {}
    }
}

/// Engine.IO's `2` is a ping; `40` connects, `42["name",…]` is an event, `43<id>[…]` an acknowledgement.
fn hear_socket_io(frame: &[u8], take: &mut impl FnMut(PeerEvent)) {
    let text = std::str::from_utf8(frame).unwrap_or_default();
    if text == "2" {
        take(PeerEvent::Answer("3"));
    } else if text.starts_with("42[\"ready\"") {
        take(PeerEvent::Ready);
    } else if text.starts_with("42[\"message\"") {
        take(PeerEvent::Delivered(message_number(frame)));
    } else if let Some(acknowledged) = text.strip_prefix("43") {
        let id = acknowledged.split('[').next().and_then(|id| id.parse().ok());
        take(PeerEvent::Acked(measured(id)));
    } else if text.starts_with("44") {
        take(PeerEvent::Refused("connect".into()));
    }
}

/// One line of a frame: an empty object is a ping, `push` brings a publication, a reply bears the command's `id`.
fn hear_centrifuge(line: &[u8], take: &mut impl FnMut(PeerEvent)) {
    let text = std::str::from_utf8(line).unwrap_or_default();
    if text == "{}" {
        take(PeerEvent::Answer("{}"));
    } else if text.starts_with("{\"push\"") {
        if text.contains("\"pub\"") {
            take(PeerEvent::Delivered(message_number(line)));
        }
    } else if let Some(reply) = text.strip_prefix("{\"id\":") {
        let id = reply.split([',', '}']).next().and_then(|id| id.parse().ok());
        match (text.contains("\"error\""), id) {
            (true, _) => take(PeerEvent::Refused("reply".into())),
            (false, Some(1)) => take(PeerEvent::Ready),
            (false, id) => take(PeerEvent::Acked(measured(id))),
        }
    } else if text.contains("\"error\"") {
        take(PeerEvent::Refused("connect".into()));
    }
}

/// A frame may hold several lines, and a server may cut them anywhere; it doesn't cut those of this load.
fn hear_nats(frame: &[u8], take: &mut impl FnMut(PeerEvent)) {
    let mut lines = frame.split(|byte| *byte == b'\n');
    while let Some(line) = lines.next() {
        if line.starts_with(b"MSG ") {
            take(PeerEvent::Delivered(lines.next().and_then(message_number)));
        } else if line.starts_with(b"PONG") {
            take(PeerEvent::Ready);
        } else if line.starts_with(b"PING") {
            take(PeerEvent::Answer("PONG\r\n"));
        } else if line.starts_with(b"-ERR") {
            take(PeerEvent::Refused(String::from_utf8_lossy(line).trim().to_owned()));
        }
    }
}

/// The number of the measured message behind an id of [`Speech::send`].
fn measured(id: Option<u64>) -> Option<u64> {
    id.filter(|id| *id != NOT_MEASURED).and_then(|id| id.checked_sub(2))
}

/// The `type` of a canonical frame, read without parsing: it stands at the beginning, behind `seq` at most.
#[must_use]
pub fn kind(frame: &[u8]) -> &str {
    field(frame, "\"type\":\"")
}

/// The `ref` of a canonical frame.
#[must_use]
pub fn reference(frame: &[u8]) -> &str {
    field(frame, "\"ref\":\"")
}

/// The user whom a canonical frame is about, in presence and typing.
#[must_use]
pub fn user_id(frame: &[u8]) -> &str {
    field(frame, "\"userId\":\"")
}

/// The conversation that a canonical frame is about.
#[must_use]
pub fn conversation_id(frame: &[u8]) -> &str {
    field(frame, "\"conversationId\":\"")
}

/// Whether a canonical frame says that this is so.
#[must_use]
pub fn flag(frame: &[u8], name: &str) -> bool {
    let text = std::str::from_utf8(frame).unwrap_or_default();
    text.split_once(&format!("\"{name}\":")).is_some_and(|(_, rest)| rest.starts_with("true"))
}

/// The number of the measured message in a frame, from content that [`content`] made.
#[must_use]
pub fn message_number(frame: &[u8]) -> Option<u64> {
    field(frame, "\"content\":\"m").split(' ').next()?.parse().ok()
}

/// Content of `bytes` bytes that carries the message's number.
#[must_use]
pub fn content(number: u64, bytes: usize) -> String {
    let mut content = format!("m{number} ");
    content.extend(std::iter::repeat_n('.', bytes.saturating_sub(content.len())));
    content
}

/// The text between `before` and the next quotation mark; empty if there is none.
fn field<'a>(frame: &'a [u8], before: &str) -> &'a str {
    let text = std::str::from_utf8(frame).unwrap_or_default();
    text.split_once(before).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(speech: Speech, frame: &str) -> Vec<PeerEvent> {
        let mut heard = Vec::new();
        speech.hear(frame.as_bytes(), |one| heard.push(one));
        heard
    }

    #[test]
    fn every_peer_is_understood() {
        use PeerEvent::{Acked, Answer, Delivered, Ready};
        let content = content(7, 12);
        let body = format!(r#"{{"id":"x","content":"{content}"}}"#);
        assert_eq!(heard(Speech::SocketIo, "42[\"ready\",{}]"), [Ready]);
        assert_eq!(heard(Speech::SocketIo, &format!("42[\"message\",{body}]")), [Delivered(Some(7))]);
        assert_eq!(heard(Speech::SocketIo, "439[{}]"), [Acked(Some(7))]);
        assert_eq!(heard(Speech::SocketIo, "2"), [Answer("3")]);
        assert_eq!(
            heard(Speech::Centrifuge, "{\"id\":1,\"connect\":{}}\n{\"id\":9,\"rpc\":{}}"),
            [Ready, Acked(Some(7))]
        );
        let push = format!(r#"{{"push":{{"channel":"user:a","pub":{{"data":{body}}}}}}}"#);
        assert_eq!(heard(Speech::Centrifuge, &push), [Delivered(Some(7))]);
        let message = format!("MSG user.a 1 {}\r\n{body}\r\nPING\r\n", body.len());
        assert_eq!(heard(Speech::Nats, &message), [Delivered(Some(7)), Answer("PONG\r\n")]);
    }

    #[test]
    fn an_opening_message_bears_no_number() {
        let send = || OutgoingMessage {
            temp_id: "t".into(),
            to: Recipient::User(UserId::parse("u1").expect("an id")),
            content: "hello".into(),
        };
        for speech in [Speech::SocketIo, Speech::Centrifuge, Speech::Centrifugo] {
            let (_, frame) = speech.send(None, send());
            let text = String::from_utf8(frame).expect("text");
            assert!(text.contains("4294967295") && text.contains("\"to\":\"u1\""), "{text}");
        }
        assert_eq!(heard(Speech::Centrifugo, "{\"id\":4294967295,\"publish\":{}}"), [PeerEvent::Acked(None)]);
        assert_eq!(heard(Speech::SocketIo, "434294967295[{}]"), [PeerEvent::Acked(None)]);
    }

    #[test]
    fn kind_and_number_are_read_without_parsing() {
        let frame =
            format!(r#"{{"seq":3,"type":"message.new","payload":{{"message":{{"content":"{}"}}}}}}"#, content(42, 9));
        assert_eq!((kind(frame.as_bytes()), message_number(frame.as_bytes())), ("message.new", Some(42)));
        assert_eq!((kind(b"{}"), message_number(b"{}")), ("", None));
        let typing = br#"{"type":"typing","payload":{"conversationId":"c1","userId":"u2","isTyping":true},"ref":"r3"}"#;
        assert_eq!((conversation_id(typing), user_id(typing), reference(typing)), ("c1", "u2", "r3"));
        assert!(flag(typing, "isTyping") && !flag(typing, "isRead") && !flag(br#"{"isTyping":false}"#, "isTyping"));
        assert_eq!(content(7, 20).len(), 20);
    }
}
