//! An oracle run: connect, open conversations, send at an open-loop rate, wait until everybody has everything, judge.
//! This file has the beginning and the end; `drive` sends, `settle` waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use shared::{ConversationId, UserId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::args::OracleArgs;
use super::evidence::{Attempt, ConversationFacts, DeviceEvidence, Evidence, MessageRow, Recorder};
use super::herd::{Herd, HerdEnd, HerdPlan};
use super::verdict::{Verdict, ViolationKind};
use super::workload::{Cast, Workload};
use super::{check, store};
use crate::client::{Device, DeviceSetup, Directory, Order, OutgoingMessage, Recipient, Transport, UnreadCounts};
use crate::report::{Progress, announce};
use crate::rest::Rest;
use crate::seed::Seed;
use crate::target::Target;

/// How many orders may wait for a device.
const ORDERS_MAX: usize = 4096;
/// How long connecting and opening conversations may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the driver looks in on the devices.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A run that is over.
#[derive(Debug)]
pub struct Run {
    /// Everything that the devices recorded.
    pub evidence: Evidence,
    /// The oracle's verdict.
    pub verdict: Verdict,
    /// The result of the herd, if there was one.
    pub herd: Option<HerdEnd>,
}

/// A device as the driver sees it.
pub(super) struct Handle {
    pub(super) user: UserId,
    pub(super) transport: Transport,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) recorder: Arc<Recorder>,
}

/// A run under way.
pub(super) struct Scenario {
    pub(super) args: OracleArgs,
    pub(super) cast: Cast,
    pub(super) plan: HerdPlan,
    pub(super) herd: Option<Herd>,
    seed: Seed,
    pub(super) workload: Arc<Workload>,
    /// Names the run's messages and groups. Not drawn from the seed: a store that knows the names of an earlier run would
    /// take the messages of a second one for duplicates.
    pub(super) run: String,
    pub(super) start: Instant,
    pub(super) rest: Rest,
    directory: Arc<Directory>,
    pub(super) tokens: HashMap<UserId, String>,
    /// By user, then by device.
    pub(super) handles: Vec<Vec<Handle>>,
    pub(super) conversations: HashMap<ConversationId, ConversationFacts>,
    /// The ids of the workload's conversations, by number.
    pub(super) ids: HashMap<usize, ConversationId>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) progress: Progress,
}

/// Runs an oracle and returns its verdict.
///
/// # Errors
/// The run could not be set up, or the store could not be read in the end.
pub async fn run(args: &OracleArgs) -> Result<Verdict> {
    let cast = args.speakers.map_or(Cast::Everybody, Cast::Speakers);
    Ok(play(args, cast, &HerdPlan::default()).await?.verdict)
}

