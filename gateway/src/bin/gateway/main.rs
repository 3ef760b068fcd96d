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

/// Bytes of the heap in use, or nothing if jemalloc doesn't tell. It counts anew when its epoch is written.
fn heap_in_use() -> Option<u64> {
    let (mut epoch, mut allocated) = (1_u64, 0_usize);
    let (mut epoch_len, mut allocated_len) = (size_of::<u64>(), size_of::<usize>());
    let epoch: *mut u64 = &raw mut epoch;
    let (new, new_len) = (epoch.cast(), epoch_len);
    #[expect(unsafe_code, reason = "jemalloc's own interface; each pointer is to a value of the size given beside it")]
    let failed = unsafe {
        tikv_jemalloc_sys::mallctl(c"epoch".as_ptr(), epoch.cast(), &raw mut epoch_len, new, new_len) != 0
            || tikv_jemalloc_sys::mallctl(
                c"stats.allocated".as_ptr(),
                (&raw mut allocated).cast(),
                &raw mut allocated_len,
                std::ptr::null_mut(),
                0,
            ) != 0
    };
    if failed { None } else { u64::try_from(allocated).ok() }
}

fn main() -> std::process::ExitCode {
    gateway::metrics::heap_is_read_by(heap_in_use);
    match cli::Cli::parse().run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            cli::say_error(&format!("gateway: {error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}
