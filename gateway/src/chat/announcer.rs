//! Tells users who of their partners came or went, at a bounded rate: after an outage everybody comes at once, each has
//! hundreds of partners, and messages would stand behind millions of such events. What had to wait is told only if it is
//! still so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use shared::{Event, UserId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::backbone::{BackboneError, Delivery, DeliveryKind, Presence};
use crate::metrics::Metrics;

/// How many users a node tells of one in a second; as many at once.
const TOLD_PER_SECOND: u32 = 5_000;
/// How many users may wait to be told. What comes on top is dropped, and counted.
const WAITING_MAX: usize = 25_000;
/// How many are told before the clock is looked at again.
const TOLD_AT_ONCE: usize = 1_000;
/// What waited for longer may not be so any more.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The way to those who are told.
pub(super) struct Announcer {
    queue: mpsc::Sender<Waiting>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// That somebody came or went.
pub(super) struct News {
    /// Who.
    pub(super) user: UserId,
    /// Whether they are there now.
    pub(super) online: bool,
    /// What is said of it.
    pub(super) event: Event,
    /// To whom.
    pub(super) partners: Vec<UserId>,
}

struct Waiting {
    news: News,
    since: Instant,
}

impl Announcer {
    /// Starts the task that gives deliveries to `publish` and asks `presence` who is there; it ends when this is dropped,
    /// and what waits then is told to nobody.
    pub(super) fn start<P, A, F>(publish: P, presence: A, metrics: Arc<Metrics>) -> Self
    where
        P: Fn(Vec<Delivery>) + Send + 'static,
        A: Fn(Vec<UserId>) -> F + Send + 'static,
        F: Future<Output = Result<Vec<Presence>, BackboneError>> + Send + 'static,
    {
        let (queue, told) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let told = Told { queue: told, waiting: Arc::clone(&waiting) };
        tokio::spawn(tell(told, publish, presence));
        Self { queue, waiting, metrics }
    }

    /// Whether there is room for more news.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < WAITING_MAX
    }

    /// Says it when its turn comes; drops it if too many wait already.
    pub(super) fn tell(&self, news: News) {
        let told = news.partners.len();
        if told == 0 {
            return;
        }
        let has_room = self.has_room();
        self.waiting.fetch_add(told, Ordering::Relaxed);
        if !has_room || self.queue.try_send(Waiting { news, since: Instant::now() }).is_err() {
            self.waiting.fetch_sub(told, Ordering::Relaxed);
            self.metrics.dropped_ephemeral.increment(told as u64);
        }
    }
}

/// The way out of the queue.
struct Told {
    queue: mpsc::Receiver<Waiting>,
    waiting: Arc<AtomicUsize>,
}

impl Told {
    async fn some(&mut self) -> Option<Vec<Waiting>> {
        let first = self.queue.recv().await?;
        let mut told = first.news.partners.len();
        let mut some = vec![first];
        while told < TOLD_AT_ONCE
            && let Ok(next) = self.queue.try_recv()
        {
            told += next.news.partners.len();
            some.push(next);
        }
        self.waiting.fetch_sub(told, Ordering::Relaxed);
        Some(some)
    }
}

async fn tell<P, A, F>(mut told: Told, publish: P, presence: A)
where
    P: Fn(Vec<Delivery>),
    A: Fn(Vec<UserId>) -> F,
    F: Future<Output = Result<Vec<Presence>, BackboneError>>,
{
    let mut budget = Budget(Instant::now());
    while let Some(news) = told.some().await {
        let asked = waited(&news);
        let news = match if asked.is_empty() { Ok(Vec::new()) } else { presence(asked.clone()).await } {
            Ok(presence) => still_so(news, &asked.into_iter().zip(presence).collect()),
            Err(error) => {
                // Where nobody can say who is there, nobody can be told either.
                tracing::debug!(%error, "comings and goings could not be told");
                continue;
            }
        };
        let deliveries = deliveries(news);
        let pause_until = budget.spend(deliveries.len(), Instant::now());
        publish(deliveries);
        sleep_until(pause_until).await;
    }
}

