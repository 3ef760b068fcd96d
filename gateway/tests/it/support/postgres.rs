//! A PostgreSQL server for tests: the one that `TEST_DATABASE_URL` names (an administrator's URL), or a private cluster
//! in a temporary folder. A private one never outlives the test process: a watchdog ends it when the process is gone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::NoTls;

use super::ports::free_port;

static SHARED: OnceLock<Postgres> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A server.
pub(crate) struct Postgres {
    admin_url: String,
    own: Option<Instance>,
}

/// A database of one test's own; dropped with it.
pub(crate) struct Database {
    /// How a client reaches it.
    pub(crate) url: String,
    name: String,
    admin_url: String,
}

impl Postgres {
    /// A fresh database on the server that all tests share.
    pub(crate) async fn database() -> Database {
        Self::database_with("").await
    }

    /// The same, made with these options of `CREATE DATABASE`.
    pub(crate) async fn database_with(options: &str) -> Database {
        let shared = SHARED.get_or_init(|| match std::env::var("TEST_DATABASE_URL") {
            Ok(admin_url) => Self { admin_url, own: None },
            Err(_) => Self::start_own(),
        });
        shared.make_database(options).await
    }

    /// A server of one test's own, which may be killed, frozen and started again.
    pub(crate) fn start_own() -> Self {
        let cluster = Instance::make();
        cluster.start();
        Self { admin_url: format!("postgres://postgres@127.0.0.1:{}/postgres", cluster.port), own: Some(cluster) }
    }

    /// A fresh database on this server.
    pub(crate) async fn new_database(&self) -> Database {
        self.make_database("").await
    }

    async fn make_database(&self, options: &str) -> Database {
        let name = format!("parley_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        administer(&self.admin_url, &format!("CREATE DATABASE {name} {options}")).await;
        let (server, _) = self.admin_url.rsplit_once('/').expect("an administrator's URL names a database");
        let parameters = self.admin_url.split_once('?').map_or(String::new(), |(_, rest)| format!("?{rest}"));
        Database { url: format!("{server}/{name}{parameters}"), name, admin_url: self.admin_url.clone() }
    }

    /// Ends the server as a crash would: nothing is flushed, no client is told.
    pub(crate) fn kill(&self) {
        self.cluster().kill();
    }

    /// Stops every process of the server in its tracks.
    pub(crate) fn freeze(&self) {
        self.cluster().signal("STOP");
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&self) {
        self.cluster().signal("CONT");
    }

    /// Starts the server again, on the same port.
    pub(crate) fn restart(&self) {
        self.cluster().start();
    }

    /// Has a server of one's own speak TLS beside plain text, with this certificate and its key.
    pub(crate) async fn speak_tls(&self, certificate: &str, key: &str) {
        let folder = &self.cluster().folder;
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            // As the server's user: it takes no key that others may read.
            let script = "umask 077; printf %s \"$1\" >\"$0\"";
            run(as_server("sh").args(["-c", script, path(&folder.join(name)), text]));
        }
        administer(&self.admin_url, "ALTER SYSTEM SET ssl = on").await;
        administer(&self.admin_url, "SELECT pg_reload_conf()").await;
        let is_on = async || {
            let (client, connection) = tokio_postgres::connect(&self.admin_url, NoTls).await.expect("it answers");
            tokio::spawn(connection);
            client.query_one("SHOW ssl", &[]).await.expect("a setting").get::<_, &str>(0) == "on"
        };
        let reloaded = async {
            while !is_on().await {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), reloaded).await.expect("it speaks TLS");
    }

    fn cluster(&self) -> &Instance {
        self.own.as_ref().expect("only a server of one's own can be treated like that")
    }
}

impl Database {
    /// A plain connection, to look at tables.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.expect("the database is there");
        tokio::spawn(connection);
        client
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // On a private cluster the folder goes; on a shared server the database has to.
        if std::env::var_os("TEST_DATABASE_URL").is_none() {
            return;
        }
        let (admin_url, sql) = (self.admin_url.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(administer(&admin_url, &sql));
        });
        drop(dropped.join());
    }
}

async fn administer(admin_url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(admin_url, NoTls).await.expect("the PostgreSQL server answers");
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.expect("the administrator may do this");
    drop(client);
    let _ = connection.await;
}

