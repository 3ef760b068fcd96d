//! A Redis Cluster of three masters on free loopback ports, with or without a replica of each.

use std::time::{Duration, Instant};

use super::ports::free_port;
use super::redis::Redis;

/// How many masters there are.
const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// The servers: first the masters, then a replica of each in the same order. All killed when dropped.
pub(crate) struct RedisCluster {
    pub(crate) servers: Vec<Redis>,
}

impl RedisCluster {
    /// Three masters.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with further options of each.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let cluster = Self { servers: (0..MASTERS).map(|_| server(options)).collect() };
        for (place, master) in cluster.servers.iter().enumerate() {
            master.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1));
            let (from, to) = (place * SLOTS / MASTERS, (place + 1) * SLOTS / MASTERS - 1);
            master.ask(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
        }
        cluster.meet();
        cluster
    }

    /// Three masters with a replica each.
    pub(crate) fn start_with_replicas() -> Self {
        let mut cluster = Self::start();
        cluster.servers.extend((0..MASTERS).map(|_| server(&[])));
        cluster.meet();
        let (masters, replicas) = cluster.servers.split_at(MASTERS);
        for (master, replica) in masters.iter().zip(replicas) {
            let id = text(master, "CLUSTER MYID");
            wait("the replica knows its master", || replica.try_ask(&format!("CLUSTER REPLICATE {id}")).is_ok());
        }
        for replica in replicas {
            wait("the replicas follow", || text(replica, "INFO replication").contains("master_link_status:up"));
        }
        // Masters have to know their replicas, or nobody votes for these.
        let known = |master: &Redis| text(master, "CLUSTER NODES").matches(" slave ").count() == MASTERS;
        wait("all know the replicas", || masters.iter().all(known));
        cluster
    }

    /// What `REDIS_URL` says.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<String> = self.servers.iter().take(MASTERS).map(Redis::url).collect();
        urls.join(",")
    }

    /// The same over TLS.
    pub(crate) fn tls_url(&self) -> String {
        let url = |server: &Redis| format!("rediss://127.0.0.1:{}", setting(server, "tls-port"));
        let urls: Vec<String> = self.servers.iter().take(MASTERS).map(url).collect();
        urls.join(",")
    }

    /// The place of the replica of a master.
    pub(crate) fn replica_of(master: usize) -> usize {
        master + MASTERS
    }

    /// The place of the master that has the key's slot.
    pub(crate) fn owner(&self, key: &str) -> usize {
        self.try_owner(key).expect("a master has the slot")
    }

    /// The same; the last in the list of those that say so, for an old master may not know yet.
    pub(crate) fn try_owner(&self, key: &str) -> Option<usize> {
        let slot = self.slot(key);
        let has = |server: &Redis| {
            let nodes = server.try_ask("CLUSTER NODES").and_then(|nodes| Ok(redis::from_redis_value::<String>(nodes)?));
            let nodes = nodes.unwrap_or_default();
            nodes.lines().find(|line| line.contains("myself")).is_some_and(|own| {
                let ranges = own.split(' ').skip(8).filter(|word| !word.starts_with('['));
                ranges.map(|word| word.split_once('-').unwrap_or((word, word))).any(|(from, to)| {
                    let number = |text: &str| text.parse::<u16>().expect("a slot");
                    (number(from)..=number(to)).contains(&slot)
                })
            })
        };
        // A server that is frozen or dead says nothing.
        self.servers.iter().rposition(has)
    }

    pub(crate) fn slot(&self, key: &str) -> u16 {
        let any = self.servers.iter().find_map(|server| server.try_ask(&format!("CLUSTER KEYSLOT {key}")).ok());
        redis::from_redis_value(any.expect("a server answers")).expect("a slot")
    }

    /// Moves the slot of a key to another master, with its keys, as `redis-cli --cluster reshard` does; `midway` is called
    /// while half of the keys are there and half here.
    pub(crate) fn migrate(&self, key: &str, to: usize, midway: impl FnOnce()) {
        let (slot, from) = (self.slot(key), self.owner(key));
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (source_id, target_id) = (text(source, "CLUSTER MYID"), text(target, "CLUSTER MYID"));
        target.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}"));
        source.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}"));
        let mut midway = Some(midway);
        loop {
            let keys: Vec<String> =
                redis::from_redis_value(source.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 1"))).expect("keys");
            let Some(key) = keys.first() else { break };
            source.ask(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", target.port()));
            midway.take().into_iter().for_each(|midway| midway());
        }
        midway.take().into_iter().for_each(|midway| midway());
        for server in [target, source] {
            server.ask(&format!("CLUSTER SETSLOT {slot} NODE {target_id}"));
        }
    }

    /// Lets a frozen master go on as soon as its replica is the master.
    pub(crate) fn thaw_when_replaced(&self, master: usize) {
        let (pid, replica) = (self.servers[master].pid(), self.servers[Self::replica_of(master)].url());
        std::thread::spawn(move || {
            let client = redis::Client::open(replica).expect("a URL");
            let is_master = || {
                let info = client
                    .get_connection()
                    .and_then(|mut replica| redis::cmd("INFO").arg("replication").query::<String>(&mut replica));
                info.is_ok_and(|info| info.contains("role:master"))
            };
            let since = Instant::now();
            while !is_master() && since.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = std::process::Command::new("kill").args(["-CONT", &pid.to_string()]).status();
        });
    }

    fn meet(&self) {
        let first = &self.servers[0];
        for server in &self.servers[1..] {
            let bus = setting(server, "cluster-port");
            first.ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port()));
        }
        let all = format!("cluster_known_nodes:{}", self.servers.len());
        wait("the servers make one Cluster", || {
            self.servers.iter().all(|server| {
                let info = text(server, "CLUSTER INFO");
                info.contains("cluster_state:ok") && info.contains(&all)
            })
        });
    }
}

fn server(options: &[&str]) -> Redis {
    Redis::started(|| try_server(options))
}

fn try_server(options: &[&str]) -> Option<Redis> {
    let bus = free_port();
    let bus = bus.to_string();
    let tls = free_port();
    let tls = tls.to_string();
    let mut all = vec!["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
    // On a busy machine an election may take so long that the replica would count as too old to stand for it.
    all.extend(["--cluster-replica-validity-factor", "0"]);
    all.extend(["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"]);
    all.extend(options);
    if options.contains(&"--tls-cluster") {
        all.extend(["--tls-port", &tls]);
    }
    Redis::try_start(&all)
}

fn setting(server: &Redis, name: &str) -> i64 {
    let config: Vec<String> = redis::from_redis_value(server.ask(&format!("CONFIG GET {name}"))).expect("a setting");
    config.get(1).and_then(|port| port.parse().ok()).expect("a number")
}

/// The answer to a command, as text.
pub(crate) fn text(server: &Redis, command: &str) -> String {
    redis::from_redis_value(server.ask(command)).expect("text")
}

/// Waits until something is so.
pub(crate) fn wait(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
