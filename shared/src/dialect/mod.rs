//! The dialects (PROTOCOL §2): one set of commands and events, four ways to write them. A dialect only decodes and
//! encodes; which rights somebody has and where an event goes is decided without it.

pub mod channels;
pub mod chat;
pub mod flat;
pub mod listings;
pub mod social;

use crate::Event;
use flat::Texts;

/// The way in which one socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `chat.v1`: the canonical envelopes (seed 002).
    Chat,
    /// `listings.v1` (seeds 000 and 001).
    Listings,
    /// `social.v1` (seed 004, and the generic socket of seed 002).
    Social,
    /// `channels.v1` (seed 003).
    Channels,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Listings, Self::Social, Self::Channels];

    /// The path at which it is spoken.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/ws",
            Self::Listings => "/ws/chat",
            Self::Social => "/ws",
            Self::Channels => "/ws/channels",
        }
    }

    /// The subprotocol that names it, which is also its label in metrics.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Chat => chat::SUBPROTOCOL,
            Self::Listings => listings::SUBPROTOCOL,
            Self::Social => social::SUBPROTOCOL,
            Self::Channels => channels::SUBPROTOCOL,
        }
    }

    /// The dialect of a path.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.path() == path)
    }

    /// The dialect that a subprotocol names.
    #[must_use]
    pub fn of_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.subprotocol() == name)
    }

    /// The dialect of a connection to `path` whose client offers these subprotocols, and the one to answer with: what is
    /// offered wins over the path. `None` if something is offered and nothing of it is known.
    #[must_use]
    pub fn choose<'a>(path: &str, mut offered: impl Iterator<Item = &'a str>) -> Option<(Self, Option<&'static str>)> {
        let Some(first) = offered.next() else { return Self::of_path(path).map(|dialect| (dialect, None)) };
        let dialect = std::iter::once(first).chain(offered).find_map(Self::of_subprotocol)?;
        Some((dialect, Some(dialect.subprotocol())))
    }

    /// Whether messages go on while the store is away: they are delivered live between sockets of this dialect, and stored
    /// later (seed 004: database failures don't interrupt the flow).
    #[must_use]
    pub fn delivers_without_store(self) -> bool {
        match self {
            Self::Social => true,
            Self::Chat | Self::Listings | Self::Channels => false,
        }
    }

    /// Whether the connection that sends a message gets no echo of it. The sender's other devices do.
    #[must_use]
    pub fn mutes_own_sends(self) -> bool {
        match self {
            Self::Social => true,
            Self::Chat | Self::Listings | Self::Channels => false,
        }
    }
}

/// The types of companions for which no flat dialect has a frame, so that nobody has to read them to know that.
pub const CANONICAL_ONLY: [&str; 2] = ["conversation.updated", "notification.unread"];

/// What the bytes for a socket depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wire {
    /// The dialect.
    pub dialect: Dialect,
    /// Whether frames carry `seq`, and the socket is told of its position. In flat dialects only for who asked to resume.
    pub numbered: bool,
}

impl Wire {
    /// That of canonical sockets.
    pub const CHAT: Self = Self { dialect: Dialect::Chat, numbered: true };

    /// The text frames of an event, in order; none where the dialect has none for it. `seq` is a durable event's; where
    /// one event makes several frames, the last one carries it, so that a client that got only some asks for all again.
    #[must_use]
    pub fn encode(self, event: &Event, seq: Option<u64>) -> Vec<String> {
        let mut texts = Texts::new(self.numbered);
        match self.dialect {
            Dialect::Chat => return vec![canonical(event, seq)],
            Dialect::Listings => listings::encode(event, &mut texts),
            Dialect::Social => social::encode(event, &mut texts),
            Dialect::Channels => channels::encode(event, &mut texts),
        }
        texts.finish(event, seq)
    }
}

