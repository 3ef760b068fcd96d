//! A mixed load at one open-loop rate: messages to users and groups, typing, read receipts, presence, visitors.
//! It offers [`mixed`], which reports a table by kind.
//! It never slows down when the deployment does.

mod member;
mod plan;
mod report;
mod tally;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use shared::{ConversationId, UserId};
use tokio::task::JoinSet;

use super::guests::{Guests, change};
use super::opening::open_directs;
use super::schedule::{self, Schedule};
use super::{MeasureArgs, with};
use crate::client::{OutgoingMessage, Recipient};
use crate::process::{Cost, CostWatch};
use crate::report::Progress;
use crate::rest::{Rest, SendError};
use crate::speech::{Speech, content};
use crate::target::{Target, TargetArgs};
use member::{Member, Way, connect};
pub use plan::Shares;
use plan::{Kind, Plan, has_stream};
use report::report;
use tally::{KindOutcome, SharedTally, Tally};

/// How many others a question for presence is about.
const ASKED_ABOUT: usize = 10;

/// Does a bit of everything at a fixed rate, whatever the deployment does.
#[derive(Debug, Clone, Args)]
pub struct MixedArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Its REST interface, `http://host:port`, where the groups are made and users with a stream send.
    #[arg(long, value_name = "HTTP_URL", requires = "api_key")]
    pub http: Option<String>,
    /// The API key by which groups are made.
    #[arg(long, env = "API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// How many users are online all the time; they talk in pairs, and in groups.
    #[arg(long, default_value_t = 500)]
    pub users: usize,
    /// How many groups.
    #[arg(long, default_value_t = 20)]
    pub groups: usize,
    /// How many members a group has.
    #[arg(long, default_value_t = 20)]
    pub group_size: usize,
    /// How many users in a hundred receive by server-sent events and send over REST, which needs --http. One of two partners
    /// has a socket.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=50))]
    pub stream_share: u32,
    /// How many other users come and go.
    #[arg(long, default_value_t = 100)]
    pub visitors: usize,
    /// Actions per second, all kinds together.
    #[arg(long, default_value_t = 500.0, value_parser = schedule::rate)]
    pub rate: f64,
    /// The share of each kind.
    #[command(flatten)]
    pub shares: Shares,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// How long to wait for what is still on its way in the end.
    #[arg(long, default_value_t = 5)]
    pub drain_seconds: u64,
    /// How long a message is, in bytes.
    #[arg(long, default_value_t = 200)]
    pub content_bytes: usize,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    kinds: BTreeMap<Kind, KindOutcome>,
    departures: u64,
    streams: usize,
    /// Messages that came over streams.
    stream_deliveries: u64,
    connections_lost: u64,
    errors: BTreeMap<String, u64>,
    #[serde(flatten)]
    cost: Cost,
    cpu_seconds_per_million: f64,
}

struct Load<'a> {
    args: &'a MixedArgs,
    run: String,
    plan: Plan,
    members: Vec<Member>,
    /// The users with a socket: only they type, read and ask.
    on_sockets: Vec<usize>,
    rest: Rest,
    posts: JoinSet<()>,
    conversations: Vec<Option<ConversationId>>,
    groups: Vec<ConversationId>,
    guests: Guests,
    departures: u64,
    tally: SharedTally,
}

