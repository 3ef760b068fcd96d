//! Notifies users of the presence of their partners, at a bounded rate.
//!
//! After an outage all users come back at once, and each has hundreds of partners. Without the bound messages would
//! queue behind millions of such events. An announcement that had to wait is sent only if it is still true.
//!
//! Announcements wait in three lanes, each with room of its own. Users with few partners go first, then those with many. Whoever
//! comes and goes all the time goes last, and so keeps nobody else's waiting.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use shared::{Event, Timestamp, UserId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::backbone::{BackboneError, Delivery, DeliveryKind, Presence};
use crate::clock::now_us;
use crate::limits::{Bucket, Rate, Slots};
use crate::metrics::Metrics;

/// How many users a node tells of one in a second; as many at once.
const TOLD_PER_SECOND: u32 = 5_000;
/// How many users all nodes together tell in a second: each has an equal share.
const TOLD_BY_ALL_PER_SECOND: u32 = 50_000;
/// How many users may wait to be notified, in each lane. Further ones are dropped, and counted.
const WAITING_MAX: usize = 25_000;
/// A user with more partners goes behind those with fewer.
const FEW_PARTNERS: usize = 100;
/// A user is told of twice at once, and once in so many microseconds; beyond that they go last.
const TOLD_OF: Rate = Rate::new(30_000_000, 60_000_000);
/// Few partners, many partners, and users who come and go all the time.
const LANES: usize = 3;
/// How many are notified before the clock is read again.
const TOLD_AT_ONCE: usize = 1_000;
/// After a longer wait an announcement may be out of date.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Publishes the announcements.
pub(super) struct Announcer {
    lanes: [Lane; LANES],
    /// Who was told of lately.
    told_of: Slots,
    metrics: Arc<Metrics>,
}

/// The way into a lane.
struct Lane {
    queue: mpsc::Sender<Announcement>,
    waiting: Arc<AtomicUsize>,
}

impl Lane {
    /// A lane, and its end.
    fn new() -> (Self, LaneEnd) {
        let (queue, end) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let end = LaneEnd { queue: end, waiting: Arc::clone(&waiting) };
        (Self { queue, waiting }, end)
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < WAITING_MAX
    }
}

/// A user came or went.
pub(super) struct News {
    /// Who.
    pub(super) user: UserId,
    /// Whether they are there now.
    pub(super) online: bool,
    /// When they came, or were seen last.
    pub(super) at: Timestamp,
    /// The users to notify.
    pub(super) partners: Vec<UserId>,
}

impl News {
    fn event(&self) -> Event {
        let user_id = self.user.clone();
        if self.online {
            Event::UserOnline { user_id, online_at: self.at }
        } else {
            Event::UserOffline { user_id, last_seen: self.at }
        }
    }
}

struct Announcement {
    news: News,
    since: Instant,
}

impl Announcer {
    /// Starts the task that gives deliveries to `publish`. It gets users' presence from `presence`, and the number of
    /// nodes from `nodes`. It ends when this is dropped, without the announcements that still wait.
    pub(super) fn start<P, A, F, N>(publish: P, presence: A, nodes: N, metrics: Arc<Metrics>) -> Self
    where
        P: Fn(Vec<Delivery>) + Send + 'static,
        A: Fn(Vec<UserId>) -> F + Send + 'static,
        F: Future<Output = Result<Vec<Presence>, BackboneError>> + Send + 'static,
        N: Fn() -> u32 + Send + 'static,
    {
        let [(few, few_end), (many, many_end), (again, again_end)] = [Lane::new(), Lane::new(), Lane::new()];
        tokio::spawn(tell(AnnouncementQueue([few_end, many_end, again_end]), publish, presence, nodes));
        Self { lanes: [few, many, again], told_of: Slots::new(TOLD_OF), metrics }
    }

    /// Whether there is room for more news of users who seldom come and go.
    pub(super) fn has_room(&self) -> bool {
        let [few, many, _] = &self.lanes;
        few.has_room() && many.has_room()
    }