fn canonical(event: &Event, seq: Option<u64>) -> String {
    let text = event.to_json();
    match (seq, text.strip_prefix('{')) {
        (Some(seq), Some(rest)) => format!("{{\"seq\":{seq},{rest}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::chat::Decoder;
    use crate::{Command, ErrorCode};

    #[test]
    fn what_is_canonical_only_has_no_flat_frame() {
        let id: crate::ConversationId = "c".parse().expect("an id");
        let events = [
            Event::ConversationUpdated { conversation_id: id.clone(), last_message: None },
            Event::NotificationUnread { conversation_id: id, unread: 1, total_unread: 1 },
        ];
        for (event, kind) in events.iter().zip(CANONICAL_ONLY) {
            assert!(event.to_json().starts_with(&format!("{{\"type\":\"{kind}\"")), "{kind}");
            for dialect in [Dialect::Listings, Dialect::Social, Dialect::Channels] {
                assert!(Wire { dialect, numbered: true }.encode(event, Some(1)).is_empty(), "{kind} {dialect:?}");
            }
        }
    }

    #[test]
    fn a_subprotocol_wins_over_the_path() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::choose(dialect.path(), [].into_iter()), Some((dialect, None)));
            let offered = ["nonsense.v9", dialect.subprotocol()].into_iter();
            assert_eq!(Dialect::choose("/ws", offered), Some((dialect, Some(dialect.subprotocol()))));
        }
        assert_eq!(Dialect::choose("/ws", ["chat.v2"].into_iter()), None);
        assert_eq!(Dialect::choose("/elsewhere", [].into_iter()), None);
    }

    /// The code with which a dialect refuses a frame; `None` if it takes it.
    fn refused(dialect: Dialect, frame: &[u8]) -> Option<ErrorCode> {
        Decoder::new(100).decode_as(dialect, &mut frame.to_vec()).command.err().map(|error| error.code)
    }

    #[test]
    fn what_is_malformed_is_refused_by_every_dialect() {
        let deep = |open: &str, close: &str| {
            format!(r#"{{"type":"ping","x":{}1{}}}"#, open.repeat(30_000), close.repeat(30_000))
        };
        for dialect in Dialect::ALL {
            for frame in [
                &b"\xff\xfe{}"[..],
                b"{\"type\":\"ping\xff\"}",
                b"{\"type\":\"\\ud800\"}",
                b"\xef\xbb\xbf{\"type\":\"ping\"}",
                b"{\"type\":\"ping\"}{\"type\":\"ping\"}",
                b"{\"type\":\"ping\"}x",
                b"{\"type\":\"ping\",}",
                b"{'type':'ping'}",
                b"{\"type\":\"pi\nng\"}",
                b"NaN",
                deep("[", "").as_bytes(),
                deep("{\"x\":", "").as_bytes(),
            ] {
                let code = refused(dialect, frame);
                assert_eq!(code, Some(ErrorCode::InvalidMessage), "{dialect:?} {}", frame.escape_ascii());
            }
            for kind in ["", "PING", "ping ", "рing", "__proto__", "type"] {
                let frame = format!(r#"{{"type":"{kind}"}}"#);
                assert_eq!(refused(dialect, frame.as_bytes()), Some(ErrorCode::UnknownEvent), "{dialect:?} {kind:?}");
            }
            // Deep and whole is JSON like any other; what nobody asks for is passed over.
            for frame in [deep("[", "]"), deep("{\"x\":", "}")] {
                assert!(matches!(refused(dialect, frame.as_bytes()), None | Some(ErrorCode::InvalidMessage)));
            }
        }
    }

    #[test]
    fn ids_that_are_none_are_refused_by_every_dialect() {
        let long = "x".repeat(129);
        let longest = "x".repeat(128);
        let texts = ["", " ", "a b", "a\\u0000b", "a\\nb", "a\\u202eb", "ü", "🦜", "*", "{a}", "a/b", "a,b", &long];
        let quoted = texts.iter().map(|text| format!("\"{text}\""));
        let other = ["-1", "1.5", "1e3", "18446744073709551616", "-9223372036854775809", "1e400", "true", "[]", "{}"];
        for id in quoted.chain(other.map(str::to_owned)) {
            for frame in frames_with(&id) {
                let code = refused(frame.0, frame.1.as_bytes());
                assert!(
                    matches!(code, Some(ErrorCode::ValidationError | ErrorCode::InvalidMessage)),
                    "{:?} takes {}: {code:?}",
                    frame.0,
                    frame.1
                );
            }
        }
        for (dialect, frame) in frames_with(&format!("\"{longest}\"")) {
            assert_eq!(refused(dialect, frame.as_bytes()), None, "{dialect:?} {frame}");
        }
        // The largest integer is an id where integers are.
        for (dialect, frame) in frames_with("18446744073709551615") {
            assert_eq!(refused(dialect, frame.as_bytes()).is_some(), dialect == Dialect::Chat, "{dialect:?} {frame}");
        }
    }

    /// A frame of each dialect with this id.
    fn frames_with(id: &str) -> [(Dialect, String); 6] {
        [
            (Dialect::Chat, format!(r#"{{"type":"message.send","payload":{{"conversationId":{id},"content":"x"}}}}"#)),
            (Dialect::Chat, format!(r#"{{"type":"presence.query","payload":{{"userIds":[{id}]}}}}"#)),
            (Dialect::Listings, format!(r#"{{"type":"send_message","receiver_id":{id},"content":"x"}}"#)),
            (Dialect::Social, format!(r#"{{"type":"private","to":{id},"content":"x"}}"#)),
            (Dialect::Social, format!(r#"{{"type":"join_room","room":{id}}}"#)),
            (Dialect::Channels, format!(r#"{{"type":"chat_message","channel_id":{id},"content":"x"}}"#)),
        ]
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_a_decoder(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            for dialect in Dialect::ALL {
                let _ = refused(dialect, &bytes);
            }
        }

        /// One decoder reads a connection's frames one after the other.
        #[test]
        fn no_frame_panics_a_decoder_or_changes_the_next(
            kind in "auth|ping|typing|mark_read|send_message|private|group|broadcast|(join|leave)_(room|channel)|chat_message|\\PC{0,4}",
            field in "chat_id|message_id|receiver_id|to|group_id|room|channel_id|content|temp_id|password|token|is_typing|ref|type",
            value in "null|true|-?[0-9]{1,25}(\\.[0-9]{1,3})?|1e400|\"\\PC{0,9}\"|\"(\\\\u[0-9a-f]{4}){1,3}\"|\\[[0-9,]{0,5}\\]|\\{\\}",
            twice in "null|7|\"x\"",
        ) {
            let frame = format!(r#"{{"type":"{kind}","{field}":{value},"content":"x","{field}":{twice}}}"#);
            for dialect in Dialect::ALL {
                let mut decoder = Decoder::new(10);
                let first = decoder.decode_as(dialect, &mut frame.clone().into_bytes());
                let ping = decoder.decode_as(dialect, &mut br#"{"type":"ping"}"#.to_vec());
                proptest::prop_assert_eq!(ping.command, Ok(Command::Ping { timestamp: None }));
                proptest::prop_assert_eq!(decoder.decode_as(dialect, &mut frame.clone().into_bytes()), first);
            }
        }
    }
}
