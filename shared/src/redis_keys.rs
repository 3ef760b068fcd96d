//! The names of all Redis keys and channels. Ids are checked, so they can stand here as they are.

use std::sync::Arc;

use crate::{ConversationId, UserId};

/// The longest namespace.
const NAMESPACE_CHARS_MAX: usize = 32;

/// Makes the name of every key and channel of one deployment. Nothing else makes such names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// `<namespace>:`, or nothing.
    prefix: Arc<str>,
}

impl Keys {
    /// Names that begin with `<namespace>:`, so that several deployments can share one Redis. Names of
    /// [`Keys::default`] have no prefix.
    ///
    /// # Errors
    /// The namespace is empty, too long or has another character.
    pub fn in_namespace(namespace: &str) -> Result<Self, InvalidNamespace> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if namespace.is_empty() || namespace.len() > NAMESPACE_CHARS_MAX || !namespace.bytes().all(is_valid) {
            return Err(InvalidNamespace);
        }
        Ok(Self { prefix: format!("{namespace}:").into() })
    }

    /// Whether the names have a prefix.
    #[must_use]
    pub fn have_namespace(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// A name of this deployment that is no key and no channel, like that of a connection.
    #[must_use]
    pub fn scoped(&self, name: &str) -> String {
        let prefix = &self.prefix;
        format!("{prefix}{name}")
    }

    /// The channel that carries every outbound event for `user`.
    #[must_use]
    pub fn user_channel(&self, user: &UserId) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:user:{user}")
    }

    /// The user whose channel this is: the opposite of [`Keys::user_channel`]. The id isn't checked.
    #[must_use]
    pub fn user_of_channel<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(self.own(channel)?.strip_prefix(b"chat:user:")?).ok()
    }

    /// The channel that carries the events of a large conversation, once for all its members.
    #[must_use]
    pub fn conversation_channel(&self, conversation: &ConversationId) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:conversation:{conversation}")
    }

    /// The conversation whose channel this is: the opposite of [`Keys::conversation_channel`]. The id isn't checked.
    #[must_use]
    pub fn conversation_of_channel<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(self.own(channel)?.strip_prefix(b"chat:conversation:")?).ok()
    }

    /// Whether it is [`Keys::all_channel`].
    #[must_use]
    pub fn is_all_channel(&self, channel: &[u8]) -> bool {
        self.own(channel) == Some(b"chat:all")
    }

    /// Whether it is [`Keys::control_channel`].
    #[must_use]
    pub fn is_control_channel(&self, channel: &[u8]) -> bool {
        self.own(channel) == Some(b"chat:control")
    }

    /// A name without its prefix, if it is one of this deployment.
    fn own<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        name.strip_prefix(self.prefix.as_bytes())
    }

    /// The stream of a user's durable events; in the slot of the user's channel.
    #[must_use]
    pub fn log(&self, user: &UserId) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:log:{{{prefix}chat:user:{user}}}")
    }

    /// Unix seconds of the user's last sign of life; there only while they are online.
    #[must_use]
    pub fn online(&self, user: &UserId) -> String {
        let prefix = self.online_prefix();
        format!("{prefix}{user}")
    }

    /// The part of [`Keys::online`] before the user's id.
    #[must_use]
    pub fn online_prefix(&self) -> String {
        self.scoped("online:")
    }

    /// Unix milliseconds at which the user's last connection closed.
    #[must_use]
    pub fn last_seen(&self, user: &UserId) -> String {
        let prefix = self.last_seen_prefix();
        format!("{prefix}{user}")
    }

    /// The part of [`Keys::last_seen`] before the user's id.
    #[must_use]
    pub fn last_seen_prefix(&self) -> String {
        self.scoped("chat:last_seen:")
    }

    /// Unix seconds before which the user's tokens are worthless.
    #[must_use]
    pub fn revoked(&self, user: &UserId) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:revoked:{user}")
    }

    /// The key in which an application keeps a session cookie's user: an id, or JSON. The id has to be
    /// checked.
    #[must_use]
    pub fn session(&self, session: &str) -> String {
        let prefix = &self.prefix;
        format!("{prefix}session:{session}")
    }

    /// The key of a single-use ticket. The ticket has to be checked.
    #[must_use]
    pub fn ticket(&self, ticket: &str) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:ticket:{ticket}")
    }

    /// When the user's allowance of commands is whole again, in microseconds of Redis' clock.
    #[must_use]
    pub fn rate(&self, user: &UserId) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:rate:{user}")
    }

    /// A node's sign of life, and the channel of its probe.
    #[must_use]
    pub fn node(&self, node: &str) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:node:{node}")
    }

    /// Users that were announced online, by the unix milliseconds at which their offline check is due.
    #[must_use]
    pub fn offline_due(&self) -> String {
        self.scoped("chat:offline_due")
    }

    /// The channel for everyone.
    #[must_use]
    pub fn all_channel(&self) -> String {
        self.scoped("chat:all")
    }

    /// The channel for orders to all nodes.
    #[must_use]
    pub fn control_channel(&self) -> String {
        self.scoped("chat:control")
    }

    /// The stream of push jobs for users with nobody online.
    #[must_use]
    pub fn push_stream(&self) -> String {
        self.scoped("chat:push")
    }

    /// The hash of how many push jobs wait, by conversation and sender; in the slot of [`Keys::push_stream`].
    #[must_use]
    pub fn push_shares(&self) -> String {
        let prefix = &self.prefix;
        format!("{prefix}chat:push:shares:{{{prefix}chat:push}}")
    }

    /// The stream of push jobs that could not be done.
    #[must_use]
    pub fn push_dead_stream(&self) -> String {
        self.scoped("chat:push:dead")
    }

    /// The stream of messages that wait for the store.
    #[must_use]
    pub fn late_stream(&self) -> String {
        self.scoped("chat:late")
    }

    /// Who stores late messages at the moment.
    #[must_use]
    pub fn late_lease(&self) -> String {
        self.scoped("chat:late:lease")
    }
}

