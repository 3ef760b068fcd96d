//! Lists and single rows that clients ask for after a reload. The rules that both stores share, and the trait. No SQL.

use async_trait::async_trait;
use shared::message::{ListedChannel, ListedMember};
use shared::{Conversation, ConversationId, Message, MessageId, UserId};

use super::StoreError;

/// Channels that one page of the directory looks through.
pub(super) const CHANNELS_READ_MAX: u32 = 1_000;

/// A page of the directory of channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPage {
    /// The channels, ascending by id.
    pub items: Vec<ListedChannel>,
    /// Where the next page goes on, if there may be more.
    pub next: Option<ConversationId>,
}

/// Lists, each in pages in the order of ids: `after` is the last id of the page before.
#[async_trait]
pub trait Listings: Send + Sync + 'static {
    /// Members as `viewer` sees them (`None`: a backend); with `outsiders` also invited and banned users. `NotFound` if
    /// there is no such conversation. The caller has checked membership.
    async fn listed_members(
        &self,
        id: &ConversationId,
        viewer: Option<&UserId>,
        outsiders: bool,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<ListedMember>, StoreError>;

    /// One message; `None` if there is none, or its conversation was deleted.
    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError>;

    /// The users whom `user` has blocked.
    async fn blocked_by(&self, user: &UserId, after: Option<&UserId>, limit: u32) -> Result<Vec<UserId>, StoreError>;

    /// The conversations to which `user` is invited, as the user sees them.
    async fn invitations(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError>;

    /// Public channels whose title holds `query`, whatever the case of letters; all of them without one. A page looks
    /// through a thousand channels at most, so that it may be short, or empty, and still have a next one.
    async fn public_channels(
        &self,
        query: Option<&str>,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<ChannelPage, StoreError>;
}

/// The page of a directory, from the channels that were looked through.
pub(super) fn channel_page(read: Vec<ListedChannel>, query: Option<&str>, limit: u32) -> ChannelPage {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_full = read.len() >= usize::try_from(CHANNELS_READ_MAX).unwrap_or(usize::MAX);
    let last = read.last().map(|channel| channel.id.clone());
    let query = query.map(str::to_lowercase);
    let fits = |channel: &ListedChannel| match (&query, &channel.title) {
        (None, _) => true,
        (Some(query), Some(title)) => title.to_lowercase().contains(query),
        (Some(_), None) => false,
    };
    let mut items: Vec<ListedChannel> = read.into_iter().filter(fits).collect();
    if items.len() > limit {
        items.truncate(limit);
        let next = items.last().map(|channel| channel.id.clone());
        return ChannelPage { items, next };
    }
    ChannelPage { items, next: last.filter(|_| is_full) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(count: u32) -> Vec<ListedChannel> {
        let channel = |n: u32| ListedChannel {
            id: format!("c{n:04}").parse().expect("an id"),
            title: n.is_multiple_of(2).then(|| format!("Über {n}")),
            has_password: false,
            member_count: 1,
        };
        (0..count).map(channel).collect()
    }

    #[test]
    fn a_page_that_looked_through_enough_names_where_the_next_begins() {
        let place = |page: &ChannelPage| page.next.as_ref().map(ToString::to_string);
        let page = channel_page(channels(10), None, 3);
        assert_eq!((page.items.len(), place(&page).as_deref()), (3, Some("c0002")));
        let page = channel_page(channels(10), Some("üBER"), 3);
        assert_eq!((page.items.len(), place(&page).as_deref()), (3, Some("c0004")));
        let page = channel_page(channels(10), Some("über"), 5);
        assert_eq!((page.items.len(), place(&page)), (5, None));
        let page = channel_page(channels(CHANNELS_READ_MAX), Some("nothing"), 5);
        assert_eq!((page.items.len(), place(&page).as_deref()), (0, Some("c0999")));
    }
}
