//! A real nginx with the project's own configuration, whose addresses are exchanged for those of the test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::node::Node;
use super::ports::free_address;

/// nginx in front of two nodes; killed when dropped.
pub(crate) struct Nginx {
    process: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    /// Starts it and waits until it answers.
    pub(crate) async fn before(one: &Node, two: &Node) -> Self {
        let address = free_address();
        let folder = std::env::temp_dir().join(format!("parley-nginx-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration(&folder, address, one, two)).expect("the folder can be written");
        let process = Command::new(binary())
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&file)
            .args(["-g", "daemon off;"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let nginx = Self { process, folder, address };
        let up = async {
            while tokio::net::TcpStream::connect(address).await.is_err()
                || super::http::get(address, "/none", &[]).await.0 != 404
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), up).await.expect("nginx answers");
        nginx
    }

    /// Ends it; gives its access log.
    pub(crate) fn stop(mut self) -> String {
        self.end();
        std::fs::read_to_string(self.folder.join("access.log")).expect("an access log")
    }

    /// Workers are asked to write their log and go; killing the master alone would leave them.
    fn end(&mut self) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn binary() -> &'static str {
    let places = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];
    let found = places.into_iter().find(|path| std::path::Path::new(path).exists());
    found.expect("nginx is installed (deploy/test.sh installs it)")
}

/// The project's configuration, with the addresses, the log and the temporary folders of this test.
fn configuration(folder: &std::path::Path, address: SocketAddr, one: &Node, two: &Node) -> String {
    let mut text = include_str!("../../../../deploy/nginx.conf").to_owned();
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    for (ours, test) in [
        ("listen 8080;", format!("listen {address};")),
        ("server 127.0.0.1:8086", format!("server {}", one.http)),
        ("server 127.0.0.1:8186", format!("server {}", two.http)),
        ("/dev/stdout", format!("{folder}/access.log")),
        ("pid /run/nginx.pid;", format!("pid {folder}/pid;")),
        ("http {\n", format!("http {{\n{temporary}")),
    ] {
        assert!(text.contains(ours), "deploy/nginx.conf has {ours}");
        text = text.replacen(ours, &test, 1);
    }
    text
}
