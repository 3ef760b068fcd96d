//! The dialects: one set of commands and events, four ways to write them. A dialect is a row of [`Dialect`] and a file.
//! It offers [`Decoder`], which reads frames, and [`Wire::encode`], which writes them.
//! It never decides about rights or recipients.

pub mod channels;
mod chat;
mod decoder;
mod fields;
pub mod flat;
pub mod listings;
pub mod social;
mod surrogates;

use std::num::NonZeroU16;

pub use decoder::{DecodedFrame, Decoder, half_of_a_character};

use crate::{Command, Event, ProtocolError, Timestamp};
use fields::Fields;
use flat::Texts;

/// The parts of a dialect.
struct Row {
    /// The path at which it is spoken.
    path: &'static str,
    /// Its subprotocol, which is also its label in metrics.
    subprotocol: &'static str,
    /// See [`Dialect::delivers_without_store`].
    delivers_without_store: bool,
    /// See [`Dialect::mutes_own_sends`].
    mutes_own_sends: bool,
    /// Reads a frame of this `type`; contents have at most so many characters.
    decode: fn(&str, &Fields<'_, '_>, usize) -> Result<Command, ProtocolError>,
    encode: Encode,
}

/// How events become frames.
enum Encode {
    /// One envelope with `type`, `payload` and `seq`.
    Canonical,
    /// Frames without an envelope, as many as the event makes. An event without a time of its own is shown with the given
    /// time.
    Flat(fn(&Event, Timestamp, &mut Texts)),
}

macro_rules! dialects {
    ($($(#[$doc:meta])* $dialect:ident: $row:expr,)+) => {
        /// The way in which one socket speaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Dialect { $($(#[$doc])* $dialect,)+ }

        impl Dialect {
            /// All of them.
            pub const ALL: [Self; [$(stringify!($dialect)),+].len()] = [$(Self::$dialect),+];

            fn row(self) -> &'static Row {
                match self { $(Self::$dialect => const { &$row }),+ }
            }
        }
    };
}

dialects! {
    /// `chat.v1`: the canonical envelopes (seed 002).
    Chat: Row {
        path: "/chat/ws",
        subprotocol: "chat.v1",
        delivers_without_store: false,
        mutes_own_sends: false,
        decode: chat::decode,
        encode: Encode::Canonical,
    },
    /// `listings.v1` (seeds 000 and 001).
    Listings: Row {
        path: "/ws/chat",
        subprotocol: "listings.v1",
        delivers_without_store: false,
        mutes_own_sends: false,
        decode: listings::decode,
        encode: Encode::Flat(listings::encode),
    },
    /// `social.v1` (seed 004, and the generic socket of seed 002).
    Social: Row {
        path: "/ws",
        subprotocol: "social.v1",
        delivers_without_store: true,
        mutes_own_sends: true,
        decode: social::decode,
        encode: Encode::Flat(social::encode),
    },
    /// `channels.v1` (seed 003).
    Channels: Row {
        path: "/ws/channels",
        subprotocol: "channels.v1",
        delivers_without_store: false,
        mutes_own_sends: false,
        decode: channels::decode,
        encode: Encode::Flat(channels::encode),
    },
}

impl Dialect {
    /// The path at which it is spoken.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// The subprotocol that names it, which is also its label in metrics.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        self.row().subprotocol
    }

    /// The place in [`ALL`](Self::ALL), for tables with an entry for each dialect.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether frames have no envelope, and carry `seq` only for sockets that asked to resume.
    #[must_use]
    pub fn is_flat(self) -> bool {
        matches!(self.row().encode, Encode::Flat(_))
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
        self.row().delivers_without_store
    }

    /// Whether the connection that sends a message gets no echo of it. The sender's other devices do.
    #[must_use]
    pub fn mutes_own_sends(self) -> bool {
        self.row().mutes_own_sends
    }
}

/// The types of companions for which no flat dialect has a frame. They are skipped without being parsed.
pub const CANONICAL_ONLY: [&str; 2] = ["conversation.updated", "notification.unread"];

/// The dialect, numbering and compression of a socket, on which its bytes depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wire {
    /// The dialect.
    pub dialect: Dialect,
    /// Whether frames carry `seq`, and the socket gets its position. In flat dialects only for clients that resume.
    pub numbered: bool,
    /// From how many bytes on a message is compressed, where the client negotiated that (RFC 7692). The texts are the same.
    pub deflate_from: Option<NonZeroU16>,
}

impl Wire {
    /// That of canonical sockets.
    pub const CHAT: Self = Self::plain(Dialect::Chat, true);

    /// That of a socket whose messages are not compressed.
    #[must_use]
    pub const fn plain(dialect: Dialect, numbered: bool) -> Self {
        Self { dialect, numbered, deflate_from: None }
    }

