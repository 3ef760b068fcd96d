//! An oracle run: connect, open conversations, send at an open-loop rate, wait until everybody has everything, judge.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use rand::Rng;
use shared::{ConversationId, MessageId, UserId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::evidence::{Attempt, ConversationFacts, DeviceEvidence, Evidence, MessageRow, Recorder};
use super::herd::{Herd, HerdEnd, HerdPlan};
use super::verdict::{Verdict, ViolationKind};
use super::{check, store};
use crate::client::{Device, DeviceSetup, Directory, Order, OutgoingMessage, Recipient};
use crate::report::Progress;
use crate::rest::Rest;
use crate::target::{Target, TargetArgs};

/// How many orders may wait for a device.
const ORDERS_MAX: usize = 4096;
/// How long connecting and opening conversations may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the driver looks in on the devices.
const LOOK: Duration = Duration::from_millis(100);

/// Sends, and proves that nothing is lost, doubled or out of order. Inject faults from outside meanwhile.
#[derive(Debug, Clone, Args)]
pub struct OracleArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Its REST interface, `http://host:port`. May be repeated.
    #[arg(long = "http", required = true, value_name = "HTTP_URL")]
    pub http: Vec<String>,
    /// The API key by which groups are made.
    #[arg(long, env = "API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// How many users.
    #[arg(long, default_value_t = 200)]
    pub users: usize,
    /// How many devices each user has.
    #[arg(long, default_value_t = 1)]
    pub devices: usize,
    /// How many direct conversations [default: as many as users].
    #[arg(long)]
    pub pairs: Option<usize>,
    /// How many groups; they need --api-key.
    #[arg(long, default_value_t = 0, requires = "api_key")]
    pub groups: usize,
    /// How many members a group has.
    #[arg(long, default_value_t = 10)]
    pub group_size: usize,
    /// Messages per second, sent whether or not answers come.
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// How long to wait afterwards until every device has everything.
    #[arg(long, default_value_t = 30)]
    pub settle_seconds: u64,
    /// How long a message is, in bytes.
    #[arg(long, default_value_t = 120)]
    pub content_bytes: usize,
    /// How many devices stop reading, after a quarter of the time.
    #[arg(long, default_value_t = 0)]
    pub stalled_receivers: usize,
    /// For how long they do.
    #[arg(long, default_value_t = 15)]
    pub stall_seconds: u64,
    /// When all devices drop their connections and come back at once.
    #[arg(long, value_name = "SECONDS")]
    pub herd_at: Option<u64>,
    /// Sends every message from two devices of its sender at once, under one tempId.
    #[arg(long)]
    pub raced: bool,
    /// Reads the table messages as well, and compares it with history.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Writes the verdict as JSON to this file, or to standard output instead of the table (-).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Who talks to whom, and who is cut off when a herd is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// Neighbours with each other; everybody is cut off.
    Everybody,
    /// The first so many users send to all the others; those only listen, and they are cut off.
    Speakers(usize),
}

/// A run that is over.
#[derive(Debug)]
pub struct Run {
    /// What was written down.
    pub evidence: Evidence,
    /// What the oracle says to it.
    pub verdict: Verdict,
    /// What came of the herd, if there was one.
    pub herd: Option<HerdEnd>,
}

/// A device as the driver sees it.
struct Handle {
    user: UserId,
    orders: mpsc::Sender<Order>,
    recorder: Arc<Recorder>,
}

struct Scenario {
    args: OracleArgs,
    cast: Cast,
    plan: HerdPlan,
    herd: Option<Herd>,
    run: String,
    start: Instant,
    rest: Rest,
    directory: Arc<Directory>,
    tokens: HashMap<UserId, String>,
    /// By user, then by device.
    handles: Vec<Vec<Handle>>,
    conversations: HashMap<ConversationId, ConversationFacts>,
    attempts: Vec<Attempt>,
    progress: Progress,
}

/// Runs an oracle and returns its verdict.
///
/// # Errors
/// The run could not be set up, or the store could not be read in the end.
pub async fn run(args: &OracleArgs) -> Result<Verdict> {
    Ok(play(args, Cast::Everybody, &HerdPlan::default()).await?.verdict)
}

