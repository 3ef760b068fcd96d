//! Which of a connection's commands may be carried out beside which: a pure function of two commands.
//!
//! Commands of one conversation are carried out in the order in which they were read. It never asks the store whose
//! conversation a message is in: a command that names a message alone is carried out by itself.

use std::hash::{DefaultHasher, Hash, Hasher};

use shared::command::{Target, UserRef};
use shared::{Command, ConversationId, UserId};

use crate::node::Node;

/// What a command concerns, as far as its order matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    /// Nothing at all: a ping.
    Ping,
    /// No conversation: it changes nothing.
    Query,
    /// Typing in a conversation.
    Typing(Key),
    /// A message for a conversation. The lane of the group commit takes it the moment it is started, and keeps the order.
    Send(Key),
    /// Something else in a conversation.
    Conversation(Key),
    /// Who is in a conversation, and who may write there.
    Membership(Key),
    /// A message for another user, the id of whose direct conversation this node doesn't know: it may be any. The lane takes
    /// it as it takes the others.
    SendTo(Key),
    /// Something else in such a conversation.
    Direct(Key),
    /// A message in a conversation that only the store knows.
    Everything,
    /// The connection's own right to send commands.
    Auth,
}

/// A conversation or a user, as a hash. If two have the same, one waits without need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    /// Messages to everybody.
    const EVERYBODY: Self = Self(0);

    fn of(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Concern {
    /// What `command` of `user` concerns. `live`: their messages go on while the store is away, and then don't take the lane.
    pub(super) fn of(command: &Command, node: &Node, user: &UserId, live: bool) -> Self {
        let direct = |other: &UserId| node.chat.known_direct(user, other);
        let of = |conversation: &ConversationId| Key::of(conversation.as_str());
        match command {
            Command::Auth { .. } => Self::Auth,
            Command::Ping { .. } => Self::Ping,
            Command::PresenceQuery { .. } => Self::Query,
            Command::Typing { conversation, .. } => Self::Typing(of(conversation)),
            Command::Send(send) => {
                let concern = match &send.target {
                    Target::Conversation(id) => Self::Send(of(id)),
                    Target::User(other) => {
                        direct(other).map_or(Self::SendTo(Key::of(other.as_str())), |known| Self::Send(of(&known)))
                    }
                };
                if live && !node.chat.takes_live_sends_at_once() { concern.not_at_once() } else { concern }
            }
            Command::Read { conversation, .. } | Command::Delivered { conversation, .. } => {
                Self::Conversation(of(conversation))
            }
            Command::Join { conversation, .. } | Command::Leave { conversation } => Self::Membership(of(conversation)),
            Command::BlockAdd(UserRef::Id(other)) | Command::BlockRemove(UserRef::Id(other)) => {
                direct(other).map_or(Self::Direct(Key::of(other.as_str())), |known| Self::Membership(of(&known)))
            }
            Command::BlockAdd(UserRef::Username(_))
            | Command::BlockRemove(UserRef::Username(_))
            | Command::ReadMessage { .. }
            | Command::Edit { .. }
            | Command::Delete { .. }
            | Command::ReactionAdd { .. }
            | Command::ReactionRemove { .. } => Self::Everything,
            Command::Broadcast { .. } => Self::Conversation(Key::EVERYBODY),
        }
    }

    /// Whether it is never held up by a lack of places.
    pub(super) fn is_prompt(self) -> bool {
        match self {
            Self::Ping | Self::Query | Self::Typing(_) => true,
            Self::Send(_)
            | Self::Conversation(_)
            | Self::Membership(_)
            | Self::SendTo(_)
            | Self::Direct(_)
            | Self::Everything
            | Self::Auth => false,
        }
    }

    /// The same for a message that waits for something else before the lane takes it.
    pub(super) fn not_at_once(self) -> Self {
        match self {
            Self::Send(key) => Self::Conversation(key),
            Self::SendTo(key) => Self::Direct(key),
            other => other,
        }
    }

    /// Whether a command of this concern has to wait until one that was read before it, and has not ended, has ended.
    pub(super) fn waits_for(self, earlier: Self, earlier_is_started: bool) -> bool {
        match (earlier, self) {
            (Self::Auth, _) => true,
            (_, Self::Auth | Self::Ping | Self::Query) | (Self::Ping | Self::Query, _) => false,
            (Self::Typing(one) | Self::Membership(one), Self::Typing(other)) => one == other,
            (Self::Typing(_), _) | (_, Self::Typing(_)) => false,
            (Self::Everything, _) | (_, Self::Everything) => true,
            (Self::Send(one), Self::Send(other)) | (Self::SendTo(one), Self::SendTo(other)) => {
                one == other && !earlier_is_started
            }
            (Self::Send(_), Self::SendTo(_)) | (Self::SendTo(_), Self::Send(_)) => !earlier_is_started,
            (Self::SendTo(one) | Self::Direct(one), Self::SendTo(other) | Self::Direct(other)) => one == other,
            (Self::SendTo(_) | Self::Direct(_), _) | (_, Self::SendTo(_) | Self::Direct(_)) => true,
            (
                Self::Send(one) | Self::Conversation(one) | Self::Membership(one),
                Self::Send(other) | Self::Conversation(other) | Self::Membership(other),
            ) => one == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = Key(1);
    const B: Key = Key(2);

    /// Both ways, whether the earlier one is started or not.
    fn waits(earlier: Concern, later: Concern) -> bool {
        let waits = later.waits_for(earlier, true);
        assert!(!waits || later.waits_for(earlier, false), "{later:?} passes {earlier:?} only once that is started");
        waits
    }

    #[test]
    fn messages_of_one_conversation_go_together_once_those_before_are_on_their_way() {
        assert!(!waits(Concern::Send(A), Concern::Send(A)));
        assert!(Concern::Send(A).waits_for(Concern::Send(A), false));
        assert!(!Concern::Send(A).waits_for(Concern::Send(B), false));
        assert!(waits(Concern::Send(A).not_at_once(), Concern::Send(A)));
    }

    #[test]
    fn all_else_of_a_conversation_goes_one_by_one() {
        let of = |key| [Concern::Send(key), Concern::Conversation(key), Concern::Membership(key)];
        for earlier in of(A) {
            for later in of(A) {
                let both_are_sends = (earlier, later) == (Concern::Send(A), Concern::Send(A));
                assert_eq!(waits(earlier, later), !both_are_sends, "{earlier:?}, {later:?}");
            }
            assert!(of(B).iter().all(|later| !waits(earlier, *later)));
        }
    }

    #[test]
    fn messages_for_a_user_go_together_with_all_other_messages() {
        for (earlier, later) in [
            (Concern::SendTo(A), Concern::SendTo(A)),
            (Concern::SendTo(A), Concern::Send(B)),
            (Concern::Send(B), Concern::SendTo(A)),
        ] {
            assert!(!waits(earlier, later) && later.waits_for(earlier, false), "{earlier:?}, {later:?}");
        }
        assert!(!Concern::SendTo(A).waits_for(Concern::SendTo(B), false), "those are two conversations");
        assert!(waits(Concern::SendTo(A).not_at_once(), Concern::SendTo(A)));
    }

    #[test]
    fn a_direct_conversation_that_is_not_known_may_be_any() {
        for (earlier, later) in [(Concern::Direct(A), Concern::SendTo(A)), (Concern::SendTo(A), Concern::Direct(A))] {
            assert!(waits(earlier, later), "{earlier:?}, {later:?}");
        }
        for other in [Concern::Conversation(B), Concern::Membership(B), Concern::Everything] {
            assert!(waits(Concern::SendTo(A), other) && waits(other, Concern::SendTo(A)), "{other:?}");
        }
        assert!(!waits(Concern::Direct(B), Concern::SendTo(A)) && !waits(Concern::SendTo(A), Concern::Direct(B)));
        assert!(waits(Concern::Direct(A), Concern::Direct(A)) && !waits(Concern::Direct(A), Concern::Direct(B)));
        for other in [Concern::Send(B), Concern::Conversation(B), Concern::Membership(B), Concern::Everything] {
            assert!(waits(Concern::Direct(A), other) && waits(other, Concern::Direct(A)), "{other:?}");
        }
    }

    #[test]
    fn auth_lets_nothing_pass_and_waits_for_nothing_else() {
        let others = [
            Concern::Ping,
            Concern::Query,
            Concern::Typing(A),
            Concern::Send(A),
            Concern::Direct(A),
            Concern::Everything,
        ];
        for other in others {
            assert!(waits(Concern::Auth, other) && !waits(other, Concern::Auth), "{other:?}");
        }
        assert!(waits(Concern::Auth, Concern::Auth));
    }

    #[test]
    fn typing_waits_for_a_join_only() {
        assert!(
            waits(Concern::Membership(A), Concern::Typing(A)) && !waits(Concern::Membership(B), Concern::Typing(A))
        );
        assert!(waits(Concern::Typing(A), Concern::Typing(A)));
        for other in [Concern::Send(A), Concern::Conversation(A), Concern::Direct(A), Concern::Everything] {
            assert!(!waits(other, Concern::Typing(A)) && !waits(Concern::Typing(A), other), "{other:?}");
        }
        assert!(!waits(Concern::Everything, Concern::Query) && !waits(Concern::Query, Concern::Everything));
    }
}