/// Runs the measurement; `false` when something was not answered, a message didn't arrive, or a connection was lost.
/// Typing may get lost: it is nobody's promise.
///
/// # Errors
/// A load that makes no sense, users that can't connect, conversations that can't be opened, a process under test that
/// isn't there.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 commands")]
pub async fn mixed(args: &MixedArgs) -> Result<bool> {
    let target = Arc::new(Target::new(&args.target)?);
    target.only_parley()?;
    let shares = args.shares.all();
    let plan = Plan::new(shares).context("all shares are 0")?;
    ensure!(args.stream_share == 0 || args.http.is_some(), "users with a stream send over REST: --http is needed");
    ensure!(args.visitors > 0 || !args.shares.has(Kind::Connect), "visitors need --visitors, or --connect-share 0");
    let users = (args.users.max(2) / 2) * 2;
    let kinds = shares.into_iter().filter(|(_, share)| *share > 0).map(|(kind, _)| kind);
    let run = format!("{:08x}", rand::random::<u32>());
    let names = (0..users).map(|user| Ok(target.user(user)?.0.as_str().to_owned())).collect::<Result<_>>()?;
    let tally = Arc::new(Mutex::new(Tally::new(&run, &plan, kinds, names)?));
    let guests = Guests::new(&target, users..users + args.visitors)?;
    let mut readers = JoinSet::new();
    let members = connect(&target, (users, args.stream_share), &tally, &mut readers).await?;
    let progress = Progress::new();
    // The first one of a pair has a socket.
    let openers = members.iter().step_by(2).filter_map(|member| match &member.way {
        Way::Socket(writer) => Some((&**writer, &member.partner)),
        Way::Stream(_) => None,
    });
    let pairs: Vec<_> = openers.collect();
    let opened = || with(&tally, |tally| (tally.opened, tally.errors.clone()));
    open_directs(Speech::Parley, pairs.into_iter(), args.rate, &progress, opened).await?;
    let groups = if args.shares.has(Kind::Group) { make_groups(args, &run, &members).await? } else { Vec::new() };
    let conversations = with(&tally, |tally| tally.conversations.clone());
    let tally = Arc::clone(&tally);
    let on_sockets: Vec<usize> = (0..users).filter(|user| !has_stream(*user, args.stream_share)).collect();
    let rest = Rest::new(args.http.as_slice());
    let mut load = Load {
        args,
        run,
        plan,
        members,
        on_sockets,
        rest,
        posts: JoinSet::new(),
        conversations,
        groups,
        guests,
        departures: 0,
        tally,
    };

    let mut cost = CostWatch::start(&args.measure.pids)?;
    let total = load.send_all(&mut cost, &progress).await;
    let deadline = Instant::now() + Duration::from_secs(args.drain_seconds);
    while Instant::now() < deadline && !with(&load.tally, |tally| tally.is_settled()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cost.look();
    }
    let cost = cost.read();
    progress.clear();
    readers.shutdown().await;
    load.posts.shutdown().await;
    let outcome = with(&load.tally, |tally| Outcome {
        kinds: tally.outcome(),
        departures: load.departures,
        streams: users - load.on_sockets.len(),
        stream_deliveries: tally.stream_deliveries,
        connections_lost: tally.lost,
        errors: tally.errors.clone(),
        cpu_seconds_per_million: cost.cpu_seconds.total * 1e6 / (total.max(1) as f64),
        cost,
    });
    report(args, &outcome).show(&outcome, args.measure.json.as_deref())?;
    let served = |(kind, of): (&Kind, &KindOutcome)| {
        *kind == Kind::Typing || (of.answered == of.asked && of.delivered == of.due)
    };
    Ok(outcome.kinds.iter().all(served) && outcome.connections_lost == 0)
}

/// Makes the groups, of neighbours.
async fn make_groups(args: &MixedArgs, run: &str, members: &[Member]) -> Result<Vec<ConversationId>> {
    let (Some(http), Some(key)) = (&args.http, &args.api_key) else {
        anyhow::bail!("group messages need --http and --api-key, or --group-share 0")
    };
    ensure!(
        args.groups > 0 && (2..=members.len()).contains(&args.group_size),
        "groups need members, and users for them"
    );
    let rest = Rest::new(std::slice::from_ref(http));
    let mut groups = Vec::new();
    for group in 0..args.groups {
        let of_group =
            (0..args.group_size).filter_map(|place| members.get(member_of(args, group, place, members.len())));
        let ids: Vec<UserId> = of_group.map(|member| member.user.clone()).collect();
        groups.push(rest.make_group(key, &format!("mixed-{run}-{group}"), &ids).await?);
    }
    Ok(groups)
}

/// The user who stands at this place of a group.
fn member_of(args: &MixedArgs, group: usize, place: usize, users: usize) -> usize {
    (group * args.group_size + place) % users.max(1)
}

