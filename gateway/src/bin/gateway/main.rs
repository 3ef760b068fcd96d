//! The `gateway` binary: reads the command line and runs one command.
//! It offers `serve`, `dev`, `token`, `config` and `admin`.
//! It never holds logic of a node: that is the library's.

mod admin;
mod cli;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Gives memory back soon after a storm of connections: jemalloc reads this symbol when it starts.
#[expect(unsafe_code, reason = "jemalloc takes its settings from a symbol of this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8] = b"background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0\0";

fn main() -> std::process::ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            cli::say_error(&format!("gateway: {error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}
