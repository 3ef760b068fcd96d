//! The delivering side of a node, which is the real one, and its subscription, which may lose what is on its way.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gateway::backbone::{BackboneError, Inbox, LogPage};
use gateway::delivery::fanout::Fanout;
use gateway::delivery::heal::Heal;
use gateway::delivery::registry::Registry;
use gateway::delivery::topics::Topics;
use gateway::metrics::Metrics;
use shared::UserId;
use tokio::sync::mpsc;

use super::backbone::{Backbone, Place};
use super::user;

/// Whether a node's subscription carries pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// The server has lost the connection, and the node hasn't noticed.
    Cut,
    /// The node has noticed.
    Down,
}

/// A node of the model.
pub(crate) struct Node {
    pub(crate) registry: Arc<Registry>,
    topics: Arc<Topics>,
    pub(crate) fanout: Fanout,
    pub(crate) link: Link,
    /// Payloads that the server has sent to this node.
    pub(crate) on_the_way: VecDeque<(Place, Bytes)>,
    /// The connection is being made: not all users are subscribed again.
    is_incomplete: bool,
    requests: mpsc::UnboundedReceiver<UserId>,
    heal: Option<Heal>,
    /// The page that was read, not applied yet, and the position from which it was read.
    page: Option<(u64, LogPage)>,
}

impl Node {
    #[expect(clippy::disallowed_methods, reason = "it holds one user")]
    pub(crate) fn new() -> Self {
        let registry = Arc::new(Registry::new(0));
        let (sender, requests) = mpsc::unbounded_channel();
        let topics = Arc::new(Topics::new(false, Arc::clone(&registry), metrics()));
        let fanout = Fanout::new((Arc::clone(&registry), Arc::clone(&topics)), metrics(), sender, Box::new(|_| {}));
        let (link, on_the_way) = (Link::Up, VecDeque::new());
        Self { registry, topics, fanout, link, on_the_way, is_incomplete: false, requests, heal: None, page: None }
    }

    /// The connection breaks: only the first `arriving` payloads still come.
    pub(crate) fn cut(&mut self, arriving: usize) {
        if self.link == Link::Up {
            self.link = Link::Cut;
            self.on_the_way.truncate(arriving);
        }
    }

    /// The node notices that its connection is broken.
    pub(crate) fn notice(&mut self) {
        if self.link == Link::Cut {
            self.link = Link::Down;
            self.on_the_way.clear();
            self.is_incomplete = false;
        }
    }

    /// The node is subscribed again; another time, it knows that all its users are.
    pub(crate) fn reconnect(&mut self) {
        if self.link == Link::Down {
            self.link = Link::Up;
            self.is_incomplete = true;
            self.fanout.user_in_doubt(user().as_str());
        } else if std::mem::take(&mut self.is_incomplete) {
            self.fanout.resubscribed();
        }
    }

    /// The next payload arrives.
    pub(crate) fn arrive(&mut self) -> bool {
        let payload = self.on_the_way.pop_front();
        payload.is_some_and(|(_, payload)| {
            self.fanout.user_event(user().as_str(), &payload);
            true
        })
    }

    /// Payloads of earlier epochs arrive. A reply that tells a new epoch doesn't overtake them here, because a push doesn't
    /// tell its epoch (NOLOSS.md, B1, open).
    pub(crate) fn arrive_before(&mut self, (epoch, _): Place) {
        while self.on_the_way.front().is_some_and(|((number, _), _)| *number < epoch) {
            self.arrive();
        }
    }

    /// One step of the healer, as its task takes them: a request is taken, a page is read, a page is applied. Gives the line
    /// for the nodes if the read opened the log; `None` if there was nothing to do.
    pub(crate) fn heal_step(&mut self, backbone: &mut Backbone) -> Option<Option<Bytes>> {
        let Some(heal) = &mut self.heal else {
            let user = self.requests.try_recv().ok()?;
            self.heal = Some(Heal::new((Arc::clone(&self.registry), Arc::clone(&self.topics)), metrics(), user));
            return Some(None);
        };
        if let Some((after, page)) = self.page.take() {
            heal.apply(after, &page, None);
            return Some(None);
        }
        let Some(after) = heal.next_read() else {
            self.heal = None;
            return Some(None);
        };
        if self.link == Link::Up {
            let (page, line) = backbone.read(after);
            self.page = Some((after, page));
            self.arrive_before(backbone.end());
            return Some(line);
        }
        heal.read_failed(&BackboneError("cut off".to_owned()));
        Some(None)
    }

    /// Whether a heal is asked for or under way.
    pub(crate) fn is_healing(&self) -> bool {
        self.heal.is_some() || !self.requests.is_empty()
    }
}

fn metrics() -> Arc<Metrics> {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    Arc::clone(METRICS.get_or_init(|| Arc::new(Metrics::new())))
}
