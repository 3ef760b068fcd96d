//! A redis-server of a test's own, on a free loopback port, in memory only.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports::free_port;

/// Tries to find a port on which a server starts.
const START_TRIES_MAX: usize = 3;

/// The server; killed when dropped.
pub(crate) struct Redis {
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
    process: Option<Child>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further options, as they stand on the command line.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::started(|| Self::try_start(options))
    }

    /// The first that starts: a port that was free may be taken by the time that Redis listens there.
    pub(crate) fn started(start: impl Fn() -> Option<Self>) -> Self {
        (0..START_TRIES_MAX).find_map(|_| start()).expect("Redis starts")
    }

    /// With these options; `None` if it ends at once.
    pub(crate) fn try_start(options: &[&str]) -> Option<Self> {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("parley-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for Redis");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut redis = Self { port, folder, options, process: None };
        redis.launch().then_some(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as by `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("Redis can be killed");
            process.wait().expect("Redis ends");
        }
    }

    /// Starts it on the same port, empty.
    pub(crate) fn restart(&mut self) {
        assert!(self.launch(), "Redis did not start");
    }

    /// Whether it answers; if not, it has ended or hangs.
    fn launch(&mut self) -> bool {
        self.kill();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &self.port.to_string()])
            .args(&self.options)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let pid = process.id();
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let has_ended =
                self.process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|end| end.is_some()));
            // Another's Redis may answer on that port.
            if has_ended || Instant::now() > deadline {
                return false;
            }
            let info = self.try_ask("INFO server").ok().and_then(|info| redis::from_redis_value::<String>(info).ok());
            if info.is_some_and(|info| info.contains(&format!("process_id:{pid}\r\n"))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it from running; its sockets stay open.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// One command, its words divided by spaces.
    pub(crate) fn ask(&self, command: &str) -> redis::Value {
        self.try_ask(command).expect("Redis answers")
    }

    /// One command whose answer is a number.
    pub(crate) fn number(&self, command: &str) -> i64 {
        redis::from_redis_value(self.ask(command)).expect("a number")
    }

    pub(crate) fn try_ask(&self, command: &str) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        let mut words = command.split(' ');
        let mut ask = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            ask.arg(word);
        }
        ask.query(&mut connection)
    }

    /// Sets a string of any bytes.
    pub(crate) fn set_bytes(&self, key: &str, value: &[u8]) {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_connection().expect("Redis answers");
        redis::cmd("SET").arg(key).arg(value).exec(&mut connection).expect("set");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("Redis runs").id()
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(status.success(), "{signal} reached Redis");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        // What is left is an empty folder of the temporary ones.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