/// Runs an oracle with this cast and, if its arguments ask for one, a herd by this plan.
///
/// # Errors
/// As [`run`].
pub async fn play(args: &OracleArgs, cast: Cast, plan: &HerdPlan) -> Result<Run> {
    let target = Arc::new(Target::new(&args.target)?);
    args.check()?;
    let seed = args.seed.unwrap_or_else(Seed::random);
    announce(&format!("seed {seed}"));
    let mut scenario = Scenario {
        args: args.clone(),
        cast,
        plan: plan.clone(),
        herd: None,
        seed,
        workload: Arc::new(Workload::new(args, cast, seed)),
        run: format!("{:08x}", rand::random::<u32>()),
        start: Instant::now(),
        rest: Rest::new(&args.http),
        directory: Arc::default(),
        tokens: HashMap::new(),
        handles: Vec::new(),
        conversations: HashMap::new(),
        ids: HashMap::new(),
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
    let unread = store::unread(&scenario.rest, &scenario.tokens).await?;
    let by_sql = match &args.database_url {
        Some(url) => Some(store::by_sql(url, &scenario.conversations).await?),
        None => None,
    };
    tasks.shutdown().await;
    scenario.progress.clear();
    Ok(scenario.judge(stored, unread, by_sql))
}

impl Scenario {
    async fn connect(&mut self, target: &Arc<Target>, tasks: &mut JoinSet<()>) -> Result<()> {
        for user in 0..self.args.users {
            let sockets = (0..self.args.devices).map(|device| (user * self.args.devices + device, Transport::Socket));
            let stream =
                (user < self.args.streams).then_some((self.args.users * self.args.devices + user, Transport::Stream));
            let mut devices = Vec::new();
            for (number, transport) in sockets.chain(stream) {
                let recorder = Arc::new(Recorder::new(self.start));
                let (orders, inbox) = mpsc::channel(ORDERS_MAX);
                let device = Device::new(DeviceSetup {
                    user,
                    number,
                    transport,
                    node: self.first_node(user, number),
                    seed: self.seed,
                    target: Arc::clone(target),
                    rest: self.rest.clone(),
                    directory: Arc::clone(&self.directory),
                    recorder: Arc::clone(&recorder),
                    orders: inbox,
                })?;
                devices.push(Handle { user: device.user().clone(), transport, orders, recorder });
                tasks.spawn(device.run());
            }
            let (id, token) = target.user(user)?;
            self.tokens.insert(id, token);
            self.handles.push(devices);
        }
        let all = self.devices().count();
        self.wait(|scenario| {
            let open = scenario.devices().filter(|device| device.recorder.with(|log| !log.records.is_empty())).count();
            (open == all).then_some(()).ok_or(format!("{open} of {all} devices connected"))
        })
        .await
    }

    /// The node that a device asks first. If a node is to be killed, all listeners are there, and nobody else.
    fn first_node(&self, user: usize, number: usize) -> usize {
        match (self.cast, self.plan.kill) {
            (Cast::Speakers(speakers), Some(_)) if user >= speakers => 0,
            (Cast::Speakers(_), Some(_)) => 1 + number % (self.args.target.urls.len().max(2) - 1),
            (Cast::Speakers(_) | Cast::Everybody, _) => number,
        }
    }

    /// Opens direct conversations by their first message, and learns their ids from the acknowledgements.
    async fn open_pairs(&mut self) -> Result<()> {
        let workload = Arc::clone(&self.workload);
        let mut opening = HashMap::new();
        for (number, [a, b]) in workload.pairs.iter().copied().enumerate() {
            let (Some(from), Some(to)) = (self.user(a), self.user(b)) else { continue };
            let temp_id = format!("{}-open-{number}", self.run);
            opening.insert(temp_id.clone(), (number, vec![from, to.clone()]));
            let send = OutgoingMessage { temp_id, to: Recipient::User(to), content: "hello".into() };
            self.send(a, 0, send, Instant::now());
            // Within the rate that the run itself has.
            tokio::time::sleep(Duration::from_secs_f64(1.0 / self.args.rate.max(1.0))).await;
        }
        self.wait(|scenario| {
            let acks: usize = scenario.devices().map(|device| device.recorder.with(|log| log.acks.len())).sum();
            let all = workload.pairs.len();
            (acks >= all).then_some(()).ok_or(format!("{acks} of {all} direct conversations opened"))
        })
        .await?;
        let acks: Vec<_> = self.devices().flat_map(|device| device.recorder.with(|log| log.acks.clone())).collect();
        for ack in acks {
            if let Some((number, members)) = opening.remove(&ack.temp_id) {
                self.add(number, ack.message.conversation, members, ack.message.seq.saturating_sub(1));
            }
        }
        Ok(())
    }

    async fn open_groups(&mut self) -> Result<()> {
        let Some(api_key) = self.args.api_key.clone() else { return Ok(()) };
        let workload = Arc::clone(&self.workload);
        for (group, numbers) in workload.groups.iter().enumerate() {
            let members = numbers.iter().filter_map(|number| self.user(*number)).collect::<Vec<_>>();
            let id = format!("load-{}-{group}", self.run);
            let made = self.rest.make_group(&api_key, &id, &members).await?;
            self.add(workload.pairs.len() + group, made, members, 0);
        }
        Ok(())
    }

    fn add(&mut self, number: usize, conversation: ConversationId, members: Vec<UserId>, base_seq: u64) {
        self.directory.add(&conversation, &members, base_seq);
        self.ids.insert(number, conversation.clone());
        self.conversations.insert(conversation, ConversationFacts { members, base_seq });
    }

    fn judge(
        self,
        stored: Vec<MessageRow>,
        unread: HashMap<UserId, UnreadCounts>,
        by_sql: Option<Vec<MessageRow>>,
    ) -> Run {
        let devices = self.devices().enumerate().map(|(number, device)| DeviceEvidence {
            user: device.user.clone(),
            number,
            transport: device.transport,
            log: device.recorder.with(std::mem::take),
        });
        let devices = devices.collect();
        let Self { conversations, attempts, herd, seed, .. } = self;
        let evidence = Evidence { conversations, attempts, devices, stored, unread };
        let mut verdict = Verdict { seed: Some(seed), ..check::check(&evidence) };
        if let Some(rows) = by_sql {
            store_agrees(&evidence.stored, &rows, &mut verdict);
        }
        Run { evidence, verdict, herd: herd.and_then(Herd::end) }
    }

    /// All devices, user after user.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Handle> {
        self.handles.iter().flatten()
    }

    /// The id of a user.
    pub(super) fn user(&self, number: usize) -> Option<UserId> {
        Some(self.handles.get(number)?.first()?.user.clone())
    }

    /// How many sends have neither been acknowledged nor refused.
    pub(super) fn unsettled(&self) -> usize {
        self.devices().map(|device| device.recorder.with(|log| log.unsettled)).sum()
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

/// History over REST and the table hold the same messages.
fn store_agrees(by_rest: &[MessageRow], by_sql: &[MessageRow], verdict: &mut Verdict) {
    let rest: HashSet<_> = by_rest.iter().map(|row| &row.message).collect();
    let sql: HashSet<_> = by_sql.iter().map(|row| &row.message).collect();
    for message in rest.symmetric_difference(&sql) {
        let side = if rest.contains(message) { "history" } else { "the table messages" };
        verdict.fault(ViolationKind::HistoryDisagrees, || format!("{message:?} is only in {side}"));
    }
}