    /// Says it when its turn comes; drops it if too many wait already.
    pub(super) fn tell(&self, news: News) {
        let told = news.partners.len();
        if told == 0 {
            return;
        }
        let [few, many, again] = &self.lanes;
        let lane = match self.told_of.take(&news.user, now_us()) {
            Ok(()) if told <= FEW_PARTNERS => few,
            Ok(()) => many,
            Err(_) => again,
        };
        let has_room = lane.has_room();
        lane.waiting.fetch_add(told, Ordering::Relaxed);
        if !has_room || lane.queue.try_send(Announcement { news, since: Instant::now() }).is_err() {
            lane.waiting.fetch_sub(told, Ordering::Relaxed);
            self.metrics.dropped_ephemeral.increment(told as u64);
        }
    }
}

/// The way out of the lanes.
struct AnnouncementQueue([LaneEnd; LANES]);

struct LaneEnd {
    queue: mpsc::Receiver<Announcement>,
    waiting: Arc<AtomicUsize>,
}

impl AnnouncementQueue {
    /// The next announcements, those of the first lanes first; `None` when there will be no more.
    async fn some(&mut self) -> Option<Vec<Announcement>> {
        let first = poll_fn(|cx| self.poll_next(cx)).await?;
        let mut told = first.news.partners.len();
        let mut some = vec![first];
        while told < TOLD_AT_ONCE
            && let Some(next) = self.0.iter_mut().find_map(LaneEnd::try_next)
        {
            told += next.news.partners.len();
            some.push(next);
        }
        Some(some)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Announcement>> {
        let mut is_over = true;
        for lane in &mut self.0 {
            match lane.queue.poll_recv(cx) {
                Poll::Ready(Some(next)) => return Poll::Ready(Some(lane.taken(next))),
                Poll::Ready(None) => {}
                Poll::Pending => is_over = false,
            }
        }
        if is_over { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl LaneEnd {
    fn try_next(&mut self) -> Option<Announcement> {
        let next = self.queue.try_recv().ok()?;
        Some(self.taken(next))
    }

    fn taken(&self, announcement: Announcement) -> Announcement {
        self.waiting.fetch_sub(announcement.news.partners.len(), Ordering::Relaxed);
        announcement
    }
}

async fn tell<P, A, F, N>(mut told: AnnouncementQueue, publish: P, presence: A, nodes: N)
where
    P: Fn(Vec<Delivery>),
    A: Fn(Vec<UserId>) -> F,
    F: Future<Output = Result<Vec<Presence>, BackboneError>>,
    N: Fn() -> u32,
{
    let mut budget = Bucket::default();
    while let Some(news) = told.some().await {
        let asked = waited(&news);
        let answer = if asked.is_empty() { Ok(Vec::new()) } else { presence(asked.clone()).await };
        let news = match answer {
            Ok(presence) => still_so(news, &asked.into_iter().zip(presence).collect()),
            Err(error) => {
                // Without an answer about presence no user can be notified.
                tracing::debug!(%error, "presence could not be announced");
                continue;
            }
        };
        let deliveries = deliveries(news);
        let pause_us = budget.overdraw(rate_of_one_in(nodes()), deliveries.len() as u64, now_us());
        publish(deliveries);
        sleep(Duration::from_micros(pause_us)).await;
    }
}

fn rate_of_one_in(nodes: u32) -> Rate {
    let share = (TOLD_BY_ALL_PER_SECOND / nodes.max(1)).clamp(1, TOLD_PER_SECOND);
    Rate::new(1_000_000 / u64::from(share), 1_000_000)
}

/// Those whose news is not fresh.
fn waited(news: &[Announcement]) -> Vec<UserId> {
    let waited = news.iter().filter(|waiting| waiting.since.elapsed() > FRESH_FOR);
    waited.map(|waiting| waiting.news.user.clone()).collect()
}

/// Without those who came and went again, or went and came again.
fn still_so(news: Vec<Announcement>, now: &HashMap<UserId, Presence>) -> Vec<News> {
    let is_so = |news: &News| now.get(&news.user).is_none_or(|presence| presence.online == news.online);
    news.into_iter().map(|waiting| waiting.news).filter(is_so).collect()
}

fn deliveries(news: Vec<News>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for news in news {
        let body = Bytes::from(news.event().to_json());
        let delivery = |user| Delivery { user, body: body.clone(), kind: DeliveryKind::Ephemeral };
        deliveries.extend(news.partners.into_iter().map(delivery));
    }
    deliveries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).expect("an id")
    }

    fn came(name: &str, partners: usize) -> News {
        let partners = (0..partners).map(|number| user(&format!("p{number}"))).collect();
        News { user: user(name), online: true, at: Timestamp::default(), partners }
    }

    #[test]
    fn many_nodes_share_what_all_may_tell() {
        let told_by_all = [0, 1, 10, 100, 1_000].map(|nodes| {
            let each = 1_000_000 / rate_of_one_in(nodes).cost_us();
            each * u64::from(nodes.max(1))
        });
        assert_eq!(told_by_all, [5_000, 5_000, 50_000, 50_000, 50_000]);
        assert_eq!(rate_of_one_in(u32::MAX).cost_us(), 1_000_000);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped() {
        let none = |_| std::future::ready(Ok(Vec::new()));
        let (published, mut counts) = mpsc::channel(100);
        let publish = move |deliveries: Vec<Delivery>| {
            let _ = published.try_send(deliveries.len());
        };
        let announcer = Announcer::start(publish, none, || 1, Arc::new(Metrics::new()));
        announcer.tell(came("lonely", 0));
        let waiting = || announcer.lanes.iter().map(|lane| lane.waiting.load(Ordering::Relaxed)).sum::<usize>();
        assert_eq!(waiting(), 0);
        for number in 0..1_000 {
            announcer.tell(came(&format!("u{number}"), 500));
        }
        assert_eq!((waiting(), announcer.has_room()), (WAITING_MAX, false));
        assert_eq!(counts.recv().await, Some(TOLD_AT_ONCE), "the first of them go out at once");
        assert!(announcer.has_room());
    }

    #[tokio::test]
    async fn who_comes_and_goes_all_the_time_takes_nobody_elses_turn() {
        let none =
            |users: Vec<UserId>| std::future::ready(Ok(vec![Presence { online: true, last_seen: None }; users.len()]));
        let (published, mut told) = mpsc::channel(1_000);
        let publish = move |deliveries: Vec<Delivery>| {
            let _ = published.try_send(deliveries);
        };
        let announcer = Announcer::start(publish, none, || 1, Arc::new(Metrics::new()));
        // Twenty users who have come and gone before, and do so again and again.
        for _ in 0..200 {
            for number in 0..20 {
                announcer.tell(came(&format!("churner{number}"), 499));
            }
        }
        announcer.tell(came("large", 300));
        announcer.tell(came("small", 3));
        let says = |deliveries: &[Delivery], name: &str| {
            deliveries
                .iter()
                .filter(|delivery| delivery.body.windows(name.len()).any(|part| part == name.as_bytes()))
                .count()
        };
        let (mut small, mut large, mut before) = (0, 0, 0);
        while small < 3 || large < 300 {
            let deliveries = told.recv().await.expect("it tells");
            small += says(&deliveries, "\"small\"");
            large += says(&deliveries, "\"large\"");
            before += says(&deliveries, "churner");
        }
        // The churners' first two comings count as anybody's.
        assert!(before <= (2 * 20 + 4) * 499, "{before} of the churners' were told first");
    }

    #[test]
    fn what_had_to_wait_is_told_only_if_it_is_still_so() {
        let now = Instant::now();
        let earlier = now.checked_sub(FRESH_FOR * 2).expect("a moment");
        let waiting = |name, since| Announcement { news: came(name, 1), since };
        let went = Announcement { news: News { online: false, ..came("back", 1) }, since: earlier };
        let news = vec![waiting("here", earlier), waiting("gone", earlier), went, waiting("fresh", now)];
        let asked = waited(&news);
        assert_eq!(asked, ["here", "gone", "back"].map(user));
        let presence = [true, false, true].map(|online| Presence { online, last_seen: None });
        let told = still_so(news, &asked.into_iter().zip(presence).collect());
        assert_eq!(told.into_iter().map(|news| news.user).collect::<Vec<_>>(), ["here", "fresh"].map(user));
    }
}
