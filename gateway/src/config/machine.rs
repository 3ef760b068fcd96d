//! Defaults that depend on the machine.

/// All file descriptors but a reserve for Redis, the database, files, and connections that are not sockets.
pub(super) fn connections_from_descriptors() -> usize {
    const RESERVE: usize = 2300;
    let limit = std::fs::read_to_string("/proc/self/limits").ok().and_then(|limits| {
        let line = limits.lines().find(|line| line.starts_with("Max open files"))?.to_owned();
        line.split_whitespace().nth(3)?.parse::<usize>().ok()
    });
    limit.unwrap_or(1024).saturating_sub(RESERVE).max(64)
}

/// The machine's name, as a part of a node's name.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let valid: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).take(64).collect();
    if valid.is_empty() { "node".to_owned() } else { valid }
}