    /// The text frames of an event, in order; none where the dialect has none for it. `seq` is a durable event's. If
    /// one event makes several frames, the last one carries it, so that a client that got only some resumes before all.
    /// `now` is the time that flat frames show for an event without one.
    #[must_use]
    pub fn encode(self, event: &Event, seq: Option<u64>, now: Timestamp) -> Vec<String> {
        match self.dialect.row().encode {
            Encode::Canonical => vec![chat::encode(event, seq)],
            Encode::Flat(encode) => {
                let mut texts = Texts::new(self.numbered);
                encode(event, now, &mut texts);
                texts.finish(event, seq)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            for dialect in Dialect::ALL.into_iter().filter(|dialect| dialect.is_flat()) {
                let texts = Wire::plain(dialect, true).encode(event, Some(1), Timestamp::from_unix_ms(0));
                assert!(texts.is_empty(), "{kind} {dialect:?}");
            }
        }
    }

    #[test]
    fn an_index_is_a_place_in_the_list() {
        assert!(Dialect::ALL.into_iter().map(Dialect::index).eq(0..Dialect::ALL.len()));
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
            // Deep and whole is JSON like any other; unused fields are skipped.
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
        // The largest integer that JavaScript holds is an id where integers are; it reads larger ones as those of others.
        for (dialect, frame) in frames_with("9007199254740991") {
            assert_eq!(refused(dialect, frame.as_bytes()).is_some(), dialect == Dialect::Chat, "{dialect:?} {frame}");
        }
        for large in ["9007199254740992", "1161888007138312193", "18446744073709551615"] {
            for (dialect, frame) in frames_with(large) {
                let code = refused(dialect, frame.as_bytes());
                assert_eq!(code, Some(ErrorCode::ValidationError), "{dialect:?} {frame}");
            }
            for (dialect, frame) in frames_with(&format!("\"{large}\"")) {
                assert_eq!(refused(dialect, frame.as_bytes()), None, "{dialect:?} {frame}");
            }
        }
    }

    /// Text that was cut amid an emoji is refused with the field and the `ref`, in every dialect.
    #[test]
    fn half_of_a_character_is_told_with_its_field() {
        let frame = |content: &str, reference: &str| {
            [
                format!(r#"{{"type":"message.send","ref":{reference},"payload":{{"to":"b","content":{content}}}}}"#),
                format!(r#"{{"type":"send_message","ref":{reference},"receiver_id":7,"content":{content}}}"#),
                format!(r#"{{"type":"private","ref":{reference},"to":7,"content":{content}}}"#),
                format!(r#"{{"content":{content},"type":"chat_message","ref":{reference},"channel_id":"c"}}"#),
            ]
        };
        let decode = |dialect, frame: &str| Decoder::new(100).decode_as(dialect, &mut frame.as_bytes().to_vec());
        for half in [r#""x\ud83d""#, r#""\uDE00x""#, r#""\ud83d\ud83d\ude00""#, r#""\ud83d\n""#] {
            for (dialect, frame) in std::iter::zip(Dialect::ALL, frame(half, "7")) {
                let DecodedFrame { command, reference } = decode(dialect, &frame);
                let error = command.expect_err(&frame);
                assert_eq!(
                    (error.code, error.field.as_deref()),
                    (ErrorCode::ValidationError, Some("content")),
                    "{frame}"
                );
                assert_eq!(reference.as_deref(), Some("7"), "{frame}");
            }
            for (dialect, frame) in std::iter::zip(Dialect::ALL, frame("\"x\"", half)) {
                let DecodedFrame { command, reference } = decode(dialect, &frame);
                assert_eq!(command.expect_err(&frame).field.as_deref(), Some("ref"), "{frame}");
                assert_eq!(reference, None, "{frame}");
            }
            let broken = format!(r#"{{"type":"ping","ref":7,"x":{half}"#);
            let code = decode(Dialect::Chat, &broken).command.map_err(|error| error.code);
            assert_eq!(code, Err(ErrorCode::InvalidMessage));
            let body = format!(r#"{{"to":"b","content":{half}}}"#);
            let error = Decoder::new(100).decode_send(&mut body.clone().into_bytes()).expect_err(&body);
            assert_eq!((error.code, error.field.as_deref()), (ErrorCode::ValidationError, Some("content")));
            assert_eq!(half_of_a_character(body.as_bytes()), Some(error));
        }
        for (dialect, frame) in std::iter::zip(Dialect::ALL, frame(r#""\ud83d\ude00""#, r#""\ud83d\ude00""#)) {
            let DecodedFrame { command, reference } = decode(dialect, &frame);
            let Ok(Command::Send(send)) = command else { panic!("{frame}") };
            assert_eq!((send.content.as_str(), reference.as_deref()), ("😀", Some("\"😀\"")));
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
