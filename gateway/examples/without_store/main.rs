//! A node without a store, for measurements only (`loadtest/compare.sh`, peer `parley-without-store`), beside peers
//! that store nothing. It is the server itself, wired as always, on a store that answers from memory and keeps nothing.
//! All acknowledged messages are lost when it ends, so it must never serve users.
//!
//! Its settings are those of `gateway serve`, without `DATABASE_URL`.

mod absent;
mod store;

use std::sync::Arc;

use clap::Parser;
use gateway::app::App;
use gateway::config::{Config, Layers, Mode, SettingsArgs};
use gateway::node::drain;
use store::MemoryStore;

/// The server's allocator, with the server's settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads when it starts.
#[expect(unsafe_code, reason = "jemalloc takes its settings from a symbol of this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8] = b"background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0\0";

/// A node that stores nothing, for measuring only
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut layers = Layers::read(Cli::parse().settings)?;
    // Asked for by `serve`, and not opened here.
    layers.default_to("DATABASE_URL", "sqlite::memory:");
    let config = Config::load(Mode::Serve, &layers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = App::start_on(config, Arc::new(MemoryStore::new())).await?;
        tracing::warn!(http = %app.http, "listening, and storing nothing: for measuring only");
        drain::signal().await?;
        Ok(app.drain().await?)
    })
}