/// The moment at which what was told so far is paid for; at most a second is saved up.
struct Budget(Instant);

impl Budget {
    /// Takes what telling so many users costs; until when nothing more may be told.
    fn spend(&mut self, told: usize, now: Instant) -> Instant {
        const SECOND: Duration = Duration::from_secs(1);
        let cost = SECOND * u32::try_from(told).unwrap_or(u32::MAX) / TOLD_PER_SECOND;
        self.0 = self.0.max(now.checked_sub(SECOND).unwrap_or(now)) + cost;
        self.0
    }
}

/// Those whose news is not fresh.
fn waited(news: &[Waiting]) -> Vec<UserId> {
    let waited = news.iter().filter(|waiting| waiting.since.elapsed() > FRESH_FOR);
    waited.map(|waiting| waiting.news.user.clone()).collect()
}

/// Without those who came and went again, or went and came again.
fn still_so(news: Vec<Waiting>, now: &HashMap<UserId, Presence>) -> Vec<News> {
    let is_so = |news: &News| now.get(&news.user).is_none_or(|presence| presence.online == news.online);
    news.into_iter().map(|waiting| waiting.news).filter(is_so).collect()
}

fn deliveries(news: Vec<News>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for news in news {
        let body = Bytes::from(news.event.to_json());
        let delivery = |user| Delivery { user, body: body.clone(), kind: DeliveryKind::Ephemeral };
        deliveries.extend(news.partners.into_iter().map(delivery));
    }
    deliveries
}

#[cfg(test)]
mod tests {
    use shared::Timestamp;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).expect("an id")
    }

    fn came(name: &str, partners: usize) -> News {
        let partners = (0..partners).map(|number| user(&format!("p{number}"))).collect();
        let event = Event::UserOnline { user_id: user(name), online_at: Timestamp::default() };
        News { user: user(name), online: true, event, partners }
    }

    #[test]
    fn a_second_is_saved_up_and_then_there_is_a_rate() {
        let begun = Instant::now();
        let (mut budget, mut told, ten_seconds) = (Budget(begun), 0, Duration::from_secs(10));
        let started = begun + ten_seconds * 6;
        let mut now = started;
        while now < started + ten_seconds {
            now = now.max(budget.spend(TOLD_AT_ONCE, now));
            told += TOLD_AT_ONCE;
        }
        assert_eq!(told, 11 * TOLD_PER_SECOND as usize);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped() {
        let none = |_| std::future::ready(Ok(Vec::new()));
        let (published, mut counts) = mpsc::channel(100);
        let publish = move |deliveries: Vec<Delivery>| {
            let _ = published.try_send(deliveries.len());
        };
        let announcer = Announcer::start(publish, none, Arc::new(Metrics::new()));
        announcer.tell(came("lonely", 0));
        assert_eq!(announcer.waiting.load(Ordering::Relaxed), 0);
        for number in 0..1_000 {
            announcer.tell(came(&format!("u{number}"), 500));
        }
        assert_eq!((announcer.waiting.load(Ordering::Relaxed), announcer.has_room()), (WAITING_MAX, false));
        assert_eq!(counts.recv().await, Some(TOLD_AT_ONCE), "the first of them go out at once");
        assert!(announcer.has_room());
    }

    #[test]
    fn what_had_to_wait_is_told_only_if_it_is_still_so() {
        let now = Instant::now();
        let earlier = now.checked_sub(FRESH_FOR * 2).expect("a moment");
        let waiting = |name, since| Waiting { news: came(name, 1), since };
        let went = Waiting { news: News { online: false, ..came("back", 1) }, since: earlier };
        let news = vec![waiting("here", earlier), waiting("gone", earlier), went, waiting("fresh", now)];
        let asked = waited(&news);
        assert_eq!(asked, ["here", "gone", "back"].map(user));
        let presence = [true, false, true].map(|online| Presence { online, last_seen: None });
        let told = still_so(news, &asked.into_iter().zip(presence).collect());
        assert_eq!(told.into_iter().map(|news| news.user).collect::<Vec<_>>(), ["here", "fresh"].map(user));
    }
}
