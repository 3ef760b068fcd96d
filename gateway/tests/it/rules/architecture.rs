//! The rules of ARCHITECTURE.md about imports, checked against the sources: parts import downwards only, files have no
//! circle.

use std::path::{Path, PathBuf};

use super::imports::{Crate, code, sources};

/// What each part of the gateway may import; a part is a folder or file directly under `src`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("switches", &[]),
    ("breaker", &[]),
    ("clock", &[]),
    ("config", &[]),
    ("http_client", &[]),
    ("overload", &[]),
    ("metrics", &["overload"]),
    ("ws", &[]),
    ("traces", &["http_client"]),
    ("store", &["overload", "switches", "traces"]),
    ("backbone", &["clock", "switches"]),
    ("audit", &["metrics", "store"]),
    ("limits", &["backbone", "clock"]),
    ("auth", &["backbone", "breaker", "clock", "config", "http_client", "limits", "overload", "switches"]),
    ("delivery", &["backbone", "clock", "metrics", "store", "switches", "traces", "ws"]),
    ("webhooks", &["backbone", "breaker", "clock", "config", "http_client", "metrics", "store", "switches"]),
    (
        "chat",
        &["audit", "backbone", "clock", "limits", "metrics", "overload", "store", "switches", "traces", "webhooks"],
    ),
    ("dispatch", &["chat", "store"]),
    (
        "node",
        &[
            "audit", "auth", "backbone", "chat", "clock", "config", "delivery", "limits", "metrics", "overload",
            "store", "switches",
        ],
    ),
    ("session", &["auth", "backbone", "clock", "delivery", "dispatch", "limits", "node", "switches", "ws"]),
    (
        "http",
        &[
            "auth", "backbone", "chat", "clock", "config", "delivery", "limits", "metrics", "node", "session", "store",
            "ws",
        ],
    ),
    (
        "app",
        &[
            "audit", "auth", "backbone", "chat", "clock", "config", "delivery", "http", "limits", "metrics", "node",
            "store", "traces", "webhooks",
        ],
    ),
];

/// Files that may use `redis` or SQL: nobody outside these parts.
const REDIS_STANDS_IN: &str = "backbone";
const SQL_STANDS_IN: &str = "store";

/// The crates whose files make no circle.
const WITHOUT_CIRCLES: &[&str] = &["shared/src", "gateway/src", "gateway/src/bin/gateway", "loadtest/src"];

/// The part that a file belongs to, and its text without comments and tests.
fn parts() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    let part_of = |path: &Path| {
        let inside = path.strip_prefix(&root).expect("below src");
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    };
    let text_of = |path: &Path| code(&std::fs::read_to_string(path).expect("a source"));
    files.iter().map(|path| (part_of(path), path.clone(), text_of(path))).collect()
}

/// The parts that a text names by `crate::part`.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    text.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_go_down_only() {
    let mut faults = Vec::new();
    for (part, path, text) in parts() {
        if ["lib", "bin"].contains(&part.as_str()) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| *known == part) else {
            faults.push(format!("{} belongs to no known part", path.display()));
            continue;
        };
        for import in imports(&text).filter(|import| !import.is_empty() && *import != part) {
            if !allowed.contains(&import) {
                faults.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_rules_allow_no_circle() {
    let mut done: Vec<&str> = Vec::new();
    for (part, allowed) in MAY_IMPORT {
        for import in *allowed {
            assert!(done.contains(import), "{part} may import {import}, which stands at or above it");
        }
        done.push(part);
    }
}

/// No file imports itself by way of others. Names that a `mod.rs` passes on count as imports from the file that declares
/// them. A file's import from the `mod.rs` of its own folder doesn't count, because the `impl` of one type may be spread over
/// the files of its room.
#[test]
fn files_import_each_other_in_no_circle() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in WITHOUT_CIRCLES {
        let circles = Crate::read(&workspace.join(folder)).circles();
        assert!(circles.is_empty(), "the files of {folder} import each other in circles: {circles:#?}");
    }
}

#[test]
fn redis_and_sql_stay_in_their_rooms() {
    for (part, path, text) in parts() {
        if part != REDIS_STANDS_IN {
            for word in ["redis::cmd", "use redis", "deadpool_redis"] {
                assert!(!text.contains(word), "{} uses Redis", path.display());
            }
        }
        if part != SQL_STANDS_IN {
            for word in ["tokio_postgres", "rusqlite", "\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE FROM"] {
                assert!(!text.contains(word), "{} holds SQL", path.display());
            }
        }
    }
}
