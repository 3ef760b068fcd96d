//! Whether the Redis user may do all that a node does, and whether the server can: each command is tried on a key of the
//! node's own, and every family of keys is looked at. Everything that is missing is told at once, with what to do.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value, cmd};
use shared::UserId;
use shared::redis_keys::Keys;

/// The first version that has what the scripts use.
const MAJOR_VERSION_MIN: u32 = 7;

/// How long the key lives on which commands are tried, in seconds.
const KEY_SECONDS: u32 = 10;

/// How a fault begins that says what to do.
pub(in crate::backbone::redis) const FAULT: &str = "this Redis can't be used";

/// What to do if commands are missing.
pub(in crate::backbone::redis) const NAME_THE_SERVER: &str =
    "if that is a proxy, name the Redis server itself in REDIS_URL";

/// The name that stands for a user, a session and a ticket of the tries.
const NOBODY: &str = "parley-rights-check";

/// A command, and the rule that allows it.
struct Try {
    rule: String,
    command: Cmd,
}

/// Tries everything, on the connection for commands.
///
/// # Errors
/// Names what the user lacks, or what the server does.
pub(in crate::backbone::redis) async fn check(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    node: &str,
    is_cluster: bool,
) -> RedisResult<()> {
    let tries = tries(keys, node, is_cluster)?;
    let mut pipeline = redis::pipe();
    for Try { command, .. } in &tries {
        pipeline.add_command(command.clone());
    }
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let (mut forbidden, mut unknown): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (Try { rule, .. }, reply) in tries.iter().zip(&replies) {
        let Value::ServerError(error) = reply else { continue };
        let said = error.details().unwrap_or_default();
        match error.code() {
            "NOPERM" if !forbidden.contains(&&**rule) => forbidden.push(rule),
            "NOPERM" => {}
            _ if said.contains("unknown command") => unknown.push(rule),
            // The key is of another type, the slot is another server's, there is no such group.
            _ => {}
        }
    }
    if !unknown.is_empty() {
        let unknown = unknown.join(" ");
        return Err(fault(format!("it does not know {unknown}; {NAME_THE_SERVER}")));
    }
    if forbidden.is_empty() {
        return Ok(());
    }
    Err(fault(format!("NOPERM: its user lacks rights; {}", advice(&forbidden.join(" ")))))
}

/// Checks the version that the server says it has.
///
/// # Errors
/// It is too old.
pub(in crate::backbone::redis) fn check_version(info: &str) -> RedisResult<()> {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::trim);
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match (version, major) {
        (Some(version), Some(major)) if major < MAJOR_VERSION_MIN => {
            Err(fault(format!("its version is {version}; Parley needs Redis {MAJOR_VERSION_MIN}.0 or newer")))
        }
        _ => Ok(()),
    }
}

/// What to do for a user that lacks these rules.
pub(in crate::backbone::redis) fn advice(rules: &str) -> String {
    format!("give them with ACL SETUSER <user> {rules} (deploy/README.md, \"A Redis user of its own\", lists all)")
}

/// The channel of a user who isn't there.
pub(in crate::backbone::redis) fn nobodys_channel(keys: &Keys) -> RedisResult<String> {
    Ok(keys.user_channel(&nobody()?))
}

fn nobody() -> RedisResult<UserId> {
    UserId::parse(NOBODY).map_err(|_| fault("a name is invalid".to_owned()))
}

fn fault(why: String) -> RedisError {
    RedisError::from((ErrorKind::Client, FAULT, why))
}