/// Runs an oracle with this cast and, if its arguments ask for one, a herd by this plan.
///
/// # Errors
/// As [`run`].
pub async fn play(args: &OracleArgs, cast: Cast, plan: &HerdPlan) -> Result<Run> {
    let target = Arc::new(Target::new(&args.target)?);
    if args.users < 2 || args.devices == 0 {
        bail!("at least two users with a device each are needed");
    }
    if args.raced && args.devices < 2 {
        bail!("--raced needs --devices 2 or more");
    }
    let mut scenario = Scenario {
        args: args.clone(),
        cast,
        plan: plan.clone(),
        herd: None,
        run: format!("{:08x}", rand::random::<u32>()),
        start: Instant::now(),
        rest: Rest::new(&args.http),
        directory: Arc::default(),
        tokens: HashMap::new(),
        handles: Vec::new(),
        conversations: HashMap::new(),
        attempts: Vec::new(),
        progress: Progress::new(),
    };
    let mut tasks = JoinSet::new();
    scenario.connect(&target, &mut tasks).await?;
    scenario.open_pairs().await?;
    scenario.open_groups().await?;
    scenario.drive().await;
    scenario.await_herd().await;
    scenario.settle().await;
    let stored = store::by_rest(&scenario.rest, &scenario.conversations, &scenario.tokens).await?;
    let by_sql = match &args.database_url {
        Some(url) => Some(store::by_sql(url, &scenario.conversations).await?),
        None => None,
    };
    tasks.shutdown().await;
    scenario.progress.clear();
    Ok(scenario.judge(stored, by_sql))
}

impl Scenario {
    async fn connect(&mut self, target: &Arc<Target>, tasks: &mut JoinSet<()>) -> Result<()> {
        for user in 0..self.args.users {
            let mut devices = Vec::new();
            for device in 0..self.args.devices {
                let recorder = Arc::new(Recorder::new(self.start));
                let (orders, inbox) = mpsc::channel(ORDERS_MAX);
                let number = user * self.args.devices + device;
                let device = Device::new(DeviceSetup {
                    user,
                    number,
                    node: self.first_node(user, number),
                    target: Arc::clone(target),
                    rest: self.rest.clone(),
                    directory: Arc::clone(&self.directory),
                    recorder: Arc::clone(&recorder),
                    orders: inbox,
                })?;
                devices.push(Handle { user: device.user().clone(), orders, recorder });
                tasks.spawn(device.run());
            }
            let (id, token) = target.user(user)?;
            self.tokens.insert(id, token);
            self.handles.push(devices);
        }
        let all = self.args.users * self.args.devices;
        self.wait(|scenario| {
            let open = scenario.devices().filter(|device| device.recorder.with(|log| !log.records.is_empty())).count();
            (open == all).then_some(()).ok_or(format!("{open} of {all} devices connected"))
        })
        .await
    }

    /// Which node a device asks first. Where one is to be killed, those who only listen are there, and nobody else.
    fn first_node(&self, user: usize, number: usize) -> usize {
        match (self.cast, self.plan.kill) {
            (Cast::Speakers(speakers), Some(_)) if user >= speakers => 0,
            (Cast::Speakers(_), Some(_)) => 1 + number % (self.args.target.urls.len().max(2) - 1),
            (Cast::Speakers(_) | Cast::Everybody, _) => number,
        }
    }

    /// Opens direct conversations by their first message, and learns their ids from the acknowledgements.
    async fn open_pairs(&mut self) -> Result<()> {
        let pairs = self.pairs();
        let mut opening = HashMap::new();
        for (pair, (a, b)) in pairs.iter().copied().enumerate() {
            let (Some(from), Some(to)) = (self.user(a), self.user(b)) else { continue };
            let temp_id = format!("{}-open-{pair}", self.run);
            opening.insert(temp_id.clone(), vec![from, to.clone()]);
            let send = OutgoingMessage { temp_id, to: Recipient::User(to), content: "hello".into() };
            self.send(a, 0, send, Instant::now());
            // Within the rate that the run itself has.
            tokio::time::sleep(Duration::from_secs_f64(1.0 / self.args.rate.max(1.0))).await;
        }
        self.wait(|scenario| {
            let acks: usize = scenario.devices().map(|device| device.recorder.with(|log| log.acks.len())).sum();
            let all = pairs.len();
            (acks >= all).then_some(()).ok_or(format!("{acks} of {all} direct conversations opened"))
        })
        .await?;
        let acks: Vec<_> = self.devices().flat_map(|device| device.recorder.with(|log| log.acks.clone())).collect();
        for ack in acks {
            if let Some(members) = opening.remove(&ack.temp_id) {
                self.add(ack.message.conversation, members, ack.message.seq.saturating_sub(1));
            }
        }
        Ok(())
    }

