//! The dialects (PROTOCOL §2): one set of commands and events, four ways to write them. A dialect only decodes and
//! encodes; which rights somebody has and where an event goes is decided without it.

use crate::flat::Texts;
use crate::{Event, channels_v1, chat_v1, listings_v1, social_v1};

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
            Self::Chat => chat_v1::SUBPROTOCOL,
            Self::Listings => listings_v1::SUBPROTOCOL,
            Self::Social => social_v1::SUBPROTOCOL,
            Self::Channels => channels_v1::SUBPROTOCOL,
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
            Dialect::Listings => listings_v1::encode(event, &mut texts),
            Dialect::Social => social_v1::encode(event, &mut texts),
            Dialect::Channels => channels_v1::encode(event, &mut texts),
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
}
