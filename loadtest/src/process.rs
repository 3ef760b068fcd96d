//! CPU time and memory of the processes under test, from /proc.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

/// What `/proc/<pid>/stat` counts in, per second. Linux fixes it at 100 for user space on every architecture it runs on
/// today except Alpha.
const TICKS_PER_SECOND: f64 = 100.0;
/// How often memory is read while a measurement runs; reading it holds the process up for a moment.
const LOOK: Duration = Duration::from_millis(250);

/// CPU time of one process since its start, in core-seconds.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    Ok(ticks(&stat(pid)?, 2) / TICKS_PER_SECOND)
}

/// The first so many of: CPU time in user space, in the kernel, and the same of children that have ended.
fn ticks(fields: &[f64], count: usize) -> f64 {
    fields.iter().skip(11).take(count).sum()
}

/// What stands in `/proc/<pid>/stat` from the state on, which is no number and taken as 0.
fn stat(pid: u32) -> Result<Vec<f64>> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    // The name in parentheses may hold anything; what counts stands behind it.
    let (_, fields) = stat.rsplit_once(')').context("the stat file has an unexpected form")?;
    Ok(fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
}

/// CPU time of a process and of those that it has started, those that have ended included, in core-seconds.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds_of_tree(pid: u32) -> Result<f64> {
    let children = std::fs::read_dir("/proc").context("can't read /proc")?.filter_map(|entry| {
        let child = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let fields = stat(child).ok()?;
        // One that ends meanwhile is left out here, and counts with its parent's from then on.
        (*fields.get(1)? == f64::from(pid)).then(|| ticks(&fields, 4))
    });
    let children: f64 = children.sum();
    Ok((ticks(&stat(pid)?, 4) + children) / TICKS_PER_SECOND)
}

/// Resident memory of one process, in KB.
///
/// # Errors
/// There is no such process, or it belongs to somebody else.
pub fn rss_kb(pid: u32) -> Result<u64> {
    // The rollup is exact; status lags behind by some pages per thread.
    let read = |file: &str, field: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    };
    read("smaps_rollup", "Rss:")
        .or_else(|| read("status", "VmRSS:"))
        .with_context(|| format!("can't read process {pid}"))
}

/// The name of a process, or its id when it has gone.
#[must_use]
pub fn name(pid: u32) -> String {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} {pid}", comm.trim()).trim().to_owned()
}

/// The CPU time that each of several processes used between two moments.
#[derive(Debug, Clone, Serialize)]
pub struct CpuUse {
    /// Core-seconds by process.
    pub by_process: Vec<(String, f64)>,
    /// Their sum.
    pub total: f64,
}

/// A stopwatch for CPU time.
#[derive(Debug)]
pub struct CpuWatch {
    begun: Vec<(u32, f64)>,
}

impl CpuWatch {
    /// Starts it.
    ///
    /// # Errors
    /// One of the processes isn't there.
    pub fn start(pids: &[u32]) -> Result<Self> {
        Ok(Self { begun: pids.iter().map(|pid| Ok((*pid, cpu_seconds(*pid)?))).collect::<Result<_>>()? })
    }

    /// The use since then; a process that has gone counts nothing.
    #[must_use]
    pub fn read(&self) -> CpuUse {
        let used = |(pid, begun): &(u32, f64)| (name(*pid), cpu_seconds(*pid).map_or(0.0, |now| now - begun));
        let by_process: Vec<_> = self.begun.iter().map(used).collect();
        CpuUse { total: by_process.iter().fold(0.0, |total, (_, seconds)| total + seconds), by_process }
    }
}

impl fmt::Display for CpuUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.total)?;
        for (name, seconds) in &self.by_process {
            write!(f, "  {name}: {seconds:.2}")?;
        }
        Ok(())
    }
}

/// The memory of one process over a measurement, in KB.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryUse {
    /// Which process.
    pub name: String,
    /// In the beginning.
    pub before_kb: u64,
    /// The most that was seen.
    pub highest_kb: u64,
    /// In the end; 0 when it has gone.
    pub after_kb: u64,
}

/// The cost of a measurement in the processes under test.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Their CPU time.
    pub cpu_seconds: CpuUse,
    /// Their memory.
    pub memory: Vec<MemoryUse>,
}

/// Watches what a measurement costs.
#[derive(Debug)]
pub struct CostWatch {
    cpu: CpuWatch,
    memory: Vec<(u32, MemoryUse)>,
    looked: Instant,
}

impl CostWatch {
    /// Starts it.
    ///
    /// # Errors
    /// One of the processes isn't there.
    pub fn start(pids: &[u32]) -> Result<Self> {
        let memory = pids.iter().map(|pid| {
            let kb = rss_kb(*pid)?;
            Ok((*pid, MemoryUse { name: name(*pid), before_kb: kb, highest_kb: kb, after_kb: kb }))
        });
        let memory = memory.collect::<Result<_>>()?;
        Ok(Self { cpu: CpuWatch::start(pids)?, memory, looked: Instant::now() })
    }

    /// Looks at the memory, if the last look was not just now; to be called often.
    pub fn look(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.read_memory();
        }
    }

    /// The use since the start.
    #[must_use]
    pub fn read(mut self) -> Cost {
        self.read_memory();
        Cost { cpu_seconds: self.cpu.read(), memory: self.memory.into_iter().map(|(_, memory)| memory).collect() }
    }

    fn read_memory(&mut self) {
        for (pid, memory) in &mut self.memory {
            memory.after_kb = rss_kb(*pid).unwrap_or(0);
            memory.highest_kb = memory.highest_kb.max(memory.after_kb);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let pid = std::process::id();
        assert!(rss_kb(pid).expect("memory") > 500);
        let watch = CpuWatch::start(&[pid]).expect("a watch");
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while watch.read().total < 0.01 {
            assert!(std::time::Instant::now() < end, "no CPU time is seen");
        }
        assert!(cpu_seconds_of_tree(pid).expect("time") >= cpu_seconds(pid).expect("time") - 0.02);
        let cost = CostWatch::start(&[pid]).expect("a watch").read();
        assert!(cost.memory[0].before_kb > 500 && cost.memory[0].highest_kb >= cost.memory[0].after_kb, "{cost:?}");
        assert!(cpu_seconds(u32::MAX).is_err() && cpu_seconds_of_tree(u32::MAX).is_err() && rss_kb(u32::MAX).is_err());
    }
}