    /// Who opens a conversation with whom.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let users = self.args.users;
        match self.cast {
            Cast::Speakers(speakers) => (speakers..users).map(|user| (user % speakers.max(1), user)).collect(),
            Cast::Everybody => {
                let all = if users == 2 { 1 } else { users * ((users - 1) / 2) };
                let pairs = 0..self.args.pairs.unwrap_or(users).min(all);
                pairs.map(|pair| (pair % users, (pair % users + 1 + pair / users) % users)).collect()
            }
        }
    }

    async fn open_groups(&mut self) -> Result<()> {
        let Some(api_key) = self.args.api_key.clone() else { return Ok(()) };
        for group in 0..self.args.groups {
            let size = self.args.group_size.clamp(2, self.args.users);
            let members = (0..size).filter_map(|n| self.user((group * size + n) % self.args.users)).collect::<Vec<_>>();
            let id = format!("load-{}-{group}", self.run);
            let made = self.rest.make_group(&api_key, &id, &members).await?;
            self.add(made, members, 0);
        }
        Ok(())
    }

    fn add(&mut self, conversation: ConversationId, members: Vec<UserId>, base_seq: u64) {
        self.directory.add(&conversation, &members, base_seq);
        self.conversations.insert(conversation, ConversationFacts { members, base_seq });
    }

    /// Sends at the rate, whatever the deployment does.
    async fn drive(&mut self) {
        let conversations: Vec<(ConversationId, Vec<UserId>)> =
            self.conversations.iter().map(|(id, facts)| (id.clone(), facts.members.clone())).collect();
        let numbers: HashMap<UserId, usize> =
            (0..self.args.users).filter_map(|number| Some((self.user(number)?, number))).collect();
        let total = (self.args.rate * self.args.seconds as f64) as u64;
        let begin = Instant::now();
        self.herd = self.args.herd_at.map(|_| Herd::begin(&self.plan));
        let mut herd_at = self.args.herd_at.map(|seconds| begin + Duration::from_secs(seconds));
        let mut stall_at =
            (self.args.stalled_receivers > 0).then(|| begin + Duration::from_secs(self.args.seconds) / 4);
        let mut sent = 0;
        let mut looked = begin;
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while sent < total {
            tick.tick().await;
            let now = Instant::now();
            if herd_at.take_if(|at| now >= *at).is_some() {
                self.cut_off(now);
            }
            if stall_at.take_if(|at| now >= *at).is_some() {
                let time = Duration::from_secs(self.args.stall_seconds);
                order_all(self.devices().take(self.args.stalled_receivers), || Order::Stall(time));
            }
            let due = ((now - begin).as_secs_f64() * self.args.rate) as u64;
            while sent < due.min(total) {
                let at = begin + Duration::from_secs_f64(sent as f64 / self.args.rate);
                self.send_one(sent, at, &conversations, &numbers);
                sent += 1;
            }
            if now.duration_since(looked) >= LOOK {
                looked = now;
                self.look_at_herd();
                let open: usize = self.devices().map(|device| device.recorder.with(|log| log.unsettled)).sum();
                self.progress.show(&format!("sent {sent} of {total}, {open} without an answer"));
            }
        }
    }

    fn send_one(
        &mut self,
        number: u64,
        at: Instant,
        conversations: &[(ConversationId, Vec<UserId>)],
        numbers: &HashMap<UserId, usize>,
    ) {
        let mut random = rand::rng();
        let (Some(choice), device) = (pick(conversations), random.random_range(0..self.args.devices)) else { return };
        let (conversation, members) = choice;
        // Whoever opened a conversation stands first.
        let sender = match self.cast {
            Cast::Everybody => pick(members),
            Cast::Speakers(_) => members.first(),
        };
        let Some(sender) = sender else { return };
        let to = match members.as_slice() {
            // Both forms of addressing a direct conversation.
            [a, b] if number.is_multiple_of(4) => Recipient::User(if a == sender { b.clone() } else { a.clone() }),
            _ => Recipient::Conversation(conversation.clone()),
        };
        let mut content = format!("message {number} ");
        content.extend(std::iter::repeat_n('.', self.args.content_bytes.saturating_sub(content.len())));
        let temp_id = format!("{}-{number}", self.run);
        if let Some(user) = numbers.get(sender) {
            let send = OutgoingMessage { temp_id, to, content };
            if self.args.raced {
                // Neighbours: with two addresses they are on two nodes.
                self.send(*user, (device + 1) % self.args.devices, send.clone(), at);
            }
            self.send(*user, device, send, at);
        }
    }

    /// Hands a send to a device. If that has thousands waiting, the send is not made and not counted as attempted.
    fn send(&mut self, user: usize, device: usize, send: OutgoingMessage, at: Instant) {
        let Some(handle) = self.handles.get(user).and_then(|devices| devices.get(device)) else { return };
        let attempt = Attempt { temp_id: send.temp_id.clone(), sender: handle.user.clone(), at_us: self.run_us(at) };
        if handle.orders.try_send(Order::Send(send)).is_ok() {
            self.attempts.push(attempt);
        }
    }

    /// Those who are cut off.
    fn herd(&self) -> impl Iterator<Item = &Handle> {
        let stay = if let Cast::Speakers(speakers) = self.cast { speakers } else { 0 };
        self.handles.iter().skip(stay).flatten()
    }

    /// Cuts the herd off, now.
    fn cut_off(&mut self, now: Instant) {
        let now_us = self.run_us(now);
        let Some(herd) = &mut self.herd else { return };
        herd.cut(now_us);
        if herd.is_cut_by_resets() {
            order_all(self.herd(), || Order::Drop);
        }
    }

    /// Whether those who were cut off are back; `true` as well if nobody was.
    fn look_at_herd(&mut self) -> bool {
        let Some(mut herd) = self.herd.take() else { return true };
        let back = herd.is_back(self.herd().map(|device| &*device.recorder));
        self.herd = Some(herd);
        back
    }

    /// Waits, within bounds, until they are.
    async fn await_herd(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(self.args.settle_seconds);
        while !self.look_at_herd() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Microseconds from the run's start to this moment.
    fn run_us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// Waits, within bounds, until every send is settled and every device has what the store holds.
    async fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(self.args.settle_seconds);
        let mut due: Option<HashMap<&UserId, HashSet<MessageId>>> = None;
        while Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            let unsettled: usize = self.devices().map(|device| device.recorder.with(|log| log.unsettled)).sum();
            if unsettled > 0 {
                self.progress.show(&format!("{unsettled} sends without an answer"));
                continue;
            }
            let Some(due) = &due else {
                let rest = store::by_rest(&self.rest, &self.conversations, &self.tokens);
                let left = deadline.saturating_duration_since(Instant::now());
                if let Ok(Ok(stored)) = tokio::time::timeout(left, rest).await {
                    due = Some(self.due(&stored));
                }
                continue;
            };
            let lacking = |device: &&Handle| {
                device.recorder.with(|log| due.get(&device.user).is_some_and(|due| !due.is_subset(&log.brought)))
            };
            let incomplete = self.devices().filter(lacking).count();
            if incomplete == 0 {
                return;
            }
            self.progress.show(&format!("{incomplete} devices still lack messages"));
        }
    }

    fn due(&self, stored: &[MessageRow]) -> HashMap<&UserId, HashSet<MessageId>> {
        let mut due: HashMap<&UserId, HashSet<MessageId>> = HashMap::new();
        for row in stored {
            for member in self.conversations.get(&row.message.conversation).into_iter().flat_map(|facts| &facts.members)
            {
                due.entry(member).or_default().insert(row.message.id);
            }
        }
        due
    }

    fn judge(self, stored: Vec<MessageRow>, by_sql: Option<Vec<MessageRow>>) -> Run {
        let devices = self.devices().enumerate().map(|(number, device)| DeviceEvidence {
            user: device.user.clone(),
            number,
            log: device.recorder.with(std::mem::take),
        });
        let devices = devices.collect();
        let Self { conversations, attempts, herd, .. } = self;
        let evidence = Evidence { conversations, attempts, devices, stored };
        let mut verdict = check::check(&evidence);
        if let Some(rows) = by_sql {
            store_agrees(&evidence.stored, &rows, &mut verdict);
        }
        Run { evidence, verdict, herd: herd.and_then(Herd::end) }
    }

    fn devices(&self) -> impl Iterator<Item = &Handle> {
        self.handles.iter().flatten()
    }

    fn user(&self, number: usize) -> Option<UserId> {
        Some(self.handles.get(number)?.first()?.user.clone())
    }

    async fn wait(&self, done: impl Fn(&Self) -> Result<(), String>) -> Result<()> {
        let deadline = Instant::now() + SETUP_TIMEOUT;
        loop {
            let Err(state) = done(self) else { return Ok(()) };
            if Instant::now() >= deadline {
                let failure =
                    self.devices().find_map(|device| device.recorder.with(|log| log.failures.last().cloned()));
                let failure = failure.map(|failure| format!("; a connect failed: {}", failure.why)).unwrap_or_default();
                bail!("{state} after {} s{failure}", SETUP_TIMEOUT.as_secs());
            }
            self.progress.show(&state);
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn order_all<'a>(devices: impl Iterator<Item = &'a Handle>, order: impl Fn() -> Order) {
    for device in devices {
        // A device with a full inbox is far behind already.
        let _ = device.orders.try_send(order());
    }
}

fn pick<T>(of: &[T]) -> Option<&T> {
    if of.is_empty() { None } else { of.get(rand::rng().random_range(0..of.len())) }
}

/// History over REST and the table hold the same messages.
fn store_agrees(by_rest: &[MessageRow], by_sql: &[MessageRow], verdict: &mut Verdict) {
    let rest: HashSet<_> = by_rest.iter().map(|row| &row.message).collect();
    let sql: HashSet<_> = by_sql.iter().map(|row| &row.message).collect();
    for message in rest.symmetric_difference(&sql) {
        let side = if rest.contains(message) { "history" } else { "the table messages" };
        verdict.fault(ViolationKind::HistoryDisagrees, || format!("{message:?} is only in {side}"));
    }
}
