//! A real HAProxy, with the project's own configuration or a test's.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::node::Node;
use super::ports::free_address;

/// HAProxy in front of two nodes; killed when dropped.
pub(crate) struct Haproxy {
    process: Child,
    pub(crate) address: SocketAddr,
    _config: Option<tempfile::NamedTempFile>,
}

impl Haproxy {
    /// Starts it and waits until both nodes count as up.
    pub(crate) async fn before(one: &Node, two: &Node) -> Self {
        let address = free_address();
        let process = command(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy.cfg"))
            .env("PARLEY_BIND", address.to_string())
            .env("GATEWAY_1", one.http.to_string())
            .env("GATEWAY_2", two.http.to_string())
            .env("GATEWAY_1_OPS", one.ops.port().to_string())
            .env("GATEWAY_2_OPS", two.ops.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy starts");
        let haproxy = Self { process, address, _config: None };
        haproxy.wait_until_up().await;
        haproxy
    }

    /// Starts it in front of one node: further options of its frontend, and of the server's line.
    pub(crate) async fn with(node: &Node, frontend: &str, server: &str) -> Self {
        let address = free_address();
        let text = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n timeout tunnel 60s\n\
             frontend f\n bind {address}\n {frontend}\n default_backend b\n\
             backend b\n server s {} {server}\n",
            node.http
        );
        let config = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(config.path(), text).expect("a configuration");
        let path = config.path().to_str().expect("a plain path");
        let process = command(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("haproxy starts");
        let haproxy = Self { process, address, _config: Some(config) };
        haproxy.wait_until_up().await;
        haproxy
    }

    async fn wait_until_up(&self) {
        let address = self.address;
        let up = async {
            while tokio::net::TcpStream::connect(address).await.is_err()
                || super::http::get(address, "/none", &[]).await.0 != 404
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), up).await.expect("haproxy answers");
    }
}

fn command(config: &str) -> Command {
    let binary =
        ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"].into_iter().find(|path| std::path::Path::new(path).exists());
    let mut command = Command::new(binary.expect("haproxy is installed (deploy/test.sh installs it)"));
    command.args(["-db", "-f", config]);
    command
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
