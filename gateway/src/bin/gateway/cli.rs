//! The commands: serve, dev, token, config, admin.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use gateway::app::App;
use gateway::auth::token::mint;
use gateway::config::{Config, Layers, Mode, SettingsArgs};
use gateway::http::demo;
use gateway::node::drain;
use shared::UserId;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::admin::{self, AdminArgs};

/// Parley: a horizontally scaled, stateless WebSocket chat gateway with a Redis backbone
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node on Redis and a database
    Serve(RunArgs),
    /// Try Parley out: a node with an embedded store and backbone, two users and a demo page
    Dev(RunArgs),
    /// Print a token for a user, signed with the first JWT_SECRET
    Token(TokenArgs),
    /// Print the effective settings, secrets masked
    Config(RunArgs),
    /// Ask a running cluster, or give it an order
    Admin(AdminArgs),
}

#[derive(clap::Args)]
struct RunArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// What to log, for example info or gateway=debug
    #[arg(long, env = "RUST_LOG", default_value = "info", hide_env_values = true)]
    log: String,
    /// How to log: text or json
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_parser = log_format, hide_env_values = true)]
    log_format: String,
}

#[derive(clap::Args)]
struct TokenArgs {
    /// The user's id
    #[arg(long)]
    user: String,
    /// The user's name
    #[arg(long)]
    username: Option<String>,
    /// Give admin rights
    #[arg(long)]
    admin: bool,
    /// How long the token is good for, in seconds
    #[arg(long, default_value_t = 3600)]
    ttl: u64,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The secret of `gateway dev`, unless another one is set: tokens of one run are good in the next.
const DEV_SECRET: &str = "parley-dev-secret-for-trying-out-only";

impl Cli {
    /// Carries out the command.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve(args, Mode::Serve),
            Command::Dev(args) => serve(args, Mode::Dev),
            Command::Token(args) => token(args),
            Command::Config(args) => config(args),
            Command::Admin(args) => {
                say(&admin::run(&args)?);
                Ok(())
            }
        }
    }
}

fn serve(args: RunArgs, mode: Mode) -> anyhow::Result<()> {
    start_log(&args.log, &args.log_format)?;
    tracing::info!(version = %env!("CARGO_PKG_VERSION"), commit = %env!("PARLEY_COMMIT"), "starting");
    let mut layers = Layers::read(args.settings)?;
    if mode == Mode::Dev {
        dev_defaults(&mut layers);
    }
    let config = Config::load(mode, &layers)?;
    let runtime = runtime(config.worker_threads)?;
    let ended = runtime.block_on(async {
        let auth = config.auth.clone();
        let app = App::start(config).await?;
        tracing::info!(http = %app.http, ops = %app.ops, "listening");
        if mode == Mode::Dev {
            greet(app.http.port(), &auth);
        }
        drain::signal().await?;
        app.drain().await?;
        tracing::info!("stopped");
        Ok(())
    });
    // Dropped, the runtime would wait for its threads without a limit.
    runtime.shutdown_timeout(THREADS_WITHIN);
    ended
}

/// White space at the ends goes, as with every setting.
fn log_format(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        known @ ("text" | "json") => Ok(known.to_owned()),
        _ => Err("give text or json"),
    }
}

/// How long threads that hang in a blocking call may hold up the end of the process.
const THREADS_WITHIN: Duration = Duration::from_secs(1);

/// On one thread nothing is handed from one to another: no thread is woken for a message, and what has gathered goes out
/// together. What would block it (passwords, SQLite) has threads of its own in either case.
fn runtime(threads: usize) -> std::io::Result<Runtime> {
    match threads {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// `gateway dev` listens on this machine alone, keeps everything in memory, and stops at once.
fn dev_defaults(layers: &mut Layers) {
    let defaults = [
        ("HTTP_HOST", "127.0.0.1"),
        ("OPS_HOST", "127.0.0.1"),
        ("JWT_SECRET", DEV_SECRET),
        ("DRAIN_DELAY_SECONDS", "0"),
        ("DRAIN_SECONDS", "1"),
    ];
    defaults.into_iter().for_each(|(name, value)| layers.default_to(name, value));
}

fn greet(port: u16, auth: &gateway::config::AuthConfig) {
    let mut text = "\nParley is running. Open two windows:\n\n".to_owned();
    for name in demo::USERS {
        text.push_str(&format!("  http://127.0.0.1:{port}/?user={name}\n"));
    }
    text.push_str("\nor connect with a token (good for a day):\n");
    for name in demo::USERS {
        let token = UserId::parse(name).ok().and_then(|user| mint(auth, &user, Some(name), false, demo::TOKEN_TTL_S));
        if let Some(token) = token {
            text.push_str(&format!("\n  ws://127.0.0.1:{port}/chat/ws?token={token}  ({name})\n"));
        }
    }
    say(&text);
}

fn token(args: TokenArgs) -> anyhow::Result<()> {
    let mut layers = Layers::read(args.settings)?;
    if layers.get("JWT_SECRET").is_none() {
        say_error("JWT_SECRET is not set: this token is good for `gateway dev` only");
        layers.default_to("JWT_SECRET", DEV_SECRET);
    }
    let config = Config::load(Mode::Dev, &layers)?;
    let user = UserId::parse(&args.user).map_err(|fault| anyhow::anyhow!("--user {fault}"))?;
    let token = mint(&config.auth, &user, args.username.as_deref(), args.admin, args.ttl);
    say(&token.context("JWT_SECRET: the token could not be signed")?);
    Ok(())
}

fn config(args: RunArgs) -> anyhow::Result<()> {
    let layers = Layers::read(args.settings)?;
    for (name, value) in layers.shown() {
        say(&format!("{} = {value:?}", name.to_ascii_lowercase()));
    }
    Config::load(Mode::Serve, &layers)?;
    Ok(())
}

fn start_log(filter: &str, format: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter.trim()).context("RUST_LOG is invalid; give a filter like info")?;
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter_fn(may_be_logged)).with(filter);
    match format {
        "json" => registry.with(lines.json()).init(),
        _ => registry.with(lines).init(),
    }
    Ok(())
}

/// Libraries print contents, password hashes and keys below info: the parameters of a statement, a command's arguments, a
/// request's headers. So only our own lines may be that detailed, whatever RUST_LOG says.
fn may_be_logged(line: &tracing::Metadata<'_>) -> bool {
    let is_ours = || line.target().split("::").next().is_some_and(|name| matches!(name, "gateway" | "shared"));
    *line.level() <= tracing::Level::INFO || is_ours()
}

/// Prints the output. An error is ignored: it means that the reader has gone.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints what went wrong.
pub(crate) fn say_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
