//! The metrics of the process itself, under the usual names, from `/proc`, from the allocator and from the runtime. Values
//! that can't be read are left out.

use std::fmt::Write;
use std::fs::read_to_string;
use std::sync::OnceLock;

/// Ticks of `/proc/<pid>/stat` in a second: the kernel's interface, 100 on every platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// How many bytes of the heap are in use, as the process's allocator counts them.
static HEAP_BYTES: OnceLock<fn() -> Option<u64>> = OnceLock::new();

/// Tells which allocator the process has: `in_use` reads how many bytes of its heap are in use. The first caller holds.
pub fn heap_is_read_by(in_use: fn() -> Option<u64>) {
    HEAP_BYTES.get_or_init(|| in_use);
}

/// Appends the process's metrics.
pub(super) fn render_into(text: &mut String) {
    let gauges = [
        ("process_resident_memory_bytes", "Memory in use", resident_bytes()),
        ("parley_heap_allocated_bytes", "Bytes of the heap in use, by the allocator's own count", heap_bytes()),
        ("parley_tasks", "Tasks of the runtime that are alive", tasks()),
        ("process_open_fds", "Open file descriptors", open_descriptors()),
        ("process_max_fds", "File descriptors that may be open", descriptor_limit()),
        ("process_start_time_seconds", "Start of the process, in unix seconds", start_s()),
    ];
    for (name, help, value) in gauges {
        put(text, name, help, "gauge", value);
    }
    put(text, "process_cpu_seconds_total", "CPU time used, user and system", "counter", cpu_s());
}

fn put(text: &mut String, name: &str, help: &str, kind: &str, value: Option<f64>) {
    if let Some(value) = value {
        // Writing to a string doesn't fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
    }
}

/// The fields of `/proc/self/stat` behind the command's name, which may hold anything; the first is field 3 of proc(5).
fn stat(field: usize) -> Option<f64> {
    let stat = read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "a heap has far fewer than 2^52 bytes")]
fn heap_bytes() -> Option<f64> {
    HEAP_BYTES.get().and_then(|in_use| in_use()).map(|bytes| bytes as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a runtime has far fewer than 2^52 tasks")]
fn tasks() -> Option<f64> {
    Some(tokio::runtime::Handle::try_current().ok()?.metrics().num_alive_tasks() as f64)
}

fn cpu_s() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_PER_SECOND)
}

fn start_s() -> Option<f64> {
    let system = read_to_string("/proc/stat").ok()?;
    let boot_s: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot_s + stat(22)? / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    let status = read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "a process has far fewer than 2^52 descriptors")]
fn open_descriptors() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

fn descriptor_limit() -> Option<f64> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_tells_all_of_it() {
        let mut text = String::new();
        render_into(&mut text);
        for name in ["resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds", "cpu_seconds_total"] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(
                line.and_then(|value| value.parse::<f64>().ok()).is_some_and(|value| value >= 0.0),
                "{name}\n{text}"
            );
        }
        assert!(start_s().expect("a start") > 1_600_000_000.0 && resident_bytes().expect("memory") > 100_000.0);
    }
}
