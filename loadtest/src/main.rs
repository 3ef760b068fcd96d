//! The command line: a subcommand per measurement. Exit code 1 means that the oracle found a fault, 2 that a run
//! failed.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::{modes, oracle};

/// Drives a Parley deployment: proves that nothing is lost, and measures.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// How many threads the driver uses; 1 costs the least CPU per message.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    Oracle(oracle::OracleArgs),
    Idle(modes::IdleArgs),
    Storm(modes::StormArgs),
    UserToUser(modes::UserToUserArgs),
    Group(modes::GroupArgs),
    Presence(modes::PresenceArgs),
    Herd(modes::HerdArgs),
    Mixed(modes::MixedArgs),
    Strangers(modes::StrangersArgs),
    One(modes::OneArgs),
    #[command(hide = true)]
    Hold(modes::HoldArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nobody is left to tell when standard error is gone as well.
            let _ = writeln!(std::io::stderr(), "loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs a mode; `false` when what it measured is a fault of the deployment.
fn run(cli: &Cli) -> Result<bool> {
    let mut builder = if cli.threads > 1 {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.worker_threads(cli.threads.max(1)).enable_all().build()?;
    runtime.block_on(async {
        match &cli.mode {
            Mode::Oracle(args) => {
                let verdict = oracle::run(args).await?;
                verdict.report().show(&verdict, args.json.as_deref())?;
                Ok(verdict.is_clean())
            }
            Mode::Idle(args) => modes::idle(args).await,
            Mode::Storm(args) => modes::storm(args).await,
            Mode::UserToUser(args) => modes::user_to_user(args).await,
            Mode::Group(args) => modes::group(args).await,
            Mode::Presence(args) => modes::presence(args).await,
            Mode::Herd(args) => modes::herd(args).await,
            Mode::Mixed(args) => modes::mixed(args).await,
            Mode::Strangers(args) => modes::strangers(args).await,
            Mode::One(args) => modes::one(args).await,
            Mode::Hold(args) => modes::hold(args).await,
        }
    })
}