impl Load<'_> {
    async fn send_all(&mut self, cost: &mut CostWatch, progress: &Progress) -> u64 {
        let schedule = Schedule::soon(self.args.rate);
        let total = schedule.total(self.args.seconds);
        with(&self.tally, |tally| tally.begin(schedule));
        schedule
            .run(total, |number| {
                self.act(number);
                cost.look();
                if number.is_multiple_of(64) {
                    progress.show(&format!("{number} of {total}"));
                }
            })
            .await;
        total
    }

    /// Does what is due, for the user whose turn it is among those of its kind.
    fn act(&mut self, number: u64) {
        let (kind, turn) = self.plan.of(number);
        let turn = usize::try_from(turn).unwrap_or_default();
        let user = turn % self.members.len().max(1);
        let on_socket = self.on_sockets.get(turn % self.on_sockets.len().max(1)).copied().unwrap_or_default();
        let reference = format!("{}-{number}", self.run);
        match kind {
            Kind::Connect => self.visit(number, turn),
            Kind::Direct => {
                let Some(member) = self.members.get(user) else { return };
                let to = Recipient::User(member.partner.clone());
                let content = content(number, self.args.content_bytes);
                self.send_message(number, user, 1, &OutgoingMessage { temp_id: reference, to, content });
            }
            Kind::Group => {
                let Some(conversation) = self.groups.get(turn % self.groups.len().max(1)) else { return };
                let place = (turn / self.groups.len().max(1)) % self.args.group_size;
                let sender = member_of(self.args, turn % self.groups.len().max(1), place, self.members.len());
                let content = content(number, self.args.content_bytes);
                let to = Recipient::Conversation(conversation.clone());
                let others = self.args.group_size as u64 - 1;
                self.send_message(number, sender, others, &OutgoingMessage { temp_id: reference, to, content });
            }
            Kind::Typing => {
                let payload = serde_json::json!({ "conversationId": self.direct(on_socket), "isTyping": true });
                self.send(number, on_socket, 1, &command("typing", &reference, &payload));
            }
            Kind::Read => {
                let payload = serde_json::json!({ "conversationId": self.direct(on_socket) });
                self.send(number, on_socket, 0, &command("message.read", &reference, &payload));
            }
            Kind::Presence => {
                let others =
                    self.members.iter().cycle().skip(on_socket + 1).take(ASKED_ABOUT.min(self.members.len() - 1));
                let ids: Vec<&UserId> = others.map(|member| &member.user).collect();
                let payload = serde_json::json!({ "userIds": ids });
                self.send(number, on_socket, 0, &command("presence.query", &reference, &payload));
            }
        }
    }

    fn direct(&self, user: usize) -> Option<&ConversationId> {
        self.conversations.get(user)?.as_ref()
    }

    fn send_message(&mut self, number: u64, user: usize, due: u64, message: &OutgoingMessage) {
        let Some(Member { way, .. }) = self.members.get(user) else { return };
        let Way::Stream(token) = way else { return self.send(number, user, due, &message.frame()) };
        with(&self.tally, |tally| tally.asked(number, user, due));
        let (rest, token, payload) = (self.rest.clone(), Arc::clone(token), message.payload().to_string());
        let tally = Arc::clone(&self.tally);
        self.posts.spawn(async move {
            let sent = rest.send(0, &token, payload).await;
            with(&tally, |tally| match sent {
                Ok(_) => tally.answered(number),
                Err(SendError::Refused { code, .. }) => tally.failed(number, code),
                Err(error @ SendError::NoAnswer) => tally.failed(number, error.to_string()),
            });
        });
        // Those that have ended hold memory until somebody asks for them.
        while self.posts.try_join_next().is_some() {}
    }

    fn send(&self, number: u64, user: usize, due: u64, frame: &str) {
        let Some(Member { way: Way::Socket(writer), .. }) = self.members.get(user) else { return };
        with(&self.tally, |tally| tally.asked(number, user, due));
        if let Err(error) = writer.send_text(frame) {
            with(&self.tally, |tally| tally.failed(number, format!("send: {:?}", error.kind())));
        }
    }

    fn visit(&mut self, number: u64, turn: usize) {
        let change = change(turn as u64, self.args.visitors);
        if change.comes {
            with(&self.tally, |tally| tally.asked(number, 0, 0));
        } else {
            self.departures += 1;
        }
        let tally = Arc::clone(&self.tally);
        self.guests.act(change, move |opened| {
            with(&tally, |tally| match opened {
                Ok(()) => tally.answered(number),
                Err(error) => tally.failed(number, error.label()),
            });
        });
    }
}

fn command(kind: &str, reference: &str, payload: &serde_json::Value) -> String {
    serde_json::json!({ "type": kind, "ref": reference, "payload": payload }).to_string()
}
