//! A master, its replica and three Sentinels, on free loopback ports; among themselves and towards nodes over TLS if there is
//! an authority.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificates::Authority;
use super::ports::free_port;
use super::redis::Redis;

/// The servers; all killed when dropped.
pub(crate) struct SentinelRig {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    sentinels: Vec<Sentinel>,
    /// The scheme of their URL.
    scheme: &'static str,
}

/// One Sentinel.
struct Sentinel {
    /// For the test's own questions.
    port: u16,
    /// For everybody else; the same without TLS.
    port_of_nodes: u16,
    folder: PathBuf,
    process: Child,
}

impl SentinelRig {
    /// Starts them, and waits until each Sentinel knows all others.
    pub(crate) fn start() -> Self {
        let master = Redis::start_with(&["--repl-diskless-sync-delay", "0"]);
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
        let port = master.port();
        Self::guard(master, replica, port, None)
    }

    /// All of them speak TLS on ports of their own, and know only those of each other.
    pub(crate) fn start_encrypted(authority: &Authority) -> Self {
        let (of_master, of_replica) = (free_port(), free_port());
        let mut options = tls(authority, of_master);
        options.extend(["--repl-diskless-sync-delay", "0"].map(str::to_owned));
        let master = Redis::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
        let mut options = tls(authority, of_replica);
        options.extend(["--replicaof".to_owned(), "127.0.0.1".to_owned(), of_master.to_string()]);
        let replica = Redis::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
        Self::guard(master, replica, of_master, Some(authority))
    }

    fn guard(master: Redis, replica: Redis, port: u16, authority: Option<&Authority>) -> Self {
        wait("the replica follows", || info(&replica, "replication").contains("master_link_status:up"));
        let sentinels = (0..3).map(|_| Sentinel::start(port, authority)).collect();
        let scheme = if authority.is_some() { "rediss-sentinel" } else { "redis-sentinel" };
        let guarded = Self { master, replica, sentinels, scheme };
        for sentinel in &guarded.sentinels {
            wait("the Sentinels find each other", || {
                let state = sentinel.state();
                let is = |field: &str, value: &str| state.get(field).is_some_and(|is| is == value);
                is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
            });
        }
        guarded
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port_of_nodes)).collect();
        format!("{}://{}/chat", self.scheme, hosts.join(","))
    }

    /// A failover as an operator asks for it, of a master that is well.
    pub(crate) fn fail_over(&self) {
        let sentinel = self.sentinels.first().expect("there are three");
        redis::cmd("SENTINEL").arg("FAILOVER").arg("chat").exec(&mut sentinel.connect()).expect("it begins");
    }

    /// Cuts the master off from the Sentinels and the replica, but from nobody else who is connected.
    pub(crate) fn lock_out_sentinels(&self) {
        let client = redis::Client::open(self.master.url()).expect("a URL");
        let mut connection = client.get_connection().expect("the master answers");
        let mut run = |words: &str| {
            let mut words = words.split(' ');
            let mut command = redis::cmd(words.next().unwrap_or_default());
            words.for_each(|word| {
                command.arg(word);
            });
            command.query::<redis::Value>(&mut connection).expect("the master obeys")
        };
        // They come back without it.
        run("CONFIG SET requirepass unknown");
        let clients: String = redis::from_redis_value(run("CLIENT LIST")).expect("text");
        let theirs = clients.lines().filter(|line| line.contains(" name=sentinel-") || line.contains(" flags=S "));
        for client in theirs {
            let id = client.split(' ').find_map(|field| field.strip_prefix("id=")).expect("a client has an id");
            run(&format!("CLIENT KILL ID {id}"));
        }
    }

    /// Whether the replica is the master. A Sentinel that promotes it ends the connections of all clients, this one's too.
    pub(crate) fn is_promoted(&self) -> bool {
        let info =
            self.replica.try_ask("INFO replication").and_then(|info| Ok(redis::from_redis_value::<String>(info)?));
        info.is_ok_and(|info| info.contains("role:master"))
    }
}

impl Sentinel {
    fn start(master: u16, authority: Option<&Authority>) -> Self {
        let port = free_port();
        let port_of_nodes = authority.map_or(port, |_| free_port());
        let encrypted = authority.map_or(Vec::new(), |authority| tls(authority, port_of_nodes));
        let folder = std::env::temp_dir().join(format!("parley-sentinel-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for a Sentinel");
        // A split vote is repeated after twice the time of a failover.
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor chat 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds chat 1000\nsentinel failover-timeout chat 3000\n"
        );
        let file = folder.join("sentinel.conf");
        std::fs::write(&file, settings).expect("its settings are written");
        let process = Command::new("redis-sentinel")
            .arg(&file)
            .args(encrypted)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-sentinel is installed");
        let sentinel = Self { port, port_of_nodes, folder, process };
        wait("a Sentinel answers", || sentinel.try_connect().is_ok());
        sentinel
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(("127.0.0.1", self.port))?.get_connection_with_timeout(Duration::from_secs(1))
    }

    fn connect(&self) -> redis::Connection {
        self.try_connect().expect("a Sentinel answers")
    }

    fn state(&self) -> HashMap<String, String> {
        redis::cmd("SENTINEL").arg("MASTER").arg("chat").query(&mut self.connect()).expect("it knows the master")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Only one that has ended by itself can't be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The options of a server that speaks TLS on a second port, and to other servers.
fn tls(authority: &Authority, port: u16) -> Vec<String> {
    let options = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", authority.path("server.pem")),
        ("--tls-key-file", authority.path("server.key")),
        ("--tls-ca-cert-file", authority.path("authority.pem")),
        ("--tls-auth-clients", "no".to_owned()),
        ("--tls-replication", "yes".to_owned()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

fn info(server: &Redis, section: &str) -> String {
    redis::from_redis_value(server.ask(&format!("INFO {section}"))).expect("text")
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
