//! Nodes and other programs as processes of their own, so that their measurements don't include the test process.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::http::get;
use super::node::{API_KEY, SECRET};
use super::ports::free_address;

/// A program that ends with the test.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it; what it says goes to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &std::path::Path) -> Self {
        let said = std::fs::File::create(log).expect("a log");
        let also = said.try_clone().expect("the same log");
        let child = command.stdin(Stdio::null()).stdout(said).stderr(also).spawn();
        Self(
            child.unwrap_or_else(|error| {
                panic!("{:?} starts (deploy/test.sh installs it): {error}", command.get_program())
            }),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A `gateway serve` of its own process.
pub(crate) struct ServedNode {
    process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) log: std::path::PathBuf,
}

impl ServedNode {
    /// Starts a node and waits until it is ready.
    pub(crate) async fn start(
        redis: &str,
        database: &str,
        settings: &[(&str, &str)],
        folder: &std::path::Path,
        name: &str,
    ) -> Self {
        let (http, ops) = (free_address(), free_address());
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.arg("serve").env_clear().envs([
            ("REDIS_URL", redis),
            ("DATABASE_URL", database),
            ("JWT_SECRET", SECRET),
            ("API_KEY", API_KEY),
            ("HTTP_HOST", "127.0.0.1"),
            ("OPS_HOST", "127.0.0.1"),
        ]);
        command.env("HTTP_PORT", http.port().to_string()).env("OPS_PORT", ops.port().to_string());
        command.envs(settings.iter().copied());
        let process = Process::start(&mut command, &log);
        let ready = async {
            while tokio::net::TcpStream::connect(ops).await.is_err() || get(ops, "/readyz", &[]).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), ready).await.is_err() {
            panic!("{name} is not ready: {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        Self { process, http, ops, log }
    }

    /// Tells the node to stop, and waits for its end: how it exited, and all that it logged. `None` if it was still there.
    pub(crate) async fn stop(mut self, within: Duration) -> Option<(ExitStatus, String)> {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let ended = async {
            loop {
                if let Some(status) = self.process.0.try_wait().expect("our own child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let status = tokio::time::timeout(within, ended).await.ok()?;
        Some((status, std::fs::read_to_string(&self.log).expect("a log")))
    }
}