fn tries(keys: &Keys, node: &str, is_cluster: bool) -> RedisResult<Vec<Try>> {
    let nobody = nobody()?;
    let key = format!("{}:{NOBODY}", keys.node(node));
    let mut tries = Vec::new();
    let mut allow = |words: &[&str]| {
        let Some((name, arguments)) = words.split_first() else { return };
        let command = cmd(name).arg(arguments).to_owned();
        let has_subcommand = matches!(*name, "PUBSUB" | "XGROUP" | "XINFO" | "CLUSTER");
        let subcommand = arguments.first().filter(|_| has_subcommand).map(|subcommand| format!("|{subcommand}"));
        let name = format!("{name}{}", subcommand.unwrap_or_default());
        tries.push(Try { rule: format!("+{}", name.to_lowercase()), command });
    };
    // A text: commands for other types do nothing to it.
    allow(&["SET", &key, "1", "EX", &KEY_SECONDS.to_string()]);
    for words in [["GET", &key], ["MGET", &key], ["EXISTS", &key], ["XLEN", &key]] {
        allow(&words);
    }
    for words in [["HGET", &key, "a"], ["HMGET", &key, "a"], ["HDEL", &key, "a"]] {
        allow(&words);
    }
    allow(&["HLEN", &key]);
    allow(&["HINCRBY", &key, "a", "1"]);
    allow(&["ZADD", &key, "1", "a"]);
    allow(&["ZREM", &key, "a"]);
    allow(&["ZSCORE", &key, "a"]);
    allow(&["ZRANGEBYSCORE", &key, "0", "1"]);
    allow(&["XADD", &key, "*", "a", "1"]);
    allow(&["XDEL", &key, "1-1"]);
    allow(&["XTRIM", &key, "MAXLEN", "1"]);
    allow(&["XRANGE", &key, "-", "+"]);
    allow(&["XREVRANGE", &key, "+", "-"]);
    allow(&["XSETID", &key, "1-1"]);
    allow(&["XGROUP", "CREATE", &key, "a", "$"]);
    allow(&["XINFO", "STREAM", &key]);
    allow(&["XINFO", "GROUPS", &key]);
    allow(&["XREADGROUP", "GROUP", "a", "a", "STREAMS", &key, ">"]);
    allow(&["XACK", &key, "a", "1-1"]);
    allow(&["XCLAIM", &key, "a", "a", "0", "1-1"]);
    allow(&["XAUTOCLAIM", &key, "a", "a", "0", "0"]);
    allow(&["TIME"]);
    allow(&["EVAL", "return 0", "0"]);
    allow(&["EVALSHA", "0000000000000000000000000000000000000000", "0"]);
    allow(&["PUBSUB", "NUMSUB", &key]);
    allow(&["PUBLISH", &keys.node(node), NOBODY]);
    if is_cluster {
        allow(&["PUBSUB", "SHARDNUMSUB", &key]);
        allow(&["SPUBLISH", &keys.node(node), NOBODY]);
        allow(&["CLUSTER", "NODES"]);
        allow(&["ASKING"]);
    }
    allow(&["EXPIRE", &key, "1"]);
    allow(&["GETDEL", &key]);
    allow(&["DEL", &key]);

    let publish = if is_cluster { "SPUBLISH" } else { "PUBLISH" };
    let channel = keys.user_channel(&nobody);
    let command = cmd(publish).arg(channel).arg("").to_owned();
    tries.push(Try { rule: format!("&{}", keys.scoped("chat:*")), command });
    let families: [(&str, Vec<String>); 3] = [
        (
            "chat:*",
            vec![
                keys.log(&nobody),
                keys.last_seen(&nobody),
                keys.revoked(&nobody),
                keys.ticket(NOBODY),
                keys.rate(&nobody),
                keys.offline_due(),
                keys.push_stream(),
                keys.push_shares(),
                keys.push_dead_stream(),
                keys.late_stream(),
                keys.late_lease(),
            ],
        ),
        ("online:*", vec![keys.online(&nobody)]),
        ("session:*", vec![keys.session(NOBODY)]),
    ];
    for (family, names) in families {
        let rule = format!("~{}", keys.scoped(family));
        tries.extend(names.iter().map(|name| Try { rule: rule.clone(), command: cmd("EXISTS").arg(name).to_owned() }));
    }
    Ok(tries)
}
