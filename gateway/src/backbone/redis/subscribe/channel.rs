//! The channels that a node subscribes to for its sockets: a user's, or a large conversation's.

use shared::redis_keys::Keys;
use shared::{ConversationId, UserId};

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::backbone::redis) enum Channel {
    User(UserId),
    Conversation(ConversationId),
}

impl Channel {
    /// Its name in Redis.
    pub(in crate::backbone::redis) fn name(&self, keys: &Keys) -> String {
        match self {
            Self::User(user) => keys.user_channel(user),
            Self::Conversation(conversation) => keys.conversation_channel(conversation),
        }
    }

    /// The channel of this name, if it is one.
    pub(in crate::backbone::redis) fn of_name(keys: &Keys, name: &[u8]) -> Option<Self> {
        if let Some(user) = keys.user_of_channel(name) {
            return UserId::parse(user).ok().map(Self::User);
        }
        ConversationId::parse(keys.conversation_of_channel(name)?).ok().map(Self::Conversation)
    }

    /// Those of users.
    pub(in crate::backbone::redis) fn users(channels: Vec<Self>) -> Vec<UserId> {
        let user = |channel| match channel {
            Self::User(user) => Some(user),
            Self::Conversation(_) => None,
        };
        channels.into_iter().filter_map(user).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_known_by_its_name() {
        for keys in [Keys::default(), Keys::in_namespace("blue").expect("a namespace")] {
            let user = Channel::User(UserId::parse("conversation:c").expect("an id"));
            let conversation = Channel::Conversation(ConversationId::parse("user:u").expect("an id"));
            for channel in [user, conversation] {
                assert_eq!(Channel::of_name(&keys, channel.name(&keys).as_bytes()), Some(channel));
            }
            assert_eq!(Channel::of_name(&keys, keys.all_channel().as_bytes()), None);
        }
    }
}
