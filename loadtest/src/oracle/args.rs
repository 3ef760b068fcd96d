//! The command line of an oracle run.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::seed::Seed;
use crate::target::TargetArgs;

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
    /// How many users have one more device, which receives by server-sent events and sends over REST.
    #[arg(long, default_value_t = 0)]
    pub streams: usize,
    /// So many users send to all the others, who only listen [default: everybody sends to neighbours].
    #[arg(long, conflicts_with_all = ["pairs", "groups"])]
    pub speakers: Option<usize>,
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
    /// Draws the scenario from this seed: who writes to whom, from which device, and how long devices wait [default: a
    /// random one, which is printed]. The timing of servers can't be repeated: a second run sends the same messages, but
    /// answers may come in another order, and devices then draw their waits at other moments.
    #[arg(long, value_name = "N")]
    pub seed: Option<Seed>,
    /// Reads the table messages as well, and compares it with history.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Writes the verdict as JSON to this file, or to standard output instead of the table (-).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl OracleArgs {
    /// Whether a run with these arguments makes sense.
    ///
    /// # Errors
    /// Too few users or devices.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.users >= 2 && self.devices > 0, "at least two users with a device each are needed");
        ensure!(
            self.speakers.is_none_or(|speakers| (1..self.users).contains(&speakers)),
            "--speakers is at least 1, and below --users"
        );
        ensure!(self.streams <= self.users, "--streams is at most --users");
        ensure!(!self.raced || self.devices >= 2, "--raced needs --devices 2 or more");
        Ok(())
    }
}