/// A namespace that can't stand before a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 32 of the characters A-Z a-z 0-9 _ -")]
pub struct InvalidNamespace;

#[cfg(test)]
mod tests {
    use super::*;

    fn every_name(keys: &Keys) -> Vec<String> {
        let user = UserId::parse("ann").expect("an id");
        vec![
            keys.user_channel(&user),
            keys.log(&user),
            keys.online(&user),
            keys.last_seen(&user),
            keys.revoked(&user),
            keys.session("s"),
            keys.ticket("t"),
            keys.rate(&user),
            keys.node("n"),
            keys.offline_due(),
            keys.all_channel(),
            keys.control_channel(),
            keys.push_stream(),
            keys.push_shares(),
            keys.push_dead_stream(),
            keys.late_stream(),
            keys.late_lease(),
            keys.scoped("parley"),
        ]
    }

    #[test]
    fn every_name_begins_with_the_namespace() {
        let (plain, own) = (Keys::default(), Keys::in_namespace("blue_1-A").expect("a namespace"));
        for (plain, own) in every_name(&plain).into_iter().zip(every_name(&own)) {
            assert_eq!(own.replace("blue_1-A:", ""), plain);
            assert!(own.starts_with("blue_1-A:"), "{own}");
        }
        let user = UserId::parse("ann").expect("an id");
        assert_eq!(own.log(&user), "blue_1-A:chat:log:{blue_1-A:chat:user:ann}");
    }

    #[test]
    fn a_deployment_knows_its_own_channels_and_no_others() {
        let (plain, own) = (Keys::default(), Keys::in_namespace("blue").expect("a namespace"));
        let ann = UserId::parse("ann").expect("an id");
        for (keys, other) in [(&plain, &own), (&own, &plain)] {
            assert_eq!(keys.user_of_channel(keys.user_channel(&ann).as_bytes()), Some("ann"));
            assert_eq!(keys.user_of_channel(other.user_channel(&ann).as_bytes()), None);
            assert!(keys.is_all_channel(keys.all_channel().as_bytes()));
            assert!(!keys.is_all_channel(other.all_channel().as_bytes()));
            assert!(keys.is_control_channel(keys.control_channel().as_bytes()));
            assert!(!keys.is_control_channel(other.control_channel().as_bytes()));
        }
    }

    #[test]
    fn a_namespace_is_short_and_of_plain_characters() {
        for invalid in ["", "a:b", "a b", "{a}", "a*", "ä", "a/b", &"a".repeat(33)] {
            assert_eq!(Keys::in_namespace(invalid), Err(InvalidNamespace), "{invalid}");
        }
        assert!(Keys::in_namespace(&"a".repeat(32)).is_ok_and(|keys| keys.have_namespace()));
        assert!(!Keys::default().have_namespace());
    }
}