/// A private cluster: folder, port, and the watchdog that ends it.
struct Instance {
    folder: PathBuf,
    port: u16,
    watchdog: Child,
}

impl Instance {
    fn make() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("parley-postgres-{}-{count}", std::process::id()));
        let port = free_port();
        // Made by this process, for the server's user may not write where temporary files go.
        let owner: &[&str] = if is_root() { &["-o", "postgres"] } else { &[] };
        run(Command::new("install").args(["-d", "-m", "700"]).args(owner).arg(&folder));
        run(as_server(&program("initdb")).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]).args([
            "--no-sync",
            "-D",
            path(&folder),
        ]));
        // Its standard input ends when this process does, however it ends.
        let script = r#"trap "" INT TERM HUP; cat >/dev/null
            pid=$(head -n 1 "$0/postmaster.pid" 2>/dev/null)
            if [ -n "$pid" ]; then
                kids=$(pgrep -P "$pid"); kill -KILL "$pid" $kids 2>/dev/null
            fi
            rm -rf "$0""#;
        let watchdog = Command::new("sh")
            .args(["-c", script, path(&folder)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        Self { folder, port, watchdog }
    }

    fn start(&self) {
        // fsync off: what a kill of the server loses is nothing; only a crash of the machine would lose something.
        let settings = format!(
            "-h 127.0.0.1 -p {} -k {} -c fsync=off -c max_connections=400 -c shared_buffers=64MB",
            self.port,
            path(&self.folder)
        );
        let log = self.folder.join("log");
        run(as_server(&program("pg_ctl"))
            .args(["-w", "-t", "30", "-D", path(&self.folder), "-l", path(&log)])
            .args(["-o", &settings, "start"]));
    }

    fn pid(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join("postmaster.pid")).ok()?;
        text.lines().next().map(str::to_owned)
    }

    /// The postmaster and its children: each backend is a process group of its own.
    fn processes(&self) -> Vec<String> {
        let Some(pid) = self.pid() else { return Vec::new() };
        let children = Command::new("pgrep").args(["-P", &pid]).output().expect("pgrep");
        let children = String::from_utf8_lossy(&children.stdout);
        std::iter::once(pid).chain(children.split_whitespace().map(str::to_owned)).collect()
    }

    fn signal(&self, signal: &str) {
        // A child may have ended meanwhile, so the result says nothing.
        let _ = Command::new("kill").arg(format!("-{signal}")).args(self.processes()).stderr(Stdio::null()).status();
    }

    /// Kills every process and waits until none is left; takes the lock files away, for a dead postmaster that nobody
    /// has reaped yet would still look alive to the next one.
    fn kill(&self) {
        let processes = self.processes();
        self.signal("KILL");
        let ended = |pid: &String| match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(state) => state.contains(") Z "),
            Err(_) => true,
        };
        for _ in 0..500 {
            if processes.iter().all(ended) {
                let _ = std::fs::remove_file(self.folder.join("postmaster.pid"));
                let _ = std::fs::remove_file(self.folder.join(format!(".s.PGSQL.{}.lock", self.port)));
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("PostgreSQL did not end");
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// A command as the user that a server runs as: PostgreSQL refuses to run as root.
fn as_server(program: &str) -> Command {
    let mut command;
    if is_root() {
        command = Command::new("runuser");
        command.args(["-u", "postgres", "--", program]);
    } else {
        command = Command::new(program);
    }
    command.current_dir(std::env::temp_dir());
    command
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().expect("id").stdout == b"0\n"
}

/// One of PostgreSQL's programs: beside `pg_config`, or where Debian puts them.
fn program(name: &str) -> String {
    let beside = Command::new("pg_config").arg("--bindir").output().ok();
    let beside = beside.map(|found| PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()));
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        beside.into_iter().chain(debian.map(|version| version.path().join("bin"))).collect();
    folders.sort();
    let found = folders.iter().rev().map(|folder| folder.join(name)).find(|program| program.is_file());
    path(&found.unwrap_or_else(|| panic!("{name} is not installed; set TEST_DATABASE_URL"))).to_owned()
}

fn run(command: &mut Command) {
    // Inherited pipes would keep the server tied to the test's output.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
