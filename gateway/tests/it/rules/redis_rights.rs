//! The rights that a node tries at its start are all that it needs: each command that the scripts and the code name is tried
//! (`backbone/redis/connect/rights.rs`), or is carried out whenever a connection is made, where a missing right shows as well.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::imports::{code, sources};
use crate::support::redis::Redis;

/// Carried out whenever a connection is made.
const AT_EACH_CONNECTION: [&str; 13] = [
    "auth",
    "client|id",
    "client|kill",
    "client|list",
    "client|setname",
    "config|get",
    "hello",
    "info",
    "ping",
    "ssubscribe",
    "subscribe",
    "sunsubscribe",
    "unsubscribe",
];

/// A word of `CLIENT LIST TYPE normal`, and no command there.
const ARGUMENTS: [&str; 1] = ["type"];

const RIGHTS: &str = "connect/rights.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backbone/redis")
}

/// The commands that the server has, in lower case, with `|` before a subcommand.
fn commands_of(redis: &Redis) -> BTreeSet<String> {
    redis::from_redis_value(redis.ask("COMMAND LIST")).expect("names")
}

/// The texts in quotes, without what comments say.
fn quoted(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'']) {
        let behind = &rest[at + 1..];
        let end = behind.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(behind.len());
        // Only a word of capitals that ends with a quote can be a command; an apostrophe is none.
        if end > 0 && behind[end..].starts_with(['"', '\'']) {
            found.push(&behind[..end]);
        }
        rest = &behind[end..];
    }
    found
}

fn without_comments(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file");
    if path.extension().is_some_and(|extension| extension == "rs") {
        return code(&text);
    }
    let lines = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    // The two names that differ in a Cluster (scripts.rs).
    lines.collect::<Vec<_>>().join("\n").replace("'PUBSUB', NUMSUB", "'PUBSUB', 'NUMSUB'")
}

/// The commands that a text names, of those that there are.
fn named(text: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let words: Vec<String> = quoted(text).into_iter().map(str::to_lowercase).collect();
    let mut named = BTreeSet::new();
    for (place, word) in words.iter().enumerate() {
        let subcommands = known.iter().any(|name| name.starts_with(&format!("{word}|")));
        let next = words.get(place + 1).map(|next| format!("{word}|{next}"));
        match next.filter(|next| known.contains(next)) {
            Some(subcommand) => drop(named.insert(subcommand)),
            None if known.contains(word) && !subcommands => drop(named.insert(word.clone())),
            None if *word == "shardnumsub" => drop(named.insert("pubsub|shardnumsub".to_owned())),
            None => {}
        }
    }
    named
}

#[test]
fn every_command_that_the_scripts_and_the_code_use_is_tried() {
    let known = commands_of(&Redis::start());
    let rust = sources(&root());
    let scripts =
        std::fs::read_dir(root().join("lua")).expect("the scripts").map(|entry| entry.expect("a file").path());
    let (mut used, mut files) = (BTreeSet::new(), 0);
    for path in rust.into_iter().chain(scripts).filter(|path| !path.ends_with(RIGHTS)) {
        files += 1;
        used.extend(named(&without_comments(&path), &known));
    }
    used.retain(|name| !ARGUMENTS.contains(&name.as_str()));
    assert!(files > 50 && used.len() > 40, "{files} files name {used:?}");
    let tried = named(&without_comments(&root().join(RIGHTS)), &known);
    let elsewhere: BTreeSet<String> = AT_EACH_CONNECTION.iter().map(|name| (*name).to_owned()).collect();
    let covered: BTreeSet<String> = tried.union(&elsewhere).cloned().collect();
    let untried: Vec<_> = used.difference(&covered).collect();
    assert!(untried.is_empty(), "connect/rights.rs doesn't try {untried:?}");
    let unused: Vec<_> = tried.difference(&used).collect();
    assert!(unused.is_empty(), "connect/rights.rs tries what nothing uses: {unused:?}");
    let never: Vec<_> = elsewhere.difference(&used).collect();
    assert!(never.is_empty(), "no connection uses {never:?}");
    // On one server these are all that the page gives.
    let page = include_str!("../../../../deploy/README.md");
    let rules = page.lines().find(|line| line.starts_with("user parley on >PASSWORD")).expect("the rules");
    let given: BTreeSet<&str> = rules.split(' ').filter_map(|rule| rule.strip_prefix('+')).collect();
    let of_a_cluster = ["spublish", "pubsub|shardnumsub", "ssubscribe", "sunsubscribe", "cluster|nodes", "asking"];
    let only_here = |name: &&String| !of_a_cluster.contains(&name.as_str());
    let lacking: Vec<_> = used.iter().filter(only_here).filter(|name| !given.contains(name.as_str())).collect();
    assert!(lacking.is_empty(), "the rules of deploy/README.md lack {lacking:?}");
    // The scripts are loaded by a call of the client's library.
    let beyond: Vec<_> = given.iter().filter(|name| !used.contains(**name) && **name != "script|load").collect();
    assert!(beyond.is_empty(), "the rules of deploy/README.md give {beyond:?}, which nothing uses");
}

#[test]
fn a_command_is_found_wherever_it_is_named() {
    let known = ["get", "xgroup|create", "xgroup", "pubsub|numsub", "pubsub"].map(str::to_owned).into();
    let all = |text: &str| named(text, &known).into_iter().collect::<Vec<_>>();
    assert_eq!(all("call('GET', key) -- isn't 'XADD'"), ["get"]);
    assert_eq!(all("cmd(\"XGROUP\");\ncreate.arg(\"CREATE\").arg(\"GETS\")"), ["xgroup|create"]);
    assert_eq!(all("the user's 'PUBSUB', 'NUMSUB'"), ["pubsub|numsub"]);
    assert!(all("get 'get' \"GET it\"").is_empty());
}
